"""Single rules: order, waiting, whole levels and releasing."""

from __future__ import annotations

from ganeti_masterd.errors import LockError
from ganeti_masterd.locking.decisions import (
    Granted,
    Waiting,
)
from ganeti_masterd.locking.levels import (
    BGL,
    Level,
    all_exclusive,
    all_shared,
    exclusive,
    nothing,
    shared,
)
from tests.locking.case import NODES, TableCase


class OrderTests(TableCase):
    def test_cluster_lock_first(self) -> None:
        """No lock is given to a job that doesn't hold the cluster lock."""
        with self.assertRaisesRegex(LockError, "before the cluster lock"):
            self.table.request(77, Level.NODE, exclusive("n1"))
        self.table.release(1, Level.CLUSTER)
        with self.assertRaisesRegex(LockError, "before the cluster lock"):
            self.ask(1, shared("n1"))

    def test_cluster_lock_last(self) -> None:
        """The cluster lock can't be released while anything else is held or waited for."""
        self.gets(1, exclusive("n1"))
        self.waits(2, exclusive("n1"))
        for job in (1, 2):
            with self.assertRaisesRegex(LockError, "before all others"):
                self.table.release(job, Level.CLUSTER)
        self.table.release(1, Level.NODE)
        self.table.release(1, Level.CLUSTER)
        self.assertEqual(self.table.owned(1, Level.CLUSTER), frozenset())

    def test_downwards_only(self) -> None:
        """A level at or above one that is held can't be asked for."""
        self.gets(1, shared("n1"))
        for level in (Level.CLUSTER, Level.INSTANCE, Level.NODEGROUP):
            with self.assertRaisesRegex(LockError, "while it holds node"):
                self.table.request(1, level, nothing)
        self.assertIsInstance(self.table.request(1, Level.NETWORK, nothing), Granted)

    def test_no_double_acquire(self) -> None:
        """Nothing is taken twice, not even shared."""
        self.gets(1, shared("n1"))
        for wanted in (shared("n1"), exclusive("n1"), shared("n2"), all_shared):
            with self.assertRaises(LockError):
                self.ask(1, wanted)
        self.assertEqual(self.table.owned(1, Level.NODE), {"n1"})

    def test_one_request_at_a_time(self) -> None:
        """A job that waits can't ask for more."""
        self.gets(1, exclusive("n1"))
        self.waits(2, exclusive("n1"))
        with self.assertRaisesRegex(LockError, "already waiting for locks"):
            self.table.request(2, Level.NETWORK, nothing)

    def test_unknown_name(self) -> None:
        """A name that isn't a member is refused by name, and nothing is held."""
        with self.assertRaisesRegex(LockError, "no lock node/n9"):
            self.ask(1, exclusive(["n1", "n9"]))
        self.assertEqual(self.table.owned(1, Level.NODE), frozenset())
        self.gets(2, exclusive("n1"))

    def test_one_lock_at_the_cluster_level(self) -> None:
        """The cluster level has one lock, which can be neither added nor removed."""
        for wanted in (all_shared, exclusive("other"), exclusive(BGL, creating="other")):
            with self.assertRaises(LockError):
                self.table.request(77, Level.CLUSTER, wanted)
        with self.assertRaises(LockError):
            self.table.add(Level.CLUSTER, ["other"])
        with self.assertRaises(LockError):
            self.table.remove(1, Level.CLUSTER, BGL)

    def test_nothing_is_nothing(self) -> None:
        """A request for nothing is granted at once and holds nothing."""
        self.gets(1, all_exclusive)
        self.assertEqual(self.gets(2, nothing), frozenset())
        self.assertEqual(self.gets(2, nothing), frozenset())


