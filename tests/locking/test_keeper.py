"""Locks in the reactor: Deferreds, retries, ageing and the daemon's stop."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.errors import DaemonStopping, LockError
from ganeti_masterd.events import Events, LockWaited
from ganeti_masterd.locking.keeper import AGEING_INTERVAL, PATIENCE, RETRY, LockKeeper
from ganeti_masterd.locking.levels import (
    BGL,
    Level,
    WantedLocks,
    all_shared,
    exclusive,
    opportunistic,
    shared,
)
from ganeti_masterd.timing import Timers


class KeeperCase(SynchronousTestCase):
    """A keeper with two nodes, whose jobs 1 to 9 share the cluster lock."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.timers = Timers(self.clock)
        self.events = Events()
        self.aged: list[tuple[int, int]] = []
        self.keeper = LockKeeper(self.timers, self.events)
        self.keeper.on_aged(lambda job, priority: self.aged.append((job, priority)))
        self.keeper.populate(Level.NODE, ["n1", "n2"])
        for job in range(1, 10):
            self.keeper.acquire(job, Level.CLUSTER, shared(BGL))

    def gets(self, job: int, wanted: WantedLocks, priority: int = 0) -> frozenset[str]:
        answer = self.keeper.acquire(job, Level.NODE, wanted, priority)
        assert isinstance(answer, frozenset), answer
        return answer

    def waits(self, job: int, wanted: WantedLocks, priority: int = 0) -> Deferred[frozenset[str]]:
        answer = self.keeper.acquire(job, Level.NODE, wanted, priority)
        assert isinstance(answer, Deferred), answer
        self.assertNoResult(answer)
        return answer


