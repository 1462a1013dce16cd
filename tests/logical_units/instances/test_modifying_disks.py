"""OP_INSTANCE_SET_PARAMS changes disks."""

from __future__ import annotations

from typing import Any

from tests.logical_units.instances.modifying import ModifyCase, plain
from tests.logical_units.made import made_instance
from tests.logical_units.world import World


def mirrored(world: World) -> None:
    """Makes an instance with a DRBD disk."""
    made_instance(world, "drbd")


def files(world: World) -> None:
    """Makes an instance with two files."""
    made_instance(world, "file", sizes=(64, 32))


MAKERS = (plain, mirrored, files)


class HalfWayDisksTests(ModifyCase):
    """Changes of disks that fail or are killed anywhere."""

    def whole(self, *shapes: list[Any]) -> Any:
        def check(where: str) -> None:
            found = [disk.size for disk in self.disks]
            self.assertIn(found, shapes, where)
            names = [disk.iv_name for disk in self.disks]
            self.assertEqual(names, [f"disk/{index}" for index in range(len(found))], where)

        return check

    def test_add(self) -> None:
        for make in MAKERS:
            sizes = [64] if make is mirrored else [64, 32]
            check = self.whole(sizes, [16, *sizes])
            self.killed_everywhere(make, check, disks=[["add", 0, {"size": 16}]])
            self.broken_everywhere(make, check, disks=[["add", 0, {"size": 16}]])

    def test_remove(self) -> None:
        for make in MAKERS:
            sizes = [64] if make is mirrored else [64, 32]
            check = self.whole(sizes, sizes[1:])
            self.killed_everywhere(make, check, disks=[["remove", 0, {}]])
            self.broken_everywhere(make, check, disks=[["remove", 0, {}]])

    def test_detach_and_attach(self) -> None:
        for make in MAKERS:
            sizes = [64] if make is mirrored else [64, 32]
            check = self.whole(sizes, sizes[1:])
            self.killed_everywhere(make, check, disks=[["detach", 0, {}]])
            self.broken_everywhere(make, check, disks=[["detach", 0, {}]])

            def detached(world: World, make: Any = make) -> None:
                make(world)
                self.modify(disks=[["modify", 0, {"name": "x"}], ["detach", 0, {}]])
                world.lines.clear()

            check = self.whole(sizes[1:], [*sizes[1:], 64])
            self.killed_everywhere(detached, check, disks=[["attach", -1, {"name": "x"}]])
            self.broken_everywhere(detached, check, disks=[["attach", -1, {"name": "x"}]])
