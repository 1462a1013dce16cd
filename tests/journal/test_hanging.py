"""A disk that doesn't answer: who waits, what is told of it, and that others go on."""

from __future__ import annotations

import threading
from typing import Any

from twisted.internet import reactor as _reactor  # noqa: TID251
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from ganeti_masterd.journal.hanging import LONG, LOOK, PATIENCE, REFUSAL, DiskWatch
from ganeti_masterd.journal.interfaces import IDisk
from ganeti_masterd.journal.journal import Journal
from ganeti_masterd.journal.progress import DiskProgress, WatchedDisk
from ganeti_masterd.journal.rounds import FollowingPace
from ganeti_masterd.journal.thread import DiskThread
from ganeti_masterd.mailbox import Mailbox
from ganeti_masterd.testing.disk import ForgetfulDisk, Power
from ganeti_masterd.timing import Timers
from tests.journal.scene import FILES, Scene, job, put

reactor: Any = _reactor


class ProgressTests(SynchronousTestCase):
    """What a thread says that it does."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.progress = DiskProgress("work", self.clock.seconds)
        self.seen: list[tuple[str, float]] = []

    def see(self) -> None:
        task = self.progress.task
        assert task is not None
        self.seen.append((task.doing, task.since))
        self.clock.advance(1)

    def test_parts_of_work(self) -> None:
        """A part has a name and a time of its own; what comes after it is the whole again."""

        def outer() -> None:
            self.see()
            self.progress.during("inner", self.see)
            self.see()

        self.assertIsNone(self.progress.task)
        self.progress.begin()
        self.see()
        self.progress.during("outer", outer)
        self.see()
        self.progress.end()
        self.assertIsNone(self.progress.task)
        self.assertEqual(
            self.seen, [("work", 0), ("outer", 1), ("inner", 2), ("outer", 3), ("work", 4)]
        )

    def test_faults(self) -> None:
        """What raises is over, too; without work around it nothing is left."""

        def failing() -> None:
            raise OSError("no")

        self.assertRaises(OSError, self.progress.during, "x", failing)
        self.assertIsNone(self.progress.task)

    def test_steps(self) -> None:
        """Each step is named, and nothing between two of them."""
        steps = self.progress.steps("a step", iter(lambda: self.see() or len(self.seen), 4))
        found = []
        for item in steps:
            self.assertIsNone(self.progress.task)
            found.append(item)
        self.assertEqual(found, [1, 2, 3])
        self.assertEqual([doing for doing, _ in self.seen], ["a step"] * 4)

    def test_disk(self) -> None:
        """A watched disk does what the disk does, and says to which file."""
        inner = ForgetfulDisk(["/q"], Power())
        disk = WatchedDisk(inner, self.progress)
        verifyObject(IDisk, disk)
        for name in (
            *("read", "names", "write", "sync", "rename", "unlink"),
            *("make_directory", "sync_directory"),
        ):
            done = getattr(inner, name)
            self.patch(inner, name, lambda *args, done=done: (self.see(), done(*args))[1])
        disk.write("/q/a", b"content", 0o600)
        disk.sync("/q/a")
        self.assertEqual(disk.read("/q/a"), b"content")
        disk.rename("/q/a", "/q/b")
        disk.sync_directory("/q")
        self.assertEqual(disk.names("/q"), ["b"])
        disk.unlink("/q/b")
        disk.make_directory("/q/c", 0o700)
        self.assertEqual(disk.names("/q"), ["c"])
        self.assertEqual(
            [doing for doing, _ in self.seen],
            [
                *("writing /q/a", "syncing /q/a", "reading /q/a", "renaming /q/a", "syncing /q"),
                *("listing /q", "removing /q/b", "making /q/c", "listing /q"),
            ],
        )


class WatchTests(SynchronousTestCase):
    """A watch of two threads, whose work the test pretends."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.journal, self.history = (
            DiskProgress(f"work of {name}", self.clock.seconds) for name in ("a", "b")
        )
        timers = Timers(self.clock, lambda: 1_000_000_000.0 + self.clock.seconds())
        self.watch = DiskWatch(self.journal, timers, {"history": self.history})
        self.watch.begin()
        self.logged: list[tuple[str, str]] = []
        globalLogPublisher.addObserver(self.log)
        self.addCleanup(globalLogPublisher.removeObserver, self.log)

    def log(self, event: Any) -> None:
        if event["log_namespace"] == "ganeti_masterd.journal.hanging":
            text = event["log_format"].format(**event)
            self.logged.append((event["log_level"].name, text))

    def wait(self, seconds: float) -> None:
        self.clock.pump([LOOK] * round(seconds / LOOK))

    def hanging(self, patience: float = PATIENCE, *, commits: bool = False) -> list[str]:
        return [str(hang) for hang in self.watch.hanging(patience, commits=commits)]

    def test_told(self) -> None:
        """What takes too long is told, as long as it does, and logged once at each end."""
        self.journal.begin()
        self.journal.during("syncing /q/a", self.wait, PATIENCE - 1)
        self.assertEqual((self.logged, self.hanging()), ([], []))

        def hangs() -> None:
            self.wait(PATIENCE)
            told = "syncing /q/b has not ended since 2001-09-09T01:46:49Z (10 s)"
            self.assertEqual(self.hanging(), [told])
            self.wait(50)
            self.assertEqual(self.logged, [("warn", f"The disk does not answer: {told}")])
            self.assertIn("(60 s)", self.hanging()[0])
            self.assertEqual(self.watch.seconds(), {"journal": 60, "history": 0})

        self.journal.during("syncing /q/b", hangs)
        self.assertEqual(self.hanging(), [])
        self.wait(2)
        self.journal.end()
        self.wait(100)
        self.assertEqual(
            self.logged[1:], [("warn", "The disk answers again: syncing /q/b took 61 s")]
        )
        self.assertEqual(self.watch.seconds(), {"journal": 0, "history": 0})

    def test_many_short_ones(self) -> None:
        """A long piece of work whose parts end is none that hangs."""
        self.journal.begin()
        for number in range(100):
            self.journal.during(f"writing /q/{number}", self.wait, PATIENCE - 1)
        self.assertEqual((self.hanging(), self.logged), ([], []))

    def test_refusal(self) -> None:
        """Jobs are refused once commits have hung for long, for nothing else."""
        self.history.begin()
        self.wait(LONG - 1)
        self.assertEqual((self.hanging(), self.logged), ([], []))
        self.wait(1)
        self.assertEqual(len(self.hanging()), 1)
        self.assertEqual(self.hanging(commits=True), [])
        self.assertIsNone(self.watch.refusal())
        self.journal.begin()
        self.wait(REFUSAL - 1)
        self.assertEqual(len(self.hanging(commits=True)), 1)
        self.assertIsNone(self.watch.refusal())
        self.wait(1)
        refusal = self.watch.refusal()
        assert refusal is not None
        self.assertIn("work of a has not ended since", str(refusal.args[0]))
        self.journal.end()
        self.assertIsNone(self.watch.refusal())