class AcquireTests(KeeperCase):
    def test_at_once(self) -> None:
        """A lock that is free is answered without a Deferred or a timer."""
        self.assertEqual(self.gets(1, exclusive("n1")), {"n1"})
        self.assertEqual(self.keeper.owned(1, Level.NODE), {"n1"})
        self.assertEqual(self.keeper.owned_alone(1, Level.NODE), {"n1"})
        self.assertEqual(len(self.timers), 0)

    def test_later(self) -> None:
        """A Deferred fires with the names once the lock is free."""
        self.gets(1, exclusive("n1"))
        waiting = self.waits(2, all_shared)
        self.assertEqual(self.keeper.waiting, 1)
        self.keeper.release(1, Level.NODE)
        self.assertEqual(self.successResultOf(waiting), {"n1", "n2"})
        self.assertEqual(self.keeper.waiting, 0)

    def test_downgrade(self) -> None:
        """A downgrade wakes those who share."""
        self.gets(1, exclusive("n1"))
        waiting = self.waits(2, shared("n1"))
        self.keeper.downgrade(1, Level.NODE)
        self.assertEqual(self.successResultOf(waiting), {"n1"})

    def test_misuse(self) -> None:
        """Misuse raises at once and leaves what was there."""
        self.gets(1, exclusive("n1"))
        waiting = self.waits(2, exclusive("n1"))
        for job, wanted in ((1, shared("n2")), (2, shared("n2")), (3, shared("n9"))):
            with self.assertRaises(LockError):
                self.keeper.acquire(job, Level.NODE, wanted)
        self.keeper.release(1, Level.NODE)
        self.successResultOf(waiting)

    def test_cancel(self) -> None:
        """A cancelled Deferred fails at once and lets others go on."""
        self.gets(1, shared("n1"))
        second = self.waits(2, exclusive("n1"))
        third = self.waits(3, shared("n1"))
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.assertEqual(self.successResultOf(third), {"n1"})
        self.assertEqual(self.gets(2, shared("n2")), {"n2"})

    def test_cancel_when_done(self) -> None:
        """Cancelling a Deferred that has fired takes nothing back."""
        self.gets(1, exclusive("n1"))
        waiting = self.waits(2, exclusive("n1"))
        self.keeper.release_all(1)
        self.successResultOf(waiting)
        waiting.cancel()
        self.assertEqual(self.keeper.owned(2, Level.NODE), {"n1"})

    def test_removed(self) -> None:
        """Those who wait for a lock that is removed get an error that names it."""
        self.gets(1, exclusive("n1"))
        waiting = self.waits(2, shared("n1"))
        self.keeper.remove_lock(1, Level.NODE, "n1")
        failure = self.failureResultOf(waiting, LockError)
        self.assertIn("node/n1", failure.getErrorMessage())
        self.assertEqual(self.keeper.members(Level.NODE), {"n2"})

    def test_added(self) -> None:
        """A new lock is its maker's."""
        self.keeper.add_lock(Level.NODE, "n3", 1)
        waiting = self.waits(2, exclusive("n3"))
        self.keeper.release(1, Level.NODE)
        self.assertEqual(self.successResultOf(waiting), {"n3"})

    def test_set_priority(self) -> None:
        """A request that is made more urgent goes first."""
        self.gets(1, exclusive("n1"))
        second = self.waits(2, exclusive("n1"))
        third = self.waits(3, exclusive("n1"))
        self.keeper.set_priority(3, -5)
        self.keeper.set_priority(99, -5)
        self.keeper.release(1, Level.NODE)
        self.successResultOf(third)
        self.assertNoResult(second)

    def test_release_all_cancels(self) -> None:
        """The end of a job gives up what it waits for."""
        self.gets(1, exclusive("n1"))
        waiting = self.waits(2, exclusive("n1"))
        self.keeper.release_all(2)
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(self.keeper.owned(2, Level.CLUSTER), frozenset())

    def test_rows(self) -> None:
        """The lock query's rows are those of the table."""
        self.gets(1, exclusive("n1"))
        names = [row.name for row in self.keeper.rows()]
        self.assertEqual(names, ["cluster/BGL", "cluster/[lockset]", "node/[lockset]", "node/n1"])

    def test_events(self) -> None:
        """Each grant is told, with the time that it took."""
        seen: list[LockWaited] = []
        self.events.subscribe(LockWaited, seen.append)
        self.gets(1, exclusive("n1"))
        self.waits(2, exclusive("n1"))
        self.clock.advance(7)
        self.keeper.release(1, Level.NODE)
        self.assertEqual(seen, [LockWaited(1, "node", 0.0), LockWaited(2, "node", 7.0)])


