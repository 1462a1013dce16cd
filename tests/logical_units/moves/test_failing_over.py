"""OP_INSTANCE_FAILOVER: there, refusals, dead nodes, and the node calls in their order."""

from __future__ import annotations

from msgspec.structs import replace

from ganeti_masterd.config.objects import Nic
from ganeti_masterd.simulation.state import SimulatedInstance
from ganeti_masterd.simulation.switches import throw
from tests.logical_units.instances.scene import NAME
from tests.logical_units.moves.moving import FAILOVER, MovingScene
from tests.logical_units.world import MustWait, Refused

#: The calls of a failover from node2 to node3, as real daemon 3.0.2 makes them; the question
#: whether it runs on node3 is ours.
CALLS = [
    ("node3", "node_info"),
    ("node3", "instance_info"),
    *[("node3", "blockdev_find")] * 3,
    ("node2", "instance_shutdown"),
    ("node2", "blockdev_shutdown"),
    ("node3", "blockdev_shutdown"),
    ("node2", "blockdev_assemble"),
    ("node3", "blockdev_assemble"),
    ("node3", "blockdev_assemble"),
    ("node3", "instance_start"),
]

LINES = """\
Failover instance db.example.com
* checking disk consistency between source and target
* shutting down instance on source node
* deactivating the instance's disks on source node
* activating the instance's disks on target node node3
* starting the instance on the target node node3""".splitlines()


class FailingOverTests(MovingScene):
    """An instance is stopped, and started on another node."""

    def test_mirrored(self) -> None:
        """The calls, the log, the configuration; and back."""
        self.make(up=True)
        self.assertIsNone(self.move(FAILOVER))
        self.assertEqual(self.made_calls(), CALLS)
        self.assertEqual(self.world.lines, LINES)
        self.assertWhole("node3")
        self.move(FAILOVER)
        self.assertWhole("node2")

    def test_disks_said_to_be_down(self) -> None:
        """One that runs though its disks were forced down isn't started from an old copy."""
        self.make(up=True)
        self.world.run("OP_INSTANCE_DEACTIVATE_DISKS", instance_name=NAME, force=True)
        self.assertEqual(self.state(), ("up", "admin", False, ["node2"]))
        self.assertRaises(Refused, self.move, FAILOVER)
        self.assertEqual(self.where(), ["node2"])
        self.assertIn("* checking disk consistency", "".join(self.world.lines))
        self.world.run("OP_INSTANCE_ACTIVATE_DISKS", instance_name=NAME)
        self.move(FAILOVER)
        self.assertWhole("node3")

    def test_down(self) -> None:
        """One that is down stays down; its disks too."""
        self.make()
        self.move(FAILOVER)
        self.assertWhole("node3", up=False)
        self.assertFalse(self.now().disks_active)
        self.assertEqual(
            self.made_calls(),
            [
                ("node2", "instance_shutdown"),
                ("node2", "blockdev_shutdown"),
                ("node3", "blockdev_shutdown"),
            ],
        )
        self.assertIn(
            "* not checking disk consistency as instance is not running", self.world.lines
        )

    def test_shared(self) -> None:
        """To the node that is named, or that an allocator chooses."""
        for template in ("sharedfile", "rbd", "diskless"):
            self.renew()
            self.make(template, ("node2",), up=True)
            self.move(FAILOVER, target_node="node4")
            self.assertEqual(self.where(), ["node4"])
            self.assertIn(("node2", "blockdev_close"), self.calls)
            self.move(FAILOVER, iallocator="builtin")
            self.assertNotEqual(self.where(), ["node4"])
            self.assertEqual(len(self.where()), 1)
            self.assertEqual(self.world.faults(), [])

    def test_as_it_is(self) -> None:
        """The node that starts it gets the instance as it is by then."""
        self.make(up=True)
        self.move(FAILOVER)
        ((sent, *_),) = [
            arguments
            for (_, name), arguments in zip(self.calls, self.arguments, strict=True)
            if name == "instance_start"
        ]
        self.assertTrue(sent["disks_active"])
        self.assertEqual(sent["primary_node"], self.world.now.node("node3").uuid)
        self.assertEqual(sent["serial_no"], self.now().serial_no)

    def test_forthcoming(self) -> None:
        """Of one that is only planned the configuration changes."""
        self.make()
        self.modify(self.now().uuid, lambda now: replace(now, forthcoming=True))
        for uuid in self.now().disks:
            self.modify(uuid, lambda disk: replace(disk, forthcoming=True))
        self.move(FAILOVER)
        self.assertEqual(self.made_calls(), [])
        self.assertEqual(self.now().primary_node, self.world.now.node("node3").uuid)
        self.assertIn("Instance is forthcoming, just updating the  configuration", self.world.lines)

    def test_shutdown_timeout(self) -> None:
        """How long it has to stop is the opcode's to say."""
        self.make(up=True)
        self.move(FAILOVER, shutdown_timeout=7)
        stopped = [
            arguments
            for (_, name), arguments in zip(self.calls, self.arguments, strict=True)
            if name == "instance_shutdown"
        ]
        self.assertEqual(stopped[0][1], 7)
        self.assertEqual(self.hook_variables()[0]["GANETI_SHUTDOWN_TIMEOUT"], "7")

    def test_secondary_named(self) -> None:
        """The node to which it goes anyway may be named."""
        self.make(up=True)
        self.move(FAILOVER, target_node="node3")
        self.assertWhole("node3")

    def test_hooks(self) -> None:
        """Before it on the master and the target, after it also on the source."""
        self.make(up=True)
        self.move(FAILOVER)
        ran = [
            (node, arguments[1])
            for (node, name), arguments in zip(self.calls, self.arguments, strict=True)
            if name == "hooks_runner" and arguments[0] == "instance-failover"
        ]
        self.assertEqual(
            sorted(ran),
            [
                ("node1", "post"),
                ("node1", "pre"),
                ("node2", "post"),
                ("node3", "post"),
                ("node3", "pre"),
            ],
        )
        before = self.hook_variables()[0]
        for key, value in (
            ("IGNORE_CONSISTENCY", "False"),
            ("SHUTDOWN_TIMEOUT", "120"),
            ("FAILOVER_CLEANUP", "False"),
            ("OLD_PRIMARY", "node2"),
            ("NEW_PRIMARY", "node3"),
            ("OLD_SECONDARY", "node3"),
            ("NEW_SECONDARY", "node2"),
        ):
            self.assertEqual(before[f"GANETI_{key}"], value)

    def test_locks(self) -> None:
        """Its nodes, alone."""
        self.make()
        nodes = (sorted(self.world.now.nodes_of(self.now())), True)
        self.assertEqual(
            self.locks_of(FAILOVER, instance_name=NAME),
            {"instance": ([NAME], True), "node": nodes, "node-res": nodes},
        )

    def test_watcher(self) -> None:
        """It starts nothing meanwhile: its job waits, and then finds the instance running."""
        self.make(up=True)
        waited: list[str] = []

        def beside() -> None:
            if self.calls[-1][1] != "instance_shutdown":
                self.world.meanwhile.append(beside)
                return
            self.assertRaises(MustWait, self.world.run, "OP_INSTANCE_STARTUP", instance_name=NAME)
            waited.append("startup")

        self.world.meanwhile.append(beside)
        self.move(FAILOVER)
        self.assertEqual(waited, ["startup"])
        self.world.run("OP_INSTANCE_STARTUP", instance_name=NAME)
        self.assertWhole("node3")


