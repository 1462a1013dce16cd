"""Calls that make, use and remove block devices on simulated nodes."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ganeti_masterd.simulation.devices import (
    DRBD,
    FILE_TYPES,
    PLAIN,
    DeviceError,
    Disk,
    describe,
    device_path,
    find,
    need,
    room,
    status,
)
from ganeti_masterd.simulation.node import RUN_DIR, Implementations, NodeFailure, SimulatedNode
from ganeti_masterd.simulation.state import Device

calls = Implementations()


@calls("blockdev_create")
def blockdev_create(
    node: SimulatedNode,
    disk: Disk,
    size: int,
    owner: str,
    on_primary: bool,
    info: str,
    exclusive: bool,
) -> Any:
    """Makes a device; fails if it is there already or there is no room."""
    kind = disk["dev_type"]
    path = device_path(disk)
    if path is None:
        raise NodeFailure("Can't create block device: the disk is not of this node")
    synced_at = 0.0
    try:
        if kind in FILE_TYPES:
            _check_file(node, path, size)
        elif kind == PLAIN:
            _check_volume(node, disk, path, size)
        elif kind == DRBD:
            for child in disk.get("children") or []:
                if find(node, child) is None:
                    raise NodeFailure(
                        f"Can't assemble device {describe(child)}: device does not exist"
                    )
            if path in node.state.devices:
                raise DeviceError("DRBD: minor is in use at creation time")
            if node.hardware.sync_rate:
                synced_at = node.world.now() + size / node.hardware.sync_rate
        elif path in node.state.devices:
            raise DeviceError(f"{path}: device exists already")
    except DeviceError as error:
        raise NodeFailure(f"Can't create block device: {error}")
    node.state.devices[path] = Device(
        kind,
        size,
        owner,
        info,
        _minor(node, disk),
        synced_at=synced_at,
        stands_on=tuple(filter(None, map(device_path, disk.get("children") or []))),
    )
    return list(disk["logical_id"])


@calls("blockdev_remove")
def blockdev_remove(node: SimulatedNode, disk: Disk) -> None:
    """Removes a device and its children; one that is missing is fine."""
    path = device_path(disk)
    if path is not None:
        node.state.devices.pop(path)
    for child in disk.get("children") or []:
        blockdev_remove(node, child)


@calls("blockdev_assemble")
def blockdev_assemble(
    node: SimulatedNode, disk: Disk, instance: Mapping[str, Any], on_primary: bool, index: int
) -> list[Any]:
    """Activates a device, its children first; on the primary with its link."""
    if not on_primary and disk["dev_type"] not in (DRBD, PLAIN):
        return [True, True]
    try:
        path = _activate(node, disk)
    except DeviceError as error:
        raise NodeFailure(f"Error while assembling disk: {error}")
    link = f"{RUN_DIR}/instance-disks/{instance['name']}:{index}" if on_primary else None
    return [path, link, None]


@calls("blockdev_shutdown")
def blockdev_shutdown(node: SimulatedNode, disk: Disk) -> None:
    """Deactivates a mirror; other devices need nothing, nor does one that is missing."""
    found = find(node, disk)
    if found is not None and found[1].kind == DRBD:
        node.state.devices[found[0]] = msgspec.structs.replace(found[1], active=False)
    for child in disk.get("children") or []:
        blockdev_shutdown(node, child)


@calls("blockdev_find")
def blockdev_find(node: SimulatedNode, disk: Disk) -> dict[str, Any] | None:
    """The state of a device, or null."""
    found = find(node, disk)
    return None if found is None else status(node, *found)


@calls("blockdev_getmirrorstatus")
def blockdev_getmirrorstatus(node: SimulatedNode, disks: Sequence[Disk]) -> list[Any]:
    """The states of devices; fails if one is missing."""
    return [status(node, *need(node, disk)) for disk in disks]


@calls("blockdev_getmirrorstatus_multi")
def blockdev_getmirrorstatus_multi(node: SimulatedNode, disks: Sequence[Disk]) -> list[Any]:
    """The states of devices, or what is wrong with each."""
    rows: list[Any] = []
    for disk in disks:
        try:
            rows.append([True, status(node, *need(node, disk))])
        except NodeFailure as failure:
            rows.append([False, str(failure)])
    return rows


@calls("blockdev_getdimensions")
def blockdev_getdimensions(node: SimulatedNode, disks: Sequence[Disk]) -> list[Any]:
    """Sizes in bytes, null for a device that is missing."""
    found = [find(node, disk) for disk in disks]
    return [None if pair is None else [pair[1].size * 1048576, None] for pair in found]


@calls("blockdev_grow")
def blockdev_grow(
    node: SimulatedNode, disk: Disk, amount: int, dry_run: bool, backing: bool, exclusive: bool
) -> None:
    """Grows the backing store, or (``backing`` false) the mirror on it."""
    found = find(node, disk)
    if found is None:
        raise NodeFailure(f"Cannot find block device {describe(disk)}")
    path, device = found
    try:
        if device.kind == DRBD:
            if backing:
                blockdev_grow(node, disk["children"][0], amount, dry_run, backing, exclusive)
            elif not dry_run:
                node.state.devices[path] = msgspec.structs.replace(
                    device, size=device.size + amount
                )
            return
        if not backing:
            return
        if device.kind in FILE_TYPES:
            if dry_run:
                return
            if amount < 0:
                raise DeviceError(f"{path}: can't grow by negative amount")
        left = room(node, PLAIN if device.kind == PLAIN else "file")
        if amount > left:
            raise DeviceError(f"Not enough free space: required {amount}, available {left}")
    except DeviceError as error:
        raise NodeFailure(f"Failed to grow block device: {error}")
    if not dry_run:
        node.state.devices[path] = msgspec.structs.replace(device, size=device.size + amount)


@calls("blockdev_open")
def blockdev_open(
    node: SimulatedNode, instance: str, disks: Sequence[Disk], exclusive: bool
) -> None:
    """Opens devices for writing; fails if one is missing."""
    for disk in disks:
        need(node, disk)


@calls("blockdev_close")
def blockdev_close(node: SimulatedNode, instance: str, disks: Sequence[Disk]) -> None:
    """Ends writing to devices; fails if one is missing."""
    for disk in disks:
        need(node, disk)


@calls("blockdev_setinfo")
def blockdev_setinfo(node: SimulatedNode, disk: Disk, info: str) -> None:
    """Changes the text that a device carries."""
    found = find(node, disk)
    if found is None:
        raise NodeFailure(f"Cannot find block device {describe(disk)}")
    node.state.devices[found[0]] = msgspec.structs.replace(found[1], info=info)


@calls("blockdev_rename")
def blockdev_rename(node: SimulatedNode, renames: Sequence[Any]) -> None:
    """Gives devices another logical id; does all it can and then tells of the rest."""
    faults: list[str] = []
    for disk, unique in renames:
        found = find(node, disk)
        if found is None:
            faults.append(f"Can't find device {describe(disk)} in rename")
            continue
        target = device_path({**disk, "logical_id": unique})
        if target is None or (target != found[0] and target in node.state.devices):
            faults.append(f"Can't rename device '{describe(disk)}' to '{unique}': it exists")
            continue
        node.state.devices.pop(found[0])
        node.state.devices[target] = found[1]
    if faults:
        raise NodeFailure("; ".join(faults))


@calls("blockdev_snapshot")
def blockdev_snapshot(
    node: SimulatedNode, disk: Disk, name: str | None, size: int | None
) -> list[str]:
    """Makes a snapshot of a logical volume (of a mirror: of its data)."""
    found = find(node, disk)
    if disk["dev_type"] == DRBD and disk.get("children"):
        return blockdev_snapshot(node, disk["children"][0], name, size)
    if found is None:
        raise NodeFailure(f"Cannot find block device {describe(disk)}")
    if disk["dev_type"] != PLAIN:
        raise NodeFailure(
            f"Cannot snapshot block device '{tuple(disk['logical_id'])}'"
            f" of type '{disk['dev_type']}'"
        )
    group, volume = disk["logical_id"]
    snapshot = name or f"{volume}.snap"
    path = f"/dev/{group}/{snapshot}"
    minor = _minor(node, disk)
    node.state.devices[path] = msgspec.structs.replace(found[1], minor=minor)
    return [group, snapshot]


@calls("blockdev_wipe")
def blockdev_wipe(node: SimulatedNode, disk: Disk, offset: int, size: int) -> None:
    """Overwrites a part of a device."""
    found = find(node, disk)
    if found is None:
        raise NodeFailure(f"Cannot wipe device {disk.get('iv_name')}: device not found")
    if offset < 0:
        raise NodeFailure("Negative offset")
    if size < 0:
        raise NodeFailure("Negative size")
    if offset > found[1].size:
        raise NodeFailure("Wipe offset is bigger than device size")
    if offset + size > found[1].size:
        raise NodeFailure("Wipe offset and size are bigger than device size")


@calls("blockdev_pause_resume_sync")
def blockdev_pause_resume_sync(
    node: SimulatedNode, disks: Sequence[Disk], pause: bool
) -> list[Any]:
    """Says for each device whether its filling could be paused or resumed."""
    rows: list[Any] = []
    for disk in disks:
        there = find(node, disk) is not None
        text = None if there else f"Cannot change sync for device {disk.get('iv_name')}:"
        rows.append([there, text if there else f"{text} device not found"])
    return rows


def _activate(node: SimulatedNode, disk: Disk) -> str:
    """Activates a device and what it stands on; returns its path."""
    for child in disk.get("children") or []:
        _activate(node, child)
    path = device_path(disk)
    device = None if path is None else node.state.devices.get(path)
    if path is None or device is None:
        if disk["dev_type"] == "blockdev" and path is not None:
            return path
        if disk["dev_type"] in FILE_TYPES:
            raise DeviceError(f"{path}: No such file")
        raise DeviceError(f"Assembling device {describe(disk)} failed: it is not there")
    if not device.active:
        node.state.devices[path] = msgspec.structs.replace(device, active=True)
    return path


def _check_file(node: SimulatedNode, path: str, size: int) -> None:
    if not path.startswith("/"):
        raise ValueError(f"File storage path must be absolute, got '{path}'")
    fault = None
    if path in node.state.devices:
        fault = errno.EEXIST
    elif os.path.dirname(path) not in node.state.directories:
        fault = errno.ENOENT
    if fault is not None:
        error = OSError(fault, os.strerror(fault), path)
        raise DeviceError(f"{path}: can't create: {error}")
    if size > room(node, "file"):
        raise DeviceError(f"{path}: can't create: {OSError(28, os.strerror(28), path)}")


def _check_volume(node: SimulatedNode, disk: Disk, path: str, size: int) -> None:
    group = disk["logical_id"][0]
    if group != node.hardware.volume_group:
        raise DeviceError(f"Can't compute PV info for vg {group}")
    if path in node.state.devices:
        name = disk["logical_id"][1]
        raise DeviceError(
            f"LV create failed (exited with exit code 5):   Logical Volume"
            f' "{name}" already exists in volume group "{group}"'
        )
    left = room(node, PLAIN)
    if size > left:
        raise DeviceError(f"Not enough free space: required {size}, available {left}")


def _minor(node: SimulatedNode, disk: Disk) -> int:
    """Returns a mirror's own minor, or a free one for a volume; others have none."""
    if disk["dev_type"] == DRBD:
        return int(disk["dynamic_params"]["local-minor"])
    if disk["dev_type"] != PLAIN:
        return 0
    used = {device.minor for _, device in node.state.devices.items() if device.kind == PLAIN}
    return next(minor for minor in range(len(used) + 1) if minor not in used)
