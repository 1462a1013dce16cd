"""OP_INSTANCE_SET_PARAMS converts disks."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from ganeti_masterd.allocation import builtin
from ganeti_masterd.config.objects import Cluster
from ganeti_masterd.errors import OpExecError
from ganeti_masterd.locking.levels import Level
from ganeti_masterd.logical_units.disks import syncing
from ganeti_masterd.logical_units.instances import converting
from ganeti_masterd.simulation.description import DescribedNode, Description
from ganeti_masterd.simulation.faults import SimulatedFault
from ganeti_masterd.simulation.state import Hardware, PhysicalVolume, VolumeGroup
from tests.logical_units.instances.modifying import MODIFY, TEMPLATES, ModifyCase, plain
from tests.logical_units.instances.test_modifying_disks import PROVIDERS, files, mirrored
from tests.logical_units.made import made_instance
from tests.logical_units.test_instance_disks_life import NAME
from tests.logical_units.world import World


class HalfWayConversionTests(ModifyCase):
    """Conversions that fail or are killed anywhere: one template or the other, with the data."""

    def attempt(self, make: Any, **changes: Any) -> None:
        """Breaks a conversion off everywhere."""
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
        """A named node comes to mirror the disks."""
        self.attempt(plain, disk_template="drbd", remote_node="node4")

    def test_mirrors_allocated(self) -> None:
        """A node that an allocator chooses does."""
        self.attempt(plain, disk_template="drbd", iallocator=builtin.NAME)

    def test_no_mirrors(self) -> None:
        """Data of mirrors become plain disks."""
        self.attempt(mirrored, disk_template="plain")

    def test_copies(self) -> None:
        """All others are copied."""
        self.attempt(plain, disk_template="file")
        self.attempt(files, disk_template="plain")
        self.attempt(mirrored, disk_template="file")
        self.attempt(files, disk_template="drbd", remote_node="node4")


class ConversionTests(ModifyCase):
    """Conversions that succeed, and those that are refused."""

    def setUp(self) -> None:
        super().setUp()
        self.world = World(disk_templates=TEMPLATES, description=Description(providers=PROVIDERS))
        made_instance(self.world, "plain", sizes=(64, 32), hypervisor="fake")
        self.modify(disks=[["modify", 0, {"name": "root", "mode": "ro"}]])
        self.fill()
        self.world.lines.clear()

    def convert(self, template: str, **more: Any) -> list[str]:
        """Converts the instance; returns the log without what INFO says."""
        self.world.lines.clear()
        before = self.world.now
        self.assertEqual(self.modify(disk_template=template, **more), [("disk_template", template)])
        self.assertEqual(self.shapes(), [(template, "root", 64, "ro"), (template, None, 32, "rw")])
        self.assertEqual([disk.iv_name for disk in self.disks], ["disk/0", "disk/1"])
        self.assertEqual(len(self.world.now.disks), len(before.disks))
        self.assertFalse(self.instance.disks_active)
        self.assertEqual(list(self.world.nodes.cluster.ends), [])
        return [line for line in self.world.lines if "INFO" not in line]

    def test_to_mirrors(self) -> None:
        """Volumes become data, where they are; the log and the calls are those of 3.0.2."""
        self.assertEqual(
            self.convert("drbd", remote_node="node4"),
            [
                "Converting disk template from 'plain' to 'drbd'",
                "Creating additional volumes...",
                "Renaming original volumes...",
                "Initializing DRBD devices...",
            ],
        )
        nodes = [self.world.now.node(name).uuid for name in ("node2", "node4")]
        self.assertEqual([list(disk.all_nodes()) for disk in self.disks], [nodes, nodes])
        self.assertEqual(self.contents(), ["disk 0", "disk 1"])
        ports = {disk.ports()[0] for disk in self.disks}
        self.assertLessEqual(max(ports), self.world.now.cluster.highest_used_port)

    def test_calls(self) -> None:
        """Nodes are called in the order of 3.0.2."""
        made = self.calls(disk_template="drbd", remote_node="node4")
        p, s = "node2", "node4"
        self.assertEqual(
            made,
            [
                (p, "instance_info"),
                (p, "node_info"),
                (s, "node_info"),
                *[(p, "blockdev_shutdown")] * 2,
                *[(p, "node_verify_light"), (s, "node_verify_light")],
                *[(p, "blockdev_create"), (s, "blockdev_create"), (s, "blockdev_create")] * 2,
                (p, "blockdev_rename"),
                *[(p, "blockdev_create"), (s, "blockdev_create")] * 2,
                (p, "blockdev_getmirrorstatus"),
                *[(p, "blockdev_shutdown"), (s, "blockdev_shutdown")] * 2,
                (p, "instance_metadata_modify"),
            ],
        )
        self.assertEqual(
            self.calls(disk_template="plain"),
            [
                (p, "instance_info"),
                *[(p, "blockdev_shutdown"), (s, "blockdev_shutdown")] * 2,
                *[(s, "blockdev_remove")] * 2,
                *[(p, "blockdev_remove")] * 2,
                (p, "instance_metadata_modify"),
            ],
        )
        self.assertEqual(
            [call for _, call in self.calls(disk_template="file")],
            [
                "instance_info",
                *["blockdev_shutdown"] * 2,
                "file_storage_dir_create",
                *["blockdev_create"] * 2,
                *["blockdev_convert"] * 2,
                *["blockdev_remove"] * 2,
                *["blockdev_shutdown"] * 2,
                "instance_metadata_modify",
            ],
        )

    def test_allocated(self) -> None:
        """An allocator chooses the node, before anything changes."""
        lines = self.convert("drbd", iallocator=builtin.NAME)
        chosen = self.world.now.nodes[self.disks[0].all_nodes()[1]].name
        self.assertEqual(
            lines[:2],
            [
                f"Using {builtin.NAME} to choose new secondary",
                f"{builtin.NAME} choose {chosen} as new secondary",
            ],
        )
        self.assertEqual(len(self.disks[0].all_nodes()), 2)

    def test_from_mirrors(self) -> None:
        """The data become the disks; nothing else is left, and the ports are free."""
        self.convert("drbd", remote_node="node4")
        ports = [disk.ports()[0] for disk in self.disks]
        names = [disk.children[0].logical_id for disk in self.disks]
        self.assertEqual(
            self.convert("plain"),
            [
                "Converting disk template from 'drbd' to 'plain'",
                "Removing volumes on the secondary node...",
                "Removing unneeded volumes on the primary node...",
            ],
        )
        self.assertEqual([disk.logical_id for disk in self.disks], names)
        self.assertEqual([len(disk.nodes) for disk in self.disks], [1, 1])
        self.assertEqual(self.contents(), ["disk 0", "disk 1"])
        self.assertLessEqual(set(ports), set(self.world.now.cluster.tcpudp_port_pool))

    def test_lost_secondary(self) -> None:
        """A mirror whose secondary is gone becomes a plain disk; what it has stays, and is told."""
        self.convert("drbd", remote_node="node4")
        self.world.run("OP_NODE_SET_PARAMS", node_name="node4", offline=True, force=True)
        self.convert("plain")
        warned = [line for line in self.world.lines if "Could not remove disk" in line]
        self.assertEqual(len(warned), 2)
        devices = self.world.nodes.node("node4").state.devices
        for path in list(devices):
            devices.pop(path)

    def test_copies(self) -> None:
        """From one to the next, with the data, and without leaving anything."""
        directory = "/srv/ganeti/file-storage/deep/" + NAME
        lines = self.convert("file", file_storage_dir="deep")
        self.assertEqual(
            lines,
            [
                "Converting disk template from 'plain' to 'file'",
                "Generating new 'file' disk template...",
                "* disk 0, size 64M",
                "* disk 1, size 32M",
                "Creating new empty disks of type 'file'...",
                "Populating the new empty disks of type 'file'...",
                " - copying data from disk 0 (plain), size 64M",
                " - copying data from disk 1 (plain), size 32M",
                "Detaching old disks (plain) from the instance and removing them from cluster "
                "config",
                "Adding new disks (file) to cluster config and attaching them to the instance",
                "Removing old block devices of type 'plain'...",
            ],
        )
        directories = self.world.nodes.node("node2").state.directories
        self.assertIn(directory, directories)
        self.assertEqual(self.contents(), ["disk 0", "disk 1"])
        self.convert("drbd", remote_node="node4")
        self.assertNotIn(directory, directories)
        self.assertEqual(self.contents(), ["disk 0", "disk 1"])
        self.convert("sharedfile")
        lines = self.convert("ext", ext_params={"provider": "rock", "pool": "p"})
        self.assertEqual(lines[0], "Converting disk template from 'sharedfile' to 'ext:rock'")
        self.assertEqual(self.disks[0].params, {"provider": "rock", "pool": "p"})
        self.convert("ext", ext_params={"provider": "sand"})
        self.convert("plain")
        self.assertEqual(self.contents(), ["disk 0", "disk 1"])

    def test_no_copy(self) -> None:
        """A copy that fails leaves the instance as it was, and says so."""
        before = self.disks
        self.world.nodes.faults.add(
            SimulatedFault(kind="error", call="blockdev_convert", after=1, text="broken")
        )
        error = self.refused(MODIFY, disk_template="file")
        self.assertIsInstance(error, OpExecError)
        self.assertEqual(
            error.args,
            (
                f"Error while converting the instance's template: disk 1 of instance {NAME} could "
                "not be copied on node node2, all disks are as they were: broken",
            ),
        )
        self.assertEqual(
            self.world.lines[-3:],
            [
                " - ERROR: Could not copy disk 1: broken",
                " - INFO: Some disks failed to copy",
                " - INFO: The instance will not be affected, aborting operation",
            ],
        )
        self.assertEqual(self.disks, before)

    def test_mirrors_fail(self) -> None:
        """Plain disks are as they were when a mirror can't be made of them."""
        before, contents = self.disks, self.contents()
        for call, after in (("blockdev_create", 7), ("blockdev_rename", 0)):
            self.world.nodes.faults.add(
                SimulatedFault(kind="error", call=call, after=after, count=1, text="broken")
            )
            error = self.refused(MODIFY, disk_template="drbd", remote_node="node4")
            self.assertIsInstance(error, OpExecError)
            self.assertEqual((self.disks, self.contents()), (before, contents))
            self.world.nodes.faults.clear()

    def test_not_shut(self) -> None:
        """Disks that can't be shut down are not converted."""
        self.break_call("blockdev_shutdown")
        self.assertEqual(
            self.refusal(disk_template="file"),
            (
                "Cannot shutdown instance disks, unable to proceed with disk template conversion; "
                f"instance {NAME} still has its plain disks",
            ),
        )

    def test_degraded(self) -> None:
        """A mirror that stays degraded is an error; the instance is converted, its disks shut."""
        self.patch(syncing, "DEGRADED_TRIES", 1)
        status = {"dev_path": "/dev/drbd9", "is_degraded": True, "ldisk_status": 1}
        self.world.nodes.faults.add(
            SimulatedFault(
                kind="garbage", call="blockdev_getmirrorstatus", payload=[status, status]
            )
        )
        self.assertEqual(
            self.refusal(disk_template="drbd", remote_node="node4"),
            (
                "There are some degraded disks for this instance, please cleanup manually: "
                f"instance {NAME} was converted to drbd",
            ),
        )
        self.assertEqual({disk.dev_type for disk in self.disks}, {"drbd"})
        self.assertEqual(list(self.world.nodes.cluster.ends), [])
        self.world.lines.clear()

    def test_refused(self) -> None:
        """What can't be, in the words of 3.0.2."""
        for template, more, error in (
            ("plain", {}, ("Instance already has disk template plain", "wrong_input")),
            (
                "diskless",
                {},
                ("Conversion to the 'diskless' disk template is not supported", "wrong_input"),
            ),
            (
                "rbd",
                {},
                (
                    "Disk template 'rbd' is not enabled for this cluster (enabled templates: "
                    "diskless, drbd, ext, file, plain, sharedfile)",
                    "wrong_state",
                ),
            ),
            (
                "drbd",
                {"remote_node": "node2"},
                (
                    "Given new secondary node node2 is the same as the primary node of the "
                    "instance",
                    "wrong_state",
                ),
            ),
            ("ext", {}, ("Missing provider for template 'ext'", "wrong_input")),
            (
                "file",
                {"ext_params": {"provider": "rock"}},
                (
                    "The 'ext-params' option is only valid for the ext disk template, not file",
                    "wrong_input",
                ),
            ),
        ):
            self.assertEqual(self.refusal(disk_template=template, **more), error)
        self.convert("ext", ext_params={"provider": "rock"})
        self.assertEqual(
            self.refusal(disk_template="ext", ext_params={"provider": "rock"}),
            (
                "Not converting, 'disk/0' of type ExtStorage already using provider 'rock'",
                "wrong_input",
            ),
        )

    def test_running(self) -> None:
        """An instance that runs, or is offline, isn't converted."""
        self.start()
        self.assertEqual(
            self.refusal(disk_template="file"),
            (
                f"Instance '{NAME}' is marked to be up, cannot change disk template",
                "wrong_state",
            ),
        )

    def test_diskless(self) -> None:
        """There is nothing to convert."""
        self.modify(disks=[["remove", 0, {}]] * 2)
        self.assertEqual(
            self.refusal(disk_template="plain"),
            ("Conversion from the 'diskless' disk template is not supported", "wrong_input"),
        )

    def test_nodes_refused(self) -> None:
        """A node that is drained, or in a group whose policy forbids it, mirrors nothing."""
        node4 = self.world.now.node("node4").uuid
        self.world.store.change(node4, lambda node: replace(node, drained=True))
        self.assertEqual(
            self.refusal(disk_template="drbd", remote_node="node4"),
            ("Can't use drained node node4", "wrong_state"),
        )
        self.world.store.change(node4, lambda node: replace(node, drained=False))
        self.world.run("OP_GROUP_ADD", group_name="other", ipolicy={"disk-templates": ["plain"]})
        self.world.run("OP_GROUP_ASSIGN_NODES", group_name="other", nodes=["node4"])
        text, code = self.refusal(disk_template="drbd", remote_node="node4")
        self.assertIn("Instance does not meet target node group's (other) instance policy", text)
        self.assertEqual(code, "wrong_input")
        self.convert("drbd", remote_node="node4", ignore_ipolicy=True)

    def test_policy(self) -> None:
        """The primary's group must allow the template."""

        def forbidding(cluster: Cluster) -> Cluster:
            return replace(cluster, ipolicy={**cluster.ipolicy, "disk-templates": ["plain"]})

        self.world.store.change(self.world.now.cluster.uuid, forbidding)
        self.assertEqual(
            self.refusal(disk_template="file"),
            ("Disk template 'file' in not allowed (allowed templates: plain)", "wrong_state"),
        )

    def test_room(self) -> None:
        """The secondary needs all of it, the primary that of the metadata."""
        for name, size, error in (
            (
                "node4",
                300,
                "Not enough disk space on target node node4 vg xenvg: required 352 MiB, available "
                "300 MiB",
            ),
            (
                "node2",
                300,
                "Not enough disk space on target node node2 vg xenvg: required 256 MiB, available "
                "204 MiB",
            ),
        ):
            group = VolumeGroup("xenvg", (PhysicalVolume("/dev/sda2", size),))
            nodes = {
                f"node{n}": DescribedNode(
                    hardware=Hardware(groups=(group,)) if f"node{n}" == name else Hardware()
                )
                for n in range(1, 5)
            }
            self.world = World(description=Description(nodes=nodes))
            made_instance(self.world, "plain", sizes=(64, 32))
            self.assertEqual(
                self.refusal(disk_template="drbd", remote_node="node4"),
                (error, "insufficient_resources"),
            )

    def test_warning(self) -> None:
        """A secondary node is ignored where there is none."""
        self.convert("file", remote_node="node4")
        self.assertEqual(
            self.world.lines[0],
            " - WARNING: Changing the disk template to a non-mirrored one, the secondary node "
            "will be ignored",
        )

    def test_locks_go(self) -> None:
        """While mirrors synchronize the nodes are free for others."""
        held: list[Any] = []

        def look(*_: Any, **__: Any) -> bool:
            owned = self.world.locks.owned
            jobs = range(1, 50)
            held.append([bool(owned(job, Level.NODE)) for job in jobs].count(True))
            held.append([bool(owned(job, Level.NODE_RES)) for job in jobs].count(True))
            return True

        self.patch(converting, "wait_for_sync", look)
        self.modify(disk_template="drbd", remote_node="node4")
        self.assertEqual(held, [0, 1])
