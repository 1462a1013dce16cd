"""Block devices of simulated nodes: how a disk finds its device, its state, the room left.

A device is known by its path, which its disk's type and logical id give (for
DRBD the local minor in ``dynamic_params``). Its children are devices of their
own. Sizes are in MiB.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ganeti_masterd.constants import LDS_OKAY, LDS_SYNC
from ganeti_masterd.simulation.node import NodeFailure, SimulatedNode
from ganeti_masterd.simulation.state import Device

Disk = Mapping[str, Any]

FILE_TYPES = frozenset({"file", "gluster", "sharedfile"})
DRBD = "drbd"
PLAIN = "plain"

LVM_MAJOR = 253
DRBD_MAJOR = 147


class DeviceError(Exception):
    """A device is missing or refuses."""


def describe(disk: Disk) -> str:
    """Returns a disk as noded's failure texts show it."""
    kind = disk["dev_type"]
    unique = tuple(disk["logical_id"])
    if kind == PLAIN:
        text = f"<LogicalVolume(/dev/{unique[0]}/{unique[1]}"
    elif kind == DRBD:
        first, second, port, minor_a, minor_b = unique[:5]
        text = f"<DRBD8(hosts={first}/{minor_a}-{second}/{minor_b}, port={port}, "
        children = disk.get("children") or []
        if children:
            backend, meta = (describe(child) for child in children)
            text += f"backend={backend}, metadev={meta}"
        else:
            text += "no local storage"
    else:
        shown = [describe(child) for child in disk.get("children") or []]
        text = f"<Disk(type={kind}, logical_id={unique}, children={shown}"
    name = disk.get("iv_name")
    text += ", not visible" if name is None else f", visible as /dev/{name}"
    if disk.get("spindles") is not None:
        text += f", spindles={disk['spindles']}"
    return f"{text}, size={disk.get('size')}m)>"


def device_path(disk: Disk) -> str | None:
    """Returns the path of a disk's device on this node; null for a mirror of others."""
    kind = disk["dev_type"]
    unique = disk["logical_id"]
    if kind == DRBD:
        minor = (disk.get("dynamic_params") or {}).get("local-minor")
        return None if minor is None else f"/dev/drbd{minor}"
    if kind in FILE_TYPES:
        return str(unique[1])
    group, name = unique
    if kind == PLAIN:
        return f"/dev/{group}/{name}"
    if kind == "rbd":
        return f"/dev/rbd/rbd/{name}"
    if kind == "ext":
        return f"/dev/ext/{group}/{name}"
    if kind == "blockdev":
        return str(name)
    raise ValueError(f"Invalid block device type '{kind}'")


def find(node: SimulatedNode, disk: Disk) -> tuple[str, Device] | None:
    """Returns path and device of a disk, or null if it isn't there or is a mirror at rest."""
    path = device_path(disk)
    if path is None:
        return None
    device = node.state.devices.get(path)
    if device is None:
        if disk["dev_type"] == "blockdev":
            return path, Device("blockdev", int(disk["size"]), "", "", 0)
        return None
    if device.kind == DRBD and not device.active:
        return None
    return path, device


def need(node: SimulatedNode, disk: Disk) -> tuple[str, Device]:
    """The same, but a missing one raises :class:`NodeFailure`."""
    found = find(node, disk)
    if found is None:
        raise NodeFailure(f"Can't find device {describe(disk)}")
    return found


def open_devices(node: SimulatedNode, disks: Sequence[Disk]) -> tuple[str, ...]:
    """Makes the disks of an instance ready for it; returns their paths.

    Raises :class:`DeviceError` if one isn't set up.
    """
    paths: list[str] = []
    for disk in disks:
        found = find(node, disk)
        if found is None:
            raise DeviceError(f"Block device '{describe(disk)}' is not set up.")
        paths.append(found[0])
    return tuple(paths)


def held_open(node: SimulatedNode) -> set[str]:
    """Returns the paths of the devices that running instances and active mirrors hold open."""
    held = {path for _, instance in node.state.instances.items() for path in instance.disks}
    for _, device in node.state.devices.items():
        if device.active:
            held.update(device.stands_on)
    return held


def room(node: SimulatedNode, kind: str) -> int:
    """Returns the room that is left for volumes (``plain``) or files, in MiB."""
    total = node.hardware.disk if kind == PLAIN else node.hardware.file_space
    kinds = {PLAIN} if kind == PLAIN else FILE_TYPES
    return total - sum(dev.size for _, dev in node.state.devices.items() if dev.kind in kinds)


def sync_percent(node: SimulatedNode, device: Device) -> float:
    """Returns how much of a mirror is filled, in per cent."""
    left = device.synced_at - node.world.now()
    rate = node.hardware.sync_rate
    if left <= 0 or not rate:
        return 100.0
    return round(max(0.0, 100.0 - 100.0 * left * rate / max(1, device.size)), 1)


def status(node: SimulatedNode, path: str, device: Device) -> dict[str, Any]:
    """Returns the state of a device as ``blockdev_find`` shows it."""
    seen: dict[str, Any] = {"dev_path": path, "is_degraded": False, "ldisk_status": LDS_OKAY}
    if device.kind == PLAIN:
        seen.update(major=LVM_MAJOR, minor=device.minor)
    elif device.kind == DRBD:
        seen.update(major=DRBD_MAJOR, minor=device.minor)
        percent = sync_percent(node, device)
        if percent < 100.0:
            seen.update(
                is_degraded=True,
                ldisk_status=LDS_SYNC,
                sync_percent=percent,
                estimated_time=round(device.synced_at - node.world.now(), 1),
            )
        elif not device.networked:
            seen.update(is_degraded=True)
    return seen
