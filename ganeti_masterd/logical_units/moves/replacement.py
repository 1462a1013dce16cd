"""What OP_INSTANCE_REPLACE_DISKS is going to do: whose volumes, which names. Pure.

A node gets new volumes below mirrors (:class:`ReplacementPlan`). On the same node they are made
under names that say what they are, and take over the names that the configuration has, so
that it stays as it is. On a new secondary node they have these names from the start.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from msgspec import Struct
from msgspec.structs import replace

from ganeti_masterd.config.objects import Disk

#: What a volume is called until it takes over a name, and after it lost its own: with the
#: job's number behind it.
NEW = "_new"
REPLACED = "_replaced"


class ReplacementPlan(Struct, frozen=True):
    """What is replaced; nodes are given by uuid.

    - ``disks``: indices of the disks that get new volumes.
    - ``target``: the node that gets them.
    - ``other``: the node from which they are filled.
    - ``old``: the secondary node that is left, None if they stay on the same nodes.
    - ``early``: old volumes are removed, and locks given back, before the mirrors are in sync.
    """

    disks: tuple[int, ...]
    target: str
    other: str
    old: str | None = None
    early: bool = False

    @property
    def nodes(self) -> tuple[str, ...]:
        """All nodes that have to do with it."""
        return tuple(dict.fromkeys(n for n in (self.target, self.other, self.old) if n))


class VolumeSwap(Struct, frozen=True):
    """One mirror whose volumes are exchanged on a node: ``disk`` as it is configured.

    ``fresh`` and ``aside`` are the same disk over volumes of other names: the new ones until
    they take over the names, and the old ones from then on.
    """

    index: int
    disk: Disk
    fresh: Disk
    aside: Disk


def swap(index: int, disk: Disk, job_id: int) -> VolumeSwap:
    """Returns how a mirror's volumes are exchanged by a job."""
    return VolumeSwap(
        index,
        disk,
        _renamed(disk, f"{NEW}-{job_id}"),
        _renamed(disk, f"{REPLACED}-{job_id}"),
    )


def leftovers(disk: Disk, volumes: Iterable[str]) -> list[Disk]:
    """Returns the mirror over each pair of volumes that a replacement which broke off has left.

    ``volumes`` (``group/name``) are all that the node has. Each disk returned has those of its
    two children that are there.
    """
    names = {child.volume: place for place, child in enumerate(disk.children)}
    found: dict[str, list[Disk]] = {}
    for volume in sorted(volumes):
        match = _LEFT.fullmatch(volume)
        place = None if match is None else names.get(match["name"])
        if match is not None and place is not None:
            child = _named(disk.children[place], match["mark"])
            found.setdefault(match["mark"], []).append(child)
    return [replace(disk, children=tuple(children)) for children in found.values()]


def on_new_secondary(disk: Disk, primary: str, new: str, minor: int) -> Disk:
    """Returns a mirror as it is once ``new`` is its secondary node; port and secret stay."""
    one, _, port, first, second, secret = disk.logical_id or ()
    own = first if one == primary else second
    nodes = (primary, new)
    children = tuple(replace(child, nodes=nodes) for child in disk.children)
    return replace(
        disk,
        logical_id=(*nodes, port, own, minor, secret),
        nodes=nodes,
        children=children,
    )


def unconnected(disk: Disk) -> Disk:
    """Returns a mirror without a port, which a node makes without connecting it."""
    one, other, _, *rest = disk.logical_id or ()
    return replace(disk, logical_id=(one, other, None, *rest))


def volumes_of(disks: Iterable[Disk]) -> list[str]:
    """Returns the volumes (``group/name``) below mirrors."""
    return [child.volume for disk in disks for child in disk.children if child.volume is not None]


#: A volume that a replacement has left: under whose name, and what was added to it.
_LEFT = re.compile(rf"(?P<name>.+?)(?P<mark>(?:{NEW}|{REPLACED})-[0-9]+)")


def _renamed(disk: Disk, suffix: str) -> Disk:
    return replace(disk, children=tuple(_named(child, suffix) for child in disk.children))


def _named(child: Disk, suffix: str) -> Disk:
    group, name = child.logical_id or ("", "")
    return replace(child, logical_id=(group, name + suffix))
