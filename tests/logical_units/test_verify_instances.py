"""Tests of the checks of instances, given the nodes' answers."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from ganeti_masterd.config.objects import Instance
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.logical_units.verification import instances
from ganeti_masterd.logical_units.verification.pictures import Picture, paint, volumes_by_node
from tests.logical_units.cluster import with_instance
from tests.logical_units.test_verify_judges import JudgeScene

OK = [True, {"is_degraded": False, "ldisk_status": 1}]


class InstanceScene(JudgeScene):
    """Base: one instance on node1, mirrored to node2."""

    about: dict[str, Any] = {"disks_active": True, "admin_state": "up"}

    def setUp(self) -> None:
        super().setUp()
        self.place("one", ["node1", "node2"], template="drbd", size=1024, **self.about)

    def place(self, *arguments: Any, **more: Any) -> None:
        """Adds an instance."""
        nic = {"nics": ()}
        self.snapshot = with_instance(self.snapshot, *arguments, **{**nic, **more})
        self.paint()

    def change(self, section: str, uuid: str, **change: Any) -> None:
        """Changes an object of the configuration."""
        obj = replace(self.snapshot.section(section)[uuid], **change)
        self.snapshot = self.snapshot.with_object(section, obj)
        self.paint()

    def paint(self) -> None:
        """Fills in pictures of sound nodes."""
        all_nodes = sorted(self.snapshot.nodes.values(), key=lambda node: node.name)
        self.pictures = paint(self.snapshot, all_nodes, list(self.snapshot.instances.values()))
        for picture in self.pictures.values():
            picture.memory_free = 4096
            picture.running = {one.name for one in picture.primaries}

    def of(self, name: str) -> Picture:
        """Returns the picture of a node."""
        return self.pictures[self.snapshot.node(name).uuid]

    @property
    def instance(self) -> Instance:
        """The instance."""
        return self.snapshot.instance("one")

    def faults(self, states: dict[str, Any] | None = None) -> list[str]:
        """Returns the instance's faults; disks are sound unless ``states`` (by node) says more."""
        told = {"node1": [OK], "node2": [OK], **(states or {})}
        by_uuid = {self.snapshot.node(name).uuid: disks for name, disks in told.items()}
        group = next(iter(self.snapshot.groups.values()))
        found = instances.instance_faults(
            self.snapshot, self.instance, group, self.pictures, by_uuid
        )
        return [f"{f.severity} {f.code} {f.name}: {f.text}" for f in found]


class InstanceTests(InstanceScene):
    """An instance runs where it should, on sound disks and nodes."""

    def test_sound(self) -> None:
        """A sound instance has no faults."""
        self.assertEqual(self.faults(), [])

    def test_policy(self) -> None:
        """An instance that breaks the group's policy gives a warning."""
        self.change("disks", "d-one", size=9999999)
        self.assertEqual(
            self.faults(),
            ["WARNING EINSTANCEPOLICY one: disk-size/0 value 9999999 is not in range [0, 1048576]"],
        )

    def test_down(self) -> None:
        """An instance that should run and doesn't is an error, also if the node says nothing."""
        text = "ERROR EINSTANCEDOWN one: instance not running on its primary node node1"
        self.of("node1").running = set()
        self.assertEqual(self.faults(), [text])
        self.of("node1").running = None
        self.assertEqual(self.faults(), [text])
        self.change("instances", "i-one", admin_state="down")
        self.of("node1").running = set()
        self.assertEqual(self.faults(), [])

    def test_offline_primary(self) -> None:
        """An instance whose primary node is offline is an error."""
        self.change("nodes", self.node.uuid, offline=True)
        self.assertEqual(
            self.faults(),
            [
                "ERROR EINSTANCEBADNODE one: instance is marked as running and lives on offline"
                " node node1"
            ],
        )

    def test_offline_secondary(self) -> None:
        """An instance whose secondary node is offline is an error."""
        self.change("nodes", self.snapshot.node("node2").uuid, offline=True)
        self.assertEqual(
            self.faults(),
            ["ERROR EINSTANCEBADNODE one: instance has offline secondary node(s) node2"],
        )

    def test_silent(self) -> None:
        """Nodes that don't answer are reported with their instances."""
        self.of("node1").silent = self.of("node2").silent = True
        self.assertEqual(
            self.faults(),
            [
                "ERROR ENODERPC node1: instance one, connection to primary node failed",
                "ERROR ENODERPC node2: instance one, connection to secondary node failed",
            ],
        )

    def test_disks(self) -> None:
        """Disks that are degraded or can't be checked are reported, if they should be active."""
        states = {
            "node1": [[False, "gone"]],
            "node2": [[True, {"is_degraded": True, "ldisk_status": 4}]],
        }
        self.assertEqual(
            self.faults(states),
            [
                "ERROR EINSTANCEFAULTYDISK one: couldn't retrieve status for disk/0 on node1: gone",
                "ERROR EINSTANCEFAULTYDISK one: disk/0 on node2 is degraded; local disk state is"
                " 'faulty'",
            ],
        )
        (text,) = self.faults({"node2": [[True, {"is_degraded": True, "ldisk_status": 2}]]})
        self.assertIn("WARNING EINSTANCEFAULTYDISK", text)
        self.change("instances", "i-one", disks_active=False)
        self.assertEqual(self.faults(states), [])

    def test_vm_capable(self) -> None:
        """Nodes that can't run instances have none."""
        self.change("nodes", self.node.uuid, vm_capable=False)
        self.assertEqual(
            self.faults(),
            ["ERROR EINSTANCEBADNODE one: instance lives on non-vm_capable node node1"],
        )

    def test_ghost(self) -> None:
        """A node that isn't in the configuration is a ghost."""
        disk = self.snapshot.disks["d-one"]
        assert disk.logical_id is not None
        moved = replace(disk, logical_id=(disk.logical_id[0], "gone", *disk.logical_id[2:]))
        self.snapshot = self.snapshot.with_object("disks", moved)
        self.paint()
        self.assertEqual(
            self.faults(), ["ERROR EINSTANCEBADNODE one: instance lives on ghost node gone"]
        )

    def test_split(self) -> None:
        """Mirrors in two groups give a warning that names the primary's group first."""
        other = replace(next(iter(self.snapshot.groups.values())), name="other", uuid="g")
        self.snapshot = self.snapshot.with_object("nodegroups", other)
        self.change("nodes", self.snapshot.node("node2").uuid, group="g")
        self.assertEqual(
            self.faults(),
            [
                "WARNING EINSTANCESPLITGROUPS one: instance has primary and secondary nodes in"
                " different groups: node1 (group default), node2 (group other)"
            ],
        )

    def test_several_secondaries(self) -> None:
        """More than one secondary node is reported."""
        self.change("disks", "d-one", dev_type="file")
        uuids = tuple(self.snapshot.node(f"node{number}").uuid for number in (1, 2, 3))
        self.change("disks", "d-one", nodes=uuids)
        (text,) = self.faults()
        self.assertIn("WARNING EINSTANCELAYOUT one: instance has multiple secondary nodes", text)

    def test_exclusive(self) -> None:
        """On exclusive storage disks are plain, with a number of spindles."""
        self.change("nodes", self.node.uuid, ndparams={"exclusive_storage": True})
        self.assertEqual(
            self.faults(),
            [
                "ERROR EINSTANCEUNSUITABLENODE one: instance uses disk types drbd, which are not"
                " supported on nodes that have exclusive storage set: node1",
                "ERROR EINSTANCEMISSINGCFGPARAMETER one: number of spindles not configured for disk"
                " 0 while exclusive storage is enabled, try running gnt-cluster repair-disk-sizes",
            ],
        )


