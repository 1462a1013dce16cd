"""Storage units and volumes of nodes: OP_NODE_QUERY_STORAGE, OP_NODE_QUERYVOLS and changes."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from ganeti_masterd.config.objects import Disk
from ganeti_masterd.errors import OpExecError
from ganeti_masterd.locking.levels import Level, all_shared, exclusive, shared
from ganeti_masterd.logical_units.nodes.volumes import volume_owners
from ganeti_masterd.testing.context import SynchronousContext
from ganeti_masterd.testing.nodes import Failed
from tests.logical_units.nodes.scene import NodeScene

VOLUME = {"name": "disk0", "size": "1024.00", "dev": "/dev/sdb", "vg": "xenvg"}


class ListTests(NodeScene):
    """OP_NODE_QUERY_STORAGE."""

    def listed(self, *fields: str, **parameters: Any) -> Any:
        return self.run_unit("OP_NODE_QUERY_STORAGE", output_fields=fields, **parameters)

    def test_refusals(self) -> None:
        """Unknown fields and nodes, and kinds that aren't in use."""
        op = "OP_NODE_QUERY_STORAGE"
        self.assertEqual(
            self.refusal(op, output_fields=["name", "x", "y"]),
            ("Unknown output fields selected: x,y", "wrong_input"),
        )
        self.assertEqual(
            self.refusal(op, output_fields=["name"], nodes=["nosuch"])[1], "unknown_entity"
        )
        self.alter_cluster(enabled_disk_templates=("diskless", "file"))
        for kind, meant in (("rados", "rados"), ("lvm-vg", "lvm-vg"), ("lvm-pv", "lvm-vg")):
            self.assertEqual(
                self.refusal(op, output_fields=["name"], storage_type=kind),
                (
                    f"No disk template of storage type '{meant}' is enabled in this cluster."
                    " Enabled disk templates are: diskless,file",
                ),
            )

    def test_default_kind(self) -> None:
        """Without a kind it is the one of the first template, if nodes can tell about it."""
        (text,) = self.refusal("OP_NODE_QUERY_STORAGE", output_fields=["name"])
        self.assertTrue(
            text.startswith("Storage reporting for storage type 'diskless' is not supported.")
        )
        self.alter_cluster(enabled_disk_templates=("drbd", "diskless"))
        self.nodes.answers["storage_list"] = [["xenvg"]]
        self.assertEqual(self.listed("type", nodes=["node2"]), [["lvm-vg"]])
        self.assertEqual(self.nodes.asked[0].arguments, ["lvm-vg", [], None, ["name"]])

    def test_rows(self) -> None:
        """Rows are in natural order of nodes and units, with the fields in the order asked."""
        self.nodes.answers["storage_list"] = lambda target, arguments: [["vg10", 5], ["vg2", 7]]
        rows = self.listed(
            "size", "node", "name", "type", storage_type="lvm-vg", nodes=["node3", "node2", "node3"]
        )
        self.assertEqual(
            rows,
            [
                [7, "node2", "vg2", "lvm-vg"],
                [5, "node2", "vg10", "lvm-vg"],
                [7, "node3", "vg2", "lvm-vg"],
                [5, "node3", "vg10", "lvm-vg"],
            ],
        )

    def test_directories(self) -> None:
        """Nodes are told the cluster's directory of files."""
        self.nodes.answers["storage_list"] = []
        for kind in ("file", "sharedfile", "gluster"):
            self.alter_cluster(enabled_disk_templates=(kind,))
            self.listed("free", storage_type=kind, name="x")
            cluster = self.ctx.snapshot().cluster
            directory = {
                "file": cluster.file_storage_dir,
                "sharedfile": cluster.shared_file_storage_dir,
                "gluster": cluster.gluster_storage_dir,
            }[kind]
            self.assertEqual(
                self.nodes.asked[0].arguments, [kind, [[directory]], "x", ["name", "free"]]
            )

    def test_failures(self) -> None:
        """Nodes that fail are named, those that are offline are not."""
        self.alter("node4", offline=True)
        self.nodes.answers["storage_list"] = [["xenvg"]]
        self.nodes.answers["node2", "storage_list"] = Failed("no lvm")
        self.nodes.answers["node3", "storage_list"] = [["xenvg", 1]]
        self.assertEqual(self.listed("node", storage_type="lvm-vg"), [["node1"]])
        self.assertEqual(
            self.ctx.lines,
            [
                " - WARNING: Can't get storage data from node node2: no lvm",
                " - WARNING: Can't get storage data from node node3: what it says makes no sense",
            ],
        )

    def test_locks(self) -> None:
        """The nodes are shared, or all of them."""
        unit = self.unit("OP_NODE_QUERY_STORAGE", output_fields=["name"])
        self.assertEqual(self.wanted(unit)[Level.NODE], all_shared)
        unit = self.unit("OP_NODE_QUERY_STORAGE", output_fields=["name"], nodes=["node2"])
        self.assertEqual(self.wanted(unit)[Level.NODE], shared(self.node("node2").uuid))


