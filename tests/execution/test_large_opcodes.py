"""What the large opcodes ask of a logical unit's surroundings (docs/architecture.rst)."""

from __future__ import annotations

import threading
from typing import Any

from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import ECODE_TEMP_NORES, prereq
from ganeti_masterd.execution import run
from ganeti_masterd.locking.levels import (
    Level,
    WantedLocks,
    all_exclusive,
    exclusive,
    nothing,
    opportunistic,
    shared,
)
from ganeti_masterd.logical_units.base import HookNodes, LogicalUnit
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.opcodes import decode_opcode
from ganeti_masterd.rpc.calls import VERSION
from ganeti_masterd.rpc.interfaces import Target
from ganeti_masterd.simulation.faults import SimulatedFault
from ganeti_masterd.testing.context import SynchronousContext
from ganeti_masterd.testing.nodes import ScriptedNodes
from tests.execution.scene import ExecutionScene, dummy


class LargeOpcodeScene(ExecutionScene):
    """Has the locks of node resources, too."""

    def setUp(self) -> None:
        super().setUp()
        self.locks.populate(Level.NODE_RES, self.store.snapshot.nodes)
        self.release = threading.Event()
        self.addCleanup(self.release.set)

    async def holds(self, name: str) -> int:
        """Lets a job hold a node until ``release``; returns its id."""
        uuid = self.store.snapshot.node(name).uuid

        def wants(unit: Any, level: Level, snapshot: Snapshot) -> WantedLocks:
            if level is Level.NODE:
                return exclusive(uuid)
            return LogicalUnit.locks(unit, level, snapshot)

        self.unit(locks=wants, exec=lambda unit, ctx: self.release.wait(10) and None)
        job_id = await self.submit(dummy())
        await self.reaches(job_id, "running")
        return job_id


class AllocationTests(LargeOpcodeScene):
    """Locks and tries of an opcode that looks for a place among free nodes."""

    async def test_lower_levels_build_on_what_was_granted(self) -> None:
        """Resources are locked of just those nodes that an opportunistic wish got."""
        holder = await self.holds("node2")
        got: dict[Level, frozenset[str]] = {}

        class Create(LogicalUnit[Any]):
            def locks(self, level: Level, snapshot: Snapshot) -> WantedLocks:
                if level is Level.NODE:
                    return opportunistic(None, 2)
                if level is Level.NODE_RES:
                    return exclusive(self.held[Level.NODE])
                return super().locks(level, snapshot)

            def exec(self, ctx: Context) -> None:
                got.update({level: ctx.owned(level) for level in (Level.NODE, Level.NODE_RES)})
                assert self.held[Level.NODE] == ctx.owned(Level.NODE)

        self.patch_unit("OP_TEST_DUMMY", Create)
        self.assertEqual((await self.run_job(dummy())).status, "success")
        free = {self.store.snapshot.node(name).uuid for name in ("node1", "node3")}
        self.assertEqual(got, {Level.NODE: free, Level.NODE_RES: free})
        self.release.set()
        await self.ends(holder)

    async def test_another_try_knows_that_it_is_one(self) -> None:
        """The second try may want other locks, and the first one's reservations are gone."""
        self.patch(run, "RESOURCES_PAUSE", 0.01)
        tries: list[tuple[int, int, int]] = []
        reservations = self.reservations

        class Create(LogicalUnit[Any]):
            waits_for_resources = True

            def locks(self, level: Level, snapshot: Snapshot) -> WantedLocks:
                if level is Level.NODE:
                    return all_exclusive if self.attempt else opportunistic(None)
                return super().locks(level, snapshot)

            def check(self, ctx: Context) -> None:
                tries.append((self.attempt, len(reservations), len(ctx.owned(Level.NODE))))
                ctx.new_mac()
                if not self.attempt:
                    raise prereq("no place among the free nodes", ECODE_TEMP_NORES)

            def exec(self, ctx: Context) -> None:
                pass

        self.patch_unit("OP_TEST_DUMMY", Create)
        job = await self.run_job(dummy(), dummy())
        self.assertEqual(job.status, "success")
        self.assertEqual([attempt for attempt, _, _ in tries], [0, 1, 0, 1])
        self.assertEqual([kept for _, kept, _ in tries[:2]], [0, 0])


