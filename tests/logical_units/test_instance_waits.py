"""Which opcodes wait for others on the same node, and how long."""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.objects import Instance
from tests.logical_units.made import made_instance
from tests.logical_units.world import MustWait, World

OTHER = "other.example.com"


class WaitTests(SynchronousTestCase):
    """An instance's start never waits for another's disks to be wiped or synchronized."""

    def setUp(self) -> None:
        self.world = World()
        self.world.run("OP_CLUSTER_SET_PARAMS", prealloc_wipe_disks=True)
        made_instance(self.world, name=OTHER)
        #: For each call to a node: whether the disks were published, and a start had to wait.
        self.seen: list[tuple[bool, bool]] = []

    def watch(self, published: Callable[[], bool]) -> None:
        """Starts the other instance at each call to a node of the opcode that follows."""

        def attempt() -> None:
            rest, self.world.meanwhile[:] = list(self.world.meanwhile), []
            there = published()
            try:
                self.world.run("OP_INSTANCE_STARTUP", instance_name=OTHER)
                self.seen.append((there, False))
            except MustWait:
                self.seen.append((there, True))
            self.world.meanwhile[:] = rest

        self.world.meanwhile += [attempt] * 60

    def check(self) -> None:
        """It waited before, and never after."""
        self.world.meanwhile.clear()
        self.assertIn((False, True), self.seen)
        self.assertIn((True, False), self.seen)
        self.assertNotIn((True, True), self.seen)
        self.assertEqual(self.world.faults(), [])

    def test_creation(self) -> None:
        """It waits until the disks are made, and no longer."""
        self.watch(lambda: self.world.now.lookup("instance", "web9") is not None)
        self.world.run(
            "OP_INSTANCE_CREATE",
            instance_name="web9",
            mode="create",
            disk_template="drbd",
            disks=[{"size": 64}],
            nics=[],
            pnode="node2",
            snode="node3",
            os_type="noop",
            name_check=False,
            ip_check=False,
            start=False,
        )
        self.check()

    def test_growth(self) -> None:
        """It waits until the disk has grown."""
        made: Instance = made_instance(self.world, "drbd")
        (disk,) = made.disks
        self.watch(lambda: self.world.now.disks[disk].size > 64)
        self.world.run("OP_INSTANCE_GROW_DISK", instance_name=made.name, disk=0, amount=64)
        self.check()
