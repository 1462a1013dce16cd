"""Calls about a simulated node's resources: memory, space, volumes, storage units."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from ganeti_masterd.simulation import volumes as lvm
from ganeti_masterd.simulation.blocks import file_room, held_open, os_error
from ganeti_masterd.simulation.devices import FILE_TYPES
from ganeti_masterd.simulation.hypervisor import SimulatedHypervisorError, space
from ganeti_masterd.simulation.node import (
    Implementations,
    NodeFailure,
    SimulatedNode,
    Unexpected,
)

calls = Implementations()


def boot_id(node: SimulatedNode) -> str:
    """Returns the id of the node's last start."""
    return _boot_id(node.name, node.state.facts.get("starts") or 0)


@lru_cache(maxsize=4096)
def _boot_id(name: str, starts: int) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{name}/{starts}"))


def volumes(node: SimulatedNode) -> dict[str, list[Any]]:
    """Returns the logical volumes as ``lv_list`` shows them: size, inactive, held open."""
    held = held_open(node)
    found: dict[str, list[Any]] = {}
    for path, device in lvm.of_node(node):
        if not device.lost:
            row = [f"{device.size}.00", not device.active, path in held]
            found[path.removeprefix("/dev/")] = row
    return found


@calls("node_info")
def node_info(
    node: SimulatedNode,
    storage_units: Sequence[Sequence[Any]] | None,
    hypervisors: Sequence[Sequence[Any]] | None,
) -> list[Any]:
    """Returns the boot id, space in storage units, memory and processors, in requested order."""
    storage = None
    if storage_units is not None:
        storage = [_storage_space(node, unit[0], unit[1], unit[2]) for unit in storage_units]
    try:
        machines = None if hypervisors is None else [space(node, spec[0]) for spec in hypervisors]
    except SimulatedHypervisorError as error:
        raise Unexpected(str(error))
    return [boot_id(node), storage, machines]


@calls("vg_list")
def vg_list(node: SimulatedNode) -> dict[str, int]:
    """The volume groups and their sizes."""
    return {group.name: group.size for group in node.hardware.groups}


@calls("lv_list")
def lv_list(node: SimulatedNode, groups: Sequence[str] | None) -> dict[str, list[Any]]:
    """Returns the logical volumes of the groups; of all groups if none are given."""
    for group in groups or []:
        if node.hardware.group(group) is None:
            raise NodeFailure(
                "Failed to list logical volumes, lvs output:"
                f'   Volume group "{group}" not found\n  Cannot process volume group {group}'
            )
    wanted = tuple(f"{group}/" for group in groups or [])
    found = volumes(node)
    return {name: row for name, row in found.items() if not wanted or name.startswith(wanted)}


@calls("node_volumes")
def node_volumes(node: SimulatedNode) -> list[dict[str, str]]:
    """Returns a row for each logical volume and physical volume on which it lies."""
    rows: list[dict[str, str]] = []
    for path, device in sorted(lvm.of_node(node)):
        group, name = path.removeprefix("/dev/").split("/")
        rows += [
            {"name": name, "size": f"{device.size}.00", "dev": physical, "vg": group}
            for physical, _ in device.segments
        ]
    return rows


@calls("bdev_sizes")
def bdev_sizes(node: SimulatedNode, paths: Sequence[str]) -> dict[str, int]:
    """Returns the sizes of those devices that exist."""
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
    """Returns rows of storage units with the given fields."""
    if kind in FILE_TYPES:
        return [_row(_directory(node, path), fields) for path in _wanted(arguments, name)]
    if kind not in ("lvm-vg", "lvm-pv"):
        raise Unexpected(f"Unknown storage type: {kind}")
    units = _groups(node) if kind == "lvm-vg" else _physical_volumes(node)
    if name is not None:
        units = [unit for unit in units if unit["name"] == name]
        if not units:
            command = "vgs" if kind == "lvm-vg" else "pvs"
            raise Unexpected(f"Failed to run '{command}', command output: {name} not found")
    return [_row(unit, fields) for unit in units]


def _groups(node: SimulatedNode) -> list[dict[str, Any]]:
    return [
        {
            "name": group.name,
            "size": group.size,
            "used": group.size - lvm.free(node, group.name),
            "free": lvm.free(node, group.name),
            "allocatable": True,
        }
        for group in node.hardware.groups
    ]


def _physical_volumes(node: SimulatedNode) -> list[dict[str, Any]]:
    return [
        {
            "name": physical.name,
            "size": physical.size,
            "used": lvm.used(node, physical.name),
            "free": physical.size - lvm.used(node, physical.name),
            "allocatable": lvm.usable(node, physical.name),
        }
        for group in node.hardware.groups
        for physical in group.volumes
    ]


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
    there = any(name == unit["name"] for unit in _physical_volumes(node))
    if kind == "lvm-pv" and there and "allocatable" in rest:
        barred = set(node.state.facts.get("unallocatable") or []) - {name}
        if not changes["allocatable"]:
            barred.add(name)
        node.state.facts["unallocatable"] = sorted(barred)
        rest.discard("allocatable")
    if rest:
        raise Unexpected(f"Unable to modify the followingfields: {sorted(rest)!r}")


