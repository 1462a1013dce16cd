"""Instances leave their node group: OP_GROUP_EVACUATE and OP_INSTANCE_CHANGE_GROUP.

Both ask an allocator for a place in other groups, and submit the jobs of its answer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from msgspec.structs import replace

from ganeti_masterd.allocation.requests import ChangeGroup
from ganeti_masterd.config.objects import Instance
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.ssconf import natural_key
from ganeti_masterd.errors import ECODE_INVAL, prereq
from ganeti_masterd.locking.levels import Level, WantedLocks, all_shared, shared
from ganeti_masterd.logical_units.base import HookNodes, LogicalUnit
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.instances.base import InstanceUnit
from ganeti_masterd.logical_units.instances.placing import allocator_named
from ganeti_masterd.logical_units.moves.planned_jobs import (
    PlannedJobs,
    jobs_of,
    nodes_of_jobs,
    side_by_side,
    without_planned,
)
from ganeti_masterd.logical_units.steps.allocating import find_nodes
from ganeti_masterd.logical_units.steps.followups import with_jobs
from ganeti_masterd.logical_units.verification.disks import instances_of
from ganeti_masterd.opcodes.base import Opcode
from ganeti_masterd.opcodes.groups import GroupEvacuate
from ganeti_masterd.opcodes.instance_moves import (
    InstanceChangeGroup,
    InstanceFailover,
    InstanceMigrate,
)
from ganeti_masterd.opcodes.types import Dependency


class ChangeInstanceGroup(InstanceUnit[InstanceChangeGroup], runs=InstanceChangeGroup):
    """Submits the job that moves an instance to another group. All locks are shared."""

    shares = True
    #: Uuids of the groups that the opcode names.
    named: tuple[str, ...] = ()

    def expand(self, snapshot: Snapshot) -> None:
        """Finds the instance and the target groups."""
        super().expand(snapshot)
        self.named = groups_named(snapshot, self.op.target_groups)

    def locks(self, level: Level, snapshot: Snapshot) -> WantedLocks:
        """Shares what the instance leaves, and where it may go."""
        if level in (Level.NODEGROUP, Level.NODE):
            instance = self.instance(snapshot)
            groups = (*self.named, *groups_of(snapshot, [instance]))
            return _locks(level, snapshot, groups if self.named else None, [instance])
        return super().locks(level, snapshot)

    def check(self, ctx: Context) -> None:
        """Refuses the instance's own groups."""
        snapshot = ctx.snapshot()
        instance = self.instance(snapshot)
        own = groups_of(snapshot, [instance])
        conflicting = [uuid for uuid in self.named if uuid in own]
        if conflicting:
            raise prereq(
                f"Can't use group(s) '{', '.join(conflicting)}' as targets, they are used by the "
                f"instance '{instance.name}'",
                ECODE_INVAL,
            )
        require_targets(self.targets(snapshot))

    def targets(self, snapshot: Snapshot) -> tuple[str, ...]:
        """Returns the uuids of the groups to which the instance may go."""
        return self.named or other_groups(snapshot, groups_of(snapshot, [self.instance(snapshot)]))

    def hook_nodes(self, snapshot: Snapshot) -> HookNodes:
        """Returns the master."""
        master = (snapshot.master.uuid,)
        return HookNodes(master, master)

    def own_environment(self, snapshot: Snapshot) -> Mapping[str, object]:
        """Returns the target groups."""
        return {"TARGET_GROUPS": " ".join(self.targets(snapshot))}

    def exec(self, ctx: Context) -> dict[str, Any]:
        """Submits the job; returns its id."""
        snapshot = ctx.snapshot()
        name = self.instance(snapshot).name
        request = ChangeGroup(instances=[name], target_groups=self.targets(snapshot))
        moves = find_nodes(
            ctx,
            request,
            allocator_named(self.op.iallocator),
            what=f"solution for changing group of instance '{name}'",
        )
        jobs = jobs_of(ctx, moves, [name], early_release=self.op.early_release)
        ctx.info(f"Iallocator returned {len(jobs)} job(s) for changing group of instance '{name}'")
        return with_jobs(ctx, jobs)


