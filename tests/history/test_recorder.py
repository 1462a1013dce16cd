"""Recording in the reactor: who changed what, a moment later; a disk that refuses; the end."""

from __future__ import annotations

import os
import sqlite3
from typing import Any

from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from ganeti_masterd.config.changes import Update
from ganeti_masterd.config.store import ChangeAuthor, ConfigStore
from ganeti_masterd.errors import DaemonStopping, GenericError, OpPrereqError
from ganeti_masterd.history import answers
from ganeti_masterd.history.recorder import FOUND_AT_START, NOT_WRITTEN, PACE, ConfigHistory
from ganeti_masterd.history.versions import VersionStore
from ganeti_masterd.journal.thread import IDiskThread
from ganeti_masterd.testing.journal import MemoryJournal
from ganeti_masterd.timing import Timers
from tests.config.sample import CLUSTER, sample


@implementer(IDiskThread)
class AtOnce:
    """A thread that does all work at once."""

    def start(self) -> None:
        pass

    def do(self, work: Any, answer: Any) -> None:
        try:
            result = work()
        except Exception:
            result = Failure()
        answer(result)

    def stop(self, answer: Any) -> None:
        answer(None)


class RecorderTests(SynchronousTestCase):
    """A store of the configuration and its history, on a real file."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_900_000_000)
        self.timers = Timers(self.clock)
        self.path = os.path.abspath(self.mktemp())
        self.faults: list[Exception] = []
        self.config = ConfigStore(sample(), MemoryJournal(), self.timers)
        self.history = self.begin()

    def begin(self) -> ConfigHistory:
        case = self

        class Store(VersionStore):
            def append(self, versions: Any, now: float) -> None:
                if case.faults:
                    raise case.faults[0]
                super().append(versions, now)

        history = ConfigHistory(
            self.path,
            AtOnce(),  # type: ignore[arg-type]
            self.timers,
            lambda: self.config.snapshot,
            {7: 1000}.get,
            open_store=Store,
        )
        self.stop = self.config.on_publication(history.record)
        history.start()
        return history

    def tag(self, name: str, author: ChangeAuthor | None = None) -> None:
        change = Update(CLUSTER, lambda cluster: cluster.with_tags([name]))
        self.successResultOf(self.config.apply([change], author or ChangeAuthor()))

    def listed(self) -> list[Any]:
        found = self.successResultOf(self.history.ask(answers.listing, None))
        return [(one.version.uid, one.version.job, one.version.note, one.count) for one in found]

    def test_authors(self) -> None:
        """A job's user is looked up; a client's is given; a note is kept."""
        self.tag("a", ChangeAuthor(job=7))
        self.tag("b", ChangeAuthor(job=8))
        self.tag("c", ChangeAuthor(uid=5, note="why"))
        self.clock.advance(PACE)
        self.assertEqual(
            self.listed(),
            [
                (None, None, "the history begins", 0),
                (1000, 7, "", 1),
                (None, 8, "", 1),
                (5, None, "why", 1),
            ],
        )

    def test_nothing(self) -> None:
        """A change that changes nothing makes no version."""
        self.successResultOf(self.config.apply([Update(CLUSTER, lambda cluster: cluster)]))
        self.assertEqual(len(self.listed()), 1)

    def test_asked_at_once(self) -> None:
        """A question sees every change that was published before it."""
        self.tag("a")
        self.assertEqual(len(self.listed()), 2)
        self.assertEqual(len(self.timers), 0)

    def test_nobody_waits(self) -> None:
        """A question is not asked once who asked has gone, or once the history is closed."""
        held: list[Any] = []
        asked: list[Any] = []
        self.history._thread.do = lambda work, answer: held.append((work, answer))  # type: ignore
        gone, late = (self.history.ask(lambda store: asked.append(store)) for _ in range(2))
        gone.cancel()
        self.history.close()
        for work, answer in held:
            AtOnce().do(work, answer)
        self.assertEqual(asked, [])
        self.failureResultOf(gone)
        self.failureResultOf(late).trap(DaemonStopping)

    def test_found_at_start(self) -> None:
        """What changed while nobody recorded is one version at the next start."""
        self.successResultOf(self.history.close())
        self.stop()
        self.tag("a")
        self.tag("b")
        self.history = self.begin()
        self.assertEqual(self.listed()[1:], [(None, None, FOUND_AT_START, 2)])

    def test_refused(self) -> None:
        """What the disk refused is one version once it can be written; nothing is lost."""
        self.faults.append(sqlite3.OperationalError("disk full"))
        self.tag("a", ChangeAuthor(job=7))
        self.clock.advance(PACE)
        self.assertIn("disk full", str(self.history.fault))
        self.tag("b")
        self.clock.advance(PACE)
        self.faults.clear()
        self.assertEqual(self.listed()[1:], [(None, None, NOT_WRITTEN, 2)])
        self.assertIsNone(self.history.fault)
        self.tag("c", ChangeAuthor(uid=1))
        self.assertEqual(self.listed()[2:], [(1, None, "", 1)])

    def test_unknown_version(self) -> None:
        """A version that isn't there is refused by number."""
        for question in (answers.compared, answers.shown, answers.version):
            args = (9, None) if question is answers.compared else (9,)
            failed = self.failureResultOf(self.history.ask(question, *args))  # type: ignore[arg-type]
            failed.trap(OpPrereqError)
            self.assertIn("no version 9", str(failed.value))

    def test_end(self) -> None:
        """The end records what is gathered; after it nothing is recorded, and nobody answered."""
        self.tag("a")
        self.successResultOf(self.history.close())
        self.successResultOf(self.history.close())
        self.tag("b")
        self.failureResultOf(self.history.ask(answers.listing, None)).trap(DaemonStopping)
        store = VersionStore(self.path, CLUSTER)
        self.addCleanup(store.close)
        self.assertEqual(len(store.lines()), 2)

    def test_unreadable(self) -> None:
        """Where the file can't be had at all, questions get an error, and changes go on."""
        os.mkdir(self.path + "d")
        self.path += "d"
        self.stop()
        self.history = self.begin()
        self.tag("a")
        self.failureResultOf(self.history.ask(answers.listing, None)).trap(GenericError)
        self.assertIn("a", self.config.snapshot.cluster.tags)
