"""Where a new instance goes: the nodes that were named, or those that an allocator finds."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from msgspec import Struct

from ganeti_masterd.allocation import builtin
from ganeti_masterd.allocation.desk import PendingPlace
from ganeti_masterd.allocation.requests import Allocate
from ganeti_masterd.config.base import Params
from ganeti_masterd.config.objects import Node
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.templates import DiskTemplate
from ganeti_masterd.errors import (
    ECODE_INVAL,
    ECODE_NORES,
    ECODE_STATE,
    ECODE_TEMP_NORES,
    OpExecError,
    OpPrereqError,
    prereq,
)
from ganeti_masterd.locking.levels import (
    Level,
    LockMode,
    WantedLocks,
    all_exclusive,
    all_shared,
    exclusive,
    nothing,
    opportunistic,
    shared,
)
from ganeti_masterd.logical_units.base import names_of
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.disks.trees import DiskSpecification
from ganeti_masterd.logical_units.instances.nics import NicWish
from ganeti_masterd.logical_units.steps.allocating import find_nodes_by, place_ahead
from ganeti_masterd.opcodes.instances import InstanceCreate

#: As an allocator's name: the cluster's default.
DEFAULT_ALLOCATOR = "."


class NewInstance(Struct, frozen=True, kw_only=True):
    """A new instance as far as its place matters; ``backend`` are all parameters, filled."""

    name: str
    template: DiskTemplate
    disks: Sequence[DiskSpecification]
    nics: Sequence[NicWish]
    backend: Params
    os: str
    hypervisor: str
    tags: Sequence[str] = ()
    group_name: str | None = None


def allocator_named(given: str | None) -> str | None:
    """Returns the name of an allocator, None for the cluster's default."""
    return None if given == DEFAULT_ALLOCATOR else given


def allocation(
    snapshot: Snapshot, new: NewInstance, nodes: Sequence[str] | None = None
) -> Allocate:
    """Returns the question to an allocator where an instance shall be. Pure.

    ``nodes`` are the names of those among which it may choose, None for all. Raises
    ``OpPrereqError`` if a NIC is to be in a network that doesn't exist.
    """
    return Allocate(
        name=new.name,
        memory=new.backend["maxmem"],
        vcpus=new.backend["vcpus"],
        disk_template=new.template.name,
        disks=[_disk(disk) for disk in new.disks],
        nics=[_nic(snapshot, nic) for nic in new.nics],
        os=new.os,
        hypervisor=new.hypervisor,
        tags=new.tags,
        spindle_use=new.backend["spindle_use"],
        group_name=new.group_name,
        nodes=nodes,
    )


def named_nodes(snapshot: Snapshot, op: InstanceCreate) -> tuple[str, ...]:
    """Returns the uuids of the nodes that an opcode names, the primary first. Pure.

    Empty where an allocator decides. Raises ``OpPrereqError``.
    """
    primary, secondary = op.pnode_uuid or op.pnode, op.snode_uuid or op.snode
    if primary is not None and op.iallocator is not None:
        raise prereq("Do not specify both, iallocator and node", ECODE_INVAL)
    if primary is None:
        if secondary is not None:
            raise prereq(
                "A secondary node can only be given together with a primary node", ECODE_INVAL
            )
        return ()
    nodes = [snapshot.node(name).uuid for name in (primary, secondary) if name is not None]
    return tuple(nodes)


def locks_of_place(
    level: Level,
    snapshot: Snapshot,
    nodes: Sequence[str],
    found_free: Collection[str] | None,
    minimum: int | None,
) -> WantedLocks:
    """Returns the locks of nodes and groups that a new instance needs. Pure.

    ``nodes`` are the uuids of its nodes, empty where an allocator decides: that needs all
    nodes, or with ``minimum`` whatever is free, if it is so many. ``found_free`` are the
    nodes that are held. At the level of resources nodes are shared, so that creations don't
    wait for each other's disks (docs/differences.rst, Instances).
    """
    if level is Level.NODEGROUP:
        return shared({snapshot.nodes[node].group for node in nodes}) if nodes else all_shared
    if level is Level.NODE:
        if nodes:
            return exclusive(nodes)
        return all_exclusive if minimum is None else opportunistic(None, minimum)
    if level is Level.NODE_RES:
        if nodes:
            return shared(nodes)
        return (
            all_shared
            if minimum is None
            else WantedLocks(LockMode.SHARED, frozenset(found_free or ()))
        )
    return nothing


def choose_nodes(
    ctx: Context, new: NewInstance, op: InstanceCreate, held: Collection[str], *, some: bool
) -> tuple[str, ...]:
    """Asks an allocator; returns the uuids of the nodes that it chose, the primary first.

    ``some``: only some nodes are held, among which it has to choose. Raises
    ``OpPrereqError`` with ``temp_insufficient_resources`` if these aren't enough.
    """
    snapshot = ctx.snapshot()
    among = sorted(snapshot.nodes[uuid].name for uuid in held) if some else None
    name = allocator_named(op.iallocator)
    try:
        allocator, found = find_nodes_by(ctx, allocation(snapshot, new, among), name)
    except OpPrereqError as error:
        if some and error.args[1:] == (ECODE_NORES,):
            raise fall_back(ctx, name, str(error.args[0]))
        raise
    unknown = [each for each in found if snapshot.lookup("node", each) is None]
    if unknown:
        raise OpExecError(
            f"The allocator {allocator} chose nodes for instance {new.name} that don't exist: "
            f"{', '.join(unknown)}"
        )
    nodes = tuple(snapshot.node(each).uuid for each in found)
    if not set(nodes) <= set(held):
        raise OpExecError(
            f"The allocator chose nodes for instance {new.name} that it may not choose: "
            f"{names_of(snapshot, set(nodes) - set(held))}"
        )
    _tell(ctx, new.name, allocator, found)
    return nodes


