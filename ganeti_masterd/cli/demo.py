"""``python -m ganeti_masterd.demo``: a master daemon at work on simulated nodes, in seconds.

It starts a daemon, submits real jobs through the daemon's socket, shows what
they do, stops the daemon, and checks what it left on disk.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from ganeti_masterd.cli.cluster import cluster_facts
from ganeti_masterd.cli.command import EXIT_INTERRUPTED, CommandFault
from ganeti_masterd.cli.daemon import DemoDaemon, DemoDaemonFailed
from ganeti_masterd.cli.displays import Nothing, display, ending, follow
from ganeti_masterd.cli.following import LogFollower
from ganeti_masterd.cli.jobfile import with_reason
from ganeti_masterd.cli.output import Output
from ganeti_masterd.cli.rows import JobOutcome, ShownJob, fetch
from ganeti_masterd.cli.words import STYLES, counted, duration, exception_text
from ganeti_masterd.errors import GenericError
from ganeti_masterd.journal.layout import job_number
from ganeti_masterd.journal.sqlite import SQLiteStore
from ganeti_masterd.luxi.blocking import BlockingClient

#: How many jobs that do nothing are submitted at once.
BURST = 500

#: How long one answer may take, seconds.
TIMEOUT = 60.0

NODES = 3


def _delay(seconds: float, **more: Any) -> dict[str, Any]:
    return {"OP_ID": "OP_TEST_DELAY", "duration": seconds, "on_master": False, **more}


def _tags(what: str, *tags: str) -> dict[str, Any]:
    return {"OP_ID": f"OP_TAGS_{what}", "kind": "cluster", "name": None, "tags": list(tags)}


#: What is shown, and the job that shows it. Relative job ids count back in this list.
STORY: tuple[tuple[str, list[dict[str, Any]]], ...] = (
    (
        "waits on two nodes at once, and holds their locks",
        [_delay(1.0, on_nodes=["node2", "node3"], no_locks=False)],
    ),
    (
        "wants one of these nodes, so it waits for its lock",
        [_delay(0.3, on_nodes=["node3"], no_locks=False)],
    ),
    (
        "two opcodes, one after the other",
        [_delay(0.4, on_nodes=["node1"], repeat=2), _tags("SET", "demo", "demo:two")],
    ),
    (
        "begins when the one before has ended",
        [{**_tags("DEL", "demo:two"), "depends": [[-1, ["success"]]]}],
    ),
    ("fails on purpose", [_tags("DEL", "no-such-tag")]),
)


#: The instances that are made: name, disk template, sizes of the disks in MiB, nodes.
INSTANCES: tuple[tuple[str, str, tuple[int, ...], tuple[str, ...]], ...] = (
    ("web", "drbd", (128,), ("node1", "node2")),
    ("database", "plain", (256, 64), ("node2",)),
    ("cache", "diskless", (), ("node3",)),
)

#: What is shown of an instance: the field, and its title.
_SHOWN = {
    "name": "Instance",
    "status": "Status",
    "pnode": "Primary",
    "snodes": "Secondary",
    "disk_template": "Disks",
    "disk.sizes": "MiB",
}


def _creation(
    name: str, template: str, sizes: Sequence[int], nodes: Sequence[str]
) -> dict[str, Any]:
    return {
        "OP_ID": "OP_INSTANCE_CREATE",
        "mode": "create",
        "instance_name": name,
        "disk_template": template,
        "disks": [{"size": size} for size in sizes],
        "nics": [{}],
        "pnode": nodes[0],
        "snode": nodes[1] if len(nodes) > 1 else None,
        "os_type": "noop",
        "beparams": {"memory": 512},
        "name_check": False,
        "ip_check": False,
    }


class Demo:
    """The demonstration, step by step, with one daemon."""

    def __init__(self, out: Output, daemon: DemoDaemon) -> None:
        self._out = out
        self._daemon = daemon
        self._client = BlockingClient(daemon.paths.socket, timeout=TIMEOUT)

    def run(self) -> None:
        """Runs all steps; raises ``GenericError`` if a result isn't as expected."""
        self._title("A daemon on simulated nodes")
        took = self._daemon.start()
        self._say(f"Started in {duration(took)}, process {self._daemon.pid}.")
        with self._client:
            self._cluster()
            before = len(fetch(self._client, ShownJob, None))
            began = time.monotonic()
            self._story()
            self._tags()
            self._instances()
            rate = self._burst()
            took = time.monotonic() - began
            jobs = len(fetch(self._client, ShownJob, None))
        self._stop(jobs)
        self._title("What happened")
        self._say(f"{counted(jobs - before, 'job')} ran in {duration(took)}, {BURST} of them at")
        self._say(f"{rate:,.0f} a second, through the daemon's socket, as gnt-* tools would.")

    def _title(self, text: str) -> None:
        self._out.line()
        self._out.line(text, "bold")

    def _say(self, text: str, style: str | None = None) -> None:
        self._out.line(f"  {text}", style)

    def _cluster(self) -> None:
        nodes = [name for (name,) in self._client.query_nodes([], ["name"])]
        facts = [*cluster_facts(self._client.cluster_info()), ("Nodes", ", ".join(nodes))]
        self._out.facts((f"  {name}", value) for name, value in facts)

    def _follow(self, jobs: list[int], *, quietly: bool = False) -> dict[int, JobOutcome]:
        shown = Nothing() if quietly else display(self._out, jobs)
        return follow(LogFollower(self._client, jobs, timeout=TIMEOUT).events(), shown)

    def _submit(self, jobs: list[list[dict[str, Any]]]) -> list[int]:
        answers = self._client.submit_many_jobs(with_reason(jobs, None, "demo"))
        for accepted, answer in answers:
            if not accepted:
                raise GenericError(f"A job was refused: {answer}")
        return [job for _, job in answers]

    def _story(self) -> None:
        self._title("Five jobs, in one call")
        jobs = self._submit([opcodes for _, opcodes in STORY])
        for job, (what, _) in zip(jobs, STORY, strict=True):
            self._say(f"job {job} {what}")
        outcomes = self._follow(jobs)
        for job, (what, _) in zip(jobs, STORY, strict=True):
            expected = "error" if what == "fails on purpose" else "success"
            if outcomes[job].status != expected:
                raise GenericError(f"Job {job} ended with {ending(outcomes[job])}")

    def _tags(self) -> None:
        self._title("The cluster's tags now")
        self._say(", ".join(self._client.query_tags("cluster")))

    def _instances(self) -> None:
        """Makes and starts the instances that aren't there yet; shows them all."""
        there = {name for (name,) in self._client.query_instances([], ["name"])}
        missing = [each for each in INSTANCES if each[0] not in there]
        if missing:
            self._title(f"{counted(len(missing), 'instance')}, in one call")
            outcomes = self._follow(self._submit([[_creation(*each)] for each in missing]))
            failed = [outcome for outcome in outcomes.values() if outcome.failed]
            if failed:
                raise GenericError(f"Job {failed[0].id} ended with {ending(failed[0])}")
        self._title("The cluster's instances now")
        names = [name for name, *_ in INSTANCES]
        rows = self._client.query_instances(names, list(_SHOWN))
        if not missing:
            self._say("They are from an earlier demonstration.")
        created = {name for name, *_ in missing}
        for name, status, *_ in rows:
            if name in created and status != "running":
                raise GenericError(f"Instance {name} was started, yet its status is {status}")
        for row in ([*_SHOWN.values()], *rows):
            cells = [_cell(value) for value in row]
            self._say("".join(f"{cell:10}" for cell in cells).rstrip())

    def _burst(self) -> float:
        """Returns how many jobs per second were done."""
        self._title(f"{BURST} jobs that do nothing, in one call")
        began = time.monotonic()
        jobs = self._submit([[_delay(0.001)] for _ in range(BURST)])
        acknowledged = time.monotonic() - began
        # Without a terminal there would be several lines for each of so many jobs.
        outcomes = self._follow(jobs, quietly=not self._out.rich)
        took = time.monotonic() - began
        failed = [outcome for outcome in outcomes.values() if outcome.failed]
        if failed:
            raise GenericError(f"Job {failed[0].id} ended with {ending(failed[0])}")
        self._say(
            f"Durable and acknowledged in {duration(acknowledged)}, all done in "
            f"{duration(took)}: {BURST / took:,.0f} jobs a second.",
            STYLES["success"],
        )
        return BURST / took

    def _stop(self, jobs: int) -> None:
        self._title("A clean stop")
        began = time.monotonic()
        self._daemon.stop()
        took = time.monotonic() - began
        queue = self._daemon.paths.queue
        files = sum(job_number(name) is not None for name in os.listdir(queue))
        if files != jobs:
            raise GenericError(f"{queue} holds {files} job files, not {jobs}")
        left = _journal_entries(self._daemon.paths.journal)
        if left:
            raise GenericError(f"The journal still holds {left} changes")
        self._say(f"SIGTERM, and it ended in order within {duration(took)}.")
        self._say(f"{counted(files, 'job file')} in {queue},")
        self._say("Ganeti's own layout, synced; nothing left in the journal.")


