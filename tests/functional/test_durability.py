"""What the kernel saw: synced before answered, and files and folders synced before forgotten.

strace shows every system call of the daemon in the order in which they began
and ended; a line of it is looked up by what it holds.
"""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ganeti_masterd.luxi.blocking import BlockingClient
from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.conftest import require
from tests.functional.waiting import job_is, jobs_end

CALLS = (
    "recvfrom,recvmsg,read,sendto,sendmsg,write,writev,pwrite64,fsync,fdatasync,"
    "rename,renameat,renameat2,unlink"
)

_LINE = re.compile(r"(?P<thread>\d+) +(?P<rest>.*)")
_RESUMED = re.compile(r"<\.\.\. (?P<name>\w+) resumed>(?P<rest>.*)")


class Call(NamedTuple):
    """One system call: the lines at which it began and ended, its name and its text."""

    began: int
    ended: int
    name: str
    text: str

    def on(self, path: str) -> bool:
        """Whether it is about the file of that path, by descriptor."""
        return f"<{path}>" in self.text.partition(",")[0]


def calls_in(trace: str) -> list[Call]:
    """Returns the calls that ended, in the order in which they did.

    One that others overtook is two lines in the trace: where it began, and where it resumed.
    """
    open_ones: dict[str, tuple[int, str]] = {}
    calls = []
    for number, line in enumerate(trace.splitlines()):
        match = _LINE.fullmatch(line)
        if match is None:
            continue
        thread, rest = match["thread"], match["rest"]
        began = number
        resumed = _RESUMED.match(rest)
        if resumed is not None:
            began, before = open_ones.pop(thread, (number, f"{resumed['name']}("))
            rest = before + resumed["rest"]
        elif rest.endswith("<unfinished ...>"):
            open_ones[thread] = number, rest.removesuffix("<unfinished ...>").rstrip()
            continue
        calls.append(Call(began, number, rest.partition("(")[0], rest))
    return calls


class Traced:
    """A daemon below strace, and what strace wrote."""

    def __init__(self, daemon: DaemonProcess, trace: Path) -> None:
        self.daemon = daemon
        self._trace = trace
        self.queue = daemon.paths.queue
        self.config = daemon.paths.config
        self.journal = daemon.paths.journal + "-wal"

    def calls(self) -> list[Call]:
        """Returns the calls of the whole life of the daemon; it must have ended."""
        return calls_in(self._trace.read_text("ascii"))


@pytest.fixture
def traced(folder: Path) -> Iterator[Traced]:
    """A daemon that strace watches."""
    trace = folder / "trace"
    wrapper = [
        *(require("strace", "strace"), "-f", "-y", "-s", "20000", "-o", str(trace)),
        *("-e", f"trace={CALLS}"),
    ]
    daemon = DaemonProcess(folder / "node1", wrapper=wrapper)
    try:
        daemon.start()
        yield Traced(daemon, trace)
    finally:
        daemon.__exit__()


def delay(mark: str, seconds: float = 0.01) -> dict[str, Any]:
    """Returns an opcode that can be found by its comment."""
    return {"OP_ID": "OP_TEST_DELAY", "duration": seconds, "no_locks": True, "comment": mark}


def first(calls: list[Call], what: str, match: Callable[[Call], bool]) -> Call:
    """Returns the first call that matches."""
    for call in calls:
        if match(call):
            return call
    raise AssertionError(f"there is no {what}")


def is_sync(call: Call) -> bool:
    """Whether it is a sync that succeeded."""
    return call.name in ("fsync", "fdatasync") and call.text.endswith("= 0")


def is_write(call: Call) -> bool:
    """Whether it writes to a file."""
    return call.name in ("write", "pwrite64", "writev")


def is_read(call: Call) -> bool:
    """Whether it reads from a client."""
    return call.name in ("recvfrom", "recvmsg", "read") and _is_socket(call)


def is_sent(call: Call) -> bool:
    """Whether it writes to a client."""
    return call.name in ("sendto", "sendmsg", "write", "writev") and _is_socket(call)


def _is_socket(call: Call) -> bool:
    return re.match(r"\w+\(\d+<(socket|UNIX)", call.text) is not None


def quoted(text: str) -> str:
    """Returns JSON text as strace shows it."""
    return text.replace('"', '\\"')


#: A job begins as it is submitted, unless it has to wait for a slot.
NEW = ("running", "queued")