class ReentrancyTests(KeeperCase):
    """What a Deferred runs may ask the keeper for anything."""

    def setUp(self) -> None:
        super().setUp()
        self.gets(1, exclusive("n1"))
        self.second = self.waits(2, shared("n1"))
        self.third = self.waits(3, shared("n1"))

    def test_chain(self) -> None:
        """Thousands of jobs that release as soon as they get a lock need no deep stack."""
        fired: list[int] = []

        def done(_: object, job: int) -> None:
            fired.append(job)
            self.keeper.release_all(job)

        for job in range(10, 3010):
            self.keeper.acquire(job, Level.CLUSTER, shared(BGL))
            self.waits(job, exclusive("n1")).addCallback(done, job)
        self.keeper.release_all(1)
        self.keeper.release_all(2)
        self.keeper.release_all(3)
        self.assertEqual(fired, list(range(10, 3010)))

    def test_cancel_of_one_already_granted(self) -> None:
        """One who is cancelled between the decision and its firing holds nothing."""
        self.second.addCallback(lambda _: self.third.cancel())
        self.keeper.release(1, Level.NODE)
        self.failureResultOf(self.third, CancelledError)
        self.assertEqual(self.keeper.owned(3, Level.NODE), frozenset())
        self.keeper.release(2, Level.NODE)
        self.assertEqual(self.gets(4, exclusive("n1")), {"n1"})

    def test_cancel_and_ask_again(self) -> None:
        """A new request isn't taken for the one that was cancelled."""
        again = []

        def ask_again(_: object) -> None:
            self.third.cancel()
            again.append(self.waits(3, exclusive("n1")))

        self.second.addCallback(ask_again)
        self.keeper.release(1, Level.NODE)
        self.failureResultOf(self.third, CancelledError)
        self.assertNoResult(again[0])
        self.keeper.release(2, Level.NODE)
        self.assertEqual(self.successResultOf(again[0]), {"n1"})

    def test_end_of_a_job_already_granted(self) -> None:
        """A job that ends between the decision and its firing doesn't learn of a lock."""
        self.second.addCallback(lambda _: self.keeper.release_all(3))
        self.keeper.release(1, Level.NODE)
        self.failureResultOf(self.third, CancelledError)
        self.assertEqual(self.keeper.owned(3, Level.CLUSTER), frozenset())

    def test_stop_from_a_callback(self) -> None:
        """A stop between the decision and its firing fails that one too."""
        self.second.addCallback(lambda _: self.keeper.close())
        self.keeper.release(1, Level.NODE)
        self.failureResultOf(self.third, DaemonStopping)
        self.assertEqual(self.keeper.owned(3, Level.NODE), frozenset())

    def test_callback_that_raises(self) -> None:
        """A fault in one job's code doesn't keep another from its lock."""
        self.second.addCallback(lambda _: 1 / 0)
        self.keeper.release(1, Level.NODE)
        self.assertEqual(self.successResultOf(self.third), {"n1"})
        self.failureResultOf(self.second, ZeroDivisionError)


class OpportunisticTests(KeeperCase):
    def test_takes_what_is_free(self) -> None:
        """What is free is taken at once."""
        self.gets(1, exclusive("n1"))
        self.assertEqual(self.gets(2, opportunistic(None)), {"n2"})

    def test_tries_again(self) -> None:
        """Too little free is tried again every two seconds."""
        self.gets(1, exclusive("n1"))
        self.gets(2, exclusive("n2"))
        waiting = self.waits(3, opportunistic(None))
        self.clock.advance(RETRY)
        self.keeper.release(1, Level.NODE)
        self.assertNoResult(waiting)
        self.clock.advance(RETRY)
        self.assertEqual(self.successResultOf(waiting), {"n1"})
        self.assertEqual(len(self.timers), 0)

    def test_waits_for_all_at_last(self) -> None:
        """After half an hour it waits in line, for all that it named."""
        self.gets(1, exclusive("n1"))
        waiting = self.waits(2, opportunistic(None, 2))
        self.clock.pump([RETRY] * int(PATIENCE / RETRY))
        fourth = self.waits(4, exclusive("n2"))
        self.keeper.release(1, Level.NODE)
        self.assertEqual(self.successResultOf(waiting), {"n1", "n2"})
        self.keeper.release(2, Level.NODE)
        self.successResultOf(fourth)

    def test_cancel(self) -> None:
        """A request that is cancelled isn't tried again."""
        self.gets(1, exclusive(["n1", "n2"]))
        waiting = self.waits(2, opportunistic(None))
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(len(self.timers), 0)
        self.gets(2, shared([]))

    def test_named_lock_is_gone_at_last(self) -> None:
        """A lock that went meanwhile is an error once all are waited for."""
        self.gets(1, exclusive(["n1", "n2"]))
        waiting = self.waits(2, opportunistic(["n1", "n2"]))
        self.keeper.remove_lock(1, Level.NODE, "n1")
        self.clock.pump([RETRY] * int(PATIENCE / RETRY))
        self.failureResultOf(waiting, LockError)


