"""OP_INSTANCE_SET_PARAMS converts disks."""

from __future__ import annotations

from typing import Any

from tests.logical_units.instances.modifying import ModifyCase, plain
from tests.logical_units.instances.test_modifying_disks import files, mirrored
from tests.logical_units.world import World


class HalfWayConversionTests(ModifyCase):
    """Conversions that fail or are killed anywhere: one template or the other, with the data."""

    def attempt(self, make: Any, **changes: Any) -> None:
        world = World()
        make(world)
        sizes = [disk.size for disk in world.now.disks_of(world.now.instance("db.example.com"))]
        kinds = (make, changes["disk_template"])

        def check(where: str) -> None:
            self.assertEqual([disk.size for disk in self.disks], sizes, where)
            self.assertEqual(self.contents(), [f"disk {n}" for n in range(len(sizes))], where)
            self.assertEqual(len({disk.dev_type for disk in self.disks}), 1, (kinds, where))

        self.killed_everywhere(make, check, **changes)
        self.broken_everywhere(make, check, **changes)

    def test_mirrors(self) -> None:
        self.attempt(plain, disk_template="drbd", remote_node="node4")

    def test_mirrors_allocated(self) -> None:
        self.attempt(plain, disk_template="drbd")

    def test_no_mirrors(self) -> None:
        self.attempt(mirrored, disk_template="plain")

    def test_copies(self) -> None:
        self.attempt(plain, disk_template="file")
        self.attempt(files, disk_template="plain")
        self.attempt(mirrored, disk_template="file")
        self.attempt(files, disk_template="drbd", remote_node="node4")