class ModifyTests(NodeScene):
    """OP_NODE_MODIFY_STORAGE."""

    PARAMETERS = {
        "node_name": "node2",
        "storage_type": "lvm-pv",
        "name": "/dev/sda2",
        "changes": {"allocatable": False},
    }

    def refused(self, **parameters: Any) -> tuple[Any, ...]:
        return self.refusal("OP_NODE_MODIFY_STORAGE", **{**self.PARAMETERS, **parameters})

    def test_refusals(self) -> None:
        """Kinds and fields that can't be changed, kinds that aren't in use, unknown nodes."""
        self.assertEqual(
            self.refused(storage_type="lvm-vg"),
            ("Storage units of type 'lvm-vg' can not be modified", "wrong_input"),
        )
        text, code = self.refused(changes={"size": 1, "allocatable": True})
        self.assertEqual(code, "wrong_input")
        self.assertTrue(text.endswith("of type 'lvm-pv': ['size']"))
        self.assertEqual(self.refused(node_name="nosuch")[1], "unknown_entity")
        self.alter_cluster(enabled_disk_templates=("file",))
        self.assertIn("is enabled in this cluster", self.refused()[0])

    def test_success(self) -> None:
        """The node does it, and is held meanwhile."""
        unit = self.unit("OP_NODE_MODIFY_STORAGE", **self.PARAMETERS)
        self.assertEqual(self.wanted(unit)[Level.NODE], exclusive(self.node("node2").uuid))
        self.assertIsNone(self.run_unit("OP_NODE_MODIFY_STORAGE", **self.PARAMETERS))
        (call,) = self.nodes.asked
        self.assertEqual((call.node, call.procedure), ("node2", "storage_modify"))
        self.assertEqual(call.arguments, ["lvm-pv", [], "/dev/sda2", {"allocatable": False}])

    def test_failure(self) -> None:
        """A node that fails is named with the unit."""
        self.nodes.answers["storage_modify"] = Failed("no such volume")
        error = self.assertRaises(
            OpExecError, self.run_unit, "OP_NODE_MODIFY_STORAGE", **self.PARAMETERS
        )
        self.assertIn("Failed to modify storage unit '/dev/sda2' on node2", error.args[0])


class RepairTests(NodeScene):
    """OP_REPAIR_NODE_STORAGE."""

    PARAMETERS = {"node_name": "node2", "storage_type": "lvm-vg", "name": "xenvg"}

    def repair(self, **parameters: Any) -> Any:
        return self.run_unit("OP_REPAIR_NODE_STORAGE", **{**self.PARAMETERS, **parameters})

    def refused(self, **parameters: Any) -> tuple[Any, ...]:
        return self.refusal("OP_REPAIR_NODE_STORAGE", **{**self.PARAMETERS, **parameters})

    def test_refusals(self) -> None:
        """Kinds that can't be repaired or aren't in use, unknown nodes."""
        self.assertEqual(
            self.refused(storage_type="lvm-pv"),
            ("Storage units of type 'lvm-pv' can not be repaired", "wrong_input"),
        )
        self.assertEqual(self.refused(node_name="nosuch")[1], "unknown_entity")
        self.alter_cluster(enabled_disk_templates=("file",))
        self.assertIn("is enabled in this cluster", self.refused()[0])

    def test_success(self) -> None:
        """The node does it, and is held meanwhile."""
        unit = self.unit("OP_REPAIR_NODE_STORAGE", **self.PARAMETERS)
        self.assertEqual(self.wanted(unit)[Level.NODE], exclusive(self.node("node2").uuid))
        self.repair()
        (call,) = self.nodes.asked
        self.assertEqual(call.arguments, ["lvm-vg", [], "xenvg", "fix-consistency"])
        self.assertEqual(self.ctx.lines, ["Repairing storage unit 'xenvg' on node2 ..."])

    def test_failure(self) -> None:
        """A node that fails is named with the unit."""
        self.nodes.answers["storage_execute"] = Failed("broken")
        error = self.assertRaises(OpExecError, self.repair)
        self.assertIn("Failed to repair storage unit 'xenvg' on node2", error.args[0])

    def test_other_half(self) -> None:
        """A disk whose other half is faulty, or can't be asked, forbids it unless ignored."""
        self.add_instance("node2", "node3", disks_active=True)
        status = {"dev_path": "/dev/drbd0", "ldisk_status": 4}
        self.nodes.answers["blockdev_getmirrorstatus"] = [status]
        self.assertEqual(
            self.refused(),
            ("Instance 'web.example.com' has faulty disks on node 'node3'", "wrong_state"),
        )
        self.assertEqual(
            [call for call in self.calls() if call[1] == "blockdev_getmirrorstatus"],
            [("node3", "blockdev_getmirrorstatus")],
        )
        self.repair(ignore_consistency=True)
        self.assertIn("has faulty disks", self.ctx.lines[0])
        self.nodes.answers["blockdev_getmirrorstatus"] = Failed("no route")
        self.assertEqual(
            self.refused(),
            ("Failed to get disk status from node node3: no route", "environment_error"),
        )

    def test_sound_or_idle(self) -> None:
        """Sound halves, and disks that aren't in use, are no obstacle."""
        self.add_instance("node2", "node3", disks_active=True)
        self.nodes.answers["blockdev_getmirrorstatus"] = [
            {"dev_path": "/dev/drbd0", "ldisk_status": 1}
        ]
        self.repair()
        self.ctx.change("i-web.example.com", lambda now: replace(now, disks_active=False))
        self.nodes.answers["blockdev_getmirrorstatus"] = Failed("no route")
        self.repair()


