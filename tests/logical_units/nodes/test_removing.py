"""OP_NODE_REMOVE: refusals, the order of steps, and the node promoted instead."""

from __future__ import annotations

from ganeti_masterd.errors import OpExecError
from ganeti_masterd.locking.levels import BGL, Level, exclusive, shared
from ganeti_masterd.testing.nodes import Failed
from tests.logical_units.nodes.scene import NodeScene

OP = "OP_NODE_REMOVE"


class RemoveTests(NodeScene):
    """Removing a node."""

    def remove(self, name: str) -> None:
        self.run_unit(OP, node_name=name)

    def test_refusals(self) -> None:
        """The master, nodes with instances, and unknown nodes are refused."""
        self.assertEqual(
            self.refusal(OP, node_name="node1"),
            ("Node is the master node, failover to another node is required", "wrong_input"),
        )
        self.assertEqual(self.refusal(OP, node_name="nosuch")[1], "unknown_entity")
        self.add_instance("node2", "node3")
        for name in ("node2", "node3"):
            self.assertEqual(
                self.refusal(OP, node_name=name),
                (
                    "Instance web.example.com is still running on the node, please remove first",
                    "wrong_input",
                ),
            )

    def test_locks(self) -> None:
        """Only the node is held; the real daemon stops every job."""
        unit = self.unit(OP, node_name="node3")
        uuid = self.node("node3").uuid
        self.assertEqual(
            self.wanted(unit),
            {
                Level.CLUSTER: shared(BGL),
                Level.NODE: exclusive(uuid),
                Level.NODE_RES: exclusive(uuid),
            },
        )

    def test_regular(self) -> None:
        """A node is removed from the configuration, its hooks run, then it leaves."""
        uuid = self.node("node4").uuid
        self.remove("node4")
        self.assertNotIn(uuid, self.ctx.snapshot().nodes)
        self.assertEqual(self.ctx.hooks_early, ["node4"])
        self.assertEqual(self.calls(), [("node4", "node_leave_cluster")])
        for level in (Level.NODE, Level.NODE_RES):
            self.assertNotIn(uuid, self.ctx.locks[level])
        self.assertSound()

    def test_candidate(self) -> None:
        """Another node is promoted instead of a candidate."""
        self.remove("node3")
        self.assertTrue(self.node("node4").master_candidate)
        self.assertEqual(
            self.calls(), [("node4", "node_crypto_tokens"), ("node3", "node_leave_cluster")]
        )
        self.assertEqual(
            self.ctx.lines, [" - INFO: Promoted nodes to master candidate role: node4"]
        )
        self.assertSound()

    def test_nobody_takes_its_place(self) -> None:
        """A candidate isn't removed while the only node to promote doesn't answer."""
        self.nodes.answers["node_crypto_tokens"] = Failed("dead")
        (text,) = self.refusal(OP, node_name="node3")
        self.assertIn("(node4: dead)", text)
        self.alter("node4", offline=True)
        self.remove("node3")
        self.assertSound()

    def test_dead_node(self) -> None:
        """A node that doesn't answer is still removed; an offline one isn't called."""
        self.nodes.answers["node_leave_cluster"] = Failed("no route")
        self.remove("node3")
        self.assertIn("while leaving the cluster: no route", self.ctx.lines[-1])
        self.alter("node4", master_candidate=False, offline=True)
        self.remove("node4")
        self.assertIn("Node is marked offline", self.ctx.lines[-1])
        self.assertNotIn(("node4", "node_leave_cluster"), self.calls())

    def test_ssh_keys(self) -> None:
        """Its key is removed from all nodes first; if that fails, the node stays."""
        self.alter_cluster(modify_ssh_setup=True)
        self.remove("node4")
        removed = self.nodes.asked[0]
        self.assertEqual((removed.node, removed.procedure), ("node1", "node_ssh_key_remove"))
        self.assertIn("node4", removed.arguments[3])
        self.assertEqual(removed.arguments[4:], [False, True, True, True, False])
        self.assertEqual(self.nodes.asked[-1].arguments, [True])
        self.nodes.answers["node_ssh_key_remove"] = Failed("no")
        self.assertRaises(OpExecError, self.remove, "node3")
        self.assertTrue(self.node("node3").master_candidate)

    def test_hosts_file(self) -> None:
        """It is removed from the hosts file."""
        self.alter_cluster(modify_etc_hosts=True)
        self.remove("node4")
        change = next(one for one in self.nodes.asked if one.procedure == "etc_hosts_modify")
        self.assertEqual((change.node, change.arguments), ("node1", ["remove", "node4", None]))

    def test_hooks(self) -> None:
        """Hooks run on all others, before and after."""
        unit = self.unit(OP, node_name="node3")
        snapshot = self.ctx.snapshot()
        others = {node.uuid for node in snapshot.nodes.values() if node.name != "node3"}
        nodes = unit.hook_nodes(snapshot)
        self.assertEqual((set(nodes.before), set(nodes.after)), (others, others))
        self.assertEqual(
            unit.hook_environment(snapshot), {"OP_TARGET": "node3", "NODE_NAME": "node3"}
        )
