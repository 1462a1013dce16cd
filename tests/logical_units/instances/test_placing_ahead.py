"""New instances that are placed before the locks: what is locked, and what happens meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.allocation.desk import FRESH, PlacementDesk
from ganeti_masterd.errors import ECODE_NORES, prereq
from ganeti_masterd.logical_units.instances import requirements
from ganeti_masterd.logical_units.instances.creating import CreateInstance
from ganeti_masterd.simulation.faults import SimulatedFault
from ganeti_masterd.simulation.volumes import make
from ganeti_masterd.testing.context import SynchronousContext
from tests.logical_units.world import MustWait, Refused, World


class PlacedScene(SynchronousTestCase):
    """A cluster of eight nodes, with an instance on node2 and node3."""

    def setUp(self) -> None:
        self.world = World(8)

    def create(self, name: str, *nodes: str, **more: Any) -> list[str]:
        """Creates a mirrored instance, by the built-in allocator unless nodes are named."""
        where = (
            dict(zip(("pnode", "snode"), nodes, strict=True))
            if nodes
            else {"iallocator": "builtin"}
        )
        parameters = {
            "instance_name": name,
            "mode": "create",
            "disk_template": "drbd",
            "disks": [{"size": 128}],
            "nics": [],
            "os_type": "noop",
            "name_check": False,
            "ip_check": False,
            **where,
            **more,
        }
        found: list[str] = self.world.run("OP_INSTANCE_CREATE", **parameters)
        return found

    def refused(self, *args: str, **more: Any) -> tuple[str, str]:
        """Returns the text and the code with which a creation is refused."""
        error = self.assertRaises(Refused, self.create, *args, **more).error
        text, code = error.args
        return text, code

    def at_call(self, procedure: str, do: Callable[[], object]) -> list[str]:
        """Does something at the next call of that name; returns a list that then has its name."""
        nodes = self.world.nodes
        original = nodes.call
        happened: list[str] = []

        def call(targets: Any, name: str, *args: Any, **kwargs: Any) -> Any:
            if name == procedure and not happened:
                happened.append(name)
                do()
            return original(targets, name, *args, **kwargs)

        self.patch(nodes, "call", call)
        return happened

    def after_placing(self, do: Callable[[], object]) -> None:
        """Does something once the next creation has its place, before it has its locks."""
        prepare = CreateInstance.prepare
        done: list[int] = []

        def prepared(unit: CreateInstance, ctx: Any) -> None:
            prepare(unit, ctx)
            if not done:
                done.append(1)
                do()

        self.patch(CreateInstance, "prepare", prepared)


class LockTests(PlacedScene):
    """Which creations go on beside another one."""

    def test_only_its_nodes(self) -> None:
        """While one makes its disks, another that is placed elsewhere runs to its end."""
        found: list[list[str]] = []
        happened = self.at_call("blockdev_create", lambda: found.append(self.create("other")))
        nodes = self.create("one")
        self.assertEqual(happened, ["blockdev_create"])
        self.assertEqual(set(nodes) & set(found[0]), set())
        self.assertEqual(self.world.faults(), [])

    def test_same_nodes(self) -> None:
        """While one makes its disks, another on the same nodes waits for them."""
        waited: list[MustWait] = []

        def other() -> None:
            waited.append(self.assertRaises(MustWait, self.create, "other", "node1", "node4"))

        happened = self.at_call("blockdev_create", other)
        self.create("one", "node1", "node4")
        self.assertEqual((happened, len(waited)), (["blockdev_create"], 1))
        self.assertEqual(self.create("other", "node1", "node4"), ["node1", "node4"])
        self.assertEqual(self.world.faults(), [])

    def test_long_steps(self) -> None:
        """While one wipes, waits for mirrors, installs or starts, others go on on any nodes."""
        self.world.run("OP_CLUSTER_SET_PARAMS", prealloc_wipe_disks=True)
        steps = (
            "blockdev_wipe",
            "blockdev_getmirrorstatus",
            "instance_os_add",
            "instance_start",
        )
        for number, step in enumerate(steps):
            beside: list[list[str]] = []

            def others(number: int = number, beside: list[list[str]] = beside) -> None:
                beside.append(self.create(f"same{number}", "node1", "node4"))
                beside.append(self.create(f"elsewhere{number}", "node2", "node3"))
                beside.append(self.create(f"placed{number}"))
                text, _ = self.refused(f"one{number}", "node2", "node3")
                self.assertIn("already in the cluster", text)

            with self.subTest(step):
                happened = self.at_call(step, others)
                self.create(f"one{number}", "node1", "node4")
                self.assertEqual(happened, [step])
                self.assertEqual(beside[:2], [["node1", "node4"], ["node2", "node3"]])
                self.assertEqual(self.world.faults(), [])

    def test_script_takes_all(self) -> None:
        """With an allocator that is a script, another creation waits as long as disks are made."""
        waited: list[MustWait] = []

        def other() -> None:
            waited.append(self.assertRaises(MustWait, self.create, "other", iallocator="hail"))

        self.at_call("blockdev_create", other)
        self.create("one", "node1", "node4")
        self.assertEqual(len(waited), 1)


class MeanwhileTests(PlacedScene):
    """What comes to the nodes between the placement and its locks."""

    def test_another_instance(self) -> None:
        """An instance that came to the nodes meanwhile sends the job back for all nodes."""
        self.after_placing(lambda: self.create("other", "node1", "node4"))
        self.create("one")
        self.assertIn("have changed since they were chosen", "".join(self.world.lines))
        self.assertIn("* falling back to full lock allocation", self.world.lines)
        self.assertEqual(self.world.faults(), [])

    def test_drained_node(self) -> None:
        """So does a node that was drained meanwhile."""
        self.after_placing(
            lambda: [
                self.world.run("OP_NODE_SET_PARAMS", node_name=name, drained=True)
                for name in ("node4", "node3", "node2")
            ]
        )
        chosen = self.create("one")
        self.assertEqual({"node2", "node3", "node4"} & set(chosen), set())
        self.assertIn("* falling back to full lock allocation", self.world.lines)
        self.assertEqual(self.world.faults(), [])

    def test_removed_node(self) -> None:
        """If a chosen node was removed meanwhile, the job takes all nodes and chooses again."""
        chosen = self.create("first")
        self.world.run("OP_INSTANCE_REMOVE", instance_name="first")
        gone = chosen[1] if chosen[1] != "node1" else chosen[0]
        self.after_placing(lambda: self.world.run("OP_NODE_REMOVE", node_name=gone))
        self.assertNotIn(gone, self.create("one"))
        self.assertEqual(self.world.faults(), [])

    def test_no_room_any_more(self) -> None:
        """Disks that were filled meanwhile send the job back, too; named nodes stay an error."""

        def full(*args: Any) -> None:
            raise prereq("Not enough disk space", ECODE_NORES)

        self.patch(requirements, "require_room", full)
        self.assertEqual(self.refused("one"), ("Not enough disk space", ECODE_NORES))
        self.assertIn("* falling back to full lock allocation", self.world.lines)
        self.world.lines.clear()
        _, code = self.refused("one", "node1", "node4")
        self.assertEqual(code, ECODE_NORES)
        self.assertNotIn("* falling back to full lock allocation", self.world.lines)
        self.assertEqual(self.world.faults(), [])

    def test_no_place(self) -> None:
        """If there is no place, that is said with all nodes held, and says what nodes lack."""
        text, code = self.refused("one", disks=[{"size": 1 << 30}], ignore_ipolicy=True)
        self.assertEqual(code, ECODE_NORES)
        self.assertIn("iallocator 'builtin'", text)
        self.assertEqual(self.world.faults(), [])

    def test_pending_room(self) -> None:
        """A place reckons with those that others have chosen and not used yet."""
        places: list[list[str]] = []
        # The other one is placed after the first, and before any of its disks are there.
        happened = self.at_call("blockdev_create", lambda: places.append(self.create("other")))
        places.append(self.create("one"))
        self.assertEqual(happened, ["blockdev_create"])
        self.assertEqual(len(set(places[0] + places[1])), 4)

    def test_unasked_node(self) -> None:
        """A node that doesn't answer fails the job before it has locks."""
        self.world.nodes.faults.add(SimulatedFault(kind="error", call="node_info", node="node3"))
        error = self.assertRaises(Refused, self.create, "one").error
        self.assertIn("Can't get data for node node3", str(error))
        self.assertEqual(self.world.faults(), [])

    def test_killed(self) -> None:
        """A job that is killed anywhere leaves neither locks nor a pending place."""
        for after in range(1, 200):
            self.world.kill_after = after
            try:
                self.create(f"one{after}")
            except Refused:
                self.assertEqual(self.world.faults(), [])
            else:
                break
        else:
            self.fail("it never ended")


