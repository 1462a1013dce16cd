"""How locks are asked for while the world moves; no thread, no real time."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.newcluster import new_cluster
from ganeti_masterd.config.store import ConfigStore
from ganeti_masterd.errors import LockError, OpExecError, OpPrereqError
from ganeti_masterd.events import Events
from ganeti_masterd.execution.acquiring import MOVING_WORLD_TRIES, Acquisition
from ganeti_masterd.locking.keeper import LockKeeper
from ganeti_masterd.locking.levels import BGL, Level, WantedLocks, exclusive, nothing, shared
from ganeti_masterd.testing.journal import MemoryJournal
from ganeti_masterd.timing import Timers


class Unit:
    """Wants the group and a node, each as often another as it is asked on another world."""

    def __init__(self) -> None:
        self.held: dict[Level, frozenset[str]] = {}
        self.group = "g0"
        self.node = "n0"

    def locks(self, level: Level, snapshot: Any) -> WantedLocks:
        if level is Level.CLUSTER:
            return shared(BGL)
        if level is Level.NODEGROUP:
            return shared(self.group)
        return exclusive(self.node) if level is Level.NODE else nothing


class Job:
    """Writes down what comes of its locks."""

    job_id = 1

    def __init__(self) -> None:
        self.told: list[str] = []
        self.error: BaseException | None = None

    def priority(self) -> int:
        return 0

    def locks_held(self) -> None:
        self.told.append("held")

    def locks_refused(self, error: BaseException) -> None:
        self.told.append("refused")
        self.error = error

    def locks_awaited(self) -> None:
        self.told.append("awaited")

    def locks_granted(self) -> None:
        self.told.append("granted")


class MovingWorldTests(SynchronousTestCase):
    """The configuration changes during waits."""

    def setUp(self) -> None:
        timers = Timers(Clock())
        self.store = ConfigStore(new_cluster("cluster", 3, 1000.0), MemoryJournal(), timers)
        self.locks = LockKeeper(timers, Events())
        self.locks.populate(Level.NODE, [f"n{n}" for n in range(40)])
        self.locks.populate(Level.NODEGROUP, ["g0", "g1"])
        self.unit: Any = Unit()
        self.job = Job()
        self.acquisition = Acquisition(self.job, self.unit, self.locks, self.store)
        self.locks.acquire(2, Level.CLUSTER, shared(BGL))
        self.locks.acquire(2, Level.NODE, exclusive(f"n{n}" for n in range(40)))

    def move(self) -> None:
        """Changes the configuration."""
        before = self.store.snapshot
        tags = [f"moved{before.header.serial_no}"]
        uuid = before.cluster.uuid
        self.successResultOf(self.store.change(uuid, lambda cluster: cluster.with_tags(tags)))
        self.assertIsNot(self.store.snapshot, before)

    def test_what_was_taken_before_the_wait(self) -> None:
        """A level that was taken before the wait is given back and taken anew."""
        self.acquisition.begin()
        self.assertEqual(self.locks.owned(1, Level.NODEGROUP), {"g0"})
        self.unit.group = "g1"
        self.move()
        self.locks.release(2, Level.NODE)
        self.acquisition.resume()
        self.assertEqual(self.job.told, ["awaited", "granted", "held"])
        self.assertEqual(self.locks.owned(1, Level.NODEGROUP), {"g1"})
        self.assertEqual(self.unit.held[Level.NODEGROUP], {"g1"})
        self.assertEqual(self.locks.owned(1, Level.NODE), {"n0"})

    def test_not_for_ever(self) -> None:
        """A job whose wishes change during every wait is refused after so many."""
        self.acquisition.begin()
        for wait in range(1, MOVING_WORLD_TRIES + 2):
            self.assertIsNone(self.job.error)
            self.unit.node = f"n{wait}"
            self.move()
            self.locks.release(2, Level.NODE, [f"n{n}" for n in range(wait, 40)])
            self.assertEqual(self.job.told[-1], "granted")
            self.acquisition.resume()
        self.assertEqual(self.job.told[-1], "refused")
        self.assertIsInstance(self.job.error, OpExecError)
        self.assertIn("node kept changing", str(self.job.error))

    def test_a_lock_that_is_removed(self) -> None:
        """A job that wants others by then goes on with those."""
        self.acquisition.begin()
        self.unit.node = "n1"
        self.move()
        self.locks.remove_lock(2, Level.NODE, "n0")
        self.assertEqual(self.job.told, ["awaited", "granted"])
        self.acquisition.resume()
        self.assertEqual(self.job.told[-1], "awaited")
        self.locks.release(2, Level.NODE)
        self.acquisition.resume()
        self.assertEqual(self.job.told[-1], "held")
        self.assertEqual(self.locks.owned(1, Level.NODE), {"n1"})

    def test_a_removed_lock_that_is_still_wanted(self) -> None:
        """The unit says what is missing; else the job is told that the lock is gone."""

        def unknown(level: Level, snapshot: object) -> WantedLocks:
            raise OpPrereqError("Node 'n0' not known", "unknown_entity")

        self.acquisition.begin()
        self.locks.remove_lock(2, Level.NODE, "n0")
        self.acquisition.resume()
        self.assertEqual(self.job.told, ["awaited", "granted", "refused"])
        self.assertIsInstance(self.job.error, LockError)
        self.assertIn("node/", str(self.job.error))

        self.setUp()
        self.acquisition.begin()
        self.move()
        self.locks.remove_lock(2, Level.NODE, "n0")
        self.unit.locks = unknown
        self.acquisition.resume()
        self.assertEqual(self.job.told, ["awaited", "granted", "refused"])
        self.assertIsInstance(self.job.error, OpPrereqError)