def _cell(value: Any) -> str:
    """Returns a field's value as text; a list's with commas."""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _journal_entries(path: str) -> int:
    store = SQLiteStore(path)
    try:
        return len(store.load())
    finally:
        store.close()


@contextmanager
def _folder(root: str | None, keep: bool) -> Iterator[tuple[str, str]]:
    """Yields a root for the daemon, and the path of its log file.

    A temporary root is removed afterwards, unless ``keep`` is set or something went wrong.
    """
    if root is not None:
        root = os.path.abspath(root)
        os.makedirs(root, exist_ok=True)
        yield root, os.path.join(root, "demo.log")
        return
    made = tempfile.mkdtemp(prefix="gnt-masterd-demo-")
    try:
        # The gnt-* tools take the last part of the root's path as the node's name.
        root = os.path.join(made, "node1")
        os.mkdir(root)
        yield root, os.path.join(made, "demo.log")
    except click.ClickException:
        keep = True  # to find out what went wrong
        raise
    finally:
        if not keep:
            shutil.rmtree(made, ignore_errors=True)


def _look_around(root: str) -> list[str]:
    quoted, name = shlex.quote(root), shlex.quote(os.path.basename(root))
    return [
        f"The cluster is kept in {root}. To go on with it:",
        f"  twistd -n gnt-masterd --root {quoted} --simulate {NODES}",
        "and in another terminal:",
        f"  gnt-luxi --root {quoted} jobs",
        f"  GANETI_ROOTDIR={quoted} GANETI_HOSTNAME={name} gnt-job list",
    ]


