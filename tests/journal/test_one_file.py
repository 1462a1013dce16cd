"""The journal of a daemon that runs no jobs: each commit writes config.data itself."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from ganeti_masterd.config.document import apply_rows, encode, parse
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.store import ConfigStore
from ganeti_masterd.errors import DaemonStopping, JobQueueError, ProgrammerError
from ganeti_masterd.journal.disk import RealDisk
from ganeti_masterd.journal.interfaces import IJournal
from ganeti_masterd.journal.one_file import ConfigFileJournal
from ganeti_masterd.journal.rows import SerialRow
from ganeti_masterd.timing import Timers
from tests.config.sample import CLUSTER, CONTENT


class FullDisk(RealDisk):
    """A disk that is full while ``full`` is set, and makes no name durable while ``unsynced``."""

    full = False
    unsynced = False

    def sync_directory(self, path: str) -> None:
        """See :meth:`IDisk.sync_directory`."""
        if self.unsynced:
            raise OSError(errno.EIO, "Input/output error", path)
        super().sync_directory(path)

    def write(self, path: str, content: bytes, mode: int) -> None:
        """See :meth:`IDisk.write`."""
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device", path)
        super().write(path, content, mode)


class ConfigFileJournalTests(SynchronousTestCase):
    """A store over such a journal, whose thread works when the test says so."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.path.write_bytes(CONTENT)
        self.work: list[tuple[Callable[[], Any], Deferred[Any]]] = []
        self.disk = FullDisk()
        self.journal = ConfigFileJournal(
            str(self.path), CONTENT, self.disk, self.in_thread, apply_rows
        )
        self.store = ConfigStore(parse(CONTENT), self.journal, Timers(Clock()))

    def in_thread(self, work: Callable[[], Any]) -> Deferred[Any]:
        """Takes work for :meth:`run`."""
        done: Deferred[Any] = Deferred()
        self.work.append((work, done))
        return done

    def run_thread(self, *, answer: bool = True) -> list[Callable[[], None]]:
        """Does all work; without ``answer`` returns what tells the reactor of it."""
        answers = []
        work, self.work = self.work, []
        for each, done in work:
            try:
                result = each()
            except Exception:
                result = Failure()
            answers.append(lambda done=done, result=result: done.callback(result))
        if answer:
            for tell in answers:
                tell()
        return answers

    def tag(self, *tags: str) -> Deferred[Snapshot]:
        """Changes the cluster's tags."""
        return self.store.change(CLUSTER, lambda it: replace(it, tags=tags))

    def tags(self) -> tuple[str, ...]:
        """Returns the cluster's tags as the file has them."""
        return parse(self.path.read_bytes()).cluster.tags

    def test_interface(self) -> None:
        """It is a journal."""
        verifyObject(IJournal, self.journal)

    def test_commit(self) -> None:
        """A commit is in the file before it is published; the file is the whole configuration."""
        done = self.tag("new")
        self.assertEqual(self.store.snapshot.cluster.tags, ())
        (tell,) = self.run_thread(answer=False)
        self.assertEqual(self.tags(), ("new",))
        self.assertEqual(self.store.snapshot.cluster.tags, ())
        tell()
        self.assertIs(self.successResultOf(done), self.store.snapshot)
        self.assertEqual(parse(self.path.read_bytes()), self.store.snapshot)
        self.assertEqual(len(encode(self.store.snapshot)), len(self.path.read_bytes()))

    def test_nothing_to_write(self) -> None:
        """A commit without rows ends after those before it, and leaves the file alone."""
        published: list[str] = []
        self.tag("new")
        done = self.journal.commit((), lambda: published.append("empty"))
        self.assertEqual(published, [])
        self.run_thread()
        self.successResultOf(done)
        self.assertEqual(published, ["empty"])
        before = self.path.stat().st_ino
        self.journal.commit(())
        self.run_thread()
        self.assertEqual(self.path.stat().st_ino, before)

    def test_full_disk(self) -> None:
        """What can't be written fails with all that builds on it; the next change is made."""
        self.disk.full = True
        first, second = self.tag("first"), self.tag("first", "second")
        (tell, tell_second) = self.run_thread(answer=False)
        self.disk.full = False
        third = self.tag("first", "third")  # the reactor has not heard of the failures yet
        (tell_third,) = self.run_thread(answer=False)
        for each in (tell, tell_second, tell_third):
            each()
        for done in (first, second, third):
            failure = self.failureResultOf(done, JobQueueError)
            self.assertIn("can't be written", failure.getErrorMessage())
        self.assertEqual(self.path.read_bytes(), CONTENT)
        self.assertEqual(self.store.tip, parse(CONTENT))
        self.assertIn("on which it builds", self.journal.files_fault or "")
        done = self.tag("fourth")
        self.run_thread()
        self.successResultOf(done)
        self.assertEqual(self.tags(), ("fourth",))
        self.assertIsNone(self.journal.files_fault)

    def test_changed_below(self) -> None:
        """What another program has written, such as the old master, is not overwritten."""
        self.tag("first")
        self.run_thread()
        other = self.path.read_bytes().replace(b'"first"', b'"other"')
        self.path.write_bytes(other)
        for _ in range(2):
            done = self.tag("first", "second")
            self.run_thread()
            failure = self.failureResultOf(done, JobQueueError)
            self.assertIn("another program has changed it", failure.getErrorMessage())
            self.assertEqual(self.path.read_bytes(), other)
            self.assertEqual(self.store.tip.cluster.tags, ("first",))
        self.path.unlink()
        done = self.tag("third")
        self.run_thread()
        self.failureResultOf(done, JobQueueError)
        self.assertFalse(self.path.exists())

    def test_name_that_is_not_durable(self) -> None:
        """A change that failed though its file stands there is no other program's."""
        self.disk.unsynced = True
        for tag in ("first", "second"):
            done = self.tag(tag)
            self.run_thread()
            self.failureResultOf(done, JobQueueError)
        self.disk.unsynced = False
        done = self.tag("third")
        self.run_thread()
        self.successResultOf(done)
        self.assertEqual(self.tags(), ("third",))

    def test_rows_of_jobs(self) -> None:
        """A row that is none of the configuration's is a fault of the caller."""
        self.assertRaises(ProgrammerError, self.journal.commit, [SerialRow(5)])

    def test_effects(self) -> None:
        """Effects run in the thread, with the disk; settling waits for what was before."""
        done = self.journal.effect(lambda disk, word: (disk, word), "word")
        settled = self.journal.settle()
        self.assertNoResult(settled)
        self.run_thread()
        self.assertEqual(self.successResultOf(done), (self.disk, "word"))
        self.successResultOf(settled)

    def test_closed(self) -> None:
        """What was committed before the close is written, what comes after it is refused."""
        done = self.tag("new")
        closed = self.journal.close()
        self.failureResultOf(self.journal.commit(()), DaemonStopping)
        self.run_thread()
        self.successResultOf(done)
        self.successResultOf(closed)
        self.assertEqual(self.tags(), ("new",))