class MovingWorldTests(LargeOpcodeScene):
    """The world moves while an opcode waits at a lower level."""

    async def test_what_was_taken_before_the_wait(self) -> None:
        """A level that was granted at once is taken anew if a later wait outdates it."""
        holder = await self.holds("node2")
        node2 = self.store.snapshot.node("node2").uuid
        node1 = self.store.snapshot.node("node1").uuid
        self.locks.populate(Level.INSTANCE, ["web1", "web2"])
        owned: list[tuple[frozenset[str], frozenset[str]]] = []

        class Evacuate(LogicalUnit[Any]):
            """Wants an instance for each tag of node1; stands in for a group's instances."""

            def locks(self, level: Level, snapshot: Snapshot) -> WantedLocks:
                if level is Level.INSTANCE:
                    return shared(snapshot.nodes[node1].tags)
                if level is Level.NODE:
                    return shared({node2}) if self.held[Level.INSTANCE] else nothing
                return super().locks(level, snapshot)

            def exec(self, ctx: Context) -> None:
                owned.append((ctx.owned(Level.INSTANCE), ctx.owned(Level.NODE)))

        await self.store.change(node1, lambda node: node.with_tags(["web1"]))
        self.patch_unit("OP_TEST_DUMMY", Evacuate)
        waiter = await self.submit(dummy())
        await self.reaches(waiter, "waiting")
        await self.store.change(node1, lambda node: node.with_tags(["web2"]))
        self.release.set()
        await self.ends(holder)
        self.assertEqual((await self.ends(waiter)).status, "success")
        self.assertEqual(owned, [({"web1", "web2"}, {node2})])

    async def test_a_level_that_was_not_wanted_before(self) -> None:
        """A level of which nothing was wanted is taken if that has changed after a wait."""
        holder = await self.holds("node2")
        node2 = self.store.snapshot.node("node2").uuid
        group = self.store.snapshot.node("node2").group
        owned: list[frozenset[str]] = []

        class Unit(LogicalUnit[Any]):
            def locks(self, level: Level, snapshot: Snapshot) -> WantedLocks:
                if level is Level.NODEGROUP:
                    return shared(group) if snapshot.nodes[node2].tags else nothing
                if level is Level.NODE:
                    return shared(node2)
                return super().locks(level, snapshot)

            def exec(self, ctx: Context) -> None:
                owned.append(ctx.owned(Level.NODEGROUP))

        self.patch_unit("OP_TEST_DUMMY", Unit)
        waiter = await self.submit(dummy())
        await self.reaches(waiter, "waiting")
        await self.store.change(node2, lambda node: node.with_tags(["x"]))
        self.release.set()
        await self.ends(holder)
        self.assertEqual((await self.ends(waiter)).status, "success")
        self.assertEqual(owned, [{group}])


class NewNodeTests(LargeOpcodeScene):
    """Calls to a node that isn't in the configuration yet."""

    async def test_called_by_address(self) -> None:
        """Such a node is called as a target of its own, beside configured ones."""
        answers: dict[str, Any] = {}
        newcomer = Target("uuid-of-node4", "node4", "192.0.2.4")

        def ask(unit: Any, ctx: Context) -> None:
            master = ctx.snapshot().master.uuid
            answers.update(ctx.call([newcomer, master, newcomer], VERSION))

        self.unit(exec=ask)
        self.assertEqual((await self.run_job(dummy())).status, "success")
        master = self.store.snapshot.master.uuid
        self.assertEqual(list(answers), ["uuid-of-node4", master])
        self.assertEqual({answer.payload for answer in answers.values()}, {3000000})

    def test_in_a_synchronous_context(self) -> None:
        """The context for trying units by themselves takes targets as well."""
        nodes = ScriptedNodes({"version": 3000000})
        ctx = SynchronousContext(self.store.snapshot, nodes)
        answers = ctx.call([Target("new", "node4", "192.0.2.4")], VERSION)
        self.assertEqual(answers["new"].payload, 3000000)
        self.assertEqual(nodes.asked[0].node, "node4")


class JudgingHooksTests(LargeOpcodeScene):
    """An opcode whose result depends on the hooks that run after it."""

    async def verified(self, result: Any, judge: Any) -> Any:
        master = self.store.snapshot.master.uuid

        class Verify(LogicalUnit[Any]):
            def hook_nodes(self, snapshot: Snapshot) -> HookNodes:
                return HookNodes((), (master,))

            def exec(self, ctx: Context) -> Any:
                return result

            def after_hooks(self, ctx: Context, answers: Any, result: Any) -> Any:
                return judge(answers, result)

        self.patch_unit("OP_CLUSTER_VERIFY_GROUP", Verify)
        return await self.run_job(
            decode_opcode({"OP_ID": "OP_CLUSTER_VERIFY_GROUP", "group_name": "default"})
        )

    async def test_judges(self) -> None:
        """A script that fails after the opcode makes its result false."""
        self.nodes.faults.add(
            SimulatedFault(kind="garbage", call="hooks_runner", payload=[["x", 1, "no"]])
        )
        master = self.store.snapshot.master.uuid

        def judge(answers: Any, result: bool) -> bool:
            return result and all(row.status != 1 for row in answers[master].payload)

        job = await self.verified(True, judge)
        self.assertEqual((job.status, job.ops[0].result), ("success", False))
        self.assertIn("script x failed: no", self.messages(job)[0])

    async def test_is_checked_again(self) -> None:
        """What it makes of its result has to be what the opcode declares."""
        job = await self.verified(True, lambda answers, result: "maybe")
        self.assertEqual((job.status, job.ops[0].result[0]), ("error", "OpResultError"))