class QueueTests(TableCase):
    def test_sharers_share(self) -> None:
        """Any number of jobs share a lock."""
        for job in (1, 2, 3):
            self.gets(job, shared("n1"))

    def test_exclusive_excludes(self) -> None:
        """A lock held alone excludes all others, which then get it in order."""
        self.gets(1, exclusive("n1"))
        self.waits(2, exclusive("n1"))
        self.waits(3, exclusive("n1"))
        self.assert_granted(self.table.release(1, Level.NODE), 2)
        self.assert_granted(self.table.release(2, Level.NODE), 3)

    def test_sharer_does_not_overtake(self) -> None:
        """A waiting exclusive request blocks sharers that come later."""
        self.gets(1, shared("n1"))
        self.waits(2, exclusive("n1"))
        self.waits(3, shared("n1"))
        self.assertEqual(self.table.release(4, Level.NODE), [])
        self.assert_granted(self.table.release(1, Level.NODE), 2)
        self.assert_granted(self.table.release(2, Level.NODE), 3)

    def test_more_urgent_sharer_overtakes(self) -> None:
        """A sharer with a higher priority overtakes a waiting exclusive request."""
        self.gets(1, shared("n1"))
        self.waits(2, exclusive("n1"))
        self.gets(3, shared("n1"), -1)

    def test_priority_order(self) -> None:
        """The more urgent request is granted first, whenever it arrived."""
        self.gets(1, exclusive("n1"))
        for job, priority in ((2, 10), (3, 0), (4, -10), (5, 0)):
            self.waits(job, exclusive("n1"), priority)
        order = [1]
        while len(order) < 5:
            (granted,) = self.table.release(order[-1], Level.NODE)
            order.append(granted.owner)
        self.assertEqual(order, [1, 4, 3, 5, 2])

    def test_sharers_are_grouped(self) -> None:
        """A late sharer joins those that wait for the same locks, before requests in between."""
        self.gets(1, exclusive("n1"))
        self.waits(2, shared("n1"))
        self.waits(3, exclusive("n1"))
        self.waits(4, shared("n1"))
        self.waits(5, shared("n1"), 1)
        self.assert_granted(self.table.release(1, Level.NODE), 2, 4)
        self.table.release(2, Level.NODE)
        self.assert_granted(self.table.release(4, Level.NODE), 3)
        self.assert_granted(self.table.release(3, Level.NODE), 5)

    def test_whole_or_not_at_all(self) -> None:
        """A request that waits for one lock holds none of the others."""
        self.gets(1, exclusive("n1"))
        self.waits(2, exclusive(["n1", "n2"]))
        self.assertEqual(self.table.owned(2, Level.NODE), frozenset())
        self.waits(3, exclusive("n2"))
        self.assert_granted(self.table.release(1, Level.NODE), 2)
        self.assert_granted(self.table.release(2, Level.NODE), 3)

    def test_no_starvation(self) -> None:
        """Two jobs that take turns can't starve one that wants both locks."""
        self.gets(1, exclusive("n1"))
        self.gets(2, exclusive("n2"))
        self.waits(3, exclusive(["n1", "n2"]))
        self.assertEqual(self.table.release(1, Level.NODE), [])
        self.waits(1, exclusive("n1"))
        self.assert_granted(self.table.release(2, Level.NODE), 3)

    def test_independent_locks_pass(self) -> None:
        """A request that conflicts with nobody doesn't wait."""
        self.gets(1, exclusive("n1"))
        self.waits(2, exclusive(["n1", "n2"]))
        self.gets(3, exclusive("n3"))

    def test_set_priority(self) -> None:
        """A request moves to the end of its new priority, and may thereby be granted."""
        self.gets(1, exclusive("n1"))
        self.waits(2, exclusive(["n1", "n2"]))
        self.waits(3, exclusive("n2"))
        self.assert_granted(self.table.set_priority(3, -5), 3)
        self.assertEqual(self.table.set_priority(3, 5), [])

    def test_lowered_priority_lets_others_go(self) -> None:
        """A request that is made less urgent no longer blocks the one behind it."""
        self.gets(1, exclusive("n1"))
        self.waits(2, exclusive(["n1", "n2"]))
        self.waits(3, exclusive("n2"))
        self.assert_granted(self.table.set_priority(2, 5), 3)

    def test_cancel(self) -> None:
        """A cancelled request no longer blocks those behind it."""
        self.gets(1, shared("n1"))
        self.waits(2, exclusive("n1"))
        self.waits(3, shared("n1"))
        self.assert_granted(self.table.cancel(2), 3)
        self.assertIsNone(self.table.waits(2))
        self.assertEqual(self.table.cancel(2), [])
        self.assertEqual(self.table.cancel(99), [])

    def test_cancel_of_a_sharer(self) -> None:
        """Cancelling a sharer grants the requests that it blocked at one of its locks."""
        self.gets(1, exclusive("n1"))
        self.waits(2, shared(["n1", "n2"]))
        self.waits(3, exclusive("n2"))
        self.assert_granted(self.table.cancel(2), 3)

    def test_cluster_lock_alone(self) -> None:
        """A request for the cluster lock alone waits for all holders and isn't overtaken."""
        self.assertIsInstance(self.table.request(20, Level.CLUSTER, exclusive(BGL)), Waiting)
        self.assertIsInstance(self.table.request(21, Level.CLUSTER, shared(BGL)), Waiting)
        for job in range(1, 9):
            self.assertEqual(self.table.release_all(job), [])
        self.assert_granted(self.table.release_all(9), 20)
        self.assert_granted(self.table.release_all(20), 21)


