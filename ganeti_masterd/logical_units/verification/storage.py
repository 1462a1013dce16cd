"""Checks of volumes and mirrors (LVM and DRBD) from the nodes' answers. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ganeti_masterd.config.objects import Cluster, Node
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.logical_units.cluster.node_checks import volume_group_fault
from ganeti_masterd.logical_units.verification.nodes import VerifyAnswer
from ganeti_masterd.logical_units.verification.pictures import Picture
from ganeti_masterd.logical_units.verification.report import Finding, warning
from ganeti_masterd.patterns import BadPattern, Pattern

#: The largest allowed relative difference of physical volumes' sizes with exclusive storage.
MARGIN = 0.01


def volume_group_faults(
    cluster: Cluster, picture: Picture, answer: VerifyAnswer, *, exclusive: bool
) -> Iterator[Finding]:
    """Yields what is wrong with a node's volume group; fills in its physical volumes."""
    group, name = cluster.volume_group_name, picture.name
    if group is None:
        return
    groups = answer.get("vglist")
    if not isinstance(groups, Mapping) or not groups:
        yield Finding("ENODELVM", name, "unable to check volume groups")
    elif fault := volume_group_fault(groups, group):
        yield Finding("ENODELVM", name, fault)
    physical = answer.get("pvlist")
    if not isinstance(physical, list):
        yield Finding("ENODELVM", name, "Can't get PV list from node")
        return
    for row in physical:
        if ":" in row["name"]:
            text = f"Invalid character ':' in PV '{row['name']}' of VG '{row['vg_name']}'"
            yield Finding("ENODELVM", name, text)
    if exclusive:
        yield from _exclusive_faults(picture, physical, answer.get("exclusive-pvs") or ())


def volume_faults(cluster: Cluster, picture: Picture, answer: VerifyAnswer) -> Iterator[Finding]:
    """Fills in a node's logical volumes; yields a finding if they aren't known."""
    if cluster.volume_group_name is None:
        return
    volumes = answer.get("lvlist", "Missing LV data")
    if isinstance(volumes, str):
        yield Finding("ENODELVM", picture.name, f"LVM problem on node: {volumes}")
    elif not isinstance(volumes, Mapping):
        yield Finding("ENODELVM", picture.name, "rpc call to node failed (lvlist)")
    else:
        picture.volumes = volumes


def group_space_faults(cluster: Cluster, node: Node, answer: VerifyAnswer) -> Iterator[Finding]:
    """Yields a finding if the free space in a node's volume group isn't known."""
    group = cluster.volume_group_name
    groups = answer.get("vglist")
    if group is not None and not (isinstance(groups, Mapping) and group in groups):
        yield Finding(
            "ENODELVM",
            node.name,
            f"node didn't return data for the volume group '{group}' - it is either missing or"
            " broken",
        )


def physical_size_faults(group: str, pictures: Collection[Picture]) -> Iterator[Finding]:
    """Yields a finding if physical volumes of a group with exclusive storage differ too much."""
    known = [(picture.physical, picture.name) for picture in pictures if picture.physical]
    if not known:
        return
    small, where_small = min((sizes[0], name) for sizes, name in known)
    large, where_large = max((sizes[1], name) for sizes, name in known)
    if _differ(small, large):
        yield Finding(
            "EGROUPDIFFERENTPVSIZE",
            group,
            f"PV sizes differ too much in the group; smallest ({small} MB) is on {where_small},"
            f" biggest ({large} MB) is on {where_large}",
        )


def orphan_volumes(
    cluster: Cluster, pictures: Collection[Picture], expected: Mapping[str, Collection[str]]
) -> Iterator[Finding]:
    """Yields volumes that belong to no instance; ``expected`` are those that do, by node.

    Volumes that match one of ``reserved_lvs`` are ignored. If one of those isn't a valid regular
    expression (another daemon may have accepted it), there is a warning.
    """
    reserved = []
    for text in cluster.reserved_lvs:
        try:
            reserved.append(Pattern(text))
        except BadPattern as error:
            said = f"pattern of reserved volumes '{text}' is left out: {error}"
            yield warning("ENODEORPHANLV", cluster.cluster_name, said)
    for picture in pictures:
        for volume in picture.volumes or ():
            if (
                volume.split("/")[0] == cluster.volume_group_name
                and volume not in expected.get(picture.uuid, ())
                and not any(pattern.fullmatch(volume) for pattern in reserved)
            ):
                yield warning("ENODEORPHANLV", picture.name, f"volume {volume} is unknown")


def drbd_faults(snapshot: Snapshot, node: Node, answer: VerifyAnswer) -> Iterator[Finding]:
    """Yields what is wrong with DRBD's helper on a node, and with the minors in use."""
    helper = snapshot.cluster.drbd_usermode_helper
    if helper:
        yield from _helper_faults(node, answer.get("drbd-helper"), helper)
    used = answer.get("drbd-list", [])
    if not isinstance(used, (list, tuple)):
        yield Finding("ENODEDRBD", node.name, f"cannot parse drbd status file: {used}")
        return
    minors = {
        minor: disk
        for disk in snapshot.disks_on(node)
        for uuid, minor in disk.minors()
        if uuid == node.uuid
    }
    for minor, disk in sorted(minors.items()):
        owner = snapshot.owner_of(disk)
        if owner is not None and owner.disks_active and minor not in used:
            yield Finding(
                "ENODEDRBD",
                node.name,
                f"drbd minor {minor} of disk {disk.uuid} (attached in instance '{owner.name}') is"
                " not active",
            )
    for minor in used:
        if minor not in minors:
            yield Finding("ENODEDRBD", node.name, f"unallocated drbd minor {minor} is in use")


def drbd_version_faults(versions: Mapping[str, Any]) -> Iterator[Finding]:
    """Yields a finding if a group's nodes (by name) have different versions of DRBD."""
    if len(set(versions.values())) > 1:
        for name, version in sorted(versions.items()):
            yield warning("ENODEDRBDHELPER", name, f"DRBD version mismatch: {version}")


def _helper_faults(node: Node, told: Any, helper: str) -> Iterator[Finding]:
    if told is None:
        yield Finding("ENODEDRBDHELPER", node.name, "no drbd usermode helper returned")
        return
    good, payload = told
    if not good:
        text = f"drbd usermode helper check unsuccessful: {payload}"
        yield Finding("ENODEDRBDHELPER", node.name, text)
    elif payload != helper:
        yield Finding("ENODEDRBDHELPER", node.name, f"wrong drbd usermode helper: {payload}")


def _exclusive_faults(
    picture: Picture, physical: list[Mapping[str, Any]], shared: Collection[Any]
) -> Iterator[Finding]:
    sizes = [row["size"] for row in physical]
    if sizes:
        picture.physical = (min(sizes), max(sizes))
        if _differ(*picture.physical):
            text = f"Sizes of PVs are too different: min={min(sizes):.0f} max={max(sizes):.0f}"
            yield Finding("ENODELVM", picture.name, text)
    for name, volumes in shared:
        text = f"PV {name} is shared among unrelated LVs ({', '.join(volumes)})"
        yield Finding("ENODELVM", picture.name, text)


def _differ(small: float, large: float) -> bool:
    return small * (1 + MARGIN) < large * (1 - MARGIN)
