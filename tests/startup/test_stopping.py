"""The shutdown with a clock: what the daemon's parts are asked to do, and when."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.startup.shutdown import (
    BOUND,
    CHECK_INTERVAL,
    DISK_BOUND,
    LINGER,
    ShutdownState,
)
from ganeti_masterd.startup.stopping import Stoppable, Stopping
from ganeti_masterd.timing import Timers


class Parts:
    """The daemon's parts; records what they were asked to do."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.jobs = 0
        self.connected = 0
        self.told: list[tuple[float, str]] = []
        self.down: Deferred[None] = Deferred()
        self.idle: list[Deferred[None]] = []
        #: Since when a commit hangs, and work of the history.
        self.commit_hangs: float | None = None
        self.history_hangs: float | None = None

    def disk_hangs(self, patience: float, *, commits: bool) -> list[str]:
        since = [self.commit_hangs] if commits else [self.commit_hangs, self.history_hangs]
        now = self.clock.seconds()
        return ["it hangs" for each in since if each is not None and now - each >= patience]

    def refuse_jobs(self) -> None:
        """Records only the first call."""
        if "refuse" not in self.names():
            self._tell("refuse")

    def running_jobs(self) -> int:
        return self.jobs

    def when_idle(self) -> Deferred[None]:
        self.idle.append(Deferred())
        return self.idle[-1]

    def clients(self) -> int:
        return self.connected

    def stop_listening(self) -> None:
        self._tell("deaf")

    def tear_down(self, abandon: bool) -> Deferred[None]:
        self._tell("abandon" if abandon else "end")
        return self.down

    def cut_short(self) -> None:
        self._tell("cut")

    def end_jobs(self) -> None:
        """The last job ends."""
        self.jobs = 0
        for done in self.idle:
            done.callback(None)

    def names(self) -> list[str]:
        """Returns the recorded calls, in order."""
        return [what for _, what in self.told]

    def _tell(self, what: str) -> None:
        self.told.append((self.clock.seconds(), what))


