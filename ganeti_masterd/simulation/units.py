"""What simulated nodes say about themselves as a whole: memory, room, volumes, mirrors."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ganeti_masterd.simulation.devices import (
    DRBD,
    FILE_TYPES,
    PLAIN,
    Disk,
    find,
    held_open,
    need,
    room,
    sync_percent,
)
from ganeti_masterd.simulation.hypervisor import space
from ganeti_masterd.simulation.node import Implementations, NodeFailure, SimulatedNode

calls = Implementations()

HELPER = "/bin/true"
PHYSICAL_VOLUME = "/dev/sda2"
FILE_STORAGE = ("file", "sharedfile", "gluster")


def boot_id(node: SimulatedNode) -> str:
    """Returns the id of the node's last start."""
    starts = node.state.facts.get("starts") or 0
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{node.name}/{starts}"))


def volumes(node: SimulatedNode) -> dict[str, list[Any]]:
    """Returns the logical volumes as ``lv_list`` shows them: size, inactive, held open."""
    held = held_open(node)
    found: dict[str, list[Any]] = {}
    for path, device in node.state.devices.items():
        if device.kind == PLAIN:
            row = [f"{device.size}.00", not device.active, path in held]
            found[path.removeprefix("/dev/")] = row
    return found


@calls("node_info")
def node_info(
    node: SimulatedNode,
    storage_units: Sequence[Sequence[Any]] | None,
    hypervisors: Sequence[Sequence[Any]] | None,
) -> list[Any]:
    """Boot id, room in storage units, memory and processors, in the order asked."""
    storage = None
    if storage_units is not None:
        storage = [_storage_space(node, unit[0], unit[1], unit[2]) for unit in storage_units]
    machines = None if hypervisors is None else [space(node, spec[0]) for spec in hypervisors]
    return [boot_id(node), storage, machines]


@calls("vg_list")
def vg_list(node: SimulatedNode) -> dict[str, int]:
    """The volume groups and their sizes."""
    return {node.hardware.volume_group: node.hardware.disk}


@calls("lv_list")
def lv_list(node: SimulatedNode, groups: Sequence[str] | None) -> dict[str, list[Any]]:
    """The logical volumes of the groups (none given: of all)."""
    for group in groups or []:
        if group != node.hardware.volume_group:
            raise NodeFailure(
                "Failed to list logical volumes, lvs output:"
                f'   Volume group "{group}" not found\n  Cannot process volume group {group}'
            )
    return volumes(node)


@calls("node_volumes")
def node_volumes(node: SimulatedNode) -> list[dict[str, str]]:
    """The logical volumes with the physical ones that they are on."""
    return [
        {
            "name": name.partition("/")[2],
            "size": row[0],
            "dev": PHYSICAL_VOLUME,
            "vg": node.hardware.volume_group,
        }
        for name, row in volumes(node).items()
    ]


@calls("bdev_sizes")
def bdev_sizes(node: SimulatedNode, paths: Sequence[str]) -> dict[str, int]:
    """Sizes of those devices that there are."""
    found = {path: node.state.devices.get(path) for path in paths if path.startswith("/dev/")}
    return {path: device.size for path, device in found.items() if device is not None}


@calls("storage_list")
def storage_list(
    node: SimulatedNode,
    kind: str,
    arguments: Sequence[Any],
    name: str | None,
    fields: Sequence[str],
) -> list[list[Any]]:
    """Rows of storage units with the fields asked."""
    if kind in FILE_STORAGE:
        return [_row(_directory(node, path), fields) for path in _wanted(arguments, name)]
    hardware = node.hardware
    free = room(node, PLAIN)
    names = {"lvm-vg": hardware.volume_group, "lvm-pv": PHYSICAL_VOLUME}
    if kind not in names:
        raise ValueError(f"Unknown storage type: {kind}")
    if name not in (None, names[kind]):
        command = "vgs" if kind == "lvm-vg" else "pvs"
        raise ValueError(f"Failed to run '{command}', command output: {name} not found")
    allocatable = node.state.facts.get("allocatable")
    unit = {
        "name": names[kind],
        "size": hardware.disk,
        "used": hardware.disk - free,
        "free": free,
        "allocatable": kind == "lvm-vg" or allocatable is not False,
    }
    return [_row(unit, fields)]


@calls("storage_modify")
def storage_modify(
    node: SimulatedNode,
    kind: str,
    arguments: Sequence[Any],
    name: str,
    changes: Mapping[str, Any],
) -> None:
    """Changes whether a physical volume may be used; nothing else can be changed."""
    rest = set(changes)
    if kind == "lvm-pv" and name == PHYSICAL_VOLUME and "allocatable" in rest:
        node.state.facts["allocatable"] = bool(changes["allocatable"])
        rest.discard("allocatable")
    if rest:
        raise ValueError(f"Unable to modify the followingfields: {sorted(rest)!r}")


@calls("storage_execute")
def storage_execute(
    node: SimulatedNode, kind: str, arguments: Sequence[Any], name: str, operation: str
) -> None:
    """Repairs a volume group, which is never broken."""
    if kind != "lvm-vg" or operation != "fix-consistency":
        raise NotImplementedError