def check_synced_before(
    traced: Traced, calls: list[Call], mark: str, states: Collection[str], reply: Call
) -> None:
    """A row with the mark in one of the states was written and synced before the reply."""
    state = " or ".join(states)
    statuses = [quoted(f'"status":"{each}"') for each in states]
    write = first(
        calls,
        f"row of {mark} in state {state}",
        lambda call: (
            is_write(call)
            and call.on(traced.journal)
            and any(status in part for part in _rows_with(call.text, mark) for status in statuses)
        ),
    )
    sync = first(
        calls,
        f"sync of {mark} in state {state}",
        lambda call: is_sync(call) and call.on(traced.journal) and call.began > write.ended,
    )
    assert sync.ended < reply.began, f"{mark}, {state}: answered before it was durable"


def _rows_with(text: str, mark: str) -> list[str]:
    """Returns the job documents in a page that hold the mark."""
    return [part for part in text.split(quoted('{"id":')) if quoted(f'"{mark}"') in part]


def test_a_submission_is_synced_before_it_is_answered(traced: Traced) -> None:
    """One client: the reply with the id leaves after the journal's sync has returned."""
    master = traced.daemon.client()
    job = master.submit_job([delay("only-one")])
    state = None
    while state != "success":
        (state,), _ = master.wait_for_job_change(job, ["status"], [state])
    traced.daemon.stop()
    calls = traced.calls()
    request = first(calls, "request", lambda call: is_read(call) and "SubmitJob" in call.text)
    reply = first(calls, "reply", lambda call: is_sent(call) and call.began > request.ended)
    assert quoted(f'"result":{job}}}') in reply.text
    check_synced_before(traced, calls, "only-one", ["running"], reply)
    seen = first(calls, "end", lambda call: is_sent(call) and quoted('[["success"],[') in call.text)
    check_synced_before(traced, calls, "only-one", ["success"], seen)