class RefusedFailoverTests(MovingScene):
    """Each refusal says why, and changes nothing."""

    def refuses(self, text: str, code: str = "wrong_state", **parameters: object) -> None:
        """Expects that the failover is refused."""
        self.assertRefused(text, code, FAILOVER, instance_name=NAME, **parameters)

    def check_nodes(self, procedure: str) -> None:
        """Here an instance may run twice: a test has done that."""

    def test_layout(self) -> None:
        """Without a mirror there is nowhere to go."""
        self.make("plain", ("node2",), up=True)
        self.refuses("Instance's disk layout 'plain' does not allow failovers")

    def test_arbitrary_node(self) -> None:
        """A mirror has one other end."""
        self.make(up=True)
        self.refuses(
            "Instances with disk types drbd cannot be failed over to arbitrary nodes "
            "(neither an iallocator nor a target node can be passed)",
            "wrong_input",
            target_node="node4",
        )

    def test_targets(self) -> None:
        """A node that can't be taken."""
        self.make(up=True)
        self.world.run("OP_NODE_SET_PARAMS", node_name="node3", drained=True)
        self.refuses("Can't use drained node node3")
        self.world.run("OP_NODE_SET_PARAMS", node_name="node3", drained=False, offline=True)
        self.refuses("Can't use offline node: node3")

    def test_cleanup(self) -> None:
        """That is a matter of migrations."""
        self.make(up=True)
        error = self.fails(FAILOVER, instance_name=NAME, cleanup=True)
        self.assertEqual(error.args[1], "wrong_input")
        self.assertIn("gnt-instance migrate --cleanup", error.args[0])

    def test_runs_there(self) -> None:
        """An old copy on the other node is found before anything is stopped."""
        self.make(up=True)
        self.run_on("node3")
        self.refuses(
            f"Instance '{NAME}' runs on node node3, which is not its primary node node2; it is "
            "not started a second time"
        )
        self.assertEqual(self.where(), ["node2", "node3"])

    def test_network(self) -> None:
        """A node whose group isn't connected to a network of the instance."""
        self.world.run("OP_NETWORK_ADD", network_name="lan", network="192.0.2.0/24")
        self.world.run("OP_GROUP_ADD", group_name="far")
        self.world.run("OP_GROUP_ASSIGN_NODES", group_name="far", nodes=["node4"])
        nic = Nic(mac="aa:00:00:00:00:01", uuid="n", network=self.world.now.network("lan").uuid)
        self.make("diskless", ("node2",), nics=[nic])
        self.refuses(
            f"Network 'lan' of network interface 0 of instance '{NAME}' is not connected to node "
            "group 'far', which node node4 is in",
            target_node="node4",
        )

    def test_degraded(self) -> None:
        """Nothing is done to the instance, unless its data is known to be lost."""
        self.make(up=True)
        throw(self.world.nodes, ["down", "node3", NAME])
        self.assertFails(
            "Disk 0 is degraded on target node, aborting failover", FAILOVER, instance_name=NAME
        )
        self.assertEqual(self.where(), ["node2"])
        self.assertNotIn("instance_shutdown", [name for _, name in self.calls])


