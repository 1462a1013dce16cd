"""What an instance needs of the nodes that are to run it, asked of them before anything changes.

Whatever is missing is an ``OpPrereqError``. The texts are those of real daemon 3.0.2; where the
class or a rule differs, docs/differences.rst says so. Calls to several nodes are made at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ganeti_masterd.config.base import Params
from ganeti_masterd.config.objects import Cluster, Nic
from ganeti_masterd.config.parameters import effective
from ganeti_masterd.config.parameters.devices import ACCESS_MODES, can_access
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.templates import template_named
from ganeti_masterd.errors import ECODE_ENVIRON, ECODE_INVAL, ECODE_NORES, ECODE_STATE, prereq
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.disks.making import exclusive_storage
from ganeti_masterd.logical_units.disks.trees import DiskSpecification
from ganeti_masterd.rpc import calls
from ganeti_masterd.rpc.interfaces import NodeResult, Target
from ganeti_masterd.rpc.results import HypervisorSpace, NodeInfo

#: As a tool of compression: none.
NO_COMPRESSION = "none"

#: Where an entry of a CPU mask names no processor, so that every node has what it asks for.
_ANY_PROCESSOR = ("", "all")


def require_compression(cluster: Cluster, tool: str) -> None:
    """Refuses a tool to compress transfers that the cluster doesn't allow. Pure."""
    tools = cluster.compression_tools
    if tool not in (NO_COMPRESSION, *tools):
        raise prereq(
            f"Compression tool not allowed, tools allowed are [{', '.join(tools)}]", ECODE_INVAL
        )


def check_hypervisor_on_nodes(
    ctx: Context, nodes: Iterable[str], hypervisor: str, filled: Params
) -> None:
    """Asks nodes (uuids) whether they can run an instance with these hypervisor parameters.

    ``filled`` are all that take effect. Nodes that are marked offline, or run no instances,
    are not asked. Raises ``OpPrereqError`` with ``environment_error``.
    """
    known = ctx.snapshot().nodes
    asked = [node for node in _hosts(ctx, nodes) if not known[node].offline]
    merged = {**ctx.snapshot().cluster.hvparams.get(hypervisor, {}), **filled}
    answers = ctx.call(asked, calls.HYPERVISOR_VALIDATE_PARAMS, (hypervisor, merged))
    for answer in answers.values():
        answer.or_refuse(f"Hypervisor parameter validation failed on node {answer.node}")


def check_system_on_nodes(
    ctx: Context, nodes: Iterable[str], system: str, filled: Params, *, force_variant: bool = False
) -> None:
    """Asks nodes (uuids) whether they have an operating system that takes these parameters.

    ``filled`` are the public, private and secret ones in one dictionary. Nodes that run no
    instances are not asked. Raises ``OpPrereqError`` with ``environment_error``.
    """
    arguments = (True, system, ["parameters"], dict(filled), force_variant)
    for answer in ctx.call(_hosts(ctx, nodes), calls.OS_VALIDATE, arguments).values():
        if not answer.or_refuse(f"OS Parameters validation failed on node {answer.node}"):
            ctx.info(f"OS {system} not found on node {answer.node}, validation skipped")


def check_bridges(ctx: Context, nics: Iterable[Nic], nodes: Iterable[str]) -> None:
    """Asks nodes (uuids) for the bridges of network interfaces; calls none if they need none.

    Raises ``OpPrereqError`` with ``environment_error``.
    """
    cluster = ctx.snapshot().cluster
    filled = [effective.of_nic(cluster, nic) for nic in nics]
    links = [params["link"] for params in filled if params["mode"] == "bridged"]
    if not links:
        return
    for answer in ctx.call(nodes, calls.BRIDGES_EXIST, (links,)).values():
        answer.or_refuse(f"Error checking bridges on destination node '{answer.node}'")


def free_memory(ctx: Context, node: str, hypervisor: str) -> int:
    """Returns the MiB of memory that a node (its uuid) has left under a hypervisor.

    Raises ``OpPrereqError`` with ``environment_error`` if it can't say.
    """
    answer = ctx.call_one(node, calls.NODE_INFO, (None, _specs(ctx, hypervisor)))
    info = answer.or_refuse(f"Can't get data from node {answer.node}")
    if not info.hypervisors:
        raise prereq(
            f"Can't compute free memory on node {answer.node}, result was '{info.hypervisors}'",
            ECODE_ENVIRON,
        )
    return info.hypervisors[0].memory_free


def require_memory(ctx: Context, node: str, hypervisor: str, needed: int, reason: str) -> int:
    """Refuses what needs more MiB of memory than a node (its uuid) has left; returns what is left.

    ``reason`` is what it is needed for: ``starting instance web``. Raises ``OpPrereqError``
    with ``insufficient_resources``, or as :func:`free_memory`.
    """
    free = free_memory(ctx, node, hypervisor)
    if needed > free:
        raise prereq(
            f"Not enough memory on node {ctx.snapshot().nodes[node].name} for {reason}: "
            f"needed {needed} MiB, available {free} MiB",
            ECODE_NORES,
        )
    return free


def room_in_groups(template: str, wanted: Iterable[DiskSpecification]) -> dict[str, int]:
    """Returns the MiB that disks take in each volume group; empty where they need none. Pure.

    DRBD's metadata counts in the group where it is made.
    """
    kind = template_named(template)
    needed: dict[str, int] = {}
    if not kind.lvm:
        return needed
    for disk in wanted:
        needed[disk.group] = needed.get(disk.group, 0) + disk.size
        if kind.metadata:
            needed[disk.meta_group] = needed.get(disk.meta_group, 0) + kind.metadata
    return needed