class AgeingTests(KeeperCase):
    def minutes(self, count: int) -> None:
        self.clock.pump([AGEING_INTERVAL] * count)

    def test_ages(self) -> None:
        """A request grows more urgent each half hour, and whoever keeps the job is told."""
        self.gets(1, exclusive("n1"))
        second = self.waits(2, exclusive("n1"), 1)
        self.minutes(61)
        third = self.waits(3, exclusive("n1"), 0)
        self.assertEqual(self.aged, [(2, 0), (2, -1)])
        self.keeper.release(1, Level.NODE)
        self.successResultOf(second)
        self.assertNoResult(third)

    def test_timer_only_while_someone_waits(self) -> None:
        """Nothing ticks while nobody waits, also after somebody did."""
        for _ in range(2):
            self.gets(1, exclusive("n1"))
            waiting = self.waits(2, exclusive("n1"))
            self.assertEqual(len(self.timers), 1)
            self.keeper.release(1, Level.NODE)
            self.successResultOf(waiting)
            self.minutes(1)
            self.assertEqual(len(self.timers), 0)
            self.keeper.release(2, Level.NODE)

    def test_who_keeps_the_job_fails(self) -> None:
        """A fault in what is told doesn't stop the ageing or the grants."""

        def fail(job: int, priority: int) -> None:
            raise ValueError(job)

        keeper = LockKeeper(self.timers, self.events)
        keeper.on_aged(fail)
        keeper.populate(Level.NODE, ["n1", "n2"])
        for job in (1, 2, 3):
            keeper.acquire(job, Level.CLUSTER, shared(BGL))
        keeper.acquire(1, Level.NODE, exclusive("n1"))
        keeper.acquire(2, Level.NODE, exclusive(["n1", "n2"]))
        self.minutes(29)
        third = keeper.acquire(3, Level.NODE, exclusive("n2"))
        self.minutes(1)
        keeper.set_priority(2, 5)
        assert isinstance(third, Deferred)
        self.assertEqual(self.successResultOf(third), {"n2"})
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)


class CloseTests(KeeperCase):
    def test_fails_all_who_wait(self) -> None:
        """At the stop whoever waits fails, and holds nothing that another gave up."""
        self.gets(1, exclusive("n1"))
        waiting = [self.waits(job, exclusive("n1")) for job in (2, 3)]
        waiting.append(self.waits(4, shared(["n1", "n2"])))
        waiting.append(self.waits(5, exclusive("n2")))
        waiting.append(self.waits(6, opportunistic(["n1"])))
        self.keeper.close()
        for each in waiting:
            self.failureResultOf(each, DaemonStopping)
        for job in range(2, 7):
            self.assertEqual(self.keeper.owned(job, Level.NODE), frozenset())
        self.assertEqual(self.keeper.waiting, 0)
        self.assertEqual(len(self.timers), 0)

    def test_gives_nothing_any_more(self) -> None:
        """After the stop nothing is granted; what is held can be given back."""
        self.gets(1, exclusive("n1"))
        self.keeper.close()
        self.keeper.close()
        with self.assertRaises(DaemonStopping):
            self.keeper.acquire(2, Level.NODE, shared("n2"))
        self.keeper.release_all(1)
        self.assertEqual(self.keeper.owned(1, Level.NODE), frozenset())

    def test_order(self) -> None:
        """Those who asked first are told first."""
        self.gets(1, exclusive("n1"))
        order: list[int] = []
        for job in (4, 2, 3):
            waiting = self.waits(job, exclusive("n1"))
            waiting.addErrback(lambda _, job: order.append(job), job)
        self.keeper.close()
        self.assertEqual(order, [4, 2, 3])

    def test_cancels_another(self) -> None:
        """One that is told of the stop may give up for another, who has that as its outcome."""
        self.gets(1, exclusive("n1"))
        waiting = [self.waits(job, exclusive("n1")) for job in (2, 3, 4)]
        waiting[0].addErrback(lambda _: waiting[1].cancel())
        waiting[2].addErrback(lambda _: self.keeper.release_all(4))
        self.keeper.close()
        self.failureResultOf(waiting[1], CancelledError)
        self.assertEqual((self.keeper.waiting, len(self.timers)), (0, 0))
