"""OP_CLUSTER_SET_PARAMS with a new pool size: which nodes are promoted and demoted."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.errors import OpExecError
from ganeti_masterd.locking.levels import Level, exclusive
from ganeti_masterd.rpc.interfaces import Target
from ganeti_masterd.testing.nodes import Failed
from tests.logical_units.nodes.scene import NodeScene, token
from tests.logical_units.world import MustWait, World

OP = "OP_CLUSTER_SET_PARAMS"


class GrowthTests(NodeScene):
    """A larger pool."""

    def test_promoted(self) -> None:
        """Nodes are promoted, with their certificates; none is locked."""
        unit = self.unit(OP, candidate_pool_size=4)
        self.assertEqual(list(self.wanted(unit)), [Level.CLUSTER])
        self.run_unit(OP, candidate_pool_size=4)
        self.assertEqual(
            self.ctx.lines, [" - INFO: Promoted nodes to master candidate role: node4"]
        )
        certs = self.ctx.snapshot().cluster.candidate_certs
        self.assertEqual(certs[self.node("node4").uuid], "digest of node4")
        self.assertSound()

    def test_keys(self) -> None:
        """On clusters that manage keys a promoted node's key is distributed."""
        self.alter_cluster(modify_ssh_setup=True)
        self.run_unit(OP, candidate_pool_size=4)
        added = [a for a in self.nodes.asked if a.procedure == "node_ssh_key_add"]
        self.assertEqual([(a.node, a.arguments[1]) for a in added], [("node1", "node4")])

    def test_silent(self) -> None:
        """If nodes to promote don't answer, the size stays unchanged."""
        self.nodes.answers["node_crypto_tokens"] = Failed("dead")
        error = self.assertRaises(OpExecError, self.run_unit, OP, candidate_pool_size=4)
        self.assertIn("node4: dead", error.args[0])
        self.assertEqual(self.ctx.snapshot().cluster.candidate_pool_size, 3)
        self.assertSound()