class DeadNodeTests(MovingScene):
    """The node on which the instance ran is dead, or can't be asked."""

    def die(self, node: str = "node2") -> None:
        """Takes a node's power."""
        throw(self.world.nodes, ["power", node, "off"])

    def test_marked_offline(self) -> None:
        """An administrator has said that it is dead: that is enough, and the log says so."""
        self.make(up=True)
        self.die()
        self.set_offline("node2")
        self.move(FAILOVER)
        self.assertEqual(self.where(), ["node3"])
        self.assertEqual(
            self.world.lines,
            [
                "Failover instance db.example.com",
                "* checking disk consistency between source and target",
                "Node node2 is offline, ignoring degraded disk 0 on target node node3",
                "* shutting down instance on source node",
                f" - WARNING: Could not shutdown instance {NAME} on node node2, proceeding anyway; "
                "please make sure node node2 is down; error details: Node is marked offline",
                "* deactivating the instance's disks on source node",
                " - WARNING: Could not shutdown block device disk/0 on node node2: Node is marked "
                "offline",
                "* activating the instance's disks on target node node3",
                " - WARNING: Could not prepare block device disk/0 on node node2 "
                "(is_primary=False, pass=1): Node is marked offline",
                "* starting the instance on the target node node3",
            ],
        )

    def test_not_marked(self) -> None:
        """A node that only doesn't answer may still run it."""
        self.make(up=True)
        self.break_call("instance_shutdown", text="no route to host")
        self.break_call("instance_info", text="no route to host")
        self.assertFails(
            f"Could not shutdown instance {NAME} on node node2: no route to host",
            FAILOVER,
            instance_name=NAME,
        )
        self.assertEqual(self.where(), ["node2"])
        self.assertTrue(self.now().disks_active)

    def test_ignored(self) -> None:
        """With ignore_consistency it goes on without that node, and says so."""
        self.make(up=True)
        self.die()
        self.move(FAILOVER, ignore_consistency=True)
        self.assertEqual(self.where(), ["node3"])
        self.assertTrue(
            any(
                f"Could not shutdown instance {NAME} on node node2, proceeding anyway; please "
                "make sure node node2 is down" in line
                for line in self.world.lines
            )
        )

    def test_still_runs(self) -> None:
        """A node that answers and runs it is not passed over, whatever is ignored."""
        self.make(up=True)
        self.break_call("instance_shutdown")
        for ignore in (False, True):
            self.assertFails(
                f"Could not shutdown instance {NAME} on node node2: broken; it still runs there, "
                "so it is not started on node node3",
                FAILOVER,
                instance_name=NAME,
                ignore_consistency=ignore,
            )
            self.assertEqual(self.where(), ["node2"])

    def test_stopped_all_the_same(self) -> None:
        """A node that says that it doesn't run has stopped it, though its answer was lost."""
        self.make(up=True)
        self.lost.append(("node2", "instance_shutdown"))
        self.move(FAILOVER)
        self.assertWhole("node3")
        self.assertIn(
            f" - INFO: Instance {NAME} doesn't run on node node2: no answer in time",
            self.world.lines,
        )

    def test_comes_back(self) -> None:
        """The old node comes back and still runs it: it isn't started again, nor moved there."""
        self.make(up=True)
        self.set_offline("node2")
        old = self.world.nodes.node("node2").state.instances
        kept = old[NAME]
        throw(self.world.nodes, ["power", "node2", "off"])
        self.move(FAILOVER)
        self.assertEqual(self.where(), ["node3"])
        throw(self.world.nodes, ["power", "node2", "on"])
        self.world.run("OP_NODE_SET_PARAMS", node_name="node2", offline=False)
        old[NAME] = SimulatedInstance(kept.hypervisor, kept.memory, kept.vcpus)
        self.forget()
        text = (
            f"Instance '{NAME}' runs on node node2, which is not its primary node node3; it is "
            "not started a second time"
        )
        for op_id in (FAILOVER, "OP_INSTANCE_MIGRATE"):
            self.assertRefused(text, "wrong_state", op_id, instance_name=NAME)
        self.assertEqual(self.now().primary_node, self.world.now.node("node3").uuid)
        del old  # What is left there is stopped by hand.
        self.crash("node2")
        self.world.run("OP_INSTANCE_ACTIVATE_DISKS", instance_name=NAME)
        self.move(FAILOVER)
        self.assertWhole("node2")

    def check_nodes(self, procedure: str) -> None:
        """Here an instance may run twice: a test has done that."""


