"""Checks of instances, from the nodes' answers. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from ganeti_masterd.config.objects import Disk, Instance, NodeGroup
from ganeti_masterd.config.parameters import effective
from ganeti_masterd.config.parameters.policy import violations
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.logical_units.groups.parameters import demand_of
from ganeti_masterd.logical_units.verification.pictures import Picture, volumes_by_node
from ganeti_masterd.logical_units.verification.report import ERROR, WARNING, Finding, warning

#: The numbers of local disk states in the nodes' answers.
DISK_STATES = {1: "ok", 2: "syncing", 3: "unknown", 4: "faulty"}
_ACCEPTED = (1, 2)

#: The prefix of cluster tags that make instances' tags exclusive on a node.
EXCLUSION = "htools:iextags:"

Pictures = Mapping[str, Picture]
#: For each node, for each disk of an instance: ``(known, state or error text)``.
StatesByNode = Mapping[str, Sequence[Sequence[Any]]]


def instance_faults(
    snapshot: Snapshot,
    instance: Instance,
    group: NodeGroup,
    pictures: Pictures,
    states: StatesByNode,
) -> Iterator[Finding]:
    """Yields all that is wrong with an instance of ``group``."""
    name, primary = instance.name, pictures[instance.primary_node]
    broken = violations(
        effective.instance_policy(snapshot.cluster, group), demand_of(snapshot, instance)
    )
    if broken:
        yield warning("EINSTANCEPOLICY", name, ", ".join(broken))
    yield from _missing_volumes(snapshot, instance, pictures)
    if instance.admin_state == "up":
        if primary.offline:
            text = f"instance is marked as running and lives on offline node {primary.name}"
            yield Finding("EINSTANCEBADNODE", name, text)
        elif name not in (primary.running or ()):
            text = f"instance not running on its primary node {primary.name}"
            yield Finding("EINSTANCEDOWN", name, text)
    yield from _disk_faults(instance, pictures, states)
    if primary.silent and not primary.offline:
        text = f"instance {name}, connection to primary node failed"
        yield Finding("ENODERPC", primary.name, text)
    yield from _placement_faults(snapshot, instance, pictures)


def stray_instances(snapshot: Snapshot, picture: Picture) -> Iterator[Finding]:
    """Yields instances that run on a node where they should not."""
    own = {instance.name for instance in picture.primaries}
    for name in sorted((picture.running or set()) - own):
        if snapshot.instances.named(name) is not None:
            text = f"instance should not run on node {picture.name}"
            yield Finding("EINSTANCEWRONGNODE", name, text)
        else:
            text = f"node is running unknown instance {name}"
            yield Finding("ENODEORPHANINSTANCE", picture.name, text)


def exclusion_faults(cluster_tags: Collection[str], picture: Picture) -> Iterator[Finding]:
    """Yields exclusive tags that several instances on a node have."""
    prefixes = tuple(tag[len(EXCLUSION) :] for tag in cluster_tags if tag.startswith(EXCLUSION))
    seen: set[str] = set()
    twice: set[str] = set()
    for instance in picture.primaries:
        exclusive = {tag for tag in instance.tags if prefixes and tag.startswith(prefixes)}
        twice |= exclusive & seen
        seen |= exclusive
    if twice:
        text = f"Tags where there is more than one instance: {sorted(twice)}"
        yield warning("EEXTAGS", picture.name, text)


def memory_faults(snapshot: Snapshot, pictures: Pictures, group: NodeGroup) -> Iterator[Finding]:
    """Yields nodes without enough memory for the instances of another node that fails.

    Each secondary is checked for each of its primaries. Instances that are down count, too, as they
    may be started.
    """
    for picture in pictures.values():
        if picture.node is None or picture.offline or picture.node.group != group.uuid:
            continue
        needed: dict[str, int] = {}
        for instance in picture.secondaries:
            filled = effective.backend(snapshot.cluster, instance)
            needed.setdefault(instance.primary_node, 0)
            if filled["auto_balance"]:
                needed[instance.primary_node] += filled["minmem"]
        free = picture.memory_free or 0
        for uuid, memory in needed.items():
            if free < memory:
                text = (
                    "not enough memory to accomodate instance failovers should node"
                    f" {pictures[uuid].name} fail ({memory}MiB needed, {free}MiB available)"
                )
                yield Finding("ENODEN1", picture.name, text)


def is_redundant(disks: Collection[Disk]) -> bool:
    """Returns whether an instance's data survives the loss of a node."""
    return all(disk.template.mirrored for disk in disks)


