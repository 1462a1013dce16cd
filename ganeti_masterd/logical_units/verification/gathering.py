"""Makes the calls for a group's verification, to its nodes and others."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from ganeti_masterd.config.objects import Disk, Instance, Node, NodeGroup
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.ssconf import natural_key
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.steps import node_objects
from ganeti_masterd.logical_units.verification import asking
from ganeti_masterd.logical_units.verification.files import VerifiedFiles
from ganeti_masterd.logical_units.verification.pictures import Picture
from ganeti_masterd.logical_units.verification.report import Finding, VerifyReport
from ganeti_masterd.logical_units.verification.shape import well_formed
from ganeti_masterd.rpc import calls
from ganeti_masterd.rpc.interfaces import NodeResult, Target

#: How long to wait for replicated files: number of tries, and seconds between two.
TRIES = 3
PAUSE = 1.0

#: For each instance (uuid) and node (uuid), for each disk: ``(known, state)``.
DiskStates = dict[str, dict[str, list[Sequence[Any]]]]


class VerifiedGroup(Struct, frozen=True):
    """A group to verify: its nodes, and the instances that have one of them as primary."""

    snapshot: Snapshot
    group: NodeGroup
    nodes: list[Node]
    instances: list[Instance]


class GroupAnswers(Struct, frozen=True):
    """The nodes' answers to ``node_verify``, by uuid, called between ``begin`` and ``end``."""

    nodes: Mapping[str, NodeResult[Any]]
    begin: float
    end: float


def group_of(snapshot: Snapshot, uuid: str) -> VerifiedGroup:
    """Returns a group with its nodes and instances in natural order."""
    nodes = sorted(snapshot.members(uuid), key=lambda node: natural_key(node.name))
    instances = [instance for node in nodes for instance in snapshot.instances_on(node)]
    instances.sort(key=lambda instance: natural_key(instance.name))
    return VerifiedGroup(snapshot, snapshot.groups[uuid], nodes, instances)


def outside_nodes(group: VerifiedGroup) -> list[str]:
    """Returns the nodes (uuids) in other groups that have a mirror of the group's instances."""
    snapshot = group.snapshot
    found = {
        uuid: None
        for instance in group.instances
        if any(disk.template.internal for disk in snapshot.disks_of(instance))
        for uuid in snapshot.nodes_of(instance)
        if uuid in snapshot.nodes and snapshot.nodes[uuid].group != group.group.uuid
    }
    return list(found)


def ask_nodes(
    ctx: Context, group: VerifiedGroup, files: VerifiedFiles, *, clutter: bool
) -> GroupAnswers:
    """Makes the full verification call to the nodes of a group."""
    wanted = asking.request(
        group.snapshot, group.nodes, group.instances, files, ctx.root, clutter=clutter
    )
    begin = time.time()
    answers = _verify(ctx, group.snapshot, [node.uuid for node in group.nodes], wanted)
    return GroupAnswers(answers, begin, time.time())


def ask_volumes(
    ctx: Context, group: VerifiedGroup, uuids: Sequence[str]
) -> Mapping[str, NodeResult[Any]]:
    """Asks nodes in other groups only for their volumes."""
    wanted = {"lvlist": group.snapshot.cluster.volume_group_name}
    return _verify(ctx, group.snapshot, uuids, wanted)


def other_witnesses(group: VerifiedGroup) -> list[Node]:
    """Returns further nodes to compare files with: the master, and one more.

    Returns none if there is no other group.
    """
    snapshot = group.snapshot
    own = {node.uuid for node in group.nodes}
    master = snapshot.master
    found = [] if master.uuid in own else [master]
    for node in snapshot.nodes.values():
        if node.uuid not in own and node.vm_capable and not node.offline and node != master:
            return [*found, node]
    return found


def ask_files(
    ctx: Context, group: VerifiedGroup, nodes: Sequence[Node], files: VerifiedFiles
) -> Mapping[str, NodeResult[Any]]:
    """Asks nodes only for the digests of files."""
    wanted = {"filelist": files.paths(ctx.root)}
    return _verify(ctx, group.snapshot, [node.uuid for node in nodes], wanted)


def ask_disks(
    ctx: Context, report: VerifyReport, group: VerifiedGroup, pictures: Mapping[str, Picture]
) -> DiskStates:
    """Asks the group's nodes for the states of its instances' existing disks."""
    snapshot = group.snapshot
    on_node: dict[str, list[tuple[Instance, Disk]]] = {}
    for node in group.nodes:
        picture = pictures[node.uuid]
        for instance in (*picture.primaries, *picture.secondaries):
            for disk in snapshot.disks_of(instance):
                on_node.setdefault(node.uuid, []).append((instance, disk))

    def arguments(target: Target) -> list[Any]:
        return [
            [
                node_objects.disk(snapshot, disk, instance, target.key)
                for instance, disk in on_node[target.key]
            ]
        ]

    answers = ctx.call(on_node, calls.BLOCKDEV_GETMIRRORSTATUS_MULTI, arguments) if on_node else {}
    states: DiskStates = {instance.uuid: {} for instance in group.instances}
    for uuid, answer in answers.items():
        if answer.failed and not answer.offline:
            text = f"while getting disk information: {answer.error}"
            report.add([Finding("ENODERPC", answer.node, text)])
        told = _states(answer, len(on_node[uuid]))
        for (instance, _), state in zip(on_node[uuid], told, strict=True):
            states.setdefault(instance.uuid, {}).setdefault(uuid, []).append(state)
    return states


def _states(answer: NodeResult[list[tuple[bool, Any]]], count: int) -> list[Sequence[Any]]:
    if answer.failed:
        return [(False, "node offline" if answer.offline else answer.error)] * count
    if len(answer.payload) != count:
        return [(False, "Invalid result from the remote node")] * count
    return [
        row
        if not row[0] or isinstance(row[1], Mapping)
        else (False, "Invalid result from the remote node")
        for row in answer.payload
    ]


def _verify(
    ctx: Context, snapshot: Snapshot, uuids: Sequence[str], wanted: Mapping[str, Any]
) -> Mapping[str, NodeResult[Any]]:
    cluster = snapshot.cluster
    hvparams = {name: dict(values) for name, values in cluster.hvparams.items()}
    arguments = (wanted, cluster.cluster_name, hvparams)
    answers = ctx.call(uuids, calls.NODE_VERIFY, arguments)
    return {uuid: well_formed(answer) for uuid, answer in answers.items()}