class VolumeTests(NodeScene):
    """OP_NODE_QUERYVOLS."""

    FIELDS = ("node", "phys", "vg", "name", "size", "instance")

    def test_refusals(self) -> None:
        """Unknown fields and nodes."""
        self.assertEqual(
            self.refusal("OP_NODE_QUERYVOLS", output_fields=["x"]),
            ("Unknown output fields selected: x", "wrong_input"),
        )
        self.assertEqual(
            self.refusal("OP_NODE_QUERYVOLS", output_fields=["vg"], nodes=["x"])[1],
            "unknown_entity",
        )

    def test_rows(self) -> None:
        """Volumes are texts, each node's by device, with the instance that has them."""
        disk = Disk(
            dev_type="plain",
            size=1024,
            logical_id=("xenvg", "disk0"),
            nodes=(self.node("node2").uuid,),
            iv_name="disk/0",
            uuid="d-1",
        )
        self.add_instance("node2")
        snapshot = self.ctx.snapshot().with_object("disks", disk)
        instance = snapshot.instance("web.example.com")
        snapshot = snapshot.with_object("instances", replace(instance, disks=("d-1",)))
        self.ctx = SynchronousContext(snapshot, self.nodes)
        self.nodes.answers["node_volumes"] = [
            VOLUME,
            {**VOLUME, "dev": "/dev/sda", "name": "swap", "size": "512.50"},
        ]
        rows = self.run_unit("OP_NODE_QUERYVOLS", output_fields=self.FIELDS, nodes=["node2"])
        self.assertEqual(
            rows,
            [
                ["node2", "/dev/sda", "xenvg", "swap", "512", "-"],
                ["node2", "/dev/sdb", "xenvg", "disk0", "1024", "web.example.com"],
            ],
        )

    def test_failures(self) -> None:
        """Nodes that fail are named, those that are offline are not."""
        self.alter("node4", offline=True)
        self.nodes.answers["node_volumes"] = [VOLUME]
        self.nodes.answers["node2", "node_volumes"] = Failed("no lvm")
        self.nodes.answers["node3", "node_volumes"] = [{"name": "x"}]
        rows = self.run_unit("OP_NODE_QUERYVOLS", output_fields=["node"])
        self.assertEqual(rows, [["node1"]])
        self.assertEqual(
            self.ctx.lines,
            [
                " - WARNING: Can't compute volume data on node node2: no lvm",
                " - WARNING: Can't compute volume data on node node3: what it says makes no sense",
            ],
        )

    def test_locks(self) -> None:
        """The nodes are shared, or all of them."""
        unit = self.unit("OP_NODE_QUERYVOLS", output_fields=["vg"])
        self.assertEqual(self.wanted(unit)[Level.NODE], all_shared)
        unit = self.unit("OP_NODE_QUERYVOLS", output_fields=["vg"], nodes=["node2"])
        self.assertEqual(self.wanted(unit)[Level.NODE], shared(self.node("node2").uuid))

    def test_owners_below_mirrors(self) -> None:
        """The volumes below a mirror are its instance's, on both nodes."""
        children = tuple(
            Disk(dev_type="plain", size=1, logical_id=("vg", name), uuid=name)
            for name in ("data", "meta")
        )
        self.add_instance("node2", "node3")
        snapshot = self.ctx.snapshot()
        (mirror,) = snapshot.disks.values()
        snapshot = snapshot.with_object("disks", replace(mirror, children=children))
        self.assertEqual(
            volume_owners(snapshot),
            {
                (self.node(node).uuid, f"vg/{name}"): "web.example.com"
                for node in ("node2", "node3")
                for name in ("data", "meta")
            },
        )