class WholeLevelTests(TableCase):
    def test_covers_every_member(self) -> None:
        """A whole level is granted as the names of its members."""
        self.assertEqual(self.gets(1, all_shared), set(NODES))
        self.gets(2, shared("n1"))
        self.gets(3, all_shared)
        self.waits(4, exclusive("n1"))

    def test_waits_for_members(self) -> None:
        """A request for a whole level waits for each member that is held in conflict."""
        self.gets(1, exclusive("n1"))
        self.gets(2, shared("n2"))
        self.waits(3, all_shared)
        self.waits(4, all_exclusive)
        self.assert_granted(self.table.release(1, Level.NODE), 3)
        self.table.release(2, Level.NODE)
        self.assert_granted(self.table.release(3, Level.NODE), 4)

    def test_is_not_starved(self) -> None:
        """A waiting request for a whole level blocks later requests for a member."""
        self.gets(1, shared("n1"))
        self.waits(2, all_exclusive)
        self.waits(3, shared("n1"))
        self.waits(4, exclusive("n2"))
        self.assert_granted(self.table.release(1, Level.NODE), 2)
        self.assert_granted(self.table.release(2, Level.NODE), 3, 4)

    def test_does_not_overtake(self) -> None:
        """A request for a whole level waits behind an earlier request for a member."""
        self.gets(1, shared("n1"))
        self.waits(2, exclusive("n1"))
        self.waits(3, all_shared)
        self.assert_granted(self.table.cancel(2), 3)

    def test_does_not_overtake_sharers(self) -> None:
        """A request for the whole level alone waits behind an earlier sharer."""
        self.gets(1, exclusive("n1"))
        self.gets(9, exclusive("n2"))
        self.waits(2, shared(["n1", "n2"]))
        self.waits(3, all_exclusive)
        self.assertEqual(self.table.release(1, Level.NODE), [])
        self.assert_granted(self.table.release(9, Level.NODE), 2)
        self.assert_granted(self.table.release(2, Level.NODE), 3)

    def test_cancel(self) -> None:
        """Cancelling a request for a whole level grants those that it blocked."""
        self.gets(1, shared("n1"))
        self.waits(2, all_exclusive)
        self.waits(3, shared("n1"))
        self.waits(4, all_shared)
        self.waits(5, exclusive("n2"))
        self.assert_granted(self.table.cancel(2), 3, 4)
        self.table.release(3, Level.NODE)
        self.assert_granted(self.table.release(4, Level.NODE), 5)

    def test_cancel_of_a_shared_level(self) -> None:
        """Cancelling a request to share a level grants those for some of it alone."""
        self.gets(1, exclusive("n1"))
        self.waits(2, all_shared)
        self.waits(3, exclusive("n2"))
        self.assert_granted(self.table.cancel(2), 3)

    def test_an_empty_level(self) -> None:
        """Two requests for a level alone exclude each other even if it has no members."""
        self.assertIsInstance(self.table.request(1, Level.NETWORK, all_exclusive), Granted)
        self.assertIsInstance(self.table.request(2, Level.NETWORK, all_exclusive), Waiting)
        self.assert_granted(self.table.release(1, Level.NETWORK), 2)

    def test_keeping_some(self) -> None:
        """An owner that keeps some members of a whole level holds only those from then on."""
        self.gets(1, all_exclusive)
        self.waits(2, exclusive("n2"))
        self.waits(3, exclusive("n1"))
        self.assert_granted(self.table.release(1, Level.NODE, keep=["n1"]), 2)
        self.assertEqual(self.table.owned(1, Level.NODE), {"n1"})
        self.assert_granted(self.table.release(1, Level.NODE), 3)

    def test_keeping_all(self) -> None:
        """An owner that keeps every member keeps the level."""
        self.gets(1, all_exclusive)
        self.waits(2, all_shared)
        self.assertEqual(self.table.release(1, Level.NODE, keep=NODES), [])
        self.assertEqual(self.table.owned(1, Level.NODE), set(NODES))


