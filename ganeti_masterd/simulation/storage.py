"""Calls that create, use, show and remove block devices on simulated nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import inlineCallbacks

from ganeti_masterd.constants import DISK_REMOVE_RETRY_INTERVAL, DISK_REMOVE_RETRY_TIMEOUT
from ganeti_masterd.simulation.blocks import Block, DeviceError
from ganeti_masterd.simulation.describing import DRBD, DescribedDisk, described
from ganeti_masterd.simulation.devices import assemble, create, find, looked_up, need
from ganeti_masterd.simulation.node import RUN_DIR, Implementations, NodeFailure, SimulatedNode

calls = Implementations()


@calls("blockdev_create")
def blockdev_create(
    node: SimulatedNode,
    disk: DescribedDisk,
    size: int,
    owner: str,
    on_primary: bool,
    info: str,
    exclusive: bool,
) -> Any:
    """Makes a device, activates it, and opens it on the primary."""
    try:
        block = create(node, disk, size, owner, on_primary, info, exclusive)
    except DeviceError as error:
        raise NodeFailure(f"Can't create block device: {error}")
    if on_primary or block.on_secondaries:
        try:
            block.assemble()
        except DeviceError as error:
            raise NodeFailure(f"Can't assemble device after creation, unusual event: {error}")
    if on_primary:
        try:
            block.open(force=True)
        except DeviceError as error:
            raise NodeFailure(f"Can't make device r/w after creation, unusual event: {error}")
    block.set_info(info)
    unique = list(disk["logical_id"])
    # A secret must not be returned.
    return [*unique[:5], None] if disk["dev_type"] == DRBD else unique


@calls("blockdev_remove")
@inlineCallbacks
def blockdev_remove(node: SimulatedNode, disk: DescribedDisk) -> Any:
    """Removes a device and its children; missing ones are ignored.

    For a device in use it tries again for half a minute.
    """
    faults: list[str] = []
    waited = 0.0
    while fault := _remove(node, disk):
        if waited > DISK_REMOVE_RETRY_TIMEOUT:
            faults.append(fault)
            break
        yield node.world.wait(DISK_REMOVE_RETRY_INTERVAL)
        waited += DISK_REMOVE_RETRY_INTERVAL
    for child in disk.get("children") or []:
        try:
            yield blockdev_remove(node, child)
        except NodeFailure as failure:
            faults.append(str(failure))
    if faults:
        raise NodeFailure("; ".join(faults))


def _remove(node: SimulatedNode, disk: DescribedDisk) -> str | None:
    """Removes one device; returns why that can't be done, or None."""
    try:
        block = find(node, disk)
    except DeviceError:
        # A device that can't be looked up counts as removed.
        return None
    try:
        if block is not None:
            block.remove()
    except DeviceError as error:
        return str(error)
    return None


@calls("blockdev_assemble")
def blockdev_assemble(
    node: SimulatedNode,
    disk: DescribedDisk,
    instance: Mapping[str, Any],
    on_primary: bool,
    index: int,
) -> list[Any]:
    """Activates a device after its children; on the primary also makes its link."""
    try:
        block = assemble(node, disk, on_primary)
    except DeviceError as error:
        raise NodeFailure(f"Error while assembling disk: {error}")
    if block is None:
        return [True, True]
    link = f"{RUN_DIR}/instance-disks/{instance['name']}:{index}" if on_primary else None
    return [block.path, link, None]


@calls("blockdev_shutdown")
def blockdev_shutdown(node: SimulatedNode, disk: DescribedDisk) -> None:
    """Deactivates a device and its children; missing ones are ignored."""
    faults: list[str] = []
    block = looked_up(node, disk)
    if block is not None:
        try:
            block.shutdown()
        except DeviceError as error:
            faults.append(str(error))
    for child in disk.get("children") or []:
        try:
            blockdev_shutdown(node, child)
        except NodeFailure as failure:
            faults.append(str(failure))
    if faults:
        raise NodeFailure("; ".join(faults))


@calls("blockdev_find")
def blockdev_find(node: SimulatedNode, disk: DescribedDisk) -> dict[str, Any] | None:
    """The state of a device, or None."""
    try:
        block = find(node, disk)
    except DeviceError as error:
        raise NodeFailure(f"Failed to find device: {error}")
    return None if block is None else block.status()


@calls("blockdev_getmirrorstatus")
def blockdev_getmirrorstatus(node: SimulatedNode, disks: Sequence[DescribedDisk]) -> list[Any]:
    """The states of devices; fails if one is missing."""
    return [need(node, disk).combined_status() for disk in disks]


@calls("blockdev_getmirrorstatus_multi")
def blockdev_getmirrorstatus_multi(
    node: SimulatedNode, disks: Sequence[DescribedDisk]
) -> list[Any]:
    """Returns the state of each device, or its error."""
    rows: list[Any] = []
    for disk in disks:
        try:
            block = find(node, disk)
        except DeviceError as error:
            rows.append([False, str(error)])
            continue
        if block is None:
            rows.append([False, f"Can't find device {described(disk)}"])
        else:
            rows.append([True, block.combined_status()])
    return rows


@calls("blockdev_getdimensions")
def blockdev_getdimensions(node: SimulatedNode, disks: Sequence[DescribedDisk]) -> list[Any]:
    """Sizes in bytes and spindles; None for a device that is missing."""
    rows: list[Any] = []
    for disk in disks:
        try:
            block = find(node, disk)
        except DeviceError:
            block = None
        rows.append(None if block is None else [block.size * 1048576, block.spindles()])
    return rows


@calls("blockdev_open")
def blockdev_open(
    node: SimulatedNode, instance: str, disks: Sequence[DescribedDisk], exclusive: bool
) -> None:
    """Opens devices for writing."""
    _each(
        [need(node, disk) for disk in disks],
        "Can't open devices",
        lambda block: block.open(exclusive=exclusive),
    )


@calls("blockdev_close")
def blockdev_close(node: SimulatedNode, instance: str, disks: Sequence[DescribedDisk]) -> None:
    """Closes devices."""
    blocks = [need(node, disk) for disk in disks]
    _each(blocks, "Can't close devices", lambda block: block.close())


@calls("blockdev_setinfo")
def blockdev_setinfo(node: SimulatedNode, disk: DescribedDisk, info: str) -> None:
    """Changes the text stored with a device."""
    block = need(node, disk, "Cannot find block device")
    try:
        block.set_info(info)
    except DeviceError as error:
        raise NodeFailure(f"Failed to set information on block device: {error}")


def _each(blocks: Sequence[Block], text: str, do: Callable[[Block], None]) -> None:
    """Calls a function for all devices; fails at the end with all errors."""
    faults: list[str] = []
    for block in blocks:
        try:
            do(block)
        except DeviceError as error:
            faults.append(str(error))
    if faults:
        raise NodeFailure(f"{text}: {','.join(faults)}")
