"""Volumes and devices that are there already become the disks of a new instance.

They are never wiped, imaged or installed (docs/differences.rst, Instances).
"""

from __future__ import annotations

from collections.abc import Sequence
from posixpath import normpath

from msgspec.structs import replace

from ganeti_masterd.config.objects import Disk, Instance
from ganeti_masterd.config.templates import DiskTemplate
from ganeti_masterd.errors import (
    ECODE_ENVIRON,
    ECODE_INVAL,
    ECODE_NOTUNIQUE,
    ECODE_STATE,
    OpPrereqError,
    ReservationError,
    prereq,
)
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.disks.noting import renamed_device
from ganeti_masterd.logical_units.disks.renaming import rename
from ganeti_masterd.logical_units.disks.trees import DiskSpecification
from ganeti_masterd.logical_units.steps.undo import UndoStack
from ganeti_masterd.rpc import calls
from ganeti_masterd.rpc.results import LogicalVolume

#: Below which devices must be to be adopted.
DEVICES = "/dev/disk/"


def check_adoption(
    disks: Sequence[DiskSpecification], template: DiskTemplate, *, by_allocator: bool
) -> bool:
    """Returns whether disks are adopted; refuses what can't be. Pure. Raises ``OpPrereqError``."""
    adopted = [disk.adopt is not None for disk in disks]
    if not any(adopted):
        if template.only_adopts and disks:
            raise prereq(
                f"Disk template {template.name} requires disk adoption, but no 'adopt' parameter "
                "given",
                ECODE_INVAL,
            )
        return False
    if not all(adopted):
        raise prereq("Either all disks are adopted or none is", ECODE_INVAL)
    if not template.adopts:
        raise prereq(
            f"Disk adoption is not supported for the '{template.name}' disk template", ECODE_INVAL
        )
    if by_allocator:
        raise prereq("Disk adoption not allowed with an iallocator script", ECODE_INVAL)
    return True


def found_disks(
    ctx: Context, node: str, disks: Sequence[DiskSpecification], template: DiskTemplate
) -> list[DiskSpecification]:
    """Returns disks to be adopted with the sizes that they have on a node (its uuid).

    They are reserved. Raises ``OpPrereqError`` for one that isn't there or is in use.
    """
    return _volumes(ctx, node, disks) if template.lvm else _devices(ctx, node, disks)


def rename_volumes(
    ctx: Context,
    undo: UndoStack,
    instance: Instance,
    disks: Sequence[Disk],
    wanted: Sequence[DiskSpecification],
) -> None:
    """Gives adopted volumes the names of an instance's disks, on its primary node.

    Devices keep their names. Pushes what renames them back; raises ``OpExecError``.
    """
    if not disks or not disks[0].template.lvm:
        return
    node = instance.primary_node
    name = ctx.snapshot().nodes[node].name
    pairs = [
        (disk, replace(disk, logical_id=(specification.group, specification.adopt)))
        for disk, specification in zip(disks, wanted, strict=True)
    ]

    def rename_back() -> None:
        there = _volumes_of(ctx, node)
        renamed = [(new, old) for new, old in pairs if new.volume in there]
        rename(ctx, node, renamed, "the node refuses")

    ctx.note_devices([renamed_device(ctx, instance, node, old, new) for new, old in pairs])
    named = ", ".join(str(old.volume) for _, old in pairs)
    undo.push(f"give volumes on node {name} their names back ({named})", rename_back)
    failure = f"Failed to rename adopted volumes of instance {instance.name} on node {name}"
    rename(ctx, node, [(old, new) for new, old in pairs], failure)


def _volumes(
    ctx: Context, node: str, disks: Sequence[DiskSpecification]
) -> list[DiskSpecification]:
    names = [f"{disk.group}/{disk.adopt}" for disk in disks]
    _refuse_twice(names, "volume names")
    for name in names:
        try:
            ctx.reserve("volume", name)
        except (OpPrereqError, ReservationError):
            raise prereq(f"LV named {name} used by another instance", ECODE_NOTUNIQUE)
    found = _volumes_of(ctx, node)
    missing = [name for name in names if name not in found]
    if missing:
        raise prereq(f"Missing logical volume(s): {', '.join(missing)}", ECODE_INVAL)
    online = [name for name in names if found[name].online]
    if online:
        raise prereq(
            f"Online logical volumes found, cannot adopt: {', '.join(online)}", ECODE_STATE
        )
    return [
        replace(disk, size=int(float(found[name].size)))
        for disk, name in zip(disks, names, strict=True)
    ]


def _volumes_of(ctx: Context, node: str) -> dict[str, LogicalVolume]:
    """Returns all volumes of a node; raises ``OpPrereqError`` if it can't say."""
    name = ctx.snapshot().nodes[node].name
    groups = ctx.call_one(node, calls.VG_LIST).or_refuse(
        f"Cannot get VG information from node {name}", ECODE_ENVIRON
    )
    return ctx.call_one(node, calls.LV_LIST, (list(groups),)).or_refuse(
        f"Cannot get LV information from node {name}", ECODE_ENVIRON
    )


def _devices(
    ctx: Context, node: str, disks: Sequence[DiskSpecification]
) -> list[DiskSpecification]:
    paths = [str(disk.adopt) for disk in disks]
    _refuse_twice(paths, "disk names")
    outside = [path for path in paths if not path.startswith(DEVICES) or normpath(path) != path]
    if outside:
        raise prereq(
            f"Device node(s) {', '.join(outside)} lie outside {DEVICES} and cannot be adopted",
            ECODE_INVAL,
        )
    for path in paths:
        owner = _owner(ctx, path)
        if owner is not None:
            raise prereq(f"Device {path} is used by {owner}", ECODE_NOTUNIQUE)
    name = ctx.snapshot().nodes[node].name
    sizes = ctx.call_one(node, calls.BDEV_SIZES, (paths,)).or_refuse(
        f"Cannot get block device information from node {name}", ECODE_ENVIRON
    )
    missing = [path for path in paths if path not in sizes]
    if missing:
        raise prereq(f"Missing block device(s): {', '.join(missing)}", ECODE_INVAL)
    return [
        replace(disk, size=int(float(sizes[path]))) for disk, path in zip(disks, paths, strict=True)
    ]


def _owner(ctx: Context, path: str) -> str | None:
    """Returns what has a device, in words: an instance or a detached disk; None if nothing has."""
    snapshot = ctx.snapshot()
    for disk in snapshot.disks.values():
        if disk.template.only_adopts and disk.logical_id and disk.logical_id[1] == path:
            owner = snapshot.owner_of(disk)
            if owner is not None:
                return f"instance {owner.name}"
            return f"disk {disk.uuid}, which is in no instance"
    return None


def _refuse_twice(names: Sequence[str], what: str) -> None:
    if len(set(names)) < len(names):
        raise prereq(f"Duplicate {what} given for adoption", ECODE_INVAL)
