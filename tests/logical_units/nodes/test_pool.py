"""Transactions on the pool of candidates, while other jobs change it, too."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from ganeti_masterd.config.changes import Update
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import OpExecError
from ganeti_masterd.logical_units.nodes.pool import (
    PoolChange,
    PoolMoved,
    certified,
    change_pool,
    demotion,
)
from ganeti_masterd.rpc.interfaces import Target
from ganeti_masterd.testing.nodes import Failed
from tests.logical_units.nodes.scene import NodeScene, token


class PoolTests(NodeScene):
    """:func:`change_pool`."""

    def drain(self, snapshot: Snapshot) -> PoolChange:
        """Drains node3, with another candidate in its place."""
        uuid = snapshot.node("node3").uuid
        change = Update(uuid, lambda node: replace(node, master_candidate=False, drained=True))
        return PoolChange((change,), leaving=frozenset((uuid,)), refill=True)

    def test_pool_moves_meanwhile(self) -> None:
        """A transaction is planned again if another job changes the pool."""

        def answer(target: Target, arguments: list[Any]) -> Any:
            # Another job promotes the node that this one is about to promote.
            if not self.node("node4").master_candidate:
                self.alter("node4", master_candidate=True)
                certs = self.ctx.snapshot().cluster.candidate_certs
                mine = {**certs, self.node("node4").uuid: "another job's"}
                self.alter_cluster(candidate_certs=mine)
            return token(target, arguments)

        self.nodes.answers["node_crypto_tokens"] = answer
        self.assertEqual(change_pool(self.ctx, self.drain), ())
        self.assertSound()

    def test_pool_never_rests(self) -> None:
        """If the pool changes at each try, the opcode fails with nothing changed."""

        def plan(snapshot: Snapshot) -> PoolChange:
            change = self.drain(snapshot)
            size = snapshot.cluster.candidate_pool_size
            self.alter_cluster(candidate_pool_size=4 if size == 3 else 3)
            return change

        error = self.assertRaises(OpExecError, change_pool, self.ctx, plan)
        self.assertIn("kept changing", error.args[0])
        self.assertFalse(self.node("node3").drained)

    def test_promoted_node_changes_meanwhile(self) -> None:
        """A node that is no longer eligible isn't promoted."""

        def answer(target: Target, arguments: list[Any]) -> Any:
            if not self.node("node4").offline:
                self.alter("node4", offline=True)
            return token(target, arguments)

        self.nodes.answers["node_crypto_tokens"] = answer
        self.assertEqual(change_pool(self.ctx, self.drain), ())
        self.assertFalse(self.node("node4").master_candidate)
        self.assertSound()

    def test_promotion_outdated(self) -> None:
        """A node that goes offline just before the transaction isn't a candidate after it."""

        def plan(snapshot: Snapshot) -> PoolChange:
            change = self.drain(snapshot)
            if snapshot.node("node4").offline is False and self.calls():
                self.alter("node4", offline=True)
            return change

        self.assertEqual(change_pool(self.ctx, plan), ())
        self.assertTrue(self.node("node3").drained)
        self.assertFalse(self.node("node4").master_candidate)
        self.assertSound()

    def test_demotion_outdated(self) -> None:
        """A node demoted by another job just before isn't demoted by this transaction."""
        planned: list[int] = []

        def plan(snapshot: Snapshot) -> PoolChange:
            node = snapshot.node("node3")
            demoted = [node] if node.master_candidate else []
            planned.append(len(demoted))
            if demoted:
                self.alter("node3", master_candidate=False, drained=True)
            return PoolChange(
                tuple(map(demotion, demoted)), leaving=frozenset(one.uuid for one in demoted)
            )

        change_pool(self.ctx, plan)
        self.assertEqual(planned, [1, 0])
        self.assertTrue(self.node("node3").drained)

    def test_digest_asked_once(self) -> None:
        """A known digest is not asked for again at each try."""
        change_pool(self.ctx, self.drain)
        self.assertEqual(self.calls(), [("node4", "node_crypto_tokens")])

    def test_no_worse(self) -> None:
        """A pool that is short already is only logged when a regular node is removed."""
        self.alter_cluster(candidate_pool_size=4)
        self.alter("node2", master_capable=True)
        self.nodes.answers["node_crypto_tokens"] = Failed("dead")
        uuid = self.node("node3").uuid

        def plan(snapshot: Snapshot) -> PoolChange:
            change = Update(uuid, lambda node: replace(node, tags=("x",)))
            return PoolChange((change,), refill=True)

        change_pool(self.ctx, plan)
        self.assertEqual(self.node("node3").tags, ("x",))
        self.assertIn("1 more would have to be promoted", self.ctx.lines[0])

    def test_new_size(self) -> None:
        """A pool size that comes with the transaction counts already."""
        cluster = self.ctx.snapshot().cluster.uuid

        def plan(snapshot: Snapshot) -> PoolChange:
            change = Update(cluster, lambda now: replace(now, candidate_pool_size=4))
            return PoolChange((change,), refill=True, size=4)

        promoted = change_pool(self.ctx, plan)
        self.assertEqual([node.name for node in promoted], ["node4"])
        self.assertSound()

    def test_surplus_is_said(self) -> None:
        """More candidates than there should be are logged, not demoted."""
        cluster = self.ctx.snapshot().cluster.uuid

        def plan(snapshot: Snapshot) -> PoolChange:
            change = Update(cluster, lambda now: replace(now, candidate_pool_size=1))
            return PoolChange((change,), refill=True, size=1)

        change_pool(self.ctx, plan)
        self.assertEqual(
            self.ctx.lines,
            [" - INFO: Note: more nodes are candidates (3) than desired (1)"],
        )

    def test_certificates(self) -> None:
        """Certificates are added and removed with roles, if the pool is still the planned one."""
        planned = replace(self.ctx.snapshot().cluster, candidate_certs={"a": "1", "b": "2"})
        change = certified(planned, {"c": "3"}, {"a"})
        self.assertEqual(change(planned).candidate_certs, {"b": "2", "c": "3"})
        self.assertIs(certified(planned, {}, ())(planned), planned)
        renewed = replace(planned, candidate_certs={"a": "8", "b": "9"})
        self.assertEqual(change(renewed).candidate_certs, {"b": "9", "c": "3"})
        for moved in (
            replace(planned, candidate_certs={"a": "1"}),
            replace(planned, candidate_pool_size=9),
        ):
            self.assertRaises(PoolMoved, change, moved)
