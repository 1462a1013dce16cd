"""OP_INSTANCE_MULTI_ALLOC: nodes for many new instances at once, and the jobs that make them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from ganeti_masterd.allocation.requests import MultiAllocate
from ganeti_masterd.allocation.results import Placements
from ganeti_masterd.config.parameters.merging import AUTO
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import (
    ECODE_INVAL,
    ECODE_NORES,
    OpExecError,
    OpPrereqError,
    prereq,
)
from ganeti_masterd.locking.levels import (
    Level,
    LockMode,
    WantedLocks,
    all_shared,
    opportunistic,
    shared,
)
from ganeti_masterd.logical_units.base import LogicalUnit, names_of
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.instances.placing import (
    allocation,
    allocator_named,
    fall_back,
    named_nodes,
)
from ganeti_masterd.logical_units.instances.planning import read_instance
from ganeti_masterd.logical_units.nodes.addresses import normal_name
from ganeti_masterd.logical_units.steps.allocating import find_nodes
from ganeti_masterd.opcodes import decode_opcode
from ganeti_masterd.opcodes.instances import InstanceCreate, InstanceMultiAlloc


class CreateManyInstances(LogicalUnit[InstanceMultiAlloc], runs=InstanceMultiAlloc):
    """Has an allocator place new instances, and submits a job for each that has a place.

    Where all say their nodes themselves, and no allocator is named, none is asked. The
    jobs check for themselves. All locks are shared.
    """

    waits_for_resources = True

    #: The opcodes by the name of their instance, in order.
    wanted: dict[str, InstanceCreate]
    #: Uuids of the nodes that the opcodes name; none where an allocator decides.
    nodes: frozenset[str] = frozenset()
    placements: Placements

    def expand(self, snapshot: Snapshot) -> None:
        """Reads the opcodes."""
        inner = [_inner(each, index) for index, each in enumerate(self.op.instances)]
        if not inner:
            raise prereq("There are no instances to be made", ECODE_INVAL)
        if any(op.iallocator is not None for op in inner):
            raise prereq("iallocator are not allowed to be set on instance objects", ECODE_INVAL)
        if any(op.mode != "create" for op in inner):
            raise prereq("Only new instances can be made many at once, not imports", ECODE_INVAL)
        names = [normal_name(op.instance_name) for op in inner]
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise prereq(f"There are duplicate instance names: {', '.join(twice)}", ECODE_INVAL)
        self.wanted = dict(zip(names, inner, strict=True))
        # The jobs look names up; to an allocator addresses don't matter.
        self.reads = {
            name: read_instance(op, name, snapshot.cluster, address=AUTO if op.name_check else None)
            for name, op in self.wanted.items()
        }
        named = {name: named_nodes(snapshot, op) for name, op in self.wanted.items()}
        if len({bool(nodes) for nodes in named.values()}) > 1:
            raise prereq(
                "There are instance objects providing pnode/snode while others do not", ECODE_INVAL
            )
        for name, nodes in named.items():
            if nodes and self.reads[name].template.internal and len(nodes) < 2:
                raise prereq("The networked disk templates need a mirror node", ECODE_INVAL)
        self.asks = self.op.iallocator is not None or not any(named.values())
        if not self.asks:
            self.nodes = frozenset(node for nodes in named.values() for node in nodes)
            if self.op.opportunistic_locking:
                raise prereq(
                    "Opportunistic locking is only available in combination with an instance "
                    "allocator",
                    ECODE_INVAL,
                )

    @property
    def some_nodes(self) -> bool:
        """Whether the allocator chooses among nodes that are free, not among all."""
        return self.op.opportunistic_locking and not self.attempt

    def locks(self, level: Level, snapshot: Snapshot) -> WantedLocks:
        """See ``LogicalUnit.locks``."""
        if level is Level.NODEGROUP:
            if self.asks:
                return all_shared
            return shared({snapshot.nodes[node].group for node in self.nodes})
        if level in (Level.NODE, Level.NODE_RES):
            if not self.asks:
                return shared(self.nodes)
            if not self.some_nodes:
                return all_shared
            if level is Level.NODE_RES:
                return shared(self.held.get(Level.NODE, frozenset()))
            internal = any(one.template.internal for one in self.reads.values())
            return opportunistic(None, 2 if internal else 1, mode=LockMode.SHARED)
        return super().locks(level, snapshot)

    def check(self, ctx: Context) -> None:
        """Finds the nodes."""
        if not self.asks:
            self.placements = Placements([(name, []) for name in self.wanted], [])
            return
        snapshot = ctx.snapshot()
        held = ctx.owned(Level.NODE)
        among = sorted(snapshot.nodes[uuid].name for uuid in held)
        request = MultiAllocate(
            instances=[
                allocation(snapshot, one.to_be_placed(), among if self.some_nodes else None)
                for one in self.reads.values()
            ]
        )
        name = allocator_named(self.op.iallocator)
        try:
            found = find_nodes(ctx, request, name)
        except OpPrereqError as error:
            if self.some_nodes and error.args[1:] == (ECODE_NORES,):
                raise fall_back(ctx, name, str(error.args[0]))
            raise
        if self.some_nodes and found.failed:
            raise fall_back(ctx, name, f"there is no place for {', '.join(found.failed)}")
        self._check_answer(ctx.snapshot(), found, held)
        self.placements = found

    def _check_answer(self, snapshot: Snapshot, found: Placements, held: frozenset[str]) -> None:
        told = [*(name for name, _ in found.placed), *found.failed]
        if sorted(told) != sorted(self.wanted):
            raise OpExecError(f"The allocator tells of other instances: {', '.join(told)}")
        for name, nodes in found.placed:
            outside = {snapshot.node(node).uuid for node in nodes} - held
            if outside:
                raise OpExecError(
                    f"The allocator chose nodes for instance {name} that it may not choose: "
                    f"{names_of(snapshot, outside)}"
                )

    def dry_result(self, ctx: Context) -> dict[str, Any]:
        """Returns what :meth:`exec` does, without jobs."""
        return self._result([])

    def exec(self, ctx: Context) -> dict[str, Any]:
        """Submits the jobs; returns them, and which instances have a place."""
        jobs = [[_placed(self.wanted[name], nodes)] for name, nodes in self.placements.placed]
        return self._result([(True, job_id) for job_id in (ctx.submit(jobs) if jobs else ())])

    def _result(self, jobs: Sequence[tuple[bool, int]]) -> dict[str, Any]:
        return {
            "jobs": list(jobs),
            "allocatable": [name for name, _ in self.placements.placed],
            "failed": list(self.placements.failed),
        }


def _inner(given: Any, index: int) -> InstanceCreate:
    """Returns one of the opcodes; raises ``OpPrereqError`` for what isn't one that creates."""
    op = given if isinstance(given, InstanceCreate) else decode_opcode(given, f"instance {index}")
    if not isinstance(op, InstanceCreate):
        raise prereq(f"instance {index}: {op.op_id} makes no instance", ECODE_INVAL)
    return op


def _placed(op: InstanceCreate, nodes: Sequence[str]) -> InstanceCreate:
    """Returns an opcode with its place; without ``nodes`` as it is.

    Where its nodes are free doesn't matter any more.
    """
    if not nodes:
        return op
    return replace(
        op,
        pnode=nodes[0],
        pnode_uuid=None,
        snode=nodes[1] if len(nodes) > 1 else None,
        snode_uuid=None,
        opportunistic_locking=False,
    )
