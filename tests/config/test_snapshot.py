"""Snapshots: looking up objects, and how they relate."""

from __future__ import annotations

from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.objects import Disk, Instance, Network
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import ConfigurationError, OpPrereqError, ProgrammerError

from .sample import CLUSTER, GROUP, INSTANCE1, NODE1, NODE2, NODE3, sample, uuid


def renamed(*names: str) -> Snapshot:
    """Returns the sample with other node names."""
    snapshot = sample()
    for node, name in zip(list(snapshot.nodes.values()), names, strict=False):
        snapshot = snapshot.with_object("nodes", replace(node, name=name))
    return snapshot


class Differing(SynchronousTestCase):
    """Which objects of a section are not the very same in an earlier one."""

    def test_changes(self) -> None:
        """Those that were added, replaced or removed; none of a section that is the same."""
        before = sample()
        self.assertEqual(before.nodes.differing(before.nodes), [])
        after = before.with_object("nodes", replace(before.node("node2"), drained=True))
        self.assertEqual(after.nodes.differing(before.nodes), [NODE2])
        self.assertEqual(after.instances.differing(before.instances), [])
        after = after.without("nodes", NODE3)
        self.assertEqual(set(after.nodes.differing(before.nodes)), {NODE2, NODE3})
        self.assertEqual(set(before.nodes.differing(after.nodes)), {NODE2, NODE3})


class Finding(SynchronousTestCase):
    def test_by_name_and_uuid(self) -> None:
        """Each kind of object is found by its name and by its uuid."""
        snapshot = sample()
        for kind, name, found in (
            ("node", "node2", NODE2),
            ("nodegroup", "default", GROUP),
            ("instance", "instance1", INSTANCE1),
        ):
            self.assertEqual(snapshot.find(kind, name).uuid, found)
            self.assertEqual(snapshot.find(kind, found).name, name)
        self.assertIs(snapshot.find("cluster", None), snapshot.cluster)
        self.assertEqual(snapshot.node("node1").uuid, NODE1)
        self.assertEqual(snapshot.group("default").uuid, GROUP)
        self.assertEqual(snapshot.instance("instance1").uuid, INSTANCE1)

    def test_unknown(self) -> None:
        """A lookup of an object that doesn't exist raises the real daemon's error."""
        snapshot = sample()
        for kind, text in (
            ("node", "Node 'nosuch' not known"),
            ("instance", "Instance 'nosuch' not known"),
            ("nodegroup", "Node group 'nosuch' not found"),
            ("network", "Network 'nosuch' not found"),
        ):
            fault = self.assertRaises(OpPrereqError, snapshot.find, kind, "nosuch")
            self.assertEqual(fault.args, (text, "unknown_entity"))
            self.assertIsNone(snapshot.lookup(kind, "nosuch"))
            self.assertIsNone(snapshot.lookup(kind, None))
            self.assertIsNone(snapshot.lookup(kind, ""))
        self.assertRaises(OpPrereqError, snapshot.network, "nosuch")

    def test_unknown_kind(self) -> None:
        """A kind that doesn't exist is wrong input."""
        fault = self.assertRaises(OpPrereqError, sample().find, "planet", "earth")
        self.assertEqual(fault.args[1], "wrong_input")

    def test_short_names(self) -> None:
        """A name may be cut at any dot if it still fits only one node; case doesn't matter."""
        snapshot = renamed("node1.example.com", "node3.example.com", "node2.example.org")
        for name in ("node1", "NODE1", "node1.example", "node1.example.com", "Node1.Example.COM"):
            self.assertEqual(snapshot.node(name).uuid, NODE1)
        for name in ("node", "node1.ex", "node1.", "example.com"):
            self.assertRaises(OpPrereqError, snapshot.node, name)

    def test_ambiguous_short_names(self) -> None:
        """A short name that fits several nodes finds none; a full name always finds its node."""
        snapshot = renamed("n.example.com", "n.example.org", "n.other")
        self.assertRaises(OpPrereqError, snapshot.node, "n")
        self.assertRaises(OpPrereqError, snapshot.node, "n.example")
        self.assertEqual(snapshot.node("n.other").uuid, NODE2)
        snapshot = renamed("n", "n.example.com")
        self.assertEqual(snapshot.node("n").uuid, NODE1)
        self.assertEqual(snapshot.node("N").uuid, NODE1)
        snapshot = renamed("n.a", "N.a")
        self.assertRaises(OpPrereqError, snapshot.node, "N.A")
        self.assertEqual(snapshot.node("N.a").uuid, NODE3)

    def test_groups_are_not_shortened(self) -> None:
        """Only nodes and instances have names that are host names."""
        group = replace(sample().group("default"), name="rack.one")
        snapshot = sample().with_object("nodegroups", group)
        self.assertRaises(OpPrereqError, snapshot.group, "rack")

    def test_names_follow_changes(self) -> None:
        """A renamed, added or removed object is found only by its current name."""
        before = sample()
        self.assertEqual(before.node("node2").uuid, NODE2)
        self.assertIsNone(before.lookup("node", "short"))
        after = before.with_object("nodes", replace(before.nodes[NODE2], name="short.example"))
        self.assertIsNone(after.lookup("node", "node2"))
        self.assertEqual(after.node("short").uuid, NODE2)
        self.assertEqual(before.node("node2").uuid, NODE2)
        added = after.with_object("nodes", replace(before.nodes[NODE2], uuid=uuid(1), name="node9"))
        self.assertEqual(added.node("NODE9").uuid, uuid(1))
        self.assertIsNone(added.without("nodes", uuid(1)).lookup("node", "node9"))

    def test_locate(self) -> None:
        """A uuid leads to its section and object."""
        snapshot = sample()
        self.assertEqual(snapshot.locate(NODE1), ("nodes", snapshot.nodes[NODE1]))
        self.assertEqual(snapshot.locate(CLUSTER), ("cluster", snapshot.cluster))
        self.assertIsNone(snapshot.locate("nosuch"))
        self.assertRaises(ProgrammerError, snapshot.section, "nosuch")