@calls("file_storage_dir_create")
def file_storage_dir_create(node: SimulatedNode, path: str) -> None:
    """Makes a directory with those above it; one that is there is fine."""
    if path in node.state.devices:
        raise NodeFailure(f"Specified storage dir '{path}' is not a directory")
    while path not in ("", "/"):
        if path not in node.state.directories:
            node.state.directories[path] = True
        path = os.path.dirname(path)


@calls("file_storage_dir_remove")
def file_storage_dir_remove(node: SimulatedNode, path: str) -> None:
    """Removes a directory that is empty; one that is missing is fine."""
    if path in node.state.devices:
        raise NodeFailure(f"Specified Storage directory '{path}' is not a directory")
    if any(inside.startswith(path + "/") for inside in _inside(node)):
        error = OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path)
        raise NodeFailure(f"Cannot remove file storage directory '{path}': {error}")
    node.state.directories.pop(path)


@calls("file_storage_dir_rename")
def file_storage_dir_rename(node: SimulatedNode, old: str, new: str) -> None:
    """Renames a directory with all that is in it."""
    there = new in node.state.directories or new in node.state.devices
    if old not in node.state.directories:
        if there and old not in node.state.devices:
            return
        raise NodeFailure(f"Specified storage dir '{old}' is not a directory")
    if there:
        raise NodeFailure(f"Cannot rename '{old}' to '{new}': both locations exist")
    for path in _inside(node):
        if path == old or path.startswith(old + "/"):
            moved = new + path[len(old) :]
            device = node.state.devices.pop(path)
            if device is not None:
                node.state.devices[moved] = device
            elif node.state.directories.pop(path):
                node.state.directories[moved] = True


@calls("drbd_helper")
def drbd_helper(node: SimulatedNode) -> str:
    """The usermode helper of the DRBD module."""
    return HELPER


@calls("drbd_disconnect_net")
def drbd_disconnect_net(node: SimulatedNode, disks: Sequence[Disk]) -> None:
    """Makes mirrors stand alone."""
    _network(node, disks, False)


@calls("drbd_attach_net")
def drbd_attach_net(node: SimulatedNode, disks: Sequence[Disk], multimaster: bool) -> None:
    """Connects mirrors with their other halves."""
    _network(node, disks, True)


@calls("drbd_wait_sync")
def drbd_wait_sync(node: SimulatedNode, disks: Sequence[Disk]) -> list[Any]:
    """Whether all mirrors are full, and the least per cent of them."""
    least = 100.0
    for disk in disks:
        _, device = need(node, disk)
        least = min(least, sync_percent(node, device))
    return [least >= 100.0, least]


@calls("drbd_needs_activation")
def drbd_needs_activation(node: SimulatedNode, disks: Sequence[Disk]) -> list[str]:
    """The uuids of mirrors that stand alone or are not active."""
    faulty: list[str] = []
    for disk in disks:
        found = find(node, disk)
        if found is None or (found[1].kind == DRBD and not found[1].networked):
            faulty.append(str(disk["uuid"]))
    return faulty


def _network(node: SimulatedNode, disks: Sequence[Disk], networked: bool) -> None:
    for path, device in [need(node, disk) for disk in disks]:
        node.state.devices[path] = msgspec.structs.replace(device, networked=networked)


def _inside(node: SimulatedNode) -> list[str]:
    """Returns the paths of all file storage."""
    files = [path for path, device in node.state.devices.items() if device.kind in FILE_TYPES]
    return [*node.state.directories, *files]


def _storage_space(
    node: SimulatedNode, kind: str, name: str, parameters: Sequence[Any]
) -> dict[str, Any]:
    size: int | None
    free: int | None
    if kind == "file":
        size, free = node.hardware.file_space, room(node, "file")
    elif kind in ("lvm-vg", "lvm-pv"):
        if not (len(parameters) == 1 and isinstance(parameters[0], bool)):
            raise ValueError(f"Exclusive storage parameter is not boolean: {parameters!r}")
        there = name == node.hardware.volume_group
        if kind == "lvm-pv":
            size = free = int(there and parameters[0])
        else:
            size = node.hardware.disk if there else None
            free = room(node, PLAIN) if there else None
    else:
        raise NotImplementedError
    return {"type": kind, "name": name, "storage_free": free, "storage_size": size}


def _wanted(arguments: Sequence[Any], name: str | None) -> list[str]:
    return list(arguments[0]) if name is None else [name]


def _directory(node: SimulatedNode, path: str) -> dict[str, Any]:
    if not path.startswith("/"):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    used = sum(
        device.size
        for name, device in node.state.devices.items()
        if device.kind in FILE_TYPES and name.startswith(path.rstrip("/") + "/")
    )
    return {
        "name": path,
        "size": node.hardware.file_space,
        "used": used,
        "free": room(node, "file"),
        "allocatable": True,
    }


def _row(unit: Mapping[str, Any], fields: Sequence[str]) -> list[Any]:
    for field in fields:
        if field not in unit:
            raise ValueError(f"Unknown field: {field!r}")
    return [unit[field] for field in fields]
