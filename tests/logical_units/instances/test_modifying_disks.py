"""OP_INSTANCE_SET_PARAMS changes disks."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from ganeti_masterd.config.objects import Cluster
from ganeti_masterd.errors import OpExecError
from ganeti_masterd.logical_units.context import JobKilled
from ganeti_masterd.simulation.description import DescribedNode, Description
from ganeti_masterd.simulation.faults import SimulatedFault
from ganeti_masterd.simulation.node import StorageProvider
from ganeti_masterd.simulation.state import Hardware, PhysicalVolume, VolumeGroup
from tests.logical_units.instances.modifying import (
    MODIFY,
    TEMPLATES,
    ModifyCase,
    plain,
    strays,
)
from tests.logical_units.made import made_instance
from tests.logical_units.test_instance_disks_life import NAME
from tests.logical_units.world import Refused, World

#: Providers of external storage.
PROVIDERS = (StorageProvider("rock", (("pool", "x"),)), StorageProvider("sand"))


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
        """Returns a check that the disks have the sizes of one of these, with fitting names."""

        def check(where: str) -> None:
            found = [disk.size for disk in self.disks]
            self.assertIn(found, shapes, where)
            names = [disk.iv_name for disk in self.disks]
            self.assertEqual(names, [f"disk/{index}" for index in range(len(found))], where)

        return check

    def test_add(self) -> None:
        """A disk is made and belongs to the instance, or neither."""
        for make in MAKERS:
            sizes = [64] if make is mirrored else [64, 32]
            check = self.whole(sizes, [16, *sizes])
            self.killed_everywhere(make, check, disks=[["add", 0, {"size": 16}]])
            self.broken_everywhere(make, check, disks=[["add", 0, {"size": 16}]])

    def test_remove(self) -> None:
        """A disk is gone altogether, or is as it was."""
        for make in MAKERS:
            sizes = [64] if make is mirrored else [64, 32]
            check = self.whole(sizes, sizes[1:])
            self.killed_everywhere(make, check, disks=[["remove", 0, {}]])
            self.broken_everywhere(make, check, disks=[["remove", 0, {}]])

    def test_detach_and_attach(self) -> None:
        """A disk belongs to the instance, or to none, with its data."""
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


class DiskCase(ModifyCase):
    """Base: an instance with two plain disks that are not active."""

    def setUp(self) -> None:
        super().setUp()
        self.make("plain")

    def make(self, template: str, **about: Any) -> None:
        """Makes the instance anew, in a new world."""
        self.world = World(
            disk_templates=TEMPLATES,
            hypervisors=("fake", "kvm"),
            description=Description(providers=PROVIDERS),
        )
        made_instance(self.world, template, sizes=(64, 32), **about)
        self.world.run("OP_INSTANCE_DEACTIVATE_DISKS", instance_name=NAME)

    def sizes(self) -> list[int]:
        """Returns the sizes of the disks, in order."""
        return [disk.size for disk in self.disks]

    def refused_disk(self, *change: Any, **others: Any) -> tuple[Any, ...]:
        """Returns the arguments of the refusal of one change."""
        before = self.disks
        error = self.refusal(disks=[list(change)], **others)
        self.assertEqual(self.disks, before)
        return error


class DiskTests(DiskCase):
    """Disks of an instance that is down."""

    def test_add(self) -> None:
        """All that is asked for is in the configuration, and nothing stays active."""
        for template in ("plain", "drbd", "file", "sharedfile"):
            if template != "plain":
                self.make(template)
            before = self.world.now
            self.assertEqual(
                self.modify(disks=[["add", 1, {"size": "16M", "name": "x", "mode": "ro"}]]),
                [("disk/1", "add:size=16,mode=ro")],
            )
            self.assertEqual(
                self.shapes(),
                [
                    (template, None, 64, "rw"),
                    (template, "x", 16, "ro"),
                    (template, None, 32, "rw"),
                ],
            )
            names = [disk.iv_name for disk in self.disks]
            self.assertEqual(names, ["disk/0", "disk/1", "disk/2"])
            self.assertEqual(list(self.world.nodes.cluster.ends), [])
            self.assertFalse(self.instance.disks_active)
            self.assertEqual(self.world.now.header.serial_no, before.header.serial_no + 1)
            self.assertEqual(self.world.faults(), [])

    def test_calls(self) -> None:
        """Devices are made on all nodes, and shut down again as the disks are not active."""
        self.assertEqual(
            self.calls(disks=[["add", -1, {"size": 16}]]),
            [
                ("node2", "node_info"),
                ("node2", "blockdev_create"),
                ("node2", "blockdev_shutdown"),
                ("node2", "instance_metadata_modify"),
            ],
        )
        self.assertEqual(
            self.calls(disks=[["remove", -1, {}]]),
            [
                ("node2", "instance_info"),
                ("node2", "blockdev_remove"),
                ("node2", "instance_metadata_modify"),
            ],
        )
        self.make("drbd")
        self.assertEqual(
            [call for _, call in self.calls(disks=[["add", -1, {"size": 16}]])],
            [
                *["node_info"] * 2,
                *["node_verify_light"] * 2,
                *["blockdev_create"] * 6,
                "blockdev_getmirrorstatus",
                *["blockdev_shutdown"] * 2,
                "instance_metadata_modify",
            ],
        )

    def test_others(self) -> None:
        """Disks that keep their place aren't written."""
        first, second = (disk.serial_no for disk in self.disks)
        self.modify(disks=[["add", 1, {"size": 16}]])
        self.assertEqual(
            [disk.serial_no for disk in self.disks if disk.size != 16], [first, second + 1]
        )

    def test_first_disk(self) -> None:
        """An instance without disks gets one, of the template that is named."""
        self.make("diskless")
        self.assertEqual(
            self.refused_disk("add", -1, {"size": 16}),
            ("Must specify disk type on diskless instance", "wrong_input"),
        )
        self.assertEqual(
            self.refused_disk("add", -1, {"size": 16, "dev_type": "drbd"})[1], "wrong_input"
        )
        self.assertEqual(
            self.refused_disk("add", -1, {"size": 16, "dev_type": "rbd"})[0],
            "Disk template 'rbd' is not enabled in cluster. Enabled disk templates are: "
            + ",".join(TEMPLATES),
        )
        self.modify(disks=[["add", -1, {"size": 16, "dev_type": "file"}], ["add", 0, {"size": 8}]])
        self.assertEqual(
            [(disk.dev_type, disk.size) for disk in self.disks], [("file", 8), ("file", 16)]
        )

    def test_numbered(self) -> None:
        """Gluster's disks have no name but their number: no two get the same."""
        self.world = World(disk_templates=("diskless", "gluster"))
        made_instance(self.world, "gluster", sizes=(64, 32))
        self.modify(disks=[["remove", 0, {}], ["add", -1, {"size": 16}]])
        ids = [str((disk.logical_id or ())[1]) for disk in self.disks]
        self.assertEqual([path.rpartition(".")[2] for path in ids], ["1", "2"])
        self.assertEqual([disk.iv_name for disk in self.disks], ["disk/0", "disk/1"])
        self.modify(disks=[["remove", 0, {}]] * 2)

    def test_external(self) -> None:
        """A provider's own parameters are kept, and can be changed."""
        self.make("diskless")
        rock = {"size": 16, "dev_type": "ext", "provider": "rock", "pool": "p"}
        self.modify(disks=[["add", -1, rock]])
        self.assertEqual(self.disks[0].params, {"provider": "rock", "pool": "p"})
        self.assertEqual(
            self.modify(disks=[["modify", 0, {"pool": "q"}]]), [("disk.params:pool/0", "q")]
        )
        self.modify(disks=[["modify", 0, {"pool": "default"}]])
        self.assertEqual(self.disks[0].params, {"provider": "rock"})
        for key in ("provider", "access"):
            self.assertEqual(
                self.refused_disk("modify", 0, {key: "x"}),
                (f"Disk '{key}' parameter change is not possible", "wrong_input"),
            )
        self.modify(disks=[["remove", 0, {}]])

    def test_modify(self) -> None:
        """Mode and name, by index, uuid or name."""
        self.assertEqual(
            self.modify(disks=[["modify", 1, {"mode": "ro", "name": "log"}]]),
            [("disk.mode/1", "ro"), ("disk.name/1", "log")],
        )
        self.assertEqual(
            self.modify(disks=[["modify", "log", {"name": "none"}]]), [("disk.name/1", None)]
        )
        self.modify(disks=[["modify", self.disks[0].uuid, {"name": "x"}]])
        self.assertEqual(self.shapes(), [("plain", "x", 64, "rw"), ("plain", None, 32, "ro")])

    def test_remove(self) -> None:
        """It is gone, and its port can be given again."""
        self.make("drbd")
        port = self.disks[0].ports()[0]
        self.assertEqual(self.modify(disks=[["remove", 0, {}]]), [("disk/0", "remove")])
        self.assertEqual(self.sizes(), [32])
        self.assertEqual(self.world.now.cluster.tcpudp_port_pool.count(port), 1)
        self.assertEqual(len(self.world.now.disks), 2)

    def test_remains(self) -> None:
        """A device that can't be removed is named in the log."""
        self.break_call("blockdev_remove")
        path = "/dev/" + "/".join(map(str, self.disks[1].logical_id or ()))
        self.modify(disks=[["remove", 1, {}]])
        self.assertEqual(
            self.world.lines[-2],
            " - WARNING: Could not remove disk 1 on node node2, continuing anyway: broken",
        )
        self.assertIn("what is left of it, see above", self.world.lines[-1])
        self.world.nodes.node("node2").state.devices.pop(path)

    def test_directory_goes(self) -> None:
        """The last file takes its directory with it, another one leaves it."""
        self.make("file")
        directories = self.world.nodes.node("node2").state.directories
        self.modify(disks=[["remove", 0, {}]])
        self.assertIn(f"/srv/files/{NAME}", directories)
        self.modify(disks=[["remove", 0, {}]])
        self.assertNotIn(f"/srv/files/{NAME}", directories)

    def test_directory_stays(self) -> None:
        """A disk that can't be made leaves the directory of the others alone, but no new one."""
        self.make("file")
        self.modify(disks=[["add", -1, {"size": 8}]])
        directories = self.world.nodes.node("node2").state.directories
        for below in ("", "/deep"):
            self.world.lines.clear()
            self.break_call("blockdev_create")
            change: dict[str, Any] = {"disks": [["add", -1, {"size": 16}]]}
            if below:
                change["file_storage_dir"] = "deep"
            (text,) = self.refusal(**change)
            self.assertIn("Can't create block device disk/3 (file) on node node2", text)
            self.assertEqual([line for line in self.world.lines if "Could not" in line], [])
            place = f"/srv/ganeti/file-storage{below}/{NAME}"
            self.assertEqual(place in directories, not below)
            self.world.nodes.faults.clear()
        self.modify(disks=[["add", -1, {"size": 16}]], file_storage_dir="deep")
        self.assertTrue(str((self.disks[3].logical_id or ())[1]).startswith(place))

    def test_detach_and_attach(self) -> None:
        """Files move out of the directory and into that of the instance that gets them."""
        self.make("file")
        self.modify(disks=[["modify", 0, {"name": "x"}]])
        self.fill()
        old = self.disks[0]
        self.assertEqual(self.modify(disks=[["detach", "x", {}]]), [("disk/0", "detach")])
        apart = self.world.now.disks[old.uuid]
        self.assertEqual(
            (apart.logical_id or ())[1], str((old.logical_id or ())[1]).replace(f"/{NAME}", "")
        )
        self.assertEqual([disk.iv_name for disk in self.disks], ["disk/0"])
        self.assertEqual(
            self.modify(disks=[["attach", 1, {"name": "x"}]]),
            [("disk/1", "attach:size=64,mode=rw")],
        )
        path = str((self.disks[1].logical_id or ())[1])
        self.assertTrue(path.startswith(f"/srv/ganeti/file-storage/{NAME}/"), path)
        self.assertTrue(path.endswith(".file.disk1"), path)
        self.assertEqual(self.contents(), ["disk 1", "disk 0"])

    def test_wipes(self) -> None:
        """A new disk is wiped before it belongs to the instance, where the cluster wants that."""
        self.world.run("OP_CLUSTER_SET_PARAMS", prealloc_wipe_disks=True)
        self.break_call("blockdev_wipe")
        error = self.refusal(disks=[["add", -1, {"size": 16}]])
        self.assertIn("Could not wipe disk 2", error[0])
        self.assertEqual(self.sizes(), [64, 32])
        self.world.nodes.faults.clear()
        self.modify(disks=[["add", -1, {"size": 16}]])
        self.assertIn(" - INFO: * Wiping disk 2", self.world.lines)

    def test_degraded(self) -> None:
        """A mirror that doesn't come to be in sync is an error, and the disk is there."""
        self.make("drbd")
        payload = [{"dev_path": "/dev/drbd9", "is_degraded": True, "ldisk_status": 1}]
        self.world.nodes.faults.add(
            SimulatedFault(kind="garbage", call="blockdev_getmirrorstatus", payload=payload)
        )
        self.assertEqual(
            self.refusal(disks=[["add", -1, {"size": 16}]]),
            (
                f"Failed to sync disks of {NAME}: they belong to the instance, but a mirror is "
                "degraded",
            ),
        )
        self.assertEqual(self.sizes(), [64, 32, 16])
        self.assertEqual(list(self.world.nodes.cluster.ends), [])


