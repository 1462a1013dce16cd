"""What a replacement is going to do, without any node."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.objects import Disk
from ganeti_masterd.logical_units.moves.replacement import (
    ReplacementPlan,
    leftovers,
    on_new_secondary,
    swap,
    unconnected,
    volumes_of,
)


def volume(group: str, name: str, size: int) -> Disk:
    """Returns a volume below a mirror."""
    return Disk(dev_type="plain", logical_id=(group, name), size=size, uuid=name, nodes=("a", "b"))


MIRROR = Disk(
    dev_type="drbd",
    logical_id=("a", "b", 11000, 3, 5, "secret"),
    children=(volume("xenvg", "x.disk0_data", 64), volume("metavg", "x.disk0_meta", 128)),
    nodes=("a", "b"),
    iv_name="disk/0",
    size=64,
    uuid="d",
)


class ReplacementTests(SynchronousTestCase):
    """Names of volumes, and disks on other nodes."""

    def test_swap(self) -> None:
        """New volumes and old ones are told from each other, and from those of other jobs."""
        found = swap(0, MIRROR, 17)
        self.assertEqual(
            volumes_of([found.fresh]), ["xenvg/x.disk0_data_new-17", "metavg/x.disk0_meta_new-17"]
        )
        self.assertEqual(
            volumes_of([found.aside]),
            ["xenvg/x.disk0_data_replaced-17", "metavg/x.disk0_meta_replaced-17"],
        )
        self.assertEqual([child.size for child in found.fresh.children], [64, 128])
        self.assertIs(found.disk, MIRROR)

    def test_leftovers(self) -> None:
        """Those of each broken replacement, whole or not; nothing that only looks alike."""
        mine = [
            "xenvg/x.disk0_data_replaced-17",
            "metavg/x.disk0_meta_replaced-17",
            "xenvg/x.disk0_data_new-18",
        ]
        others = [
            "xenvg/x.disk0_data",
            "metavg/x.disk0_meta",
            "metavg/x.disk0_data_replaced-17",
            "xenvg/y.disk0_data_replaced-17",
            "xenvg/x.disk0_data_replaced-",
            "xenvg/x.disk0_data_replaced-1b",
            "xenvg/x.disk0_data_replaced-17_new-1",
            "xenvg/x.disk0_data_old-17",
            "xenvg/x.disk0_data_replaced-17.snap",
        ]
        found = leftovers(MIRROR, [*others, *mine])
        self.assertEqual(sorted(volumes_of(found)), sorted(mine))
        self.assertEqual(sorted(len(disk.children) for disk in found), [1, 2])
        self.assertEqual(leftovers(MIRROR, others), [])

    def test_new_secondary(self) -> None:
        """The primary comes first, with the minor that it has; port and secret stay."""
        for primary, minor in (("a", 3), ("b", 5)):
            found = on_new_secondary(MIRROR, primary, "c", 7)
            self.assertEqual(found.logical_id, (primary, "c", 11000, minor, 7, "secret"))
            self.assertEqual(found.nodes, (primary, "c"))
            self.assertEqual([child.nodes for child in found.children], [(primary, "c")] * 2)
            self.assertEqual(volumes_of([found]), volumes_of([MIRROR]))

    def test_unconnected(self) -> None:
        """Only the port is missing."""
        self.assertEqual(unconnected(MIRROR).logical_id, ("a", "b", None, 3, 5, "secret"))

    def test_nodes(self) -> None:
        """Each that is used, once."""
        self.assertEqual(ReplacementPlan((0,), "b", "a").nodes, ("b", "a"))
        self.assertEqual(ReplacementPlan((0,), "c", "a", "b").nodes, ("c", "a", "b"))