class EvacuateGroup(LogicalUnit[GroupEvacuate], runs=GroupEvacuate):
    """Submits the jobs that move all instances out of a group. All locks are shared."""

    uuid: str
    #: Uuids of the groups that the opcode names.
    named: tuple[str, ...] = ()

    def expand(self, snapshot: Snapshot) -> None:
        """Finds the group and the target groups, which must be others."""
        self.uuid = snapshot.group(self.op.group_name).uuid
        self.named = groups_named(snapshot, self.op.target_groups)
        if self.uuid in self.named:
            raise prereq(
                f"Group to be evacuated ({self.uuid}) can not be used as a target group (targets "
                f"are {', '.join(self.named)})",
                ECODE_INVAL,
            )

    def locks(self, level: Level, snapshot: Snapshot) -> WantedLocks:
        """Shares the group's instances, what they leave, and where they may go."""
        instances = instances_of(snapshot, self.uuid).values()
        if level is Level.INSTANCE:
            return shared(one.name for one in instances)
        if level in (Level.NODEGROUP, Level.NODE):
            groups = (self.uuid, *self.named, *groups_of(snapshot, instances))
            return _locks(level, snapshot, groups if self.named else None, instances)
        return super().locks(level, snapshot)

    def check(self, ctx: Context) -> None:
        """Refuses to evacuate the only group."""
        require_targets(self.targets(ctx.snapshot()))

    def targets(self, snapshot: Snapshot) -> tuple[str, ...]:
        """Returns the uuids of the groups to which the instances may go."""
        return self.named or other_groups(snapshot, {self.uuid})

    def hook_nodes(self, snapshot: Snapshot) -> HookNodes:
        """Returns the master and the members of the group."""
        members = (node.uuid for node in snapshot.members(self.uuid))
        nodes = tuple(dict.fromkeys((snapshot.master.uuid, *members)))
        return HookNodes(nodes, nodes)

    def hook_environment(self, snapshot: Snapshot) -> Mapping[str, object]:
        """Returns the group and the target groups."""
        return {
            "GROUP_NAME": self.op.group_name,
            "TARGET_GROUPS": " ".join(self.targets(snapshot)),
        }

    def exec(self, ctx: Context) -> dict[str, Any]:
        """Submits the jobs; returns their ids."""
        snapshot = ctx.snapshot()
        instances = without_planned(ctx, instances_of(snapshot, self.uuid).values())
        names = [one.name for one in instances]
        group = snapshot.groups[self.uuid].name
        if not names:
            ctx.info(f"No instances to evacuate from node group {group}")
            return with_jobs(ctx, [])
        request = ChangeGroup(instances=names, target_groups=self.targets(snapshot))
        moves = find_nodes(
            ctx, request, allocator_named(self.op.iallocator), what="group evacuation"
        )
        jobs = jobs_of(ctx, moves, names, early_release=self.op.early_release)
        ctx.info(
            f"Iallocator returned {len(jobs)} job(s) for evacuating node group {self.op.group_name}"
        )
        if self.op.force_failover:
            ctx.info("Will insist on failovers")
            jobs = [[_as_failover(op) for op in job] for job in jobs]
        if self.op.sequential:
            ctx.info("Jobs will be submitted to run sequentially")
            jobs = in_sequence(jobs)
        else:
            jobs = side_by_side(jobs, nodes_of_jobs(snapshot, moves))
        return with_jobs(ctx, jobs)


def groups_named(snapshot: Snapshot, names: Iterable[str] | None) -> tuple[str, ...]:
    """Returns the uuids of groups, each once; raises as ``Snapshot.group``."""
    return tuple(dict.fromkeys(snapshot.group(name).uuid for name in names or ()))


def groups_of(snapshot: Snapshot, instances: Iterable[Instance]) -> set[str]:
    """Returns the uuids of the groups in which instances have nodes. Pure."""
    return {
        snapshot.nodes[uuid].group
        for instance in instances
        for uuid in snapshot.nodes_of(instance)
        if uuid in snapshot.nodes
    }


def other_groups(snapshot: Snapshot, own: Collection[str]) -> tuple[str, ...]:
    """Returns the uuids of the groups to which instances may go that nobody directs. Pure.

    In natural order of their names; those that are unallocable have to be named.
    """
    return tuple(
        group.uuid
        for group in sorted(snapshot.groups.values(), key=lambda one: natural_key(one.name))
        if group.uuid not in own and group.alloc_policy != "unallocable"
    )


def require_targets(targets: Collection[str]) -> None:
    """Raises ``OpPrereqError`` with ``wrong_input`` if there is no group to go to."""
    if not targets:
        raise prereq("There are no possible target groups", ECODE_INVAL)


def in_sequence(jobs: PlannedJobs) -> PlannedJobs:
    """Returns jobs of which each waits for the end of the one before. Pure."""
    before = (Dependency(-1, ("error", "success")),)
    return [
        *jobs[:1],
        *([replace(op, depends=before) for op in job] for job in jobs[1:]),
    ]


def _as_failover(op: Opcode) -> Opcode:
    """Returns the failover that does what a migration would do; other opcodes as they are."""
    if not isinstance(op, InstanceMigrate):
        return op
    return InstanceFailover(
        instance_name=op.instance_name,
        instance_uuid=op.instance_uuid,
        target_node=op.target_node,
        target_node_uuid=op.target_node_uuid,
        ignore_ipolicy=op.ignore_ipolicy,
        cleanup=op.cleanup,
    )


def _locks(
    level: Level,
    snapshot: Snapshot,
    groups: Iterable[str] | None,
    instances: Iterable[Instance],
) -> WantedLocks:
    """Returns the locks of groups, or of their nodes and those of instances; None for all."""
    if groups is None:
        return all_shared
    if level is Level.NODEGROUP:
        return shared(groups)
    nodes = {node.uuid for group in groups for node in snapshot.members(group)}
    nodes.update(uuid for one in instances for uuid in snapshot.nodes_of(one))
    return shared(nodes & snapshot.nodes.keys())
