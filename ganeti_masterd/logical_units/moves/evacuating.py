"""Instances leave a node: OP_NODE_MIGRATE and OP_NODE_EVACUATE submit the jobs that move them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ganeti_masterd.allocation.requests import EvacuationRequest
from ganeti_masterd.config.objects import Instance, Node
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import ECODE_INVAL, prereq
from ganeti_masterd.locking.levels import Level, WantedLocks, shared
from ganeti_masterd.logical_units.base import LogicalUnit
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.instances.base import require_usable
from ganeti_masterd.logical_units.instances.placing import allocator_named
from ganeti_masterd.logical_units.moves.planned_jobs import (
    PlannedJobs,
    jobs_of,
    nodes_of_jobs,
    side_by_side,
    without_planned,
)
from ganeti_masterd.logical_units.nodes.finding import node_named, node_of
from ganeti_masterd.logical_units.steps.allocating import find_nodes
from ganeti_masterd.logical_units.steps.followups import with_jobs
from ganeti_masterd.opcodes.instance_disks import InstanceReplaceDisks
from ganeti_masterd.opcodes.instance_moves import InstanceMigrate
from ganeti_masterd.opcodes.nodes import NodeEvacuate, NodeMigrate


class EvacuateNode(LogicalUnit[NodeEvacuate], runs=NodeEvacuate):
    """Submits the jobs that move the primary or the secondary instances of a node away.

    An allocator finds nodes of the same group for them, or the opcode names the new
    secondary node. All locks are shared.
    """

    uuid: str
    #: Uuid of the new secondary node, if the opcode names one.
    remote: str | None = None
    #: The instances that move, in natural order, from :meth:`check` on.
    instances: list[Instance]

    def expand(self, snapshot: Snapshot) -> None:
        """Finds the nodes; refuses what can't be asked for at once."""
        op = self.op
        if op.remote_node is not None and op.iallocator is not None:
            raise prereq("Do not specify both, iallocator and node", ECODE_INVAL)
        self.uuid = node_of(snapshot, op).uuid
        remote = op.remote_node or op.remote_node_uuid
        if remote is not None:
            self.remote = node_named(snapshot, remote, op.remote_node_uuid).uuid
            if self.remote == self.uuid:
                raise prereq("Can not use evacuated node as a new secondary node", ECODE_INVAL)
            if op.mode != "secondary-only":
                raise prereq(
                    "Without the use of an iallocator only secondary instances can be evacuated",
                    ECODE_INVAL,
                )
        if op.mode == "all":
            raise prereq(
                "Due to an issue with the iallocator interface it is not possible to evacuate all "
                "instances at once; specify explicitly whether to evacuate primary or secondary "
                "instances",
                ECODE_INVAL,
            )

    def locks(self, level: Level, snapshot: Snapshot) -> WantedLocks:
        """Shares the instances, the node, and the nodes where they may go."""
        if level is Level.INSTANCE:
            return shared(one.name for one in self._concerned(snapshot))
        nodes = self._nodes(snapshot)
        if level is Level.NODEGROUP:
            return shared({node.group for node in nodes})
        if level is Level.NODE:
            return shared(node.uuid for node in nodes)
        return super().locks(level, snapshot)

    def _nodes(self, snapshot: Snapshot) -> list[Node]:
        node: Node = snapshot.find("node", self.uuid)
        if self.remote is not None:
            remote: Node = snapshot.find("node", self.remote)
            return [node, remote]
        return list(snapshot.members(node.group))

    def _concerned(self, snapshot: Snapshot) -> tuple[Instance, ...]:
        if self.op.mode == "primary-only":
            return snapshot.instances_on(self.uuid)
        return snapshot.secondaries_on(self.uuid)

    def check(self, ctx: Context) -> None:
        """Says which instances move; refuses a new secondary node that can't be one."""
        snapshot = ctx.snapshot()
        node = snapshot.nodes[self.uuid].name
        self.instances = without_planned(ctx, self._concerned(snapshot))
        if not self.instances:
            ctx.info(f"No instances to evacuate from node '{node}'")
            return
        names = ", ".join(one.name for one in self.instances)
        ctx.info(f"Evacuating instances from node '{node}': {names}")
        if self.remote is None:
            return
        remote = snapshot.nodes[self.remote].name
        for one in self.instances:
            if one.primary_node == self.remote:
                raise prereq(
                    f"Node {remote} is the primary node of instance {one.name}, cannot use it as "
                    "secondary",
                    ECODE_INVAL,
                )
        require_usable(snapshot, self.remote)

    def exec(self, ctx: Context) -> dict[str, Any]:
        """Submits the jobs; returns their ids."""
        if not self.instances:
            return with_jobs(ctx, [])
        snapshot = ctx.snapshot()
        if self.remote is None:
            return with_jobs(ctx, self._found(ctx))
        replacements: PlannedJobs = [
            [
                InstanceReplaceDisks(
                    instance_name=one.name,
                    mode="replace_new_secondary",
                    remote_node=snapshot.nodes[self.remote].name,
                    disks=(),
                    early_release=self.op.early_release,
                )
            ]
            for one in self.instances
        ]
        return with_jobs(ctx, replacements)

    def _found(self, ctx: Context) -> PlannedJobs:
        """Returns the jobs that an allocator finds."""
        names = [one.name for one in self.instances]
        request = EvacuationRequest(
            instances=names,
            evac_mode=self.op.mode,
            ignore_soft_errors=bool(self.op.ignore_soft_errors),
        )
        moves = find_nodes(
            ctx, request, allocator_named(self.op.iallocator), what="node evacuation"
        )
        jobs = jobs_of(ctx, moves, names, early_release=self.op.early_release, shows_nodes=True)
        return side_by_side(jobs, nodes_of_jobs(ctx.snapshot(), moves))


