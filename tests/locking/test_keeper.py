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
        """A free lock is granted without a Deferred or a timer."""
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
        """A downgrade grants waiting sharers the lock."""
        self.gets(1, exclusive("n1"))
        waiting = self.waits(2, shared("n1"))
        self.keeper.downgrade(1, Level.NODE)
        self.assertEqual(self.successResultOf(waiting), {"n1"})

    def test_misuse(self) -> None:
        """Misuse raises at once and changes nothing."""
        self.gets(1, exclusive("n1"))
        waiting = self.waits(2, exclusive("n1"))
        for job, wanted in ((1, shared("n2")), (2, shared("n2")), (3, shared("n9"))):
            with self.assertRaises(LockError):
                self.keeper.acquire(job, Level.NODE, wanted)
        self.keeper.release(1, Level.NODE)
        self.successResultOf(waiting)

    def test_cancel(self) -> None:
        """A cancelled Deferred fails at once, and requests behind it are granted."""
        self.gets(1, shared("n1"))
        second = self.waits(2, exclusive("n1"))
        third = self.waits(3, shared("n1"))
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.assertEqual(self.successResultOf(third), {"n1"})
        self.assertEqual(self.gets(2, shared("n2")), {"n2"})

    def test_cancel_when_done(self) -> None:
        """Cancelling a Deferred that has fired does nothing."""
        self.gets(1, exclusive("n1"))
        waiting = self.waits(2, exclusive("n1"))
        self.keeper.release_all(1)
        self.successResultOf(waiting)
        waiting.cancel()
        self.assertEqual(self.keeper.owned(2, Level.NODE), {"n1"})

    def test_removed(self) -> None:
        """Requests that wait for a removed lock fail with an error that names it."""
        self.gets(1, exclusive("n1"))
        waiting = self.waits(2, shared("n1"))
        self.keeper.remove_lock(1, Level.NODE, "n1")
        failure = self.failureResultOf(waiting, LockError)
        self.assertIn("node/n1", failure.getErrorMessage())
        self.assertEqual(self.keeper.members(Level.NODE), {"n2"})

    def test_added(self) -> None:
        """A new lock is held by the job that adds it."""
        self.keeper.add_lock(Level.NODE, "n3", 1)
        waiting = self.waits(2, exclusive("n3"))
        self.keeper.release(1, Level.NODE)
        self.assertEqual(self.successResultOf(waiting), {"n3"})

    def test_set_priority(self) -> None:
        """A request with a more urgent priority is granted first."""
        self.gets(1, exclusive("n1"))
        second = self.waits(2, exclusive("n1"))
        third = self.waits(3, exclusive("n1"))
        self.keeper.set_priority(3, -5)
        self.keeper.set_priority(99, -5)
        self.keeper.release(1, Level.NODE)
        self.successResultOf(third)
        self.assertNoResult(second)

    def test_release_all_cancels(self) -> None:
        """Releasing everything cancels a waiting request."""
        self.gets(1, exclusive("n1"))
        waiting = self.waits(2, exclusive("n1"))
        self.keeper.release_all(2)
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(self.keeper.owned(2, Level.CLUSTER), frozenset())

    def test_rows(self) -> None:
        """The rows of the lock query show the table's state."""
        self.gets(1, exclusive("n1"))
        names = [row.name for row in self.keeper.rows()]
        self.assertEqual(names, ["cluster/BGL", "cluster/[lockset]", "node/[lockset]", "node/n1"])

    def test_events(self) -> None:
        """Each grant is published as an event, with the time waited."""
        seen: list[LockWaited] = []
        self.events.subscribe(LockWaited, seen.append)
        self.gets(1, exclusive("n1"))
        self.waits(2, exclusive("n1"))
        self.clock.advance(7)
        self.keeper.release(1, Level.NODE)
        self.assertEqual(seen, [LockWaited(1, "node", 0.0), LockWaited(2, "node", 7.0)])

    def test_longest_wait(self) -> None:
        """The longest wait is that of the job that asked first among those that still wait."""
        self.assertEqual(self.keeper.longest_wait, 0)
        self.gets(1, exclusive("n1"))
        self.gets(4, exclusive("n2"))
        first = self.waits(2, exclusive("n1"))
        self.clock.advance(5)
        second = self.waits(3, exclusive("n2"))
        self.clock.advance(1)
        self.assertEqual(self.keeper.longest_wait, 6)
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertEqual(self.keeper.longest_wait, 1)
        self.keeper.release_all(4)
        self.successResultOf(second)
        self.assertEqual(self.keeper.longest_wait, 0)