class DiskRefusalTests(DiskCase):
    """What is refused before anything changes."""

    def test_refused(self) -> None:
        """Arguments that make no sense."""
        self.modify(disks=[["modify", 0, {"name": "x"}]])
        small = {"size": 16}
        for change, error in (
            (["add", -1, {}], "Required disk parameter 'size' missing"),
            (["add", -1, {"size": "many"}], "Invalid disk size 'many'"),
            (["add", -1, {**small, "mode": "w"}], "Invalid disk access mode 'w'"),
            (["add", -1, {**small, "name": "x"}], "disk name 'x' already used"),
            (["add", -1, {**small, "name": "7"}], "Invalid name '7'. Purely numeric disk names"),
            (["add", -1, {**small, "adopt": "v"}], "Disks can only be adopted by a new instance"),
            (["add", -1, {**small, "dev_type": "drbd"}], "differs from the instance's (plain)"),
            (["add", -1, {**small, "color": "red"}], "Unknown parameter 'color'"),
            (["add", -1, {**small, "spindles": 2}], "Spindles in instance disks cannot be"),
            (["add", 9, small], "A disk can't be added at index 9: the instance has 2 of them"),
            (["modify", 0, {"size": 128}], "Disk size change not possible, use grow-disk"),
            (["modify", 0, {"color": "red"}], "Unknown parameter 'color'"),
            (["modify", 1, {"name": "x"}], "disk name 'x' already used"),
            (["modify", 2, {}], "There is no disk with the index 2: the instance has 2 of them"),
            (["remove", "y", {}], "Lookup of disk 'y' failed"),
            (["attach", -1, {"name": "y"}], "No disk was found with this name: y"),
            (["attach", -1, {"uuid": "y"}], "No disk was found with this UUID: y"),
            (["attach", -1, {"name": "x"}], f"Disk 'x' is attached to instance {NAME} already"),
            (
                ["attach", -1, {"name": "x", "uuid": "y"}],
                "Only one argument is permitted in attach op, either name or uuid",
            ),
        ):
            self.assertIn(error, str(self.refused_disk(*change)[0]), change)

    def test_many(self) -> None:
        """Sixteen at most, and as many as the policy allows."""
        self.modify(disks=[["add", -1, {"size": 1}]] * 14, ignore_ipolicy=True)
        self.assertEqual(
            self.refused_disk("add", -1, {"size": 1}),
            ("Instance has too many disks (16), cannot add more", "wrong_state"),
        )

    def test_policy(self) -> None:
        """Sizes count as they are at the end."""

        def narrowed(cluster: Cluster) -> Cluster:
            (bounds,) = cluster.ipolicy["minmax"]
            most = {**bounds, "max": {**bounds["max"], "disk-size": 100, "disk-count": 2}}
            return replace(cluster, ipolicy={**cluster.ipolicy, "minmax": [most]})

        self.world.store.change(self.world.now.cluster.uuid, narrowed)
        text, code = self.refused_disk("add", -1, {"size": 200})
        self.assertIn("disk-size/2 value 200 is not in range", text)
        self.assertIn("disk-count value 3 is not in range", text)
        self.assertEqual(code, "wrong_input")
        self.modify(disks=[["add", -1, {"size": 16}], ["remove", 0, {}]])

    def test_room(self) -> None:
        """All nodes must have it, for all new disks together."""
        group = VolumeGroup("xenvg", (PhysicalVolume("/dev/sda2", 2048),))
        self.world = World(
            disk_templates=TEMPLATES,
            description=Description(default=DescribedNode(hardware=Hardware(groups=(group,)))),
        )
        made_instance(self.world, "drbd", sizes=(64,))
        self.assertEqual(
            self.refusal(disks=[["add", -1, {"size": 900}]] * 2),
            (
                "Not enough disk space on target node node2 vg xenvg: required 2056 MiB, "
                "available 1856 MiB",
                "insufficient_resources",
            ),
        )
        self.modify(disks=[["add", -1, {"size": 700}]] * 2)

    def test_no_wait(self) -> None:
        """Disks that are not active can't be left to synchronize."""
        self.assertEqual(
            self.refused_disk("add", -1, {"size": 16}, wait_for_sync=False),
            (
                "Can't add a disk to an instance with deactivated disks and --no-wait-for-sync "
                "given",
                "wrong_input",
            ),
        )

    def test_attach_elsewhere(self) -> None:
        """A disk of another template, or on other nodes, isn't attached."""
        self.modify(disks=[["modify", 0, {"name": "x"}], ["detach", 0, {}]])
        made_instance(self.world, "file", "other.example.com", nodes=("node2",))
        made_instance(self.world, "plain", "far.example.com", nodes=("node3",))
        for name, error in (
            ("other.example.com", "Instance has 'file' template while disk has 'plain' template"),
            ("far.example.com", "Disk nodes are node2 while the instance's nodes are node3"),
        ):
            refused = self.assertRaises(
                Refused,
                self.world.run,
                MODIFY,
                instance_name=name,
                disks=[["attach", -1, {"name": "x"}]],
            )
            self.assertEqual(refused.error.args, (error, "wrong_input"))

    def test_attach_mirror(self) -> None:
        """An instance without disks takes a mirror on its primary, whose other end is usable."""
        self.make("drbd")
        self.modify(disks=[["modify", 0, {"name": "x"}], ["detach", 0, {}], ["remove", 0, {}]])
        node3 = self.world.now.node("node3").uuid
        self.world.store.change(node3, lambda node: replace(node, drained=True))
        self.assertEqual(
            self.refused_disk("attach", -1, {"name": "x"}),
            ("Can't use drained node node3", "wrong_state"),
        )
        self.world.store.change(node3, lambda node: replace(node, drained=False))
        self.modify(disks=[["attach", -1, {"name": "x"}]])
        self.assertEqual(self.sizes(), [64])

    def test_two_of_a_name(self) -> None:
        """Of two disks with a name, the uuid says which."""
        self.modify(disks=[["modify", 0, {"name": "x"}], ["detach", 0, {}]])
        self.modify(disks=[["modify", 0, {"name": "x"}], ["detach", 0, {}]])
        text, code = self.refused_disk("attach", -1, {"name": "x"})
        self.assertIn("Several disks have the name 'x'", text)
        self.assertEqual(code, "resource_not_unique")