class MigrateNode(LogicalUnit[NodeMigrate], runs=NodeMigrate):
    """Submits a job for each primary instance of a node that migrates it away.

    Instances whose mirror the cluster keeps go to their secondary nodes; for the others
    the opcode names a node or an allocator. Shares the node.
    """

    uuid: str
    #: The name of the node to which instances go, if the opcode names one.
    target: str | None = None

    def expand(self, snapshot: Snapshot) -> None:
        """Finds the node and the target node, which must be another."""
        op = self.op
        self.uuid = node_of(snapshot, op).uuid
        named = op.target_node or op.target_node_uuid
        if named is None:
            return
        if op.iallocator is not None:
            raise prereq("Do not specify both, iallocator and node", ECODE_INVAL)
        target = node_named(snapshot, named, op.target_node_uuid)
        if target.uuid == self.uuid:
            raise prereq(
                f"Node {target.name} can't be the target of its own instances", ECODE_INVAL
            )
        self.target = target.name

    def locks(self, level: Level, snapshot: Snapshot) -> WantedLocks:
        """Shares the node."""
        if level is Level.NODE:
            return shared(self.uuid)
        return super().locks(level, snapshot)

    def check(self, ctx: Context) -> None:
        """Refuses a target node that can't get instances."""
        if self.target is not None:
            require_usable(ctx.snapshot(), ctx.snapshot().node(self.target).uuid)

    def hook_environment(self, snapshot: Snapshot) -> Mapping[str, object]:
        """Returns the node, and whether the memory of instances may change."""
        return {
            "NODE_NAME": snapshot.node(self.uuid).name,
            "ALLOW_RUNTIME_CHANGES": self.op.allow_runtime_changes,
        }

    def exec(self, ctx: Context) -> dict[str, Any]:
        """Submits the jobs; returns their ids."""
        snapshot = ctx.snapshot()
        instances = without_planned(ctx, snapshot.instances_on(self.uuid))
        jobs = [[self._migration(snapshot, one)] for one in instances]
        nodes = [snapshot.nodes_of(one) for one in instances]
        return with_jobs(ctx, side_by_side(jobs, nodes))

    def _migration(self, snapshot: Snapshot, instance: Instance) -> InstanceMigrate:
        internal = any(disk.template.internal for disk in snapshot.disks_of(instance))
        return InstanceMigrate(
            instance_name=instance.name,
            mode=self.op.mode,
            live=self.op.live,
            # There is nothing to choose: it can only go to its secondary node.
            iallocator=None if internal else self.op.iallocator,
            target_node=self.target,
            allow_runtime_changes=self.op.allow_runtime_changes,
            ignore_ipolicy=self.op.ignore_ipolicy,
        )