def test_each_of_many_submissions_is_synced_before_it_is_answered(traced: Traced) -> None:
    """Eight clients share transactions, and none is answered by another one's sync."""
    given: dict[str, int] = {}

    def submit(number: int) -> None:
        with BlockingClient(traced.daemon.socket, timeout=60) as master:
            for turn in range(10):
                mark = f"mark-{number}-{turn}"
                given[mark] = master.submit_job([delay(mark)])

    threads = [threading.Thread(target=submit, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(given) == 80
    traced.daemon.stop()
    calls = traced.calls()
    for mark, job in given.items():
        reply = first(
            calls,
            f"reply to {mark}",
            lambda call, job=job: is_sent(call) and quoted(f'"result":{job}}}') in call.text,
        )
        check_synced_before(traced, calls, mark, NEW, reply)


def test_other_answers_wait_for_the_sync_too(traced: Traced) -> None:
    """Cancelling, a new priority, a log line and archiving are durable before a client knows."""
    daemon = traced.daemon
    master = daemon.client()
    dependant = {**delay("dependant"), "depends": [[-1, ["success"]]]}
    lines = {**delay("with-lines", 0.5), "repeat": 2}
    (_, job), (_, waiter) = master.submit_many_jobs([[lines], [dependant]])
    assert master.change_job_priority(waiter, -7)[0] is True
    assert master.cancel_job(waiter) == [True, f"Dequeued job {waiter}"]
    _, news = master.wait_for_job_change(job, ["id"], [job], 0)
    _, news = master.wait_for_job_change(job, ["id"], [job], news[-1][0])
    assert news[0][3].endswith("Test delay iteration 1/1")
    jobs_end(master)
    assert master.archive_job(waiter) is True
    daemon.stop()
    calls = traced.calls()
    for method, told, written in (
        ("ChangeJobPriority", f"Priority of job {waiter}", '"priority":-7'),
        ("CancelJob", f"Dequeued job {waiter}", '"status":"canceled"'),
        ("WaitForJobChange", "Test delay iteration 1/1", "Test delay iteration 1/1"),
        ("ArchiveJob", '"result":true', '"dependant"'),
    ):
        asked = first(calls, method, lambda call, name=method: is_read(call) and name in call.text)
        reply = first(
            calls,
            f"reply to {method}",
            lambda call, asked=asked, told=told: (
                is_sent(call) and call.began > asked.ended and quoted(told) in call.text
            ),
        )
        # What a log line says may have been on its way before it was asked for.
        since = asked.ended if method != "WaitForJobChange" else 0
        write = first(
            calls,
            f"row of {method}",
            lambda call, since=since, written=written: (
                is_write(call)
                and call.on(traced.journal)
                and call.began > since
                and quoted(written) in call.text
            ),
        )
        sync = first(
            calls,
            f"sync of {method}",
            lambda call, write=write: (
                is_sync(call) and call.on(traced.journal) and call.began > write.ended
            ),
        )
        assert sync.ended < reply.began, f"{method}: answered before it was durable"


def test_files_and_folders_are_synced_before_the_journal_forgets(traced: Traced) -> None:
    """At a clean stop a job's file, its folder, serial and config.data come before the rows go."""
    daemon, queue = traced.daemon, traced.queue
    master = daemon.client()
    old = master.submit_job([delay("to-be-archived")])
    jobs_end(master)
    tagging = [delay("last", 0.7), {"OP_ID": "OP_TAGS_SET", "kind": "cluster", "tags": ["late"]}]
    last = master.submit_job(tagging)
    job_is(master, last, "running")
    assert master.archive_job(old) is True
    os.kill(daemon.pid, signal.SIGTERM)
    daemon.exit_code()
    calls = traced.calls()
    whole = Path(queue, f"job-{last}").read_text("ascii")
    assert '"success"' in whole
    ending = first(
        calls,
        "last state of the job",
        lambda call: (
            is_write(call) and f"<{queue}/job-{last}." in call.text and '\\"success\\"' in call.text
        ),
    )
    temporary = re.search(rf"<({re.escape(queue)}/job-{last}\.[^>]*)>", ending.text)
    assert temporary is not None
    tail = [call for call in calls if call.began > ending.ended]
    synced = first(tail, "sync of the file", lambda c: is_sync(c) and c.on(temporary[1]))
    renamed = first(
        tail, "rename of the file", lambda c: c.name.startswith("rename") and temporary[1] in c.text
    )
    folder = first(
        [call for call in tail if call.began > renamed.ended],
        "sync of the folder",
        lambda c: is_sync(c) and c.on(queue),
    )
    dropped = first(
        [call for call in tail if call.began > renamed.ended],
        "transaction that drops the rows",
        lambda c: is_write(c) and c.on(traced.journal),
    )
    assert synced.ended < renamed.began
    assert renamed.ended < folder.began
    assert folder.ended < dropped.began
    for path, kept in ((f"{queue}/serial", f"{last}\n"), (traced.config, None)):
        written = [
            call for call in calls if call.name.startswith("rename") and f'"{path}"' in call.text
        ]
        assert written, f"{path} was never written"
        assert kept is None or Path(path).read_text("ascii") == kept
        for rename in written:
            source = re.search(r'"([^"]*)"', rename.text)
            assert source is not None
            before = [call for call in calls if call.ended < rename.began and call.on(source[1])]
            assert before, f"{source[1]} was not written"
            assert before[-1].name == "read", f"{path} was renamed without being read back"
            changed = [call for call in before if call.name != "read"]
            assert is_sync(changed[-1]), f"{path} was renamed unsynced"
            after = first(
                [call for call in calls if call.began > rename.ended],
                f"sync of the folder of {path}",
                lambda c, path=path: is_sync(c) and c.on(os.path.dirname(path)),
            )
            forgotten = first(
                [call for call in calls if call.began > rename.ended],
                "transaction",
                lambda c: is_write(c) and c.on(traced.journal),
            )
            assert after.ended < forgotten.began


def test_every_file_is_synced_before_it_gets_its_name(traced: Traced) -> None:
    """No job file, archived or not, is renamed into place with content that a crash could lose."""
    daemon, queue = traced.daemon, traced.queue
    master = daemon.client()
    jobs = [job for _, job in master.submit_many_jobs([[delay(f"n{n}")] for n in range(30)])]
    jobs_end(master)
    assert master.auto_archive_jobs(-1, 10) == [30, 0]
    daemon.stop()
    calls = traced.calls()
    name = re.compile(rf'"{re.escape(queue)}/(archive/0/)?job-\d+"\)')
    renames = [call for call in calls if call.name.startswith("rename") and name.search(call.text)]
    assert len(renames) >= len(jobs)
    named: set[str] = set()
    for rename in renames:
        source, target = re.findall(r'"([^"]*)"', rename.text)
        if source not in named:  # else a move of what has been looked at
            touched = [
                call
                for call in calls
                if call.ended < rename.began and call.name != "read" and call.on(source)
            ]
            assert touched, f"{source} came from nowhere"
            assert is_sync(touched[-1]), f"{source} was renamed unsynced"
        named.add(target)
    moves = [
        call
        for call in calls
        if call.name.startswith("rename") and f"{queue}/archive/0/job-" in call.text
    ]
    assert len(moves) == len(jobs)
    for folder in (f"{queue}/archive/0", queue):
        first(
            calls,
            f"sync of {folder} after the moves",
            lambda c, folder=folder: is_sync(c) and c.on(folder) and c.began > moves[-1].ended,
        )
