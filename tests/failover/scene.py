"""Three nodes, each with a root, whose node daemons answer from the files in these roots."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from twisted.internet.defer import ensureDeferred
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.document import encode, parse
from ganeti_masterd.config.objects import Node
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.ssconf import file_content
from ganeti_masterd.failover.errand import FailOver, FailOverOutcome, FailOverReport, FailOverWishes
from ganeti_masterd.failover.fetching import FetchFailed
from ganeti_masterd.jobs.model import (
    Job,
    begin_running,
    begin_waiting,
    decode_job,
    encode_job,
    new_job,
    succeed,
)
from ganeti_masterd.rpc.interfaces import Target
from ganeti_masterd.startup import simulated_root
from ganeti_masterd.startup.configuration import read_config
from ganeti_masterd.startup.locks import Locks
from ganeti_masterd.startup.paths import Paths
from ganeti_masterd.testing.nodes import Failed, ScriptedNodes
from tests.startup.scene import Host

NAMES = ("node1", "node2", "node3")

NOW = 1_800_000_000.0

NOOP = {"OP_ID": "OP_TEST_DELAY", "duration": 1.0, "reason": []}

DOWN = Failed("Connection refused")


def queued(job_id: int) -> Job:
    """Returns a job of two opcodes that has not begun."""
    return new_job(job_id, [NOOP, NOOP], NOW)


def running(job_id: int) -> Job:
    """Returns the job with its first opcode running."""
    return begin_running(begin_waiting(queued(job_id), 0, NOW), 0, NOW)


def ended(job_id: int) -> Job:
    """Returns the job after its success."""
    job = begin_running(succeed(running(job_id), 0, None, NOW), 1, NOW)
    return succeed(job, 1, None, NOW)


@cache
def _new_root() -> bytes:
    """Returns a tar of a root with a new cluster, made once, as its keys take a while."""
    content = io.BytesIO()
    with tempfile.TemporaryDirectory(prefix="gnt-") as folder:
        simulated_root.prepare(Paths(folder), len(NAMES))
        with tarfile.open(fileobj=content, mode="w") as archive:
            archive.add(folder, arcname="")
    return content.getvalue()


class Root:
    """One node's files."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.paths = Paths(str(folder / name))

    @property
    def snapshot(self) -> Snapshot:
        return read_config(self.paths)

    def write(self, path: str, content: bytes) -> None:
        Path(path).unlink(missing_ok=True)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(content)

    def configure(self, change: Callable[[Snapshot], Snapshot]) -> None:
        self.write(self.paths.config, encode(change(self.snapshot)))

    def tag(self, tag: str, serial: int | None = None) -> None:
        """Adds a tag to the cluster; increases the document's serial by one, or sets it."""

        def change(snapshot: Snapshot) -> Snapshot:
            cluster = replace(snapshot.cluster, tags=(*snapshot.cluster.tags, tag))
            steps = 1 if serial is None else serial - snapshot.header.serial_no
            return snapshot.with_object("cluster", cluster).with_serial(NOW, steps)

        self.configure(change)

    def put(self, *jobs: Job, serial: int | None = None) -> None:
        for job in jobs:
            self.write(f"{self.paths.queue}/job-{job.id}", encode_job(job))
        number = max([0, *(job.id for job in jobs)]) if serial is None else serial
        self.write(f"{self.paths.queue}/serial", b"%d\n" % number)

    def archive(self, job: Job) -> None:
        self.write(f"{self.paths.queue}/archive/0/job-{job.id}", encode_job(job))
        Path(f"{self.paths.queue}/job-{job.id}").unlink(missing_ok=True)

    def jobs(self) -> dict[int, str]:
        files = Path(self.paths.queue).glob("job-*")
        return {int(path.name[4:]): decode_job(path.read_bytes()).status for path in files}

    def master(self) -> str:
        return Path(self.paths.ssconf("master_node")).read_text(encoding="ascii").strip()