class RunningTests(DiskCase):
    """Disks of an instance that runs."""

    def make(self, template: str, **about: Any) -> None:
        """Makes an instance under KVM that runs."""
        super().make(template, hypervisor="kvm", **about)
        self.start()

    def held(self) -> int:
        """Returns how many disks the running instance has open."""
        return len(self.world.nodes.node("node2").state.instances[NAME].disks)

    def test_without_hotplug(self) -> None:
        """Disks come, for the next start; they don't go."""
        for action in ("remove", "detach"):
            self.assertEqual(
                self.refused_disk(action, 0, {}),
                (
                    f"Instance '{NAME}' is marked to be up, can't {action} volume from a running "
                    "instance without using hotplug",
                    "wrong_state",
                ),
            )
        self.modify(disks=[["add", -1, {"size": 16}]], wait_for_sync=False)
        self.assertEqual((self.sizes(), self.held()), ([64, 32, 16], 2))

    def test_hotplug(self) -> None:
        """Disks are plugged in and out."""
        for template in ("plain", "drbd", "file"):
            self.make(template)
            result = self.modify(disks=[["add", -1, {"size": 16, "name": "x"}]], hotplug=True)
            self.assertEqual(
                result, [("disk/2", "add:size=16,mode=rw"), ("disk/2", "hotplug:done")]
            )
            self.assertEqual(self.held(), 3)
            result = self.modify(disks=[["detach", "x", {}]], hotplug=True)
            self.assertEqual(result, [("disk/2", "detach"), ("disk/2", "hotplug:done")])
            self.assertEqual(self.held(), 2)
            result = self.modify(disks=[["attach", 0, {"name": "x"}]], hotplug=True)
            self.assertEqual(
                result, [("disk/0", "attach:size=16,mode=rw"), ("disk/0", "hotplug:done")]
            )
            result = self.modify(disks=[["remove", "x", {}]], hotplug=True)
            self.assertEqual(result, [("disk/0", "remove"), ("disk/0", "hotplug:done")])
            self.assertEqual((self.sizes(), self.held()), ([64, 32], 2))
            self.assertEqual([line for line in self.world.lines if "WARNING" in line], [])

    def test_killed(self) -> None:
        """A kill leaves disks that are the instance's and open, or neither."""
        first: dict[str, Any] = {"name": "x", "size": 16}
        for change, sizes in (
            (["add", -1, first], ([64, 32], [64, 32, 16])),
            (["remove", 0, {}], ([64, 32], [32])),
            (["detach", 0, {}], ([64, 32], [32])),
        ):
            for moment in range(100):
                self.make("drbd")
                self.world.kill_after = moment
                try:
                    self.modify(disks=[change], hotplug=True)
                except Refused as refused:
                    self.assertIsInstance(refused.error, JobKilled)
                    self.assertIn(self.sizes(), sizes, moment)
                    # A disk that came but wasn't plugged in yet is there at the next start.
                    self.assertIn(self.held(), (len(self.disks), 2), moment)
                    self.assertEqual(self.world.faults(), [], moment)
                    self.assertEqual(strays(self.world), [], moment)
                else:
                    break
            self.assertGreater(moment, 3)

    def test_not_plugged_in(self) -> None:
        """The instance has the disk from its next start."""
        self.break_call("hotplug_device")
        result = self.modify(disks=[["add", -1, {"size": 16}]], hotplug=True)
        self.assertEqual(result, [("disk/2", "add:size=16,mode=rw"), ("disk/2", "hotplug:failed")])
        self.world.nodes.faults.clear()
        self.break_call("blockdev_assemble")
        result = self.modify(disks=[["add", -1, {"size": 16}]], hotplug=True)
        self.assertEqual(result, [("disk/3", "add:size=16,mode=rw"), ("disk/3", "assemble:failed")])
        self.assertIn(" - WARNING: Can't assemble newly created disk 3: broken", self.world.lines)

    def test_not_unplugged(self) -> None:
        """A disk that is in use stays, whole."""
        self.break_call("hotplug_device")
        for action in ("remove", "detach"):
            error = self.refused(MODIFY, disks=[[action, 0, {}]], hotplug=True)
            self.assertIsInstance(error, OpExecError)
            self.assertEqual(
                error.args,
                (
                    f"Can't unplug disk 0 of instance {NAME}, which runs and may be using it; the "
                    "disk stays",
                ),
            )
            self.assertEqual((self.sizes(), self.held()), ([64, 32], 2))
