"""Ageing, and how much work the table does when many wait."""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.locking.decisions import Aged
from ganeti_masterd.locking.levels import (
    BGL,
    Level,
    WantedLocks,
    all_exclusive,
    all_shared,
    exclusive,
    shared,
)
from ganeti_masterd.locking.line import LockRequest
from ganeti_masterd.locking.lockset import LockSet
from ganeti_masterd.locking.table import LockTable
from tests.locking.case import TableCase


class AgeTests(TableCase):
    def test_ages(self) -> None:
        """After half an hour a request is the last of the next more urgent priority."""
        self.gets(1, exclusive("n1"))
        self.table.request(2, Level.NODE, exclusive("n1"), 0, 100.0)
        self.table.request(3, Level.NODE, exclusive("n1"), 0, 1850.0)
        self.table.request(4, Level.NODE, exclusive("n1"), -1, 1850.0)
        self.table.request(5, Level.NODE, exclusive("n1"), 5, 0.0)
        self.assertEqual(self.table.age(1799.0), ([], []))
        changes, outcomes = self.table.age(1900.0)
        self.assertEqual((set(changes), outcomes), ({Aged(2, -1), Aged(5, 4)}, []))
        self.table.request(6, Level.NODE, exclusive("n1"), -1, 1900.0)
        order = [1]
        while len(order) < 6:
            (granted,) = self.table.release(order[-1], Level.NODE)
            order.append(granted.owner)
        self.assertEqual(order, [1, 4, 2, 6, 3, 5])

    def test_grants(self) -> None:
        """A request is granted when ageing moves it before the request that blocked it."""
        self.gets(1, exclusive("n1"))
        self.table.request(2, Level.NODE, exclusive(["n1", "n2"]), 0, 1000.0)
        self.table.request(3, Level.NODE, exclusive("n2"), 0, 0.0)
        changes, outcomes = self.table.age(1800.0)
        self.assertEqual(changes, [Aged(3, -1)])
        self.assert_granted(outcomes, 3)

    def test_starts_anew(self) -> None:
        """A priority set by hand is kept for half an hour."""
        self.gets(1, exclusive("n1"))
        self.table.request(2, Level.NODE, exclusive("n1"), 0, 0.0)
        self.table.set_priority(2, 10, 1700.0)
        self.assertEqual(self.table.age(3499.0), ([], []))
        self.assertEqual(self.table.age(3500.0), ([Aged(2, 9)], []))


class EffortTests(SynchronousTestCase):
    """Decisions stay cheap however many requests wait; the lock checks are counted."""

    JOBS = 2000

    def drain(self, wanted: Callable[[int], WantedLocks]) -> float:
        """Makes all jobs wait, and ends them one by one; returns the lock checks for each."""
        asked = 0
        admits = LockSet.admits

        def counted(lockset: LockSet, request: LockRequest) -> bool:
            nonlocal asked
            asked += 1
            return admits(lockset, request)

        self.patch(LockSet, "admits", counted)
        table = LockTable()
        table.add(Level.NODE, [f"n{n}" for n in range(self.JOBS)])
        for job in range(self.JOBS):
            table.request(job, Level.CLUSTER, shared(BGL))
        table.request(0, Level.NODE, all_exclusive)
        for job in range(1, self.JOBS):
            table.request(job, Level.NODE, wanted(job))
        table.age(1800.0)
        ready = [0]
        while ready:
            ready += [outcome.owner for outcome in table.release_all(ready.pop())]
        self.assertEqual(table.waiting, 0)
        return asked / self.JOBS

    def test_one_lock(self) -> None:
        """A release doesn't go through a long line for one lock."""
        self.assertLess(self.drain(lambda job: exclusive("n1")), 5)
        self.assertLess(self.drain(lambda job: shared("n1")), 5)

    def test_many_locks(self) -> None:
        """Only requests for the released locks are checked."""
        count = self.JOBS
        self.assertLess(self.drain(lambda job: exclusive([f"n{job}", f"n{(job * 7) % count}"])), 8)

    def test_whole_levels_among_them(self) -> None:
        """Requests for whole levels don't cause all others to be checked each time."""
        self.assertLess(self.drain(lambda job: all_shared if job % 2 else exclusive(f"n{job}")), 8)
        self.assertLess(self.drain(lambda job: all_exclusive), 5)
