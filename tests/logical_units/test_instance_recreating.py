"""OP_INSTANCE_RECREATE_DISKS."""

from __future__ import annotations

from collections.abc import Iterable

from ganeti_masterd.config.objects import Disk
from ganeti_masterd.errors import OpExecError
from ganeti_masterd.locking.levels import Level, exclusive, shared
from ganeti_masterd.logical_units.context import JobKilled
from ganeti_masterd.simulation.switches import throw
from tests.logical_units.made import devices, made_instance
from tests.logical_units.test_instance_disks_life import NAME, LifeCase
from tests.logical_units.world import Refused, World

OP = "OP_INSTANCE_RECREATE_DISKS"

#: Nodes, and the minors of mirrors whose volumes were lost while they were up.
LEFT_UP = {"node2": [1], "node3": [1], "node4": []}
NODES = tuple(LEFT_UP)


class RecreatingTests(LifeCase):
    """Lost disks come back empty; what is there is never touched."""

    def lost(self, template: str = "plain", nodes: Iterable[str] = ("node2", "node3")) -> None:
        """Makes an instance with two disks, which are lost at these nodes."""
        made_instance(self.world, template, sizes=(64, 32))
        self.world.run("OP_INSTANCE_DEACTIVATE_DISKS", instance_name=NAME)
        for name in nodes:
            held = self.world.nodes.node(name).state.devices
            for path in list(held):
                held.pop(path)

    @property
    def disks(self) -> tuple[Disk, ...]:
        """The instance's disks."""
        return self.world.now.disks_of(self.instance)

    def recreate(self, **parameters: object) -> None:
        """Runs the opcode."""
        self.world.run(OP, instance_name=NAME, **parameters)

    def uuid(self, name: str) -> str:
        """Returns the uuid of a node."""
        return self.world.now.node(name).uuid

    def test_all(self) -> None:
        """Without a change nothing is written."""
        for template, count in (("plain", {"node2": 2}), ("drbd", {"node2": 4, "node3": 4})):
            self.world = World()
            self.lost(template)
            serials = [disk.serial_no for disk in self.disks]
            self.assertEqual(devices(self.world), {})
            self.recreate()
            self.assertEqual(devices(self.world), count)
            self.assertEqual([disk.serial_no for disk in self.disks], serials)
            self.assertEqual(self.world.faults(), [])

    def test_some_with_changes(self) -> None:
        """Only the disk named, with its new size and mode."""
        self.lost("drbd")
        self.recreate(disks=[[1, {"size": 96, "mode": "ro"}]])
        self.assertEqual(devices(self.world), {"node2": 2, "node3": 2})
        first, second = self.disks
        self.assertEqual((first.size, second.size, second.mode), (64, 96, "ro"))
        self.assertEqual([child.size for child in second.children], [96, 128])
        self.recreate(disks=[0])
        self.assertEqual(devices(self.world), {"node2": 4, "node3": 4})

    def test_other_nodes(self) -> None:
        """The configuration follows: primary, ends of mirrors, minors; port and secret stay."""
        self.lost("drbd")
        before = self.disks
        self.recreate(nodes=["node3", "node4"])
        self.assertEqual(devices(self.world), {"node3": 4, "node4": 4})
        wanted = (self.uuid("node3"), self.uuid("node4"))
        self.assertEqual(self.instance.primary_node, wanted[0])
        for old, new in zip(before, self.disks, strict=True):
            assert old.logical_id
            assert new.logical_id
            self.assertEqual(new.logical_id[:2], wanted)
            self.assertEqual(new.logical_id[2], old.logical_id[2])
            self.assertEqual(new.logical_id[5], old.logical_id[5])
            self.assertEqual([child.nodes for child in new.children], [wanted, wanted])
        self.assertIn("Changing the instance's nodes", "".join(self.world.lines))

    def test_by_allocator(self) -> None:
        """Nodes of the primary's group, and the locks of the others are given back."""
        self.lost("drbd")
        self.recreate(iallocator="builtin")
        self.assertEqual(sum(devices(self.world).values()), 8)
        self.assertIn("Selected nodes for instance", "".join(self.world.lines))

    def test_what_is_there(self) -> None:
        """A disk that isn't lost is an error, and is not harmed; what was made is taken back."""
        self.lost("drbd", ["node2"])
        self.assertEqual(devices(self.world), {"node3": 4})
        error = self.refused(OP)
        self.assertIsInstance(error, OpExecError)
        self.assertIn("Can't create block device disk/0", error.args[0])
        self.assertIn(f"on node node3 for instance {NAME}", error.args[0])
        self.assertEqual(devices(self.world), {"node3": 4})

    def test_half_made_mirror(self) -> None:
        """A mirror that can't connect is taken down, so that its new volumes can be removed."""
        made_instance(self.world, "drbd")
        for node in ("node2", "node3"):
            throw(self.world.nodes, ["lose-lv", node, NAME])
        before = self.disks
        # The old mirror still has the port.
        error = self.refused(OP, nodes=["node2", "node4"])
        self.assertIn("Can't create block device disk/0 (drbd) on node node2", error.args[0])
        self.assertIn("already in use", error.args[0])
        self.assertEqual(devices(self.world), {})
        minors = {node: self.world.nodes.node(node).world.mirrors.of_node(node) for node in NODES}
        self.assertEqual({node: list(held) for node, held in minors.items()}, LEFT_UP)
        self.assertEqual(self.disks, before)

    def test_directory_stays(self) -> None:
        """A file that is there is an error, and its directory isn't touched."""
        made_instance(self.world, "file", sizes=(64, 32))
        self.world.run("OP_INSTANCE_DEACTIVATE_DISKS", instance_name=NAME)
        self.refused(OP)
        self.assertEqual(self.world.lines, [])

    def test_each_failing_call(self) -> None:
        """Nothing is left, nothing is written."""
        for after in range(6):
            for node in ("node3", "node4"):
                self.world = World()
                self.lost("drbd")
                before = self.disks
                self.break_call("blockdev_create", node, after=after)
                self.refused(OP, nodes=["node3", "node4"])
                self.assertEqual(devices(self.world), {}, (after, node))
                self.assertEqual(self.disks, before)
                self.assertEqual(self.world.faults(), [])

    def test_killed(self) -> None:
        """A kill leaves nothing, or all of it."""
        for moment in range(80):
            self.world = World()
            self.lost("drbd")
            before = self.disks
            self.world.kill_after = moment
            try:
                self.recreate(nodes=["node3", "node4"])
            except Refused as refused:
                self.assertIsInstance(refused.error, JobKilled)
                moved = self.disks != before
                expected = {"node3": 4, "node4": 4} if moved else {}
                self.assertEqual(devices(self.world), expected, moment)
                self.assertEqual(self.world.faults(), [])
            else:
                break
        self.assertGreater(moment, 8)

    def test_refusals(self) -> None:
        """Each says what is wrong."""
        self.lost("drbd")
        for parameters, text, code in (
            (
                {"disks": [0, 1, 0]},
                "Some disks have been specified more than once: 0",
                "wrong_input",
            ),
            (
                {"disks": [[0, {"name": "x"}]]},
                "Parameters for disk 0 try to change unmodifyable parameter(s): name",
                "wrong_input",
            ),
            (
                {"nodes": ["node3"], "iallocator": "hail"},
                "Do not specify both, iallocator and node",
                "wrong_input",
            ),
            (
                {"nodes": ["node3"]},
                f"Instance {NAME} currently has 2 nodes, but 1 replacement nodes were specified",
                "wrong_input",
            ),
            (
                {"disks": [4]},
                f"Invalid disk index '4' (instance {NAME} has disks 0 to 1)",
                "wrong_input",
            ),
            (
                {"disks": [1], "nodes": ["node3", "node4"]},
                "Can't recreate disks partially and change the nodes at the same time",
                "wrong_input",
            ),
        ):
            error = self.refused(OP, **parameters)
            self.assertEqual(error.args, (text, code))
        self.world.run("OP_NODE_SET_PARAMS", node_name="node4", offline=True)
        error = self.refused(OP, nodes=["node4", "node3"])
        self.assertEqual(error.args, ("Can't use offline node: node4", "wrong_state"))

    def test_diskless(self) -> None:
        """There is nothing to make."""
        made_instance(self.world, "diskless")
        self.assertEqual(self.refused(OP).args, (f"Instance '{NAME}' has no disks", "wrong_input"))

    def test_marked_up(self) -> None:
        """Not while it is meant to run."""
        made_instance(self.world, admin_state="up")
        self.assertEqual(
            self.refused(OP).args,
            (f"Instance '{NAME}' is marked to be up, cannot recreate disks", "wrong_state"),
        )

    def test_locks(self) -> None:
        """Its own nodes, the nodes named, or with an allocator those of the group."""
        made_instance(self.world, "drbd")
        own = exclusive(self.world.now.nodes_of(self.instance))
        first = {Level.INSTANCE: exclusive(NAME)}
        self.assertEqual(self.locks(OP), {**first, Level.NODE: own, Level.NODE_RES: own})
        named = exclusive([self.uuid("node1"), self.uuid("node4")])
        self.assertEqual(
            self.locks(OP, nodes=["node1", "node4"]),
            {**first, Level.NODE: named, Level.NODE_RES: named},
        )
        every = exclusive(self.world.now.nodes)
        group = self.world.now.group("default").uuid
        self.assertEqual(
            self.locks(OP, iallocator="hail"),
            {**first, Level.NODEGROUP: shared(group), Level.NODE: every, Level.NODE_RES: every},
        )