class BrokenFailoverTests(MovingScene):
    """A call fails, is lost, or the job is killed: the instance runs on one of its nodes."""

    def prepare(self) -> None:
        """Makes the cluster anew, with the instance on node2."""
        self.renew()
        self.make(up=True)

    def settle(self) -> str:
        """Does what the watcher would do; returns the node where the instance is then."""
        self.world.nodes.faults.clear()
        self.lost.clear()
        self.world.run("OP_INSTANCE_STARTUP", instance_name=NAME)
        self.world.run("OP_INSTANCE_ACTIVATE_DISKS", instance_name=NAME)
        primary = self.world.now.nodes[self.now().primary_node].name
        self.assertWhole(primary)
        return primary

    def test_failing_calls(self) -> None:
        """Before the change of the configuration all is as it was, afterwards it is on node3."""
        expected = {
            ("node3", "blockdev_find"): "node2",
            ("node2", "instance_shutdown"): "node2",
            ("node2", "blockdev_shutdown"): "node2",
            ("node3", "blockdev_shutdown"): "node2",
            ("node2", "blockdev_assemble"): "node3",
            ("node3", "blockdev_assemble"): "node3",
            ("node3", "instance_start"): "node3",
        }
        for node, procedure in self.each_call(self.prepare, FAILOVER):
            self.prepare()
            self.break_call(procedure, node)
            self.world.try_run(FAILOVER, instance_name=NAME)
            primary = self.world.now.nodes[self.now().primary_node].name
            self.assertEqual(primary, expected.pop((node, procedure)), procedure)
            if primary == "node2":
                # It was started again at once.
                self.assertEqual(self.where(), ["node2"], procedure)
            self.settle()
            self.move(FAILOVER)
            self.settle()
        self.assertEqual(expected, {})

    def test_lost_answers(self) -> None:
        """The same if the node did what it was asked to."""
        for each in self.each_call(self.prepare, FAILOVER):
            self.prepare()
            self.lost.append(each)
            self.world.try_run(FAILOVER, instance_name=NAME)
            self.settle()
            self.move(FAILOVER)
            self.settle()

    def test_start_lost(self) -> None:
        """A start whose answer was lost is one, if the node says that the instance runs."""
        self.prepare()
        self.lost.append(("node3", "instance_start"))
        self.move(FAILOVER)
        self.assertWhole("node3")

    def test_killed(self) -> None:
        """A kill at any checkpoint: it is on one of its nodes, and the watcher has it running."""
        found = set()
        for moment in self.each_kill(self.prepare, FAILOVER, instance_name=NAME):
            before = self.where()
            found.add(self.settle())
            primary = self.world.now.nodes[self.now().primary_node].name
            if primary == "node2":
                self.assertEqual(before, ["node2"], f"not started again: {moment}")
        self.assertEqual(found, {"node2", "node3"})

    def test_log(self) -> None:
        """What failed is told with the state it leaves, and the command that goes on."""
        self.prepare()
        self.break_call("instance_start", "node3")
        self.assertFails(
            f"Could not start instance {NAME} on node node3: broken",
            FAILOVER,
            instance_name=NAME,
        )
        self.assertEqual(
            self.world.lines[-2:],
            [
                f" - WARNING: Failover failed at the step: start {NAME} on node3. {NAME} is "
                "stopped or runs on node3, its node, where the watcher starts it",
                f"      Hint: To go on: gnt-instance startup {NAME}",
            ],
        )
        self.assertFalse(self.now().disks_active)
