"""OP_NODE_POWERCYCLE, OP_RESTRICTED_COMMAND and OP_OOB_COMMAND."""

from __future__ import annotations

from typing import Any

from ganeti_masterd.errors import OpExecError
from ganeti_masterd.locking.levels import BGL, Level, all_exclusive, exclusive, shared
from ganeti_masterd.logical_units.context import JobKilled
from ganeti_masterd.logical_units.nodes.out_of_band import fault_of
from ganeti_masterd.testing.nodes import Failed
from tests.logical_units.nodes.scene import NodeScene


class PowercycleTests(NodeScene):
    """OP_NODE_POWERCYCLE."""

    def test_refusals(self) -> None:
        """The master needs force; unknown nodes are refused."""
        self.assertEqual(
            self.refusal("OP_NODE_POWERCYCLE", node_name="node1"),
            ("The node is the master and the force parameter was not set", "wrong_input"),
        )
        self.assertEqual(self.refusal("OP_NODE_POWERCYCLE", node_name="x")[1], "unknown_entity")

    def test_success(self) -> None:
        """The call has the default hypervisor, is made even if offline, and takes no lock."""
        self.alter("node4", offline=True)
        self.nodes.answers["node_powercycle"] = "Reboot scheduled in 5 seconds"
        unit = self.unit("OP_NODE_POWERCYCLE", node_name="node4")
        self.assertEqual(self.wanted(unit), {Level.CLUSTER: shared(BGL)})
        result = self.run_unit("OP_NODE_POWERCYCLE", node_name="node4")
        self.assertEqual(result, "Reboot scheduled in 5 seconds")
        self.assertEqual(self.nodes.asked[0].arguments, ["fake", {"migration_mode": "live"}])
        self.run_unit("OP_NODE_POWERCYCLE", node_name="node1", force=True)

    def test_failure(self) -> None:
        """A node that fails is named."""
        self.nodes.answers["node_powercycle"] = Failed("no sysrq")
        error = self.assertRaises(
            OpExecError, self.run_unit, "OP_NODE_POWERCYCLE", node_name="node2"
        )
        self.assertIn("Failed to schedule the reboot: node node2", error.args[0])


class RestrictedCommandTests(NodeScene):
    """OP_RESTRICTED_COMMAND."""

    def test_result(self) -> None:
        """Each node's output or failure, in the order in which they were named."""
        self.nodes.answers["restricted_command"] = "done\n"
        self.nodes.answers["node2", "restricted_command"] = Failed("not allowed")
        result = self.run_unit("OP_RESTRICTED_COMMAND", nodes=["node3", "node2"], command="c")
        self.assertEqual(
            result,
            [(True, "done\n"), (False, "Command 'c' on node 'node2' failed: not allowed")],
        )
        self.assertEqual(self.nodes.asked[0].arguments, ["c"])

    def test_uuids(self) -> None:
        """Without names the nodes are found by uuid."""
        self.nodes.answers["restricted_command"] = ""
        uuids = [self.node("node2").uuid]
        result = self.run_unit("OP_RESTRICTED_COMMAND", nodes=[], node_uuids=uuids, command="c")
        self.assertEqual(result, [(True, "")])

    def test_locks(self) -> None:
        """Nodes are shared, or held exclusively with ``use_locking``."""
        uuid = self.node("node2").uuid
        for alone, wanted in ((False, shared(uuid)), (True, exclusive(uuid))):
            unit = self.unit(
                "OP_RESTRICTED_COMMAND", nodes=["node2"], command="c", use_locking=alone
            )
            self.assertEqual(self.wanted(unit)[Level.NODE], wanted)

    def test_unknown_node(self) -> None:
        """A node that isn't there is refused."""
        self.assertEqual(
            self.refusal("OP_RESTRICTED_COMMAND", nodes=["x"], command="c")[1], "unknown_entity"
        )