def _ended(_: int, __: object) -> None:
    raise SystemExit(128 + signal.SIGTERM)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--root", metavar="DIR", help="Keep the cluster in DIR, or use an existing one there."
)
@click.option("--keep", is_flag=True, help="Keep the cluster's folder, and say how to look around.")
def demo(root: str | None, keep: bool) -> None:
    """Show a master daemon at work on simulated nodes, then stop it. Takes a few seconds."""
    out = Output()
    # So that the daemon is not left behind.
    before: Any = signal.signal(signal.SIGTERM, _ended)
    try:
        _run(out, root, keep)
    except KeyboardInterrupt:
        raise click.exceptions.Exit(EXIT_INTERRUPTED) from None
    except OSError as error:
        raise CommandFault(f"{error.filename or 'The demonstration'}: {error.strerror}") from error
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(out: Output, root: str | None, keep: bool) -> None:
    with _folder(root, keep) as (folder, log), DemoDaemon(folder, log, nodes=NODES) as daemon:
        try:
            Demo(out, daemon).run()
        except DemoDaemonFailed as error:
            raise CommandFault(str(error)) from error
        except GenericError as error:
            raise CommandFault(f"{exception_text(error)} (the daemon's log: {log})") from error
        out.line()
        if not keep and root is None:
            out.line("The cluster's folder is removed now; --keep leaves it, to look around.")
        else:
            for line in _look_around(daemon.paths.root):
                out.line(line)


def main(run: Callable[..., Any] = demo) -> None:
    """Runs the demonstration on the process's arguments; ends the process."""
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    run(prog_name="python -m ganeti_masterd.demo")
