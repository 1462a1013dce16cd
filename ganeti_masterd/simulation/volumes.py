"""Logical volumes of a simulated node, and their places on its physical volumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from ganeti_masterd.constants import PART_MARGIN, PART_RESERVED
from ganeti_masterd.simulation.node import SimulatedNode
from ganeti_masterd.simulation.state import Device

#: Size of an extent, in MiB.
EXTENT = 4

#: The ratio of a physical volume's size to the size that counts, with exclusive storage.
STANDARD_PART = 1 + PART_MARGIN + PART_RESERVED

KIND = "plain"


class LvmError(Exception):
    """An LVM program fails; the message is its output."""


def of_node(node: SimulatedNode) -> list[tuple[str, Device]]:
    """Returns the logical volumes of a node with their paths."""
    return [(path, dev) for path, dev in node.state.devices.items() if dev.kind == KIND]


def used(node: SimulatedNode, physical: str) -> int:
    """Returns how many MiB of a physical volume are taken."""
    return _taken(node).get(physical, 0)


def usable(node: SimulatedNode, physical: str) -> bool:
    """Whether new volumes may be put on a physical volume."""
    return physical not in (node.state.facts.get("unallocatable") or [])


def free(node: SimulatedNode, group: str, *, usable_only: bool = False) -> int:
    """Returns how many MiB of a volume group are free; 0 if the group doesn't exist."""
    return sum(left for left, name in _room(node, group) if not usable_only or usable(node, name))


def make(
    node: SimulatedNode,
    group: str,
    name: str,
    size: int,
    *,
    owner: str = "",
    info: str = "",
    origin: str | None = None,
    only: Sequence[str] = (),
) -> None:
    """Creates a volume of at least that many MiB; with ``origin`` a snapshot of another.

    With ``only`` it is spread over exactly these physical volumes.
    """
    path = f"/dev/{group}/{name}"
    if path in node.state.devices:
        raise LvmError(f'  Logical Volume "{name}" already exists in volume group "{group}"\n')
    whole = _whole(size)
    segments = _spread(whole, only) if only else _place(node, group, whole)
    if segments is None:
        raise LvmError(
            f'  Volume group "{group}" has insufficient free space'
            f" ({free(node, group) // EXTENT} extents): {whole // EXTENT} required.\n"
        )
    taken = {device.minor for _, device in of_node(node)}
    source = None if origin is None else node.state.devices[origin]
    node.state.devices[path] = Device(
        KIND,
        whole,
        owner if source is None else source.owner,
        info if source is None else source.info,
        next(minor for minor in range(len(taken) + 1) if minor not in taken),
        segments=segments,
        origin=origin,
        content=() if source is None else source.content,
    )


def extend(
    node: SimulatedNode, path: str, amount: int, *, dry_run: bool, exclusive: bool = False
) -> None:
    """Makes a volume larger; with exclusive storage on its own physical volumes."""
    group = path.split("/")[2]
    device = node.state.devices[path]
    whole = _whole(amount)
    own = [name for name, _ in device.segments]
    segments = _spread(whole, own) if exclusive else _place(node, group, whole)
    if segments is None:
        raise LvmError(
            f"  Insufficient free space: {whole // EXTENT} extents needed,"
            f" but only {free(node, group) // EXTENT} available\n"
        )
    if not dry_run:
        node.state.devices[path] = replace(
            device, size=device.size + whole, segments=_joined(device.segments, segments)
        )


def rename(node: SimulatedNode, old: str, new: str) -> None:
    """Renames a volume, even if it is in use; a mirror on it is updated."""
    group, name = new.split("/")[2:]
    if new in node.state.devices:
        raise LvmError(f'  Logical volume "{name}" already exists in volume group "{group}"\n')
    device = node.state.devices.pop(old)
    assert device is not None
    node.state.devices[new] = device
    for path, other in of_node(node):
        if other.origin == old:
            node.state.devices[path] = replace(other, origin=new)
    node.world.mirrors.rename_volume(node.name, old, new)


def remove(node: SimulatedNode, path: str) -> None:
    """Removes a volume with its snapshots, even if in use; does nothing if it is missing."""
    for other, device in of_node(node):
        if device.origin == path:
            remove(node, other)
    node.state.devices.pop(path)
    node.world.mirrors.forget_volume(node.name, path)


def _taken(node: SimulatedNode) -> Mapping[str, int]:
    """Returns how many MiB of each physical volume are taken.

    Added up only once while no device of the node changes: all nodes are asked for their room
    again and again, by each placement.
    """
    version, known = node.taken
    if version == node.state.devices.version:
        return known
    taken: dict[str, int] = {}
    for _, device in of_node(node):
        for name, size in device.segments:
            taken[name] = taken.get(name, 0) + size
    node.taken = node.state.devices.version, taken
    return taken


def standard_size(node: SimulatedNode, group: str) -> int:
    """Returns the size in MiB that each physical volume counts for with exclusive storage."""
    found = node.hardware.group(group)
    sizes = [] if found is None else [each.size for each in found.volumes]
    return int(min(sizes, default=0) // STANDARD_PART)


def empty(node: SimulatedNode, group: str) -> list[str]:
    """Returns the physical volumes of a group that are empty and may be used."""
    found, taken = node.hardware.group(group), _taken(node)
    names = [] if found is None else [each.name for each in found.volumes]
    return [name for name in names if not taken.get(name) and usable(node, name)]


def room_to_grow(node: SimulatedNode, path: str) -> int:
    """Returns how much a volume can grow on its own physical volumes, in MiB."""
    group = path.split("/")[2]
    own = {name for name, _ in node.state.devices[path].segments}
    taken = _taken(node)
    return sum(standard_size(node, group) - taken.get(name, 0) for name in own)


def _spread(size: int, names: Sequence[str]) -> tuple[tuple[str, int], ...]:
    """Returns the segments of a volume spread evenly over physical volumes."""
    extents, more = divmod(size // EXTENT, len(names))
    return tuple((name, (extents + (at < more)) * EXTENT) for at, name in enumerate(names))


def _whole(size: int) -> int:
    return -(-size // EXTENT) * EXTENT


def _room(node: SimulatedNode, name: str) -> list[tuple[int, str]]:
    group = node.hardware.group(name)
    if group is None:
        return []
    taken = _taken(node)
    return [(volume.size - taken.get(volume.name, 0), volume.name) for volume in group.volumes]


def _place(node: SimulatedNode, group: str, size: int) -> tuple[tuple[str, int], ...] | None:
    """Returns segments, from the emptiest physical volume first; None if space is short."""
    segments: list[tuple[str, int]] = []
    for left, name in sorted(_room(node, group), key=lambda room: (-room[0], room[1])):
        part = min(left, size)
        if part > 0 and usable(node, name):
            segments.append((name, part))
            size -= part
    return tuple(segments) if size <= 0 else None


def _joined(
    segments: tuple[tuple[str, int], ...], more: tuple[tuple[str, int], ...]
) -> tuple[tuple[str, int], ...]:
    sizes: dict[str, int] = {}
    for name, size in (*segments, *more):
        sizes[name] = sizes.get(name, 0) + size
    return tuple(sizes.items())