def choose_ahead(ctx: Context, new: NewInstance, op: InstanceCreate) -> PendingPlace | None:
    """Has the built-in allocator choose nodes without locks, where it is the one to decide.

    None if another one decides, or it finds none. Raises as :func:`place_ahead`.
    """
    request = allocation(ctx.snapshot(), new)
    return place_ahead(ctx, request, allocator_named(op.iallocator))


def confirm(ctx: Context, place: PendingPlace) -> tuple[str, ...]:
    """Returns the nodes of a place chosen before their locks were held, if it still holds.

    Else raises ``OpPrereqError`` with ``temp_insufficient_resources``.
    """
    snapshot = ctx.snapshot()
    names = [snapshot.nodes[node].name for node in place.nodes]
    if not place.holds(snapshot):
        raise starts_over(ctx, f"Nodes {', '.join(names)} have changed since they were chosen")
    _tell(ctx, place.request.name, builtin.NAME, names)
    return place.nodes


@contextmanager
def still_fitting(ctx: Context, place: PendingPlace | None) -> Iterator[None]:
    """Has a place chosen without locks chosen again with all nodes held, if it is too small."""
    try:
        yield
    except OpPrereqError as error:
        if place is None or error.args[1:] != (ECODE_NORES,):
            raise
        raise starts_over(ctx, str(error.args[0]))


def fall_back(ctx: Context, name: str | None, reason: str) -> OpPrereqError:
    """Returns the error that sends an opcode back to wait for all nodes; says so in the log.

    ``name`` is the allocator's, None for the default one.
    """
    shown = name or ctx.snapshot().cluster.default_iallocator or builtin.NAME
    ctx.info(f"IAllocator '{shown}' failed on opportunistically acquired nodes: {reason}")
    return _with_all_locks(ctx, reason)


def starts_over(ctx: Context, reason: str) -> OpPrereqError:
    """Returns the same error for a place that was chosen without locks."""
    ctx.info(reason)
    return _with_all_locks(ctx, reason)


def _with_all_locks(ctx: Context, reason: str) -> OpPrereqError:
    ctx.feedback("* falling back to full lock allocation")
    return prereq(reason, ECODE_TEMP_NORES)


def _tell(ctx: Context, instance: str, allocator: str, nodes: Sequence[str]) -> None:
    ctx.info(
        f"Selected nodes for instance {instance} via iallocator {allocator}: {', '.join(nodes)}"
    )


def keep_place(ctx: Context, nodes: Sequence[str], others: Sequence[str] = ()) -> None:
    """Gives back the locks of all nodes and groups but those of an instance's nodes.

    ``others`` are nodes that stay locked, but not as resources.
    """
    snapshot = ctx.snapshot()
    ctx.release(Level.NODE, (*nodes, *others))
    ctx.release(Level.NODE_RES, nodes)
    ctx.release(Level.NODEGROUP, {snapshot.nodes[node].group for node in nodes})


def check_place(ctx: Context, nodes: Sequence[str], template: DiskTemplate) -> None:
    """Refuses nodes that a new instance can't be on. Raises ``OpPrereqError``."""
    snapshot = ctx.snapshot()
    primary = snapshot.nodes[nodes[0]]
    for state, holds in _states(primary):
        if holds:
            raise prereq(f"Cannot use {state} primary node '{primary.name}'", ECODE_STATE)
    if not template.internal:
        return
    secondary = snapshot.nodes[nodes[1]]
    if secondary.uuid == primary.uuid:
        raise prereq("The secondary node cannot be the primary node", ECODE_INVAL)
    if secondary.offline:
        raise prereq(f"Can't use offline node: {secondary.name}", ECODE_STATE)
    if secondary.drained:
        raise prereq(f"Can't use drained node {secondary.name}", ECODE_STATE)
    if not secondary.vm_capable:
        raise prereq(f"Can't use non-vm_capable node {secondary.name}", ECODE_STATE)
    if secondary.group != primary.group:
        ctx.warning(
            "The primary and secondary nodes are in two different node groups; the disk "
            "parameters from the first disk's node group will be used"
        )


def _states(node: Node) -> list[tuple[str, bool]]:
    return [
        ("offline", node.offline),
        ("drained", node.drained),
        ("non-vm_capable", not node.vm_capable),
    ]


def _disk(disk: DiskSpecification) -> dict[str, Any]:
    described: dict[str, Any] = {"size": disk.size, "mode": disk.mode}
    if disk.spindles is not None:
        described["spindles"] = disk.spindles
    return described


def _nic(snapshot: Snapshot, wish: NicWish) -> dict[str, Any]:
    filled = {**snapshot.cluster.nicparams.get("default", {}), **wish.parameters}
    described = {
        "mac": wish.mac,
        "ip": wish.ip,
        "mode": filled.get("mode"),
        "link": filled.get("link"),
    }
    if filled.get("mode") == "bridged":
        described["bridge"] = filled.get("link")
    if wish.network is not None:
        described["network"] = snapshot.network(wish.network).uuid
    return described