class VolumeTests(InstanceScene):
    """An instance's volumes are there."""

    def setUp(self) -> None:
        super().setUp()
        child = replace(
            self.snapshot.disks["d-one"],
            dev_type="plain",
            logical_id=("xenvg", "data"),
            nodes=(),
            uuid="c",
        )
        self.change("disks", "d-one", children=(child,))

    def test_by_node(self) -> None:
        """DRBD's volumes are on both of its nodes."""
        uuids = [self.snapshot.node(name).uuid for name in ("node1", "node2")]
        self.assertEqual(
            volumes_by_node(self.snapshot, self.instance),
            {uuid: ["xenvg/data"] for uuid in uuids},
        )

    def test_missing(self) -> None:
        """A volume that is missing is an error; where volumes aren't known none is."""
        self.of("node1").volumes = {"xenvg/data": []}
        self.of("node2").volumes = {}
        self.assertEqual(
            self.faults(),
            ["ERROR EINSTANCEMISSINGDISK one: volume xenvg/data missing on node node2"],
        )


class NodeLoadTests(InstanceScene):
    """What runs on a node, and what it could take over."""

    def test_stray(self) -> None:
        """Unknown instances, and those that run on a wrong node, are reported."""
        self.of("node3").running = {"one", "stranger"}
        found = instances.stray_instances(self.snapshot, self.of("node3"))
        self.assertEqual(
            [f"{f.code} {f.name}: {f.text}" for f in found],
            [
                "EINSTANCEWRONGNODE one: instance should not run on node node3",
                "ENODEORPHANINSTANCE node3: node is running unknown instance stranger",
            ],
        )
        self.expect(instances.stray_instances(self.snapshot, self.of("node1")))

    def test_exclusion(self) -> None:
        """A tag that is exclusive is on one instance of a node only."""
        self.change("instances", "i-one", tags=("service:web", "x"))
        self.place("two", ["node1"], tags=("service:web", "x"))
        found = list(instances.exclusion_faults(["htools:iextags:service"], self.of("node1")))
        self.expect(found, "EEXTAGS Tags where there is more than one instance: ['service:web']")
        self.assertEqual(found[0].severity, "WARNING")
        self.expect(instances.exclusion_faults([], self.of("node1")))

    def memory(self, snapshot: Snapshot) -> list[str]:
        """Returns the faults of spare memory in the first group."""
        group = next(iter(snapshot.groups.values()))
        return [
            f"{f.name}: {f.text}" for f in instances.memory_faults(snapshot, self.pictures, group)
        ]

    def test_memory(self) -> None:
        """A secondary can start what each other node runs, as far as that may move by itself."""
        self.assertEqual(self.memory(self.snapshot), [])
        self.of("node2").memory_free = 100
        self.assertEqual(
            self.memory(self.snapshot),
            [
                "node2: not enough memory to accomodate instance failovers should node node1 fail"
                " (128MiB needed, 100MiB available)"
            ],
        )
        self.change("instances", "i-one", beparams={"auto_balance": False})
        self.of("node2").memory_free = 100
        self.assertEqual(self.memory(self.snapshot), [])

    def test_memory_elsewhere(self) -> None:
        """Offline nodes and those of other groups are not looked at."""
        self.change("nodes", self.snapshot.node("node2").uuid, offline=True)
        self.of("node2").memory_free = 0
        self.assertEqual(self.memory(self.snapshot), [])

    def test_redundant(self) -> None:
        """Only mirrored instances survive the loss of a node."""
        self.assertTrue(instances.is_redundant(self.snapshot.disks_of(self.instance)))
        self.assertTrue(instances.is_redundant([]))
        self.change("disks", "d-one", dev_type="plain")
        self.assertFalse(instances.is_redundant(self.snapshot.disks_of(self.instance)))
