"""Finds and makes the device of a disk on a simulated node."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

from ganeti_masterd.config.templates import named_by
from ganeti_masterd.simulation import volumes
from ganeti_masterd.simulation.blocks import (
    EXISTS,
    NO_ROOM,
    NOT_THERE,
    AdoptedDevice,
    Block,
    DeviceError,
    ExternalVolume,
    FileDevice,
    RadosVolume,
    SimulatedVolume,
    file_room,
    file_shelf,
    free_minor,
    missing,
    not_creatable,
    provider,
    run_provider,
)
from ganeti_masterd.simulation.describing import DRBD, PLAIN, DescribedDisk, described
from ganeti_masterd.simulation.drbd import Mirror
from ganeti_masterd.simulation.node import NodeFailure, SimulatedNode, Unexpected
from ganeti_masterd.simulation.state import Device

#: Where nodes have the Gluster volume, in which paths of disks are relative.
GLUSTER = "gluster"
GLUSTER_MOUNT = "/var/run/ganeti/gluster"

FILE_TYPES = named_by(lambda template: template.directory is not None)

KINDS: dict[str, type[Block]] = {
    **dict.fromkeys(FILE_TYPES, FileDevice),
    PLAIN: SimulatedVolume,
    "ext": ExternalVolume,
    "rbd": RadosVolume,
    "blockdev": AdoptedDevice,
}


def device_path(node: SimulatedNode, disk: DescribedDisk) -> str:
    """Returns the path of a disk's device on a node; raises :class:`DeviceError` if it has none."""
    kind = disk["dev_type"]
    if kind == DRBD:
        return Mirror(node, disk).path
    first, second = disk["logical_id"]
    if kind == GLUSTER:
        return os.path.join(GLUSTER_MOUNT, str(second))
    if kind in FILE_TYPES or kind == "blockdev":
        return str(second)
    if kind == PLAIN:
        return f"/dev/{first}/{second}"
    if kind == "rbd":
        return f"/dev/rbd/rbd/{second}"
    if kind == "ext":
        return provider(node, first).device.replace("{name}", second)
    raise _unknown(kind)


def find(node: SimulatedNode, disk: DescribedDisk) -> Block | None:
    """Returns a disk's device, or None if it doesn't exist or is a mirror that isn't configured.

    Raises :class:`DeviceError` where noded's own search fails.
    """
    if disk["dev_type"] == DRBD:
        children = [find(node, child) for child in disk.get("children") or []]
        mirror = Mirror(node, disk, children)
        return None if mirror.end is None else mirror
    try:
        return _known(node, disk)
    except _NotThere:
        return None


def assemble(node: SimulatedNode, disk: DescribedDisk, on_primary: bool) -> Block | None:
    """Activates a disk's device after its children; opens it on the primary.

    Returns None if there is nothing to assemble. Raises :class:`DeviceError`, except that a mirror
    works without volumes that can't be activated.
    """
    kind = disk["dev_type"]
    block: Block
    if kind == DRBD:
        children: list[Block | None] = []
        for child in disk.get("children") or []:
            try:
                children.append(assemble(node, child, on_primary))
            except DeviceError:
                children.append(None)
        block = Mirror(node, disk, children)
    elif not (on_primary or _class(kind).on_secondaries):
        return None
    else:
        block = _known(node, disk)
    block.assemble()
    if on_primary or kind == PLAIN:
        block.open()
    return block


def create(
    node: SimulatedNode,
    disk: DescribedDisk,
    size: int,
    owner: str,
    on_primary: bool,
    info: str,
    exclusive: bool,
) -> Block:
    """Makes a disk's device; raises :class:`DeviceError`, ``NodeFailure`` for its children."""
    kind = disk["dev_type"]
    if kind == DRBD:
        return _create_mirror(node, disk, on_primary, exclusive)
    path = device_path(node, disk)
    if kind in FILE_TYPES:
        _check_file(node, kind, path, size)
        file_shelf(node, kind)[path] = Device(kind, size, owner, info)
    elif kind == PLAIN:
        group, name = disk["logical_id"]
        if node.hardware.group(group) is None:
            text = f"Can't compute PV info for vg {group}"
            raise DeviceError("No (empty) PVs found" if exclusive else text)
        only: list[str] = []
        if exclusive:
            only = _whole_volumes(node, group, size, disk.get("spindles"))
        else:
            left = volumes.free(node, group, usable_only=True)
            if left < size:
                raise DeviceError(
                    f"Not enough free space: required {size}, available {float(left)}"
                )
        try:
            volumes.make(node, group, name, size, owner=owner, info=info, only=only)
        except volumes.LvmError as error:
            raise DeviceError(f"LV create failed (exited with exit code 5): {error}")
    elif kind in ("ext", "rbd"):
        shelf = node.world.cluster.volumes
        if kind == "ext":
            run_provider(node, disk, "create")
        if path in shelf:
            raise DeviceError(
                "External storage's create script failed (exited with exit code 1),"
                " last lines of output:\nvolume exists"
                if kind == "ext"
                else f"rbd creation failed (exited with exit code 17): {path} exists"
            )
        shelf[path] = Device(kind, size, owner, info, free_minor(shelf, kind))
    return _known(node, disk)


