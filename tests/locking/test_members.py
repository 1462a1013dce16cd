"""Adding and removing locks, and opportunistic requests."""

from __future__ import annotations

from ganeti_masterd.errors import LockError
from ganeti_masterd.locking.decisions import (
    Granted,
    LockFailed,
    NotEnough,
)
from ganeti_masterd.locking.levels import (
    Level,
    LockMode,
    all_exclusive,
    all_shared,
    exclusive,
    opportunistic,
    shared,
)
from tests.locking.case import NODES, TableCase


class MemberTests(TableCase):
    def test_added_held(self) -> None:
        """A new lock is held alone by the job that adds it."""
        self.table.add(Level.NODE, ["n4"], 1)
        self.assertEqual(self.table.owned_alone(1, Level.NODE), {"n4"})
        self.waits(2, shared("n4"))
        self.assert_granted(self.table.release(1, Level.NODE), 2)

    def test_added_while_a_level_is_held(self) -> None:
        """Owners of a level don't hold locks added later, and adding doesn't wait for them."""
        self.gets(1, all_shared)
        self.table.add(Level.NODE, ["n4"], 2)
        self.assertEqual(self.table.owned(1, Level.NODE), set(NODES))
        self.assertEqual(self.table.owned(2, Level.NODE), {"n4"})
        self.waits(3, all_shared)
        self.assert_granted(self.table.release(2, Level.NODE), 3)
        self.assertEqual(self.table.owned(3, Level.NODE), {*NODES, "n4"})

    def test_added_by_one_who_holds_an_empty_level(self) -> None:
        """An owner that keeps only a lock it added releases the level, which had no members."""
        self.table.request(1, Level.NETWORK, all_shared)
        self.table.add(Level.NETWORK, ["net1"], 1)
        self.table.request(2, Level.NETWORK, exclusive([], creating="net2"))
        self.assert_granted(self.table.release(1, Level.NETWORK, keep=["net1"]), 2)
        self.assertEqual(self.table.owned_alone(1, Level.NETWORK), {"net1"})

    def test_added_twice(self) -> None:
        """An existing lock can't be added."""
        with self.assertRaisesRegex(LockError, "node/n1 already"):
            self.table.add(Level.NODE, ["n1", "n4"], 1)
        self.assertNotIn("n4", self.table.members(Level.NODE))

    def test_adding_needs_the_cluster_lock(self) -> None:
        """A job without the cluster lock, or one that is waiting, can't add a lock."""
        with self.assertRaises(LockError):
            self.table.add(Level.NODE, ["n4"], 99)
        self.gets(1, exclusive("n1"))
        self.waits(2, exclusive("n1"))
        with self.assertRaises(LockError):
            self.table.add(Level.NODE, ["n4"], 2)

    def test_creating(self) -> None:
        """A name can be locked before it exists; it becomes a member when it is added."""
        self.gets(1, exclusive("n1", creating="n4"))
        self.assertEqual(self.table.members(Level.NODE), set(NODES))
        self.waits(2, exclusive([], creating="n4"))
        with self.assertRaisesRegex(LockError, "Another job holds node/n4"):
            self.table.add(Level.NODE, ["n4"], 3)
        self.table.add(Level.NODE, ["n4"], 1)
        self.waits(3, shared("n4"))
        self.assert_granted(self.table.release(1, Level.NODE), 2)

    def test_creating_given_up(self) -> None:
        """A name that was never added leaves nothing behind."""
        self.gets(1, exclusive([], creating="n4"))
        self.table.release(1, Level.NODE)
        with self.assertRaises(LockError):
            self.ask(2, shared("n4"))
        self.assertEqual({state.level for state in self.table.states()}, {Level.CLUSTER})

    def test_creating_waits_for_the_whole_level(self) -> None:
        """Creating a name waits for an owner of the whole level, and the reverse."""
        self.gets(1, all_shared)
        self.waits(2, exclusive([], creating="n4"))
        self.assert_granted(self.table.release(1, Level.NODE), 2)
        self.waits(3, all_shared)

    def test_removed_lock_fails_its_waiters(self) -> None:
        """Requests that name a removed lock fail with an error that names it."""
        self.gets(1, exclusive("n1"))
        self.waits(2, exclusive(["n1", "n2"]))
        self.waits(3, exclusive("n2"))
        self.waits(4, all_shared)
        outcomes = self.table.remove(1, Level.NODE, "n1")
        failed, *granted = outcomes
        assert isinstance(failed, LockFailed)
        self.assertEqual((failed.owner, failed.level), (2, Level.NODE))
        self.assertIn("node/n1", str(failed.error))
        self.assert_granted(granted, 3)
        (last,) = self.table.release(3, Level.NODE)
        self.assertEqual(last, Granted(4, Level.NODE, frozenset({"n2", "n3"})))

    def test_removed_under_one_who_creates(self) -> None:
        """A request to create the name is granted when the lock is removed."""
        self.gets(1, exclusive("n1"))
        self.waits(2, exclusive([], creating="n1"))
        self.assert_granted(self.table.remove(1, Level.NODE, "n1"), 2)

    def test_removed_from_a_level(self) -> None:
        """An owner that holds the level alone may remove members and keeps the level."""
        self.gets(1, all_exclusive)
        self.waits(2, shared("n1"))
        self.waits(3, shared("n2"))
        (failed,) = self.table.remove(1, Level.NODE, "n1")
        self.assertEqual(failed.owner, 2)
        self.assertEqual(self.table.owned(1, Level.NODE), {"n2", "n3"})

    def test_removing_needs_the_lock(self) -> None:
        """Only an owner that holds a lock alone can remove it."""
        self.gets(1, shared("n1"))
        self.gets(2, all_shared)
        for job in (1, 2, 3, 99):
            with self.assertRaisesRegex(LockError, "node/n1"):
                self.table.remove(job, Level.NODE, "n1")
        with self.assertRaisesRegex(LockError, "no lock node/n9"):
            self.table.remove(1, Level.NODE, "n9")


class OpportunisticTests(TableCase):
    def test_takes_what_is_free(self) -> None:
        """Those of the named locks that are free are taken, nothing else."""
        self.gets(1, exclusive("n1"))
        self.assertEqual(self.gets(2, opportunistic(["n1", "n2", "gone"])), {"n2"})
        self.waits(3, shared("n2"))

    def test_not_enough(self) -> None:
        """If fewer than the minimum are free, the owner neither holds nor waits."""
        self.gets(1, exclusive(["n1", "n2"]))
        self.assertEqual(self.ask(2, opportunistic(None, 2)), NotEnough(2, Level.NODE, 1))
        self.assertIsNone(self.table.waits(2))
        self.gets(3, exclusive("n3"))

    def test_does_not_overtake(self) -> None:
        """A free lock that another request waits for is not taken."""
        self.gets(1, exclusive("n1"))
        self.waits(2, exclusive(["n1", "n2"]))
        self.assertEqual(self.gets(3, opportunistic(None)), {"n3"})

    def test_whole_level_in_the_way(self) -> None:
        """No lock is free while another job holds the whole level."""
        self.gets(1, all_shared)
        self.assertEqual(self.ask(2, opportunistic(None)), NotEnough(2, Level.NODE, 0))
        self.assertEqual(self.gets(2, opportunistic(None, 3, mode=LockMode.SHARED)), set(NODES))