class GivingBackTests(TableCase):
    def test_release_of_some(self) -> None:
        """Locks that aren't kept are free for others at once."""
        self.gets(1, exclusive(NODES))
        self.waits(2, exclusive("n1"))
        self.waits(3, exclusive("n3"))
        self.assert_granted(self.table.release(1, Level.NODE, keep=["n1", "elsewhere"]), 3)
        self.assertEqual(self.table.owned(1, Level.NODE), {"n1"})

    def test_release_of_nothing(self) -> None:
        """Releasing locks that aren't held does nothing."""
        self.assertEqual(self.table.release(1, Level.NODE), [])
        self.assertEqual(self.table.release(99, Level.NODE), [])
        self.assertEqual(self.table.release_all(99), [])

    def test_downgrade_wakes_sharers(self) -> None:
        """Downgrading a lock lets sharers in, but not exclusive requests."""
        self.gets(1, exclusive(["n1", "n2"]))
        self.waits(2, shared("n1"))
        self.waits(3, shared("n2"))
        self.waits(4, exclusive("n1"))
        self.assert_granted(self.table.downgrade(1, Level.NODE, ["n1"]), 2)
        self.assertEqual(self.table.owned_alone(1, Level.NODE), {"n2"})
        self.assert_granted(self.table.downgrade(1, Level.NODE), 3)
        self.assertEqual(self.table.downgrade(1, Level.NODE), [])

    def test_downgrade_of_a_level(self) -> None:
        """A whole level is downgraded as a whole."""
        self.gets(1, all_exclusive)
        self.waits(2, all_shared)
        self.waits(3, shared("n1"))
        with self.assertRaisesRegex(LockError, "whole level"):
            self.table.downgrade(1, Level.NODE, ["n1"])
        self.assert_granted(self.table.downgrade(1, Level.NODE), 2, 3)

    def test_downgrade_of_what_is_not_held(self) -> None:
        """Only locks that are held can be downgraded."""
        with self.assertRaisesRegex(LockError, "node/n1"):
            self.table.downgrade(1, Level.NODE, ["n1"])
        self.gets(1, exclusive("n1"))
        with self.assertRaisesRegex(LockError, "node/n2"):
            self.table.downgrade(1, Level.NODE, ["n1", "n2"])
        self.assertEqual(self.table.owned_alone(1, Level.NODE), {"n1"})
        self.assertEqual(self.table.downgrade(99, Level.NODE), [])

    def test_release_all(self) -> None:
        """All levels are released and the waiting request is cancelled."""
        self.table.request(1, Level.INSTANCE, exclusive("inst1"))
        self.table.request(2, Level.INSTANCE, shared("inst1"))
        self.gets(3, exclusive("n1"))
        self.waits(1, exclusive(["n1", "n2"]))
        self.waits(4, exclusive("n2"))
        self.assert_granted(self.table.release_all(1), 4, 2)
        for level in Level:
            self.assertEqual(self.table.owned(1, level), frozenset())
        self.assertIsNone(self.table.waits(1))