class StoppingTests(SynchronousTestCase):
    """Each test runs one shutdown."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.parts = Parts(self.clock)
        self.timers = Timers(self.clock)

    def stopping(self, timeout: float | None = None) -> Stopping:
        """Returns a shutdown that has not begun."""
        parts: Stoppable = self.parts
        return Stopping(parts, self.timers, timeout)

    def ended(self, stopping: Stopping) -> None:
        """Checks that it has ended, with nothing left on the clock."""
        self.successResultOf(stopping.finished)
        self.assertIs(stopping.state, ShutdownState.ENDED)
        self.assertEqual((len(self.timers), self.clock.getDelayedCalls()), (0, []))

    def test_idle(self) -> None:
        """Without jobs the shutdown ends at once, even while clients are connected."""
        self.parts.connected = 3
        stopping = self.stopping(25.0)
        stopping.signal()
        self.assertEqual(self.parts.told, [(0, "refuse"), (0, "deaf"), (0, "end")])
        self.assertNoResult(stopping.finished)
        self.parts.down.callback(None)
        self.ended(stopping)

    def test_jobs_run(self) -> None:
        """It waits for jobs without a limit, notices the last one's end at once, then lingers."""
        self.parts.jobs, self.parts.connected = 2, 1
        stopping = self.stopping()
        stopping.signal()
        self.clock.pump([CHECK_INTERVAL] * 1000)
        self.assertEqual(self.parts.names(), ["refuse"])
        self.parts.end_jobs()
        now = self.clock.seconds()
        self.assertEqual(self.parts.told[1:], [(now, "deaf")])
        self.clock.pump([0.1] * round(LINGER / 0.1 - 1))
        self.assertEqual(self.parts.names(), ["refuse", "deaf"])
        self.clock.advance(0.2)
        self.assertEqual(self.parts.names(), ["refuse", "deaf", "end"])
        self.parts.down.callback(None)
        self.ended(stopping)

    def test_jobs_that_come_to_wait(self) -> None:
        """A job that now waits for locks, and so never ends, is noticed at the next check."""
        self.parts.jobs, self.parts.connected = 1, 1
        stopping = self.stopping()
        stopping.signal()
        self.parts.jobs = 0
        self.clock.advance(CHECK_INTERVAL)
        self.assertIs(stopping.state, ShutdownState.LINGERING)

    def test_no_clients_left(self) -> None:
        """Lingering ends once the last client has disconnected."""
        self.parts.jobs, self.parts.connected = 1, 1
        stopping = self.stopping()
        stopping.signal()
        self.parts.end_jobs()
        self.clock.advance(1.0)
        self.assertIs(stopping.state, ShutdownState.LINGERING)
        self.parts.connected = 0
        self.clock.advance(0.1)
        self.assertIs(stopping.state, ShutdownState.STOPPING)

    def test_timeout(self) -> None:
        """After --stop-timeout, running jobs are abandoned."""
        self.parts.jobs = 1
        stopping = self.stopping(25.0)
        stopping.signal()
        self.clock.pump([1.0] * 24)
        self.assertEqual(self.parts.names(), ["refuse"])
        self.clock.advance(1.0)
        self.assertEqual(self.parts.told[1:], [(25, "deaf"), (25, "abandon")])
        self.parts.end_jobs()
        self.parts.down.callback(None)
        self.ended(stopping)

    def test_second_signal(self) -> None:
        """A second signal abandons running jobs at once."""
        self.parts.jobs = 1
        stopping = self.stopping()
        stopping.signal()
        self.clock.advance(2.0)
        stopping.signal()
        self.assertEqual(self.parts.told[1:], [(2, "deaf"), (2, "abandon")])

    def test_hanging_end(self) -> None:
        """If the last steps hang, another signal ends the process after a while, not at once."""
        stopping = self.stopping()
        stopping.signal()
        self.clock.advance(1000.0)
        self.assertNotIn("cut", self.parts.names())
        stopping.signal()
        stopping.signal()
        self.clock.advance(BOUND - 0.1)
        self.assertNotIn("cut", self.parts.names())
        self.clock.advance(0.1)
        self.assertEqual(self.parts.names()[-1], "cut")

    def test_disk_hangs(self) -> None:
        """If the disk hangs during the last steps, the process ends without a second signal."""
        for kind in ("commit_hangs", "history_hangs"):
            self.setUp()
            setattr(self.parts, kind, 0.0)
            stopping = self.stopping()
            stopping.signal()
            self.clock.pump([1.0] * (int(DISK_BOUND) - 1))
            self.assertEqual(self.parts.names(), ["refuse", "deaf", "end"])
            self.clock.pump([1.0] * int(CHECK_INTERVAL))
            self.assertEqual(self.parts.names()[-1], "cut")
            self.assertIs(stopping.state, ShutdownState.ENDED)

    def test_disk_hangs_before(self) -> None:
        """A disk that has hung for long by then is found so at the first look."""
        self.clock.advance(1000.0)
        self.parts.commit_hangs = 0.0
        stopping = self.stopping()
        stopping.signal()
        self.clock.advance(CHECK_INTERVAL)
        self.assertEqual(self.parts.names(), ["refuse", "deaf", "end", "cut"])

    def test_disk_answers_again(self) -> None:
        """A disk that answers in time doesn't keep the stop from being a clean one."""
        self.parts.commit_hangs = 0.0
        stopping = self.stopping()
        stopping.signal()
        self.clock.pump([1.0] * (int(DISK_BOUND) - 1))
        self.parts.commit_hangs = None
        self.clock.pump([1.0] * 1000)
        self.assertEqual(self.parts.names(), ["refuse", "deaf", "end"])
        self.parts.down.callback(None)
        self.ended(stopping)

    def test_jobs_that_cannot_be_recorded(self) -> None:
        """Jobs whose end no disk takes aren't waited for; those that go on are."""
        self.parts.jobs, self.parts.history_hangs = 1, 0.0
        stopping = self.stopping()
        stopping.signal()
        self.clock.pump([CHECK_INTERVAL] * 1000)
        self.assertEqual(self.parts.names(), ["refuse"])
        self.parts.commit_hangs = self.clock.seconds()
        self.clock.pump([1.0] * (int(DISK_BOUND) - 1))
        self.assertEqual(self.parts.names(), ["refuse"])
        self.clock.pump([1.0] * int(CHECK_INTERVAL))
        self.assertEqual(self.parts.names(), ["refuse", "deaf", "abandon"])
        self.clock.advance(CHECK_INTERVAL)
        self.assertEqual(self.parts.names()[-1], "cut")
        self.assertIs(stopping.state, ShutdownState.ENDED)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_failing_end(self) -> None:
        """A part that fails to end is logged, and the process still ends."""
        stopping = self.stopping()
        stopping.signal()
        self.parts.down.errback(ValueError("a fault of the test"))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.ended(stopping)