class SceneTestCase(SynchronousTestCase):
    """node1 is the master; the fail-over is run on node2. All three hold the same files."""

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="gnt-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.roots = {name: Root(self.folder, name) for name in NAMES}
        for root in self.roots.values():
            with tarfile.open(fileobj=io.BytesIO(_new_root())) as archive:
                # Same as "fully_trusted", a name that the first 3.11 releases of Python don't know.
                archive.extraction_filter = lambda member, path: member
                archive.extractall(root.paths.root)
        self.host = Host()
        self.host.name = "node2"
        self.nodes = ScriptedNodes(
            {
                "master_node_name": lambda target, _: self.roots[target.name].master(),
                "node_verify": self._verify,
                "upload_file_single": self._upload,
                "write_ssconf_files": self._write_ssconf,
                "node_start_master_daemons": self._start,
            }
        )
        self.daemon = Locks()
        self.addCleanup(self.daemon.release)
        self.unreadable: set[str] = set()
        self.said: list[str] = []

    @property
    def own(self) -> Root:
        """The root of the node that becomes the master."""
        return self.roots["node2"]

    def down(self, *names: str) -> None:
        """Lets these nodes fail all calls."""
        for name in names:
            for procedure in ("version", *self.nodes.answers):
                if isinstance(procedure, str):
                    self.nodes.answers[name, procedure] = DOWN

    def fail_over(self, **wishes: bool) -> FailOverOutcome:
        made = FailOver(
            self.nodes,
            self.own.paths,
            self.host,
            FailOverWishes(**wishes),
            fetch=self._fetch,
            say=self.said.append,
            now=lambda: NOW,
        )
        return self.successResultOf(ensureDeferred(made.run()))

    def succeeds(self, **wishes: bool) -> FailOverReport:
        """Runs the fail-over, which must succeed, and returns its report."""
        outcome = self.fail_over(**wishes)
        assert outcome.report is not None, outcome.refusal
        self.warnings = outcome.warnings
        return outcome.report

    def refused(self, words: str, **wishes: bool) -> str:
        """Runs the fail-over, which must be refused with these words and change nothing here."""
        before = Path(self.own.paths.config).read_bytes(), self.own.master(), self.own.jobs()
        outcome = self.fail_over(**wishes)
        self.assertIsNone(outcome.report)
        self.assertIn(words, outcome.refusal or "")
        after = Path(self.own.paths.config).read_bytes(), self.own.master(), self.own.jobs()
        self.assertEqual(after, before)
        self.warnings = outcome.warnings
        return outcome.refusal or ""

    # The node daemons' answers

    def _there(self, target: Target, path: str) -> Path:
        """Returns the path on another node of a file that is named as on this one."""
        own = self.own.paths.root
        self.assertTrue(path.startswith(own + "/"), path)
        return Path(self.roots[target.name].paths.root + path.removeprefix(own))

    def _verify(self, target: Target, arguments: list[Any]) -> Any:
        found = {}
        for path in arguments[0]["filelist"]:
            there = self._there(target, path)
            if there.exists():
                found[path] = hashlib.sha1(there.read_bytes()).hexdigest()
        return {"filelist": found}

    def _upload(self, target: Target, arguments: list[Any]) -> None:
        path, (form, content) = arguments[:2]
        self.assertEqual(form, 0)
        self._there(target, path).write_text(content, encoding="utf-8")

    def _write_ssconf(self, target: Target, arguments: list[Any]) -> None:
        root = self.roots[target.name]
        for key, lines in arguments[0].items():
            root.write(root.paths.ssconf(key), file_content(lines))

    def _start(self, target: Target, _: list[Any]) -> None:
        self.assertEqual(target.name, "node2")
        self.daemon.take_pid_file(self.own.paths.pid)

    def _fetch(self, _: Snapshot, node: Node, wanted: Sequence[str]) -> Mapping[str, bytes]:
        if node.name in self.unreadable:
            raise FetchFailed("no route to host")
        target = Target(key=node.uuid, name=node.name, address="")
        return {path: self._there(target, path).read_bytes() for path in wanted}


def config_of(root: Root) -> Snapshot:
    """Returns the configuration that a node holds."""
    return parse(Path(root.paths.config).read_bytes())