class FreshAnswersTests(PlacedScene):
    """One desk for all jobs, which keeps what nodes answered."""

    def setUp(self) -> None:
        super().setUp()
        desk = PlacementDesk(self.world.reservations.places)
        self.patch(SynchronousContext, "desk", desk)
        self.asked: list[str] = []
        original = self.world.nodes.call

        def call(targets: Any, name: str, *args: Any, **kwargs: Any) -> Any:
            if len(targets) == 8:
                self.asked.append(name)
            return original(targets, name, *args, **kwargs)

        self.patch(self.world.nodes, "call", call)

    def rounds(self) -> int:
        """Returns how often all nodes were asked, and forgets it."""
        asked = self.asked.count("all_instances_info")
        self.asked.clear()
        return asked

    def test_kept(self) -> None:
        """Jobs that come soon after one another share the answers; later ones ask again."""
        places = [self.create(f"one{number}") for number in range(8)]
        self.assertEqual(self.rounds(), 1)
        for number in range(8):
            self.world.run("OP_INSTANCE_REMOVE", instance_name=f"one{number}")
        anew = []
        for number in range(8):
            self.world.clock.advance(FRESH)
            anew.append(self.create(f"one{number}"))
        self.assertEqual(self.rounds(), 8)
        self.assertEqual(places, anew)
        self.world.clock.advance(FRESH)
        self.create("later")
        self.assertEqual(self.rounds(), 1)
        self.assertEqual(self.world.faults(), [])

    def test_changed_node(self) -> None:
        """They don't hold once a node has changed, or for another kind of storage."""
        self.create("one")
        self.rounds()
        self.world.run("OP_NODE_SET_PARAMS", node_name="node4", drained=True)
        self.rounds()
        self.assertNotIn("node4", self.create("two"))
        self.assertEqual(self.rounds(), 1)
        self.create("three", disk_template="plain")
        self.assertEqual(self.rounds(), 1)

    def test_no_place_by_them(self) -> None:
        """Where they leave no place, nodes are asked once more: something may have gone."""
        large = {"disks": [{"size": 1000000}], "ignore_ipolicy": True}
        for number in range(4):
            self.create(f"large{number}", **large)
        self.assertEqual(self.rounds(), 1)
        self.world.clock.advance(FRESH)
        self.refused("again", **large)
        self.world.run("OP_INSTANCE_REMOVE", instance_name="large2")
        self.rounds()
        self.create("again", **large)
        self.assertEqual(self.rounds(), 1)
        self.assertEqual(self.world.faults(), [])

    def test_gone_room(self) -> None:
        """A place that is too small by now sends the job back for all nodes."""
        self.create("one")
        node = self.world.nodes.node
        for number in range(1, 8):
            make(node(f"node{number}"), "xenvg", "other", 1048000)
        text, code = self.refused("two", disks=[{"size": 4096}])
        self.assertEqual(code, ECODE_NORES)
        self.assertIn("* falling back to full lock allocation", self.world.lines)
        self.assertIn("iallocator 'builtin'", text)
        self.assertEqual(self.world.faults(), [])
