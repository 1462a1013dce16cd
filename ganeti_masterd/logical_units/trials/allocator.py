"""OP_TEST_ALLOCATOR: shows the request for an allocator, or the allocator's answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ganeti_masterd.allocation.requests import (
    Allocate,
    AllocateSecondary,
    AllocationRequest,
    ChangeGroup,
    EvacuationRequest,
    MultiAllocate,
    Relocate,
)
from ganeti_masterd.allocation.scripts import document_text
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import ECODE_EXISTS, prereq
from ganeti_masterd.logical_units.base import LogicalUnit
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.steps.allocating import ask, describe
from ganeti_masterd.opcodes.tests import TestAllocator

#: Access modes of a disk.
_ACCESS = ("ro", "rw")

#: Parameters that a new instance must have.
_NEEDED = ("memory", "vcpus", "os", "disk_template", "disks", "nics")


class TryAllocator(LogicalUnit[TestAllocator], runs=TestAllocator):
    """Makes an allocation request without locks; the result is not carried out."""

    def check(self, ctx: Context) -> None:
        """Refuses an invalid request, and one to an allocator without a name."""
        self.request = request_of(ctx.snapshot(), self.op)
        if self.op.direction == "out" and self.op.iallocator is None:
            raise prereq("Missing allocator name")

    def exec(self, ctx: Context) -> str:
        """Returns the request's document, or the allocator's unchanged answer."""
        told = describe(ctx, self.request)
        if self.op.direction == "in":
            return document_text(told)
        assert self.op.iallocator is not None
        return ask(ctx, self.op.iallocator, told, self.request.options)


def request_of(snapshot: Snapshot, op: TestAllocator) -> AllocationRequest:
    """Returns the request that an opcode describes; raises ``OpPrereqError`` if invalid."""
    if op.mode == "allocate":
        _check_new(snapshot, op)
        return _new_instance(snapshot, op, op.name)
    if op.mode == "multi-allocate":
        _check_new(snapshot, op)
        return MultiAllocate(
            instances=[
                _new_instance(snapshot, op, f"{op.name}{place}") for place in range(op.count)
            ]
        )
    if op.mode == "relocate":
        instance = snapshot.instance(op.name)
        nodes = snapshot.nodes_of(instance)
        # Without a secondary node it leaves its primary, as other nodes can reach its data.
        return Relocate(name=instance.name, leaving=nodes[1:] or nodes)
    if op.mode == "allocate-secondary":
        return AllocateSecondary(name=snapshot.instance(op.name).name)
    if not op.instances:
        raise prereq("Missing instances")
    names = [snapshot.instance(name).name for name in op.instances]
    if op.mode == "change-group":
        targets = [snapshot.group(name).uuid for name in op.target_groups or ()]
        return ChangeGroup(instances=names, target_groups=targets)
    if op.evac_mode is None:
        raise prereq("Missing evacuation mode")
    return EvacuationRequest(instances=names, evac_mode=op.evac_mode)


def _new_instance(snapshot: Snapshot, op: TestAllocator, name: str) -> Allocate:
    assert op.memory is not None
    assert op.vcpus is not None
    return Allocate(
        name=name,
        memory=op.memory,
        vcpus=op.vcpus,
        disk_template=op.disk_template or "",
        disks=op.disks or (),
        nics=op.nics or (),
        os=op.os or "",
        hypervisor=op.hypervisor or snapshot.cluster.enabled_hypervisors[0],
        tags=op.tags,
        spindle_use=op.spindle_use,
        group_name=op.group_name,
    )


def _check_new(snapshot: Snapshot, op: TestAllocator) -> None:
    existing = snapshot.lookup("instance", op.name)
    if existing is not None:
        raise prereq(f"Instance '{existing.name}' already in the cluster", ECODE_EXISTS)
    missing = [name for name in _NEEDED if getattr(op, name) is None]
    if missing:
        raise prereq(f"A new instance needs the parameters {', '.join(missing)}")
    if not all(_is_disk(disk) for disk in op.disks or ()):
        raise prereq("Invalid contents of the 'disks' parameter")


def _is_disk(described: Any) -> bool:
    return (
        isinstance(described, Mapping)
        and isinstance(described.get("size"), int)
        and not isinstance(described.get("size"), bool)
        and described["size"] >= 0
        and described.get("mode") in _ACCESS
    )