class OutOfBandTests(NodeScene):
    """OP_OOB_COMMAND; node2 to node4 have a program for it."""

    def setUp(self) -> None:
        super().setUp()
        for number in (2, 3, 4):
            self.alter(f"node{number}", ndparams={"oob_program": "/oob"})

    def run_oob(self, command: str, *names: str, **parameters: Any) -> Any:
        return self.run_unit("OP_OOB_COMMAND", command=command, node_names=names, **parameters)

    def refused(self, command: str, *names: str) -> tuple[Any, ...]:
        return self.refusal("OP_OOB_COMMAND", command=command, node_names=names)

    def test_refusals(self) -> None:
        """The master can't be switched off or power-cycled, nor a node that isn't offline."""
        self.assertEqual(
            self.refused("power-cycle", "node1", "node2"),
            (
                "Operating on the master node node1 is not allowed for power-cycle; it does not"
                " support out-of-band operations",
                "wrong_input",
            ),
        )
        self.alter("node1", ndparams={"oob_program": "/oob"})
        self.assertIn(
            "run '/oob power-off node1' if you want", self.refused("power-off", "node1")[0]
        )
        self.assertEqual(
            self.refused("power-off", "node2"),
            ("Cannot power off node node2 because it is not marked offline", "wrong_state"),
        )
        self.assertEqual(self.refused("health", "nosuch")[1], "unknown_entity")

    def test_locks(self) -> None:
        """The nodes are held, or all of them."""
        unit = self.unit("OP_OOB_COMMAND", command="health")
        self.assertEqual(self.wanted(unit)[Level.NODE], all_exclusive)
        unit = self.unit("OP_OOB_COMMAND", command="health", node_names=["node2"])
        self.assertEqual(self.wanted(unit)[Level.NODE], exclusive(self.node("node2").uuid))

    def test_without_program(self) -> None:
        """Nodes that have no program are listed as such."""
        self.nodes.answers["run_oob"] = {"powered": True}
        self.assertEqual(
            self.run_oob("power-status", "node2", "node1"),
            [
                [(0, "node1"), (3, None)],
                [(0, "node2"), (0, {"powered": True})],
            ],
        )
        (call,) = self.nodes.asked
        self.assertEqual(
            (call.node, call.arguments), ("node1", ["/oob", "power-status", "node2", 60])
        )

    def test_all_but_the_master(self) -> None:
        """Without names it is all nodes; the master is spared where it would go down."""
        rows = self.run_oob("power-cycle")
        self.assertEqual([row[0][1] for row in rows], ["node2", "node3", "node4"])
        self.nodes.answers["run_oob"] = []
        rows = self.run_oob("health")
        self.assertEqual([row[0][1] for row in rows], ["node1", "node2", "node3", "node4"])

    def test_power(self) -> None:
        """The power state is recorded; nodes are switched on one after the other."""
        self.run_oob("power-off", "node2", ignore_status=True)
        self.assertFalse(self.node("node2").powered)
        self.alter("node3", master_candidate=False, offline=True)
        self.run_oob("power-off", "node3")
        self.assertEqual(self.ctx.slept, [])
        self.run_oob("power-on", "node2", "node3", power_delay=3.5)
        self.assertTrue(self.node("node2").powered and self.node("node3").powered)
        self.assertEqual(self.ctx.slept, [3.5])

    def test_health(self) -> None:
        """Alarming states are logged."""
        rows = [["disk", "OK"], ["fan", "WARNING"], ["psu", "CRITICAL"], ["x", "UNKNOWN"]]
        self.nodes.answers["run_oob"] = rows
        self.assertEqual(self.run_oob("health", "node2"), [[(0, "node2"), (0, rows)]])
        self.assertEqual(
            self.ctx.lines,
            [
                " - WARNING: Item 'fan' on node 'node2' has status 'WARNING'",
                " - WARNING: Item 'psu' on node 'node2' has status 'CRITICAL'",
            ],
        )

    def test_power_differs(self) -> None:
        """A node whose power state differs from the recorded one is logged, not changed."""
        self.nodes.answers["run_oob"] = {"powered": False}
        self.run_oob("power-status", "node2")
        self.assertIn("does not match actual power state (False)", self.ctx.lines[0])
        self.assertTrue(self.node("node2").powered)

    def test_failures(self) -> None:
        """A failing program or an invalid answer gives no data; the recorded state stays."""
        self.nodes.answers["run_oob"] = Failed("exit code 1")
        self.assertEqual(self.run_oob("power-on", "node2"), [[(0, "node2"), (2, None)]])
        self.assertIn("Out-of-band RPC failed on node 'node2': exit code 1", self.ctx.lines[0])
        self.nodes.answers["run_oob"] = "on"
        self.alter("node2", powered=False)
        self.assertEqual(self.run_oob("power-on", "node2"), [[(0, "node2"), (2, None)]])
        self.assertIn("Payload returned by node 'node2' is not valid", self.ctx.lines[0])
        self.assertFalse(self.node("node2").powered)

    def test_payloads(self) -> None:
        """The valid answers of each command."""
        for command, payload in (
            ("health", [["fan", "OK"]]),
            ("health", []),
            ("power-status", {"powered": True}),
            ("power-on", None),
        ):
            self.assertIsNone(fault_of(command, payload))
        for command, payload in (
            ("health", None),
            ("health", "OK"),
            ("health", [["fan", "FINE"]]),
            ("health", [["fan"]]),
            ("health", ["OK"]),
            ("power-status", None),
            ("power-status", {}),
            ("power-status", {"powered": "yes"}),
            ("power-cycle", {}),
        ):
            self.assertIsNotNone(fault_of(command, payload), (command, payload))

    def test_killed(self) -> None:
        """A kill takes effect between two nodes, with the power state of the first recorded."""
        self.alter("node2", powered=False)
        self.ctx.kill_after = 0
        self.assertRaises(JobKilled, self.run_oob, "power-on", "node2", "node3")
        self.assertTrue(self.node("node2").powered)
        self.assertEqual(len(self.nodes.asked), 1)