class BlockedDisk(ForgetfulDisk):
    """A disk one of whose effects blocks until the test lets go of it."""

    def __init__(self) -> None:
        super().__init__(["/queue", "/etc", "/var"], Power())
        self.blocked = threading.Event()
        self.released = threading.Event()
        self.victim = ""

    def sync(self, path: str) -> None:
        if path == self.victim:
            self.blocked.set()
            assert self.released.wait(60)
        super().sync(path)


class BlockedDiskTests(TestCase):
    """A real disk thread below a journal whose disk hangs."""

    timeout = 60

    def setUp(self) -> None:
        self.scene = Scene()
        self.scene.disk = self.disk = BlockedDisk()
        put(self.disk, FILES.config, b"{}")
        self.timers = Timers(reactor)
        self.addCleanup(self.timers.cancel_all)
        self.thread = DiskThread(Mailbox(reactor))
        self.journal = Journal(
            self.scene.recover(), self.thread, self.timers, pace=FollowingPace(pause=0)
        )
        self.journal.start()
        self.addCleanup(self.journal.close)
        self.addCleanup(self.disk.released.set)

    async def turn(self) -> None:
        done: Deferred[None] = Deferred()
        reactor.callLater(0, done.callback, None)
        await done

    async def test_sync_that_hangs(self) -> None:
        """Commits wait without an answer, the file is named, and all goes on in order after it."""
        self.disk.victim = FILES.job(1) + ".following"
        await self.journal.commit([job(1)])
        while not self.disk.blocked.is_set():
            await self.turn()
        order: list[int] = []
        later = [self.journal.commit([job(number)]) for number in (2, 3)]
        for number, done in enumerate(later):
            done.addCallback(lambda _, number=number: order.append(number))
        closed = self.journal.close()
        for _ in range(50):
            await self.turn()
        self.assertEqual(order, [])
        self.assertFalse(closed.called)
        watch = DiskWatch(self.thread.progress, self.timers)
        [hang] = watch.hanging(0.0)
        self.assertIn(f"syncing {FILES.job(1)}.following has not ended", str(hang))
        self.disk.released.set()
        await gatherResults(later)
        await closed
        self.assertEqual(order, [0, 1])
        self.assertEqual(watch.hanging(0.0), [])
        for number in (1, 2, 3):
            self.assertIsNotNone(self.disk.read(FILES.job(number)))
