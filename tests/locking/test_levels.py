"""Levels, wanted locks, and ageing."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.errors import ProgrammerError
from ganeti_masterd.locking.ageing import STEP, aged
from ganeti_masterd.locking.levels import (
    Level,
    LockMode,
    WantedLocks,
    all_exclusive,
    all_shared,
    exclusive,
    lock_name,
    nothing,
    opportunistic,
    shared,
)


class LevelTests(SynchronousTestCase):
    def test_order_and_labels(self) -> None:
        """Levels have Ganeti's names and come in its order."""
        self.assertEqual(
            [level.label for level in sorted(Level)],
            ["cluster", "instance", "nodegroup", "node", "node-res", "network"],
        )

    def test_lock_name(self) -> None:
        """A lock is shown as its level and its name."""
        self.assertEqual(lock_name(Level.NODE_RES, "some-uuid"), "node-res/some-uuid")


class WantedTests(SynchronousTestCase):
    def test_one_name_or_several(self) -> None:
        """A single name is taken as one name, not as a collection of letters."""
        self.assertEqual(exclusive("node1"), exclusive(["node1"]))
        self.assertEqual(shared("node1").names, frozenset({"node1"}))
        self.assertEqual(exclusive(iter(["a", "b"])).names, frozenset({"a", "b"}))

    def test_creating_is_among_the_names(self) -> None:
        """A name to be created is among the wanted names."""
        wanted = exclusive("old", creating="new")
        self.assertEqual(wanted.names, frozenset({"old", "new"}))
        self.assertEqual(wanted.creating, frozenset({"new"}))

    def test_empty(self) -> None:
        """Only a request for no name at all wants nothing."""
        self.assertTrue(nothing.empty)
        self.assertTrue(exclusive([]).empty)
        for wanted in (all_shared, all_exclusive, shared("a"), opportunistic(None)):
            self.assertFalse(wanted.empty)

    def test_for_certain(self) -> None:
        """``for_certain`` returns the same request without a minimum."""
        self.assertEqual(opportunistic(["a", "b"], 2).for_certain(), exclusive(["a", "b"]))
        self.assertEqual(opportunistic(None, mode=LockMode.SHARED).for_certain(), all_shared)

    def test_nonsense(self) -> None:
        """Combinations that make no sense raise ProgrammerError."""
        new = frozenset({"new"})
        for arguments in (
            {"mode": LockMode.SHARED, "names": new, "creating": new},
            {"mode": LockMode.EXCLUSIVE, "names": None, "creating": new},
            {"mode": LockMode.EXCLUSIVE, "names": frozenset({"old"}), "creating": new},
            {"mode": LockMode.EXCLUSIVE, "names": new, "creating": new, "minimum": 1},
            {"mode": LockMode.EXCLUSIVE, "names": new, "minimum": 0},
        ):
            with self.assertRaises(ProgrammerError):
                WantedLocks(**arguments)


class AgeingTests(SynchronousTestCase):
    def test_half_hours(self) -> None:
        """Each half hour of waiting is one step of priority."""
        self.assertEqual(aged(0, 1799.9), 0)
        self.assertEqual(aged(0, 1800), -1)
        self.assertEqual(aged(10, 5400), 7)

    def test_clock_that_went_back(self) -> None:
        """A clock that was set back makes no request less urgent."""
        self.assertEqual(aged(0, -9000), 0)

    @given(st.integers(-20, 19), st.floats(0, 1e9), st.floats(0, 1e6))
    @settings(deadline=None, max_examples=50, database=None)
    def test_monotone_and_bounded(self, priority: int, waited: float, more: float) -> None:
        """Waiting longer never makes a request less urgent, and the limit is -20."""
        self.assertLessEqual(aged(priority, waited + more), aged(priority, waited))
        self.assertGreaterEqual(aged(priority, waited), -20)
        self.assertEqual(aged(priority, STEP * 100), -20)
