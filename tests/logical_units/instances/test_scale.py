"""What an opcode on one instance costs doesn't depend on how many others there are."""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.store import ConfigStore
from ganeti_masterd.locking.levels import Level
from ganeti_masterd.testing.journal import MemoryJournal
from tests.logical_units.cluster import with_instance
from tests.logical_units.world import World
from tests.work import calls_of

NODES = 20


def crowded(instances: int) -> World:
    """Returns a cluster with so many instances more."""
    world = World(NODES)
    now = world.now
    for number in range(instances):
        now = with_instance(now, f"other{number}", [f"node{number % NODES + 1}"])
        world.locks.add_lock(Level.INSTANCE, f"other{number}")
    world.store = ConfigStore(now, MemoryJournal(), world.timers)
    return world


def create(world: World, name: str) -> Any:
    """Creates a mirrored instance."""
    return world.run(
        "OP_INSTANCE_CREATE",
        instance_name=name,
        mode="create",
        disk_template="drbd",
        disks=[{"size": 128}],
        nics=[{}],
        os_type="noop",
        name_check=False,
        ip_check=False,
        pnode="node5",
        snode="node6",
    )


class ScaleTests(SynchronousTestCase):
    """Calls of functions, counted on a small cluster and on a large one."""

    def test_one_instance(self) -> None:
        """Creating, stopping, starting and removing an instance among 500 costs as among 5."""
        costs: list[dict[str, int]] = []
        for instances in (5, 500):
            world = crowded(instances)
            # Indexes of the configuration are made once, whoever needs them first.
            for name in ("first", "one"):
                cost = {"create": calls_of(create, world, name)[1]}
                for action in ("SHUTDOWN", "STARTUP", "REMOVE"):
                    op_id = f"OP_INSTANCE_{action}"
                    run = partial(world.run, op_id, instance_name=name)
                    cost[action] = calls_of(run)[1]
            costs.append(cost)
            self.assertEqual(world.faults(), [])
        few, many = costs
        for action, calls in few.items():
            self.assertLess(many[action], 1.1 * calls, action)
