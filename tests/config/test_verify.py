"""Verification: a valid configuration has no faults, and each fault is found."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.objects import Disk, Instance, Nic, Node
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.verify import candidate_counts, verify

from .sample import CLUSTER, GROUP, INSTANCE1, NODE1, NODE2, NODE3, sample, uuid


class Verifying(SynchronousTestCase):
    def changed(self, target: str, **fields: Any) -> Snapshot:
        """Returns the sample with fields of one object changed."""
        snapshot = sample()
        found = snapshot.locate(target)
        assert found is not None
        return snapshot.with_object(found[0], replace(found[1], **fields))

    def faulty(self, snapshot: Snapshot, *words: str) -> None:
        """Checks that exactly one fault is found, whose text has all of ``words``."""
        faults = verify(snapshot)
        self.assertEqual(len(faults), 1, faults)
        for word in words:
            self.assertIn(word, faults[0])

    def test_sound(self) -> None:
        """A real configuration has no fault."""
        self.assertEqual(verify(sample()), [])

    def test_pool(self) -> None:
        """A candidate pool that is too small is reported in the real daemon's words."""
        self.faulty(
            self.changed(NODE3, master_candidate=False),
            "Not enough master candidates: actual 2, target 3",
        )
        self.assertEqual(candidate_counts(sample()), (3, 3))
        drained = self.changed(NODE3, master_candidate=False, drained=True)
        self.assertEqual(verify(drained), [])
        self.assertEqual(candidate_counts(drained), (2, 2))

    def test_master(self) -> None:
        """The master must be an existing node and a candidate."""
        self.faulty(self.changed(CLUSTER, master_node="gone"), "'gone'")
        faults = verify(self.changed(NODE1, master_candidate=False, drained=True))
        self.assertEqual(faults, ["Master node is not a master candidate"])

    def test_nodes(self) -> None:
        """A node must have one role, an existing group, and no parameters of its group."""
        self.faulty(self.changed(NODE2, offline=True), "node 'node2'", "offline")
        self.faulty(self.changed(NODE2, group="gone"), "node 'node2'", "'gone'")
        self.faulty(self.changed(NODE2, ndparams={"exclusive_storage": True}), "exclusive_storage")

    def test_groups(self) -> None:
        """A group's name must not look like a uuid, and its networks must exist."""
        self.faulty(self.changed(GROUP, name=uuid(1)), "looks like a uuid")
        self.faulty(self.changed(GROUP, networks={"gone": {}}), "'gone'")
        faults = verify(sample().without("nodegroups", GROUP))
        self.assertIn("there is no node group", faults)

    def test_names(self) -> None:
        """Names must be unique within their kind, and not empty."""
        self.faulty(self.changed(NODE2, name="node1"), "'node1'", "2 objects")
        self.faulty(self.changed(INSTANCE1, name=""), "empty name")

    def test_objects(self) -> None:
        """Serials must be positive, tags valid, and uuids unique."""
        self.faulty(self.changed(NODE2, serial_no=0), "node 'node2'", "serial number 0")
        self.faulty(self.changed(NODE2, tags=("a b",)), "'a b'", "invalid characters")
        self.faulty(self.changed(CLUSTER, tags=tuple(map(str, range(4097)))), "4097 tags")
        snapshot = sample()
        twice = replace(snapshot.instances[INSTANCE1], uuid=NODE1, name="twice", nics=())
        self.faulty(snapshot.with_object("instances", twice), NODE1, "2 objects")

    def test_instances(self) -> None:
        """An instance's nodes, disks and networks must exist."""
        self.faulty(self.changed(INSTANCE1, primary_node="gone"), "primary node 'gone'")
        self.faulty(self.changed(INSTANCE1, disks=("gone",)), "disk 'gone'")
        nics = (Nic(mac="aa:00:00:00:00:09", network="gone", uuid="n"),)
        self.faulty(self.changed(INSTANCE1, nics=nics), "network 'gone'")
        forthcoming = Instance(name="f", uuid="f", forthcoming=True)
        self.assertEqual(verify(sample().with_object("instances", forthcoming)), [])

    def test_disks(self) -> None:
        """A disk must belong to one instance, and be named for its index."""
        disk = next(disk for disk in sample().disks.values() if disk.iv_name == "disk/0")
        self.faulty(self.changed(INSTANCE1, disks=(disk.uuid,)), disk.uuid, "more than once")
        self.faulty(self.changed(disk.uuid, iv_name="disk/3"), "'disk/3'")
        self.faulty(self.changed(disk.uuid, size=-1), "size -1")

    def test_resources(self) -> None:
        """MACs, ports, minors and addresses must each have only one owner."""
        nics = sample().instances[INSTANCE1].nics
        self.faulty(
            self.changed(INSTANCE1, nics=(nics[0], replace(nics[0], uuid="n", ip=None))), "MAC"
        )
        second = replace(nics[0], uuid="n", mac="aa:00:00:00:00:07")
        self.faulty(self.changed(INSTANCE1, nics=(nics[0], second)), "IP address", "NIC 1")
        self.faulty(self.changed(CLUSTER, master_ip="198.51.100.11"), "the cluster", "node2")
        self.faulty(self.changed(CLUSTER, tcpudp_port_pool=(10998, 10998)), "port 10998")
        self.faulty(self.changed(INSTANCE1, network_port=11005), "11005", "10999")

    def test_minors(self) -> None:
        """Two disks must not share a minor on a node."""
        ends = (NODE1, NODE2, 10998, 0, 0, "s")
        snapshot = sample().with_object(
            "disks", Disk(dev_type="drbd", size=1, uuid="a", logical_id=ends)
        )
        self.assertEqual(verify(snapshot), [])
        ends = (NODE2, NODE3, 10999, 0, 0, "s")
        snapshot = snapshot.with_object(
            "disks", Disk(dev_type="drbd", size=1, uuid="b", logical_id=ends)
        )
        self.faulty(snapshot, "DRBD minor 0", NODE2)

    def test_secondary_gone(self) -> None:
        """A disk on a node that does not exist is a fault of its instance."""
        ends = (NODE1, "gone", 10998, 0, 0, "s")
        disk = Disk(dev_type="drbd", size=1, uuid="a", logical_id=ends, iv_name="disk/0")
        snapshot = self.changed(INSTANCE1, disks=("a",)).with_object("disks", disk)
        self.assertIn(
            "instance 'instance1' has secondary node 'gone', which does not exist", verify(snapshot)
        )

    def test_empty_uuid(self) -> None:
        """An object without a uuid is found."""
        node = Node(
            name="n",
            primary_ip="192.0.2.7",
            secondary_ip="192.0.2.7",
            group=GROUP,
            uuid="",
            master_candidate=True,
        )
        self.faulty(sample().with_object("nodes", node), "empty uuid")