@calls("storage_execute")
def storage_execute(
    node: SimulatedNode, kind: str, arguments: Sequence[Any], name: str, operation: str
) -> None:
    """Repairs a volume group, which makes it consistent; lost volumes stay lost."""
    if kind != "lvm-vg" or operation != "fix-consistency":
        raise Unexpected("")


@calls("file_storage_dir_create")
def file_storage_dir_create(node: SimulatedNode, path: str) -> None:
    """Creates a directory and its parents; does nothing if it exists."""
    if _is_file(node, path):
        raise NodeFailure(f"Specified storage dir '{path}' is not a directory")
    while path not in ("", "/"):
        if not node.has_directory(path):
            node.directories(path)[path] = True
        path = os.path.dirname(path)


@calls("file_storage_dir_remove")
def file_storage_dir_remove(node: SimulatedNode, path: str) -> None:
    """Removes an empty directory; does nothing if it doesn't exist."""
    if _is_file(node, path):
        raise NodeFailure(f"Specified Storage directory '{path}' is not a directory")
    if any(inside.startswith(path + "/") for inside in _inside(node)):
        error = os_error(errno.ENOTEMPTY, path)
        raise NodeFailure(f"Cannot remove file storage directory '{path}': {error}")
    node.directories(path).pop(path)


@calls("file_storage_dir_rename")
def file_storage_dir_rename(node: SimulatedNode, old: str, new: str) -> None:
    """Renames a directory with its contents."""
    there = node.has_directory(new) or _is_file(node, new)
    if not node.has_directory(old):
        if there and not _is_file(node, old):
            return
        raise NodeFailure(f"Specified storage dir '{old}' is not a directory")
    if there:
        raise NodeFailure(f"Cannot rename '{old}' to '{new}': both locations exist")
    inside = [path for path in _inside(node) if path == old or path.startswith(old + "/")]
    for path in inside:
        moved = new + path[len(old) :]
        if node.directories(path).pop(path):
            node.directories(moved)[moved] = True
            continue
        for shelf in (node.state.devices, node.world.cluster.volumes):
            device = shelf.pop(path)
            if device is not None:
                shelf[moved] = device


def _is_file(node: SimulatedNode, path: str) -> bool:
    return path in node.state.devices or path in node.world.cluster.volumes


def _inside(node: SimulatedNode) -> list[str]:
    """Returns the paths of all directories and files of file storage that this node sees."""
    shared = node.world.cluster
    files = [
        path
        for shelf in (node.state.devices, shared.volumes)
        for path, device in shelf.items()
        if device.kind in FILE_TYPES
    ]
    return [*node.state.directories, *shared.directories, *files]


def _storage_space(
    node: SimulatedNode, kind: str, name: str, parameters: Sequence[Any]
) -> dict[str, Any]:
    size: int | None
    free: int | None
    if kind == "file":
        size, free = node.hardware.file_space, file_room(node)
    elif kind in ("lvm-vg", "lvm-pv"):
        if not (len(parameters) == 1 and isinstance(parameters[0], bool)):
            raise Unexpected(f"Exclusive storage parameter is not boolean: {parameters!r}")
        group = node.hardware.group(name)
        if kind == "lvm-pv":
            size = free = 0
            if group is not None and parameters[0]:
                size = len(group.volumes)
                free = len(lvm.empty(node, name))
        else:
            size = None if group is None else group.size
            free = None if group is None else lvm.free(node, name)
            if group is not None and parameters[0]:
                free = lvm.standard_size(node, name) * len(lvm.empty(node, name))
    else:
        raise Unexpected("")
    return {"type": kind, "name": name, "storage_free": free, "storage_size": size}


def _wanted(arguments: Sequence[Any], name: str | None) -> list[str]:
    return list(arguments[0]) if name is None else [name]


def _directory(node: SimulatedNode, path: str) -> dict[str, Any]:
    if not path.startswith("/"):
        raise Unexpected(str(os_error(errno.ENOENT, path)))
    used = sum(
        device.size
        for name, device in node.state.devices.items()
        if device.kind in FILE_TYPES and name.startswith(path.rstrip("/") + "/")
    )
    return {
        "name": path,
        "size": node.hardware.file_space,
        "used": used,
        "free": file_room(node),
        "allocatable": True,
    }


def _row(unit: Mapping[str, Any], fields: Sequence[str]) -> list[Any]:
    for field in fields:
        if field not in unit:
            raise Unexpected(f"Unknown field: {field!r}")
    return [unit[field] for field in fields]
