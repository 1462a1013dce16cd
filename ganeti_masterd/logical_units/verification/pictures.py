"""What is known about a node from its answer, for the checks of instances and storage."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

from ganeti_masterd.config.objects import Disk, Instance, Node
from ganeti_masterd.config.snapshot import Snapshot


class Picture(Struct):
    """One node. ``node`` is None if the configuration refers to a node that it lacks.

    ``volumes`` (by name), ``running`` (names of instances), ``systems`` (rows of ``os_diagnose`` by
    name) and ``memory_free`` (MiB) are None if unknown for any reason. ``primaries`` and
    ``secondaries`` are instances of the group. ``physical`` has the sizes of the smallest and the
    largest physical volume (MiB).
    """

    uuid: str
    node: Node | None
    silent: bool = False
    volumes: Any = None
    running: set[str] | None = None
    systems: dict[str, list[Any]] | None = None
    memory_free: int | None = None
    physical: tuple[float, float] | None = None
    primaries: list[Instance] = field(default_factory=list)
    secondaries: list[Instance] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The node's name, or its uuid if the configuration lacks it."""
        return self.uuid if self.node is None else self.node.name

    @property
    def ghost(self) -> bool:
        """Whether the configuration lacks the node."""
        return self.node is None

    @property
    def offline(self) -> bool:
        """Whether the node is marked offline."""
        return self.node is not None and self.node.offline


def paint(snapshot: Snapshot, nodes: list[Node], instances: list[Instance]) -> dict[str, Picture]:
    """Returns pictures, by uuid, of a group's nodes and of all nodes of its instances."""
    pictures = {node.uuid: Picture(node.uuid, node) for node in nodes}
    for instance in instances:
        primary, *others = snapshot.nodes_of(instance)
        for uuid in (primary, *others):
            if uuid not in pictures:
                pictures[uuid] = Picture(uuid, snapshot.nodes.get(uuid))
        pictures[primary].primaries.append(instance)
        for uuid in others:
            pictures[uuid].secondaries.append(instance)
    return pictures


def volumes_by_node(snapshot: Snapshot, instance: Instance) -> dict[str, list[str]]:
    """Returns the logical volumes (``group/name``) that an instance has on each node."""
    found: dict[str, list[str]] = {}

    def collect(disk: Disk, nodes: tuple[str, ...]) -> None:
        if disk.volume is not None:
            for uuid in nodes:
                found.setdefault(uuid, []).append(disk.volume)
        for child in disk.children:
            collect(child, nodes)

    for disk in snapshot.disks_of(instance):
        collect(disk, disk.all_nodes() or (instance.primary_node,))
    return found
