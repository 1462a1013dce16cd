"""Calls that change devices: their size, name and content, snapshots, and mirrors' volumes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ganeti_masterd.simulation.blocks import DeviceError
from ganeti_masterd.simulation.describing import DRBD, PLAIN, DescribedDisk, described
from ganeti_masterd.simulation.devices import device_path, looked_up, need
from ganeti_masterd.simulation.drbd import Mirror
from ganeti_masterd.simulation.node import (
    Implementations,
    NodeFailure,
    SimulatedNode,
    Unexpected,
)

calls = Implementations()

SNAPSHOTTABLE = (PLAIN, "ext")


@calls("blockdev_grow")
def blockdev_grow(
    node: SimulatedNode,
    disk: DescribedDisk,
    amount: int,
    dry_run: bool,
    backing: bool,
    exclusive: bool,
) -> None:
    """Grows the backing store, or with ``backing`` False the mirror on it."""
    block = need(node, disk, "Cannot find block device")
    try:
        block.grow(amount, dry_run=dry_run, backing=backing, exclusive=exclusive)
    except DeviceError as error:
        raise NodeFailure(f"Failed to grow block device: {error}")


@calls("blockdev_rename")
def blockdev_rename(node: SimulatedNode, renames: Sequence[Any]) -> None:
    """Changes devices' logical ids; tries all, then fails with the errors."""
    faults: list[str] = []
    for disk, unique in renames:
        block = looked_up(node, disk)
        if block is None:
            faults.append(f"Can't find device {described(disk)} in rename")
            continue
        try:
            block.rename(unique)
        except DeviceError as error:
            faults.append(f"Can't rename device '{block.shown()}' to '{unique}': {error}")
    if faults:
        raise NodeFailure("; ".join(faults))


@calls("blockdev_snapshot")
def blockdev_snapshot(
    node: SimulatedNode, disk: DescribedDisk, name: str | None, size: int | None
) -> list[str]:
    """Makes a snapshot of a volume, or of a mirror's data volume."""
    unique = tuple(disk["logical_id"])
    if disk["dev_type"] == DRBD:
        if not disk.get("children"):
            raise NodeFailure(
                f"DRBD device '{unique}' without backing storage cannot be snapshotted"
            )
        return blockdev_snapshot(node, disk["children"][0], name, size)
    if disk["dev_type"] not in SNAPSHOTTABLE:
        raise NodeFailure(f"Cannot snapshot block device '{unique}' of type '{disk['dev_type']}'")
    try:
        return need(node, disk, "Cannot find block device").snapshot(name, size)
    except DeviceError as error:
        raise Unexpected(str(error))


@calls("blockdev_wipe")
def blockdev_wipe(node: SimulatedNode, disk: DescribedDisk, offset: int, size: int) -> None:
    """Overwrites a part of a device; the content is lost if the part is its beginning."""
    block = looked_up(node, disk)
    if block is None:
        raise NodeFailure(f"Cannot wipe device {disk.get('iv_name')}: device not found")
    if offset < 0:
        raise NodeFailure("Negative offset")
    if size < 0:
        raise NodeFailure("Negative size")
    if offset > block.size:
        raise NodeFailure("Wipe offset is bigger than device size")
    if offset + size > block.size:
        raise NodeFailure("Wipe offset and size are bigger than device size")
    if offset == 0 and size:
        block.write(())


@calls("blockdev_image")
def blockdev_image(node: SimulatedNode, disk: DescribedDisk, image: str, size: int) -> None:
    """Writes an image, a file on this node or from a URL, to a device."""
    remote = image.startswith(("http://", "https://", "ftp://"))
    if not remote and image not in node.world.images and node.read(image) is None:
        raise NodeFailure(f"Image '{image}' not found")
    block = looked_up(node, disk)
    if block is None:
        raise NodeFailure(f"Cannot image device {disk.get('iv_name')}: device not found")
    if size < 0:
        raise NodeFailure("Negative size")
    if size > block.size:
        raise NodeFailure("Image size is bigger than device size")
    block.write((f"image {image}",))


@calls("blockdev_convert")
def blockdev_convert(node: SimulatedNode, source: DescribedDisk, target: DescribedDisk) -> None:
    """Copies the content of one device to another."""
    origin = looked_up(node, source)
    if origin is None:
        raise NodeFailure(f"Cannot copy from device '{source.get('uuid')}': device not found")
    block = looked_up(node, target)
    if block is None:
        raise NodeFailure(f"Cannot copy to device '{target.get('uuid')}': device not found")
    block.write(origin.read())


@calls("blockdev_pause_resume_sync")
def blockdev_pause_resume_sync(
    node: SimulatedNode, disks: Sequence[DescribedDisk], pause: bool
) -> list[Any]:
    """Returns for each device whether its sync could be paused or resumed."""
    rows: list[Any] = []
    for disk in disks:
        block = looked_up(node, disk)
        if block is None:
            name = disk.get("iv_name")
            rows.append([False, f"Cannot change sync for device {name}: device not found"])
        else:
            rows.append([block.pause(pause), None])
    return rows


@calls("blockdev_addchildren")
def blockdev_addchildren(
    node: SimulatedNode, disk: DescribedDisk, children: Sequence[DescribedDisk]
) -> None:
    """Gives a mirror without a disk new volumes, which are synced from its peer."""
    mirror = looked_up(node, disk)
    if mirror is None:
        raise NodeFailure(f"Can't find parent device '{described(disk)}' in add children")
    found = [looked_up(node, child) for child in children]
    there = [block for block in found if block is not None]
    if len(there) < len(found):
        shown = [None if block is None else block.shown() for block in found]
        wanted = [described(child) for child in children]
        raise NodeFailure(f"Can't find new device(s) to add: {shown}:{wanted}")
    if not isinstance(mirror, Mirror):
        raise Unexpected("")
    try:
        mirror.add_children(there)
    except DeviceError as error:
        raise Unexpected(str(error))


@calls("blockdev_removechildren")
def blockdev_removechildren(
    node: SimulatedNode, disk: DescribedDisk, children: Sequence[DescribedDisk]
) -> None:
    """Detaches a mirror's volumes; its peer serves it from then on."""
    mirror = looked_up(node, disk)
    if mirror is None:
        raise NodeFailure(f"Can't find parent device '{described(disk)}' in remove children")
    if not isinstance(mirror, Mirror):
        raise Unexpected("")
    try:
        mirror.remove_children([device_path(node, child) for child in children])
    except DeviceError as error:
        raise Unexpected(str(error))