def _missing_volumes(
    snapshot: Snapshot, instance: Instance, pictures: Pictures
) -> Iterator[Finding]:
    for uuid, volumes in volumes_by_node(snapshot, instance).items():
        picture = pictures[uuid]
        if picture.volumes is None:
            continue
        for volume in volumes:
            if volume not in picture.volumes:
                text = f"volume {volume} missing on node {picture.name}"
                yield Finding("EINSTANCEMISSINGDISK", instance.name, text)


def _disk_faults(instance: Instance, pictures: Pictures, states: StatesByNode) -> Iterator[Finding]:
    if not instance.disks_active:
        return
    for uuid, disks in states.items():
        picture = pictures[uuid]
        for index, (told, state) in enumerate(disks):
            if not told:
                if not (picture.ghost or picture.offline):
                    text = f"couldn't retrieve status for disk/{index} on {picture.name}: {state}"
                    yield Finding("EINSTANCEFAULTYDISK", instance.name, text)
            elif state.get("is_degraded"):
                local = state.get("ldisk_status")
                text = (
                    f"disk/{index} on {picture.name} is degraded; local disk state is"
                    f" '{DISK_STATES.get(local, local)}'"
                )
                severity = WARNING if local in _ACCEPTED else ERROR
                yield Finding("EINSTANCEFAULTYDISK", instance.name, text, severity)


def _placement_faults(
    snapshot: Snapshot, instance: Instance, pictures: Pictures
) -> Iterator[Finding]:
    name = instance.name
    nodes = snapshot.nodes_of(instance)
    secondaries = [pictures[uuid] for uuid in nodes[1:]]
    if len(secondaries) > 1:
        listed = ", ".join(picture.name for picture in secondaries)
        yield warning("EINSTANCELAYOUT", name, f"instance has multiple secondary nodes: {listed}")
    disks = snapshot.disks_of(instance)
    yield from _exclusive_faults(snapshot, instance, disks)
    if any(disk.template.internal for disk in disks):
        yield from _split_faults(snapshot, instance, nodes)
    for picture in secondaries:
        if picture.silent and not picture.offline:
            text = f"instance {name}, connection to secondary node failed"
            yield Finding("ENODERPC", picture.name, text)
    if offline := [picture.name for picture in secondaries if picture.offline]:
        text = f"instance has offline secondary node(s) {', '.join(offline)}"
        yield Finding("EINSTANCEBADNODE", name, text)
    for uuid in nodes:
        picture = pictures[uuid]
        if picture.node is None:
            text = f"instance lives on ghost node {picture.name}"
            yield Finding("EINSTANCEBADNODE", name, text)
        elif not picture.node.vm_capable:
            text = f"instance lives on non-vm_capable node {picture.name}"
            yield Finding("EINSTANCEBADNODE", name, text)


def _exclusive_faults(
    snapshot: Snapshot, instance: Instance, disks: Sequence[Disk]
) -> Iterator[Finding]:
    exclusive = [
        node.name
        for uuid in snapshot.nodes_of(instance)
        if (node := snapshot.nodes.get(uuid)) is not None
        and effective.of_node(snapshot, node).get("exclusive_storage")
    ]
    if not exclusive:
        return
    wrong = [disk.dev_type for disk in disks if not disk.template.exclusive]
    if wrong:
        text = (
            f"instance uses disk types {', '.join(wrong)}, which are not supported on nodes that"
            f" have exclusive storage set: {', '.join(exclusive)}"
        )
        yield Finding("EINSTANCEUNSUITABLENODE", instance.name, text)
    for index, disk in enumerate(disks):
        if disk.spindles is None:
            text = (
                f"number of spindles not configured for disk {index} while exclusive storage is"
                " enabled, try running gnt-cluster repair-disk-sizes"
            )
            yield Finding("EINSTANCEMISSINGCFGPARAMETER", instance.name, text)


def _split_faults(
    snapshot: Snapshot, instance: Instance, nodes: Sequence[str]
) -> Iterator[Finding]:
    groups: dict[str, list[str]] = {}
    for uuid in nodes:
        node = snapshot.nodes.get(uuid)
        if node is not None:
            groups.setdefault(node.group, []).append(node.name)
    if len(groups) > 1:
        # The primary node is the first, and so its group is, too.
        listed = ", ".join(
            f"{', '.join(names)} (group"
            f" {snapshot.groups[uuid].name if uuid in snapshot.groups else uuid})"
            for uuid, names in groups.items()
        )
        text = f"instance has primary and secondary nodes in different groups: {listed}"
        yield warning("EINSTANCESPLITGROUPS", instance.name, text)