class ShrinkageTests(NodeScene):
    """A smaller pool."""

    def test_locks(self) -> None:
        """The nodes that are demoted are held, nothing else."""
        unit = self.unit(OP, candidate_pool_size=1)
        nodes = exclusive([self.node("node3").uuid, self.node("node2").uuid])
        self.assertEqual(self.wanted(unit)[Level.NODE], nodes)
        self.assertEqual(list(self.wanted(unit)), [Level.CLUSTER, Level.NODE])

    def test_demoted(self) -> None:
        """Size, roles and certificates change in one transaction; then nodes are notified."""
        before = self.ctx.snapshot()
        sizes: list[int] = []

        def note(target: Target, arguments: list[Any]) -> None:
            sizes.append(self.ctx.snapshot().cluster.candidate_pool_size)

        self.nodes.answers["node_demote_from_mc"] = note
        self.run_unit(OP, candidate_pool_size=1)
        after = self.ctx.snapshot()
        self.assertEqual(after.header.serial_no, before.header.serial_no + 1)
        self.assertEqual(sizes, [1, 1])
        self.assertEqual(
            set(self.calls()), {("node2", "node_demote_from_mc"), ("node3", "node_demote_from_mc")}
        )
        self.assertEqual(
            self.ctx.lines, [" - INFO: Demoted nodes from master candidate role: node2, node3"]
        )
        for name in ("node2", "node3"):
            self.assertFalse(after.node(name).master_candidate)
            self.assertEqual(after.node(name).serial_no, before.node(name).serial_no + 1)
        self.assertIs(after.node("node1"), before.node("node1"))
        self.assertSound()

    def test_last_of_them(self) -> None:
        """Only surplus candidates are demoted, those with the last names."""
        self.run_unit(OP, candidate_pool_size=2)
        self.assertEqual(
            self.ctx.lines, [" - INFO: Demoted nodes from master candidate role: node3"]
        )
        self.assertSound()

    def test_same_size(self) -> None:
        """A surplus from other causes is demoted when the size is set again."""
        self.run_unit("OP_NODE_SET_PARAMS", node_name="node4", master_candidate=True)
        self.run_unit(OP, candidate_pool_size=3)
        self.assertFalse(self.node("node4").master_candidate)
        self.assertSound()

    def test_other_parameters(self) -> None:
        """Another parameter demotes nobody, however many candidates there are."""
        self.run_unit("OP_NODE_SET_PARAMS", node_name="node4", master_candidate=True)
        self.run_unit(OP, max_running_jobs=7)
        self.assertTrue(self.node("node4").master_candidate)
        self.assertEqual(self.ctx.lines, [])

    def test_node_fails(self) -> None:
        """A node that can't be notified is named; the others are, and all are demoted."""
        self.nodes.answers["node2", "node_demote_from_mc"] = Failed("busy")
        self.run_unit(OP, candidate_pool_size=1)
        self.assertEqual(
            self.ctx.lines[1:], [" - WARNING: Node node2 failed to demote itself: busy"]
        )
        self.assertIn(("node3", "node_demote_from_mc"), self.calls())
        self.assertSound()

    def test_keys(self) -> None:
        """On clusters that manage keys a demoted node may not log in any more."""
        self.alter_cluster(modify_ssh_setup=True)
        self.nodes.answers["node_ssh_key_remove"] = []
        self.run_unit(OP, candidate_pool_size=1)
        removed = [a for a in self.nodes.asked if a.procedure == "node_ssh_key_remove"]
        self.assertEqual(
            [(a.node, a.arguments[1], a.arguments[2], a.arguments[4:]) for a in removed],
            [
                ("node1", name, [self.node("node1").uuid], [True, False, False, False, False])
                for name in ("node3", "node2")
            ],
        )

    def test_keys_fail(self) -> None:
        """Keys that can't be changed are a warning that names the node, for each of them."""
        self.alter_cluster(modify_ssh_setup=True)
        self.nodes.answers["node_ssh_key_remove"] = Failed("no such file")
        self.run_unit(OP, candidate_pool_size=1)
        self.assertEqual(len(self.ctx.lines), 3)
        for name, line in zip(("node3", "node2"), self.ctx.lines[1:], strict=True):
            self.assertIn(
                f"WARNING: Could not adjust the SSH setup after demoting node '{name}'", line
            )
            self.assertIn("no such file", line)
        self.assertSound()

    def test_others_joined(self) -> None:
        """A node promoted after the locks were taken isn't demoted, which is logged."""
        self.nodes.answers["node_crypto_tokens"] = token
        unit = self.unit(OP, candidate_pool_size=2)
        self.ctx.locks[Level.NODE] = {self.node("node3").uuid}
        unit.check(self.ctx)
        certs = self.ctx.snapshot().cluster.candidate_certs
        self.alter("node4", master_candidate=True)
        self.alter_cluster(candidate_certs={**certs, self.node("node4").uuid: "digest"})
        unit.exec(self.ctx)
        self.assertEqual(
            self.ctx.lines,
            [
                " - INFO: Note: more nodes are candidates (3) than desired (2)",
                " - INFO: Demoted nodes from master candidate role: node3",
            ],
        )
        self.assertTrue(self.node("node4").master_candidate)
        self.assertSound()

    def test_others_left(self) -> None:
        """If another candidate was demoted meanwhile, one less is demoted."""
        unit = self.unit(OP, candidate_pool_size=1)
        self.ctx.locks[Level.NODE] = {self.node(name).uuid for name in ("node2", "node3")}
        unit.check(self.ctx)
        certs = dict(self.ctx.snapshot().cluster.candidate_certs)
        del certs[self.node("node3").uuid]
        self.alter("node3", master_candidate=False, drained=True)
        self.alter_cluster(candidate_certs=certs)
        unit.exec(self.ctx)
        self.assertEqual(self.calls(), [("node2", "node_demote_from_mc")])
        self.assertSound()


class LockTests(SynchronousTestCase):
    """With real locks."""

    def test_waits_for_the_node(self) -> None:
        """While a node that would be demoted is held by another job, the change waits."""
        world = World(4, candidate_pool_size=3)
        outcome: list[object] = []

        def shrink() -> None:
            for size in (1, 2, 4):
                try:
                    outcome.append(world.run(OP, candidate_pool_size=size))
                except MustWait:
                    outcome.append("waits")

        world.meanwhile = [shrink]
        world.run("OP_NODE_SET_PARAMS", node_name="node2", drained=True, auto_promote=True)
        # With two to demote of three candidates: node3 and node2; with one: node3.
        self.assertEqual(outcome, ["waits", None, None])
        self.assertEqual(world.faults(), [])