def require_room(ctx: Context, nodes: Iterable[str], needed: Mapping[str, int]) -> None:
    """Refuses disks that need more room in volume groups than one of the nodes (uuids) has.

    ``needed`` is that of :func:`room_in_groups`. Raises ``OpPrereqError``:
    ``insufficient_resources``, or ``environment_error`` if a node can't say or hasn't got
    a group.
    """
    if not needed:
        return
    snapshot = ctx.snapshot()

    def arguments(target: Target) -> tuple[Any, Any]:
        exclusive = exclusive_storage(snapshot, target.key)
        return [["lvm-vg", group, [exclusive]] for group in needed], None

    for answer in ctx.call(nodes, calls.NODE_INFO, arguments).values():
        info = _current(answer)
        found = {unit.name: unit.storage_free for unit in info.storage or ()}
        for group, required in needed.items():
            free = found.get(group)
            if free is None:
                raise prereq(
                    f"Can't compute free disk space on node {answer.node} for vg {group}, result "
                    f"was '{free}'",
                    ECODE_ENVIRON,
                )
            if required > free:
                raise prereq(
                    f"Not enough disk space on target node {answer.node} vg {group}: required "
                    f"{required} MiB, available {free} MiB",
                    ECODE_NORES,
                )


def check_exclusive_storage(
    snapshot: Snapshot, nodes: Iterable[str], template: str, wanted: Iterable[DiskSpecification]
) -> None:
    """Checks new disks against what nodes (uuids) with exclusive storage ask for. Pure.

    Raises ``OpPrereqError``: ``wrong_state`` for a template that can't be there,
    ``wrong_input`` for spindles that are missing, or given where they don't count.
    """
    exclusive = any(exclusive_storage(snapshot, node) for node in nodes)
    if exclusive and not template_named(template).exclusive:
        raise prereq(f"Disk template {template} not supported with exclusive storage", ECODE_STATE)
    given = [disk.spindles is not None for disk in wanted]
    if exclusive and not all(given):
        raise prereq(
            "You must specify spindles in instance disks when exclusive storage is active",
            ECODE_INVAL,
        )
    if not exclusive and any(given):
        raise prereq(
            "Spindles in instance disks cannot be specified when exclusive storage is not active",
            ECODE_INVAL,
        )


def check_access(
    snapshot: Snapshot, node: str, hypervisor: str, template: str, given: Iterable[Params]
) -> None:
    """Checks that a hypervisor can open disks in the way that their parameters say. Pure.

    ``given`` are the disks' own parameters, ``node`` (its uuid) is the primary, whose group
    says the rest. Raises ``OpPrereqError`` with ``wrong_state``.
    """
    group = snapshot.group_of(snapshot.nodes[node])
    inherited = effective.of_disks(snapshot.cluster, group).get(template, {})
    for params in given:
        access = {"access": ACCESS_MODES[0], **inherited, **params}["access"]
        if not can_access(hypervisor, template, access):
            raise prereq(
                f"Selected hypervisor ({hypervisor}) cannot be used with {access} disk access "
                "param",
                ECODE_STATE,
            )


def check_cpu_mask(mask: str, vcpus: int) -> None:
    """Checks that a CPU mask with several entries has one for each virtual CPU. Pure.

    Raises ``OpPrereqError`` with ``wrong_input``.
    """
    if ":" in mask and len(mask.split(":")) != vcpus:
        raise prereq(f"Number of vCPUs [{vcpus}] does not match the CPU mask [{mask}]", ECODE_INVAL)


def processors_needed(mask: str) -> int:
    """Returns how many processors a node must have for a well-formed CPU mask. Pure.

    0 where it names none of them.
    """
    numbers = [
        int(end)
        for entry in mask.split(":")
        if entry not in _ANY_PROCESSOR
        for part in entry.split(",")
        for end in part.split("-")
    ]
    return max(numbers, default=-1) + 1


def require_processors(ctx: Context, nodes: Iterable[str], hypervisor: str, mask: str) -> None:
    """Refuses a CPU mask that names a processor which one of the nodes (uuids) hasn't got.

    Raises ``OpPrereqError``: ``insufficient_resources``, or ``environment_error`` if a node
    can't say.
    """
    required = processors_needed(mask)
    if not required:
        return
    answers = ctx.call(nodes, calls.NODE_INFO, (None, _specs(ctx, hypervisor)))
    for answer in answers.values():
        spaces: list[HypervisorSpace] | None = _current(answer).hypervisors
        if not spaces:
            raise prereq(
                f"Can't compute the number of CPUs on node {answer.node}, result was '{spaces}'",
                ECODE_ENVIRON,
            )
        if required > spaces[0].cpu_total:
            raise prereq(
                f"Node {answer.node} has {spaces[0].cpu_total} physical CPUs, but {required} are "
                "required",
                ECODE_NORES,
            )


def _hosts(ctx: Context, nodes: Iterable[str]) -> list[str]:
    known = ctx.snapshot().nodes
    return [node for node in dict.fromkeys(nodes) if known[node].vm_capable]


def _specs(ctx: Context, hypervisor: str) -> list[list[Any]]:
    return [[hypervisor, dict(ctx.snapshot().cluster.hvparams.get(hypervisor, {}))]]


def _current(answer: NodeResult[NodeInfo]) -> NodeInfo:
    return answer.or_refuse(f"Cannot get current information from node {answer.node}")