def need(node: SimulatedNode, disk: DescribedDisk, fault: str = "Can't find device") -> Block:
    """Returns a disk's device; if missing, raises :class:`NodeFailure` with noded's message."""
    block = looked_up(node, disk)
    if block is None:
        raise NodeFailure(f"{fault} {described(disk)}")
    return block


def looked_up(node: SimulatedNode, disk: DescribedDisk) -> Block | None:
    """Calls :func:`find` where noded doesn't expect an error; raises ``Unexpected`` then."""
    try:
        return find(node, disk)
    except DeviceError as error:
        raise Unexpected(str(error))


def open_devices(node: SimulatedNode, disks: Sequence[DescribedDisk]) -> tuple[str, ...]:
    """Opens the disks of an instance; returns their paths.

    Raises :class:`DeviceError` if one isn't set up or refuses.
    """
    paths: list[str] = []
    for disk in disks:
        block = find(node, disk)
        if block is None:
            raise DeviceError(f"Block device '{described(disk)}' is not set up.")
        block.open()
        paths.append(block.path)
    return tuple(paths)


def _class(kind: str) -> type[Block]:
    found = KINDS.get(kind)
    if found is None:
        raise _unknown(kind)
    return found


def _unknown(kind: str) -> Unexpected:
    return Unexpected(f"Invalid block device type '{kind}'")


class _NotThere(DeviceError):
    """A device is missing; the message is for callers that want to activate it."""


def _known(node: SimulatedNode, disk: DescribedDisk) -> Block:
    """Returns the device of any disk except a mirror."""
    kind = disk["dev_type"]
    path = device_path(node, disk)
    block = _class(kind)(node, disk, path)
    if kind == "blockdev" or path in block.shelf:
        return block
    if kind in FILE_TYPES:
        raise _NotThere(str(missing(path)))
    if kind == PLAIN:
        name = path.removeprefix("/dev/")
        text = f'  Failed to find logical volume "{name}"\n'
        raise _NotThere(f"Can't activate lv {path}: {text}")
    name = disk["logical_id"][1]
    if kind == "rbd":
        raise DeviceError(f"rbd map failed (exited with exit code 2): no volume {name}")
    raise DeviceError(
        "External storage's attach script failed (exited with exit code 1),"
        f" last lines of output:\nno volume {name}"
    )


def _create_mirror(
    node: SimulatedNode, disk: DescribedDisk, on_primary: bool, exclusive: bool
) -> Block:
    children: list[Block | None] = []
    for child in disk.get("children") or []:
        try:
            children.append(assemble(node, child, on_primary))
        except DeviceError as error:
            raise NodeFailure(f"Can't assemble device {described(child)}: {error}")
    if len(children) != 2:
        raise Unexpected("Invalid setup for the drbd device")
    if exclusive:
        raise Unexpected("DRBD device requested with exclusive_storage")
    if "local-minor" not in (disk.get("dynamic_params") or {}):
        dynamic = disk.get("dynamic_params") or {}
        raise Unexpected(f"Invalid dynamic params for drbd device {dynamic}")
    mirror = Mirror(node, disk, children)
    mirror.create()
    return mirror


def _whole_volumes(node: SimulatedNode, group: str, size: int, spindles: int | None) -> list[str]:
    """Returns the physical volumes that a volume gets to itself, with exclusive storage."""
    if spindles is None:
        raise DeviceError(
            "Unspecified number of spindles: this is requiredwhen exclusive storage is"
            " enabled, try running gnt-cluster repair-disk-sizes"
        )
    least = math.ceil(size / max(1, volumes.standard_size(node, group)))
    if spindles < least:
        raise DeviceError(
            f"Requested number of spindles ({spindles}) is not enough for a disk of {size} MB"
            f" (at least {least} spindles needed)"
        )
    found = volumes.empty(node, group)[:spindles]
    if len(found) < spindles:
        raise DeviceError(
            f"Not enough empty PVs (spindles) to create a disk of {size} MB:"
            f" {len(found)} available, {spindles} needed"
        )
    return found


def _check_file(node: SimulatedNode, kind: str, path: str, size: int) -> None:
    if not path.startswith("/"):
        raise Unexpected(f"File storage path must be absolute, got '{path}'")
    if path in file_shelf(node, kind):
        raise not_creatable(EXISTS, path)
    if kind != GLUSTER and not node.has_directory(os.path.dirname(path)):
        raise not_creatable(NOT_THERE, path)
    if kind == "file" and size > file_room(node):
        raise not_creatable(NO_ROOM, path)