class Belonging(SynchronousTestCase):
    def test_master_and_groups(self) -> None:
        """The master, the group of a node and the nodes of a group are found."""
        snapshot = sample()
        self.assertEqual(snapshot.master.name, "node1")
        self.assertEqual(snapshot.group_of(snapshot.nodes[NODE2]).name, "default")
        members = snapshot.members(snapshot.groups[GROUP])
        self.assertEqual({node.name for node in members}, {"node1", "node2", "node3"})
        self.assertEqual(snapshot.members("nosuch"), ())
        self.assertEqual(len(snapshot.candidates()), 3)

    def test_broken_references(self) -> None:
        """A master or a group that doesn't exist raises ConfigurationError."""
        snapshot = sample().without("nodes", NODE1)
        self.assertRaises(ConfigurationError, lambda: snapshot.master)
        snapshot = sample().without("nodegroups", GROUP)
        self.assertRaises(ConfigurationError, snapshot.group_of, snapshot.nodes[NODE2])

    def test_members_follow(self) -> None:
        """A node that moves to another group becomes a member of that group."""
        before = sample()
        self.assertEqual(len(before.members(GROUP)), 3)
        other = replace(before.groups[GROUP], uuid=uuid(7), name="second")
        after = before.with_object("nodegroups", other)
        after = after.with_object("nodes", replace(before.nodes[NODE2], group=uuid(7)))
        self.assertEqual([node.uuid for node in after.members(other)], [NODE2])
        self.assertEqual(len(after.members(GROUP)), 2)
        self.assertEqual(len(before.members(GROUP)), 3)

    def test_instances(self) -> None:
        """Instances are found by primary and by secondary node, disks by instance."""
        snapshot = sample()
        names = {instance.name for instance in snapshot.instances_on(NODE1)}
        self.assertEqual(names, {"instance5", "instance8", "instance31"})
        five = snapshot.instance("instance5")
        self.assertEqual(
            [d.iv_name for d in snapshot.disks_of(five)], ["disk/0", "disk/1", "disk/2"]
        )
        self.assertEqual(snapshot.nodes_of(five), (NODE1,))
        self.assertEqual(snapshot.secondaries_on(NODE2), ())
        disk = Disk(dev_type="drbd", size=1, uuid="d", logical_id=(NODE1, NODE2, 11000, 0, 0, "s"))
        mirrored = Instance(name="m", uuid="m", primary_node=NODE1, disks=("d",))
        snapshot = snapshot.with_object("disks", disk).with_object("instances", mirrored)
        self.assertEqual(snapshot.nodes_of(mirrored), (NODE1, NODE2))
        self.assertEqual(snapshot.secondaries_on(snapshot.nodes[NODE2]), (mirrored,))
        self.assertIn(disk, snapshot.disks_on(snapshot.nodes[NODE1]))
        held = tuple(each for each in snapshot.disks.values() if NODE2 in each.all_nodes())
        self.assertEqual(snapshot.disks_on(NODE2), held)
        self.assertEqual(snapshot.owner_of(disk), mirrored)
        detached = snapshot.without("instances", "m")
        self.assertIsNone(detached.owner_of(disk))
        self.assertEqual(detached.disks_on(NODE2), held)
        self.assertEqual(len(snapshot.instances_on(snapshot.nodes[NODE1])), 4)


class Values(SynchronousTestCase):
    def test_immutable(self) -> None:
        """A change doesn't affect the snapshot that it was made from."""
        before = sample()
        after = before.with_object("networks", Network(name="n", network="192.0.2.0/24", uuid="u"))
        self.assertEqual((len(before.networks), len(after.networks)), (0, 1))
        self.assertEqual(before, sample())
        self.assertNotEqual(after, before)
        self.assertIs(after.nodes, before.nodes)
        self.assertEqual(after.without("networks", "u"), before)
        self.assertRaises(KeyError, before.without, "networks", "u")
        self.assertRaises(AttributeError, setattr, before.cluster, "master_ip", "x")

    def test_sorted_by_uuid(self) -> None:
        """A new object is inserted in the order of uuids."""
        snapshot = sample()
        for number in (2**127, 5, 2**126):
            node = replace(snapshot.nodes[NODE1], uuid=uuid(number), name=f"n{number}")
            snapshot = snapshot.with_object("nodes", node)
        self.assertEqual(list(snapshot.nodes), sorted(snapshot.nodes))
        self.assertEqual(len(snapshot.nodes), 6)