class ReentrancyTests(KeeperCase):
    """Callbacks of Deferreds may call any method of the keeper."""

    def setUp(self) -> None:
        super().setUp()
        self.gets(1, exclusive("n1"))
        self.second = self.waits(2, shared("n1"))
        self.third = self.waits(3, shared("n1"))

    def test_chain(self) -> None:
        """Thousands of jobs that release a lock as soon as they get it don't need a deep stack."""
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
        """A request cancelled between its grant and its Deferred's firing holds nothing."""
        self.second.addCallback(lambda _: self.third.cancel())
        self.keeper.release(1, Level.NODE)
        self.failureResultOf(self.third, CancelledError)
        self.assertEqual(self.keeper.owned(3, Level.NODE), frozenset())
        self.keeper.release(2, Level.NODE)
        self.assertEqual(self.gets(4, exclusive("n1")), {"n1"})

    def test_cancel_and_ask_again(self) -> None:
        """A new request isn't confused with a cancelled one of the same job."""
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
        """If a job ends between its grant and its Deferred's firing, it isn't called."""
        self.second.addCallback(lambda _: self.keeper.release_all(3))
        self.keeper.release(1, Level.NODE)
        self.failureResultOf(self.third, CancelledError)
        self.assertEqual(self.keeper.owned(3, Level.CLUSTER), frozenset())

    def test_stop_from_a_callback(self) -> None:
        """A stop also fails requests that are granted but whose Deferreds haven't fired."""
        self.second.addCallback(lambda _: self.keeper.close())
        self.keeper.release(1, Level.NODE)
        self.failureResultOf(self.third, DaemonStopping)
        self.assertEqual(self.keeper.owned(3, Level.NODE), frozenset())

    def test_callback_that_raises(self) -> None:
        """An exception in one job's callback doesn't keep another from its lock."""
        self.second.addCallback(lambda _: 1 / 0)
        self.keeper.release(1, Level.NODE)
        self.assertEqual(self.successResultOf(self.third), {"n1"})
        self.failureResultOf(self.second, ZeroDivisionError)


class OpportunisticTests(KeeperCase):
    def test_takes_what_is_free(self) -> None:
        """Free locks are taken at once."""
        self.gets(1, exclusive("n1"))
        self.assertEqual(self.gets(2, opportunistic(None)), {"n2"})

    def test_tries_again(self) -> None:
        """If too few locks are free, it is retried every two seconds."""
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
        """After half an hour it waits in line for all locks that it named."""
        self.gets(1, exclusive("n1"))
        waiting = self.waits(2, opportunistic(None, 2))
        self.clock.pump([RETRY] * int(PATIENCE / RETRY))
        fourth = self.waits(4, exclusive("n2"))
        self.keeper.release(1, Level.NODE)
        self.assertEqual(self.successResultOf(waiting), {"n1", "n2"})
        self.keeper.release(2, Level.NODE)
        self.successResultOf(fourth)

    def test_cancel(self) -> None:
        """A cancelled request isn't retried."""
        self.gets(1, exclusive(["n1", "n2"]))
        waiting = self.waits(2, opportunistic(None))
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(len(self.timers), 0)
        self.gets(2, shared([]))

    def test_named_lock_is_gone_at_last(self) -> None:
        """If a named lock was removed meanwhile, waiting for all of them fails."""
        self.gets(1, exclusive(["n1", "n2"]))
        waiting = self.waits(2, opportunistic(["n1", "n2"]))
        self.keeper.remove_lock(1, Level.NODE, "n1")
        self.clock.pump([RETRY] * int(PATIENCE / RETRY))
        self.failureResultOf(waiting, LockError)


class AgeingTests(KeeperCase):
    def minutes(self, count: int) -> None:
        self.clock.pump([AGEING_INTERVAL] * count)

    def test_ages(self) -> None:
        """A request becomes more urgent each half hour, and ``on_aged`` is called."""
        self.gets(1, exclusive("n1"))
        second = self.waits(2, exclusive("n1"), 1)
        self.minutes(61)
        third = self.waits(3, exclusive("n1"), 0)
        self.assertEqual(self.aged, [(2, 0), (2, -1)])
        self.keeper.release(1, Level.NODE)
        self.successResultOf(second)
        self.assertNoResult(third)

    def test_timer_only_while_someone_waits(self) -> None:
        """No timer runs while no request is waiting."""
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
        """An exception in ``on_aged`` doesn't stop the ageing or the grants."""

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
        """At the stop all waiting requests fail, and none gets a lock that another gives up."""
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
        """After the stop nothing is granted, but held locks can be released."""
        self.gets(1, exclusive("n1"))
        self.keeper.close()
        self.keeper.close()
        with self.assertRaises(DaemonStopping):
            self.keeper.acquire(2, Level.NODE, shared("n2"))
        self.keeper.release_all(1)
        self.assertEqual(self.keeper.owned(1, Level.NODE), frozenset())

    def test_order(self) -> None:
        """Requests fail in the order in which they were made."""
        self.gets(1, exclusive("n1"))
        order: list[int] = []
        for job in (4, 2, 3):
            waiting = self.waits(job, exclusive("n1"))
            waiting.addErrback(lambda _, job: order.append(job), job)
        self.keeper.close()
        self.assertEqual(order, [4, 2, 3])

    def test_cancels_another(self) -> None:
        """An errback at the stop may cancel another request, which then fails as cancelled."""
        self.gets(1, exclusive("n1"))
        waiting = [self.waits(job, exclusive("n1")) for job in (2, 3, 4)]
        waiting[0].addErrback(lambda _: waiting[1].cancel())
        waiting[2].addErrback(lambda _: self.keeper.release_all(4))
        self.keeper.close()
        self.failureResultOf(waiting[1], CancelledError)
        self.assertEqual((self.keeper.waiting, len(self.timers)), (0, 0))
