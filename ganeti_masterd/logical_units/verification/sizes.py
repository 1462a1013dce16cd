"""OP_CLUSTER_REPAIR_DISK_SIZES: corrects the sizes of disks in the configuration."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from ganeti_masterd.config.objects import Disk, Instance
from ganeti_masterd.config.parameters import effective
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.locking.levels import (
    Level,
    WantedLocks,
    all_exclusive,
    all_shared,
    exclusive,
    shared,
)
from ganeti_masterd.logical_units.base import LogicalUnit
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.steps import node_objects
from ganeti_masterd.opcodes.verification import ClusterRepairDiskSizes
from ganeti_masterd.rpc import calls
from ganeti_masterd.rpc.interfaces import Target
from ganeti_masterd.rpc.results import Dimensions

_MIB = 1048576


class DiskPlace(Struct, frozen=True):
    """A disk as part of its instance."""

    instance: Instance
    index: int
    disk: Disk


def with_child_sizes(disk: Disk) -> Disk:
    """Returns a DRBD disk whose data volume is not smaller than the disk itself."""
    if not disk.template.children or not disk.children:
        return disk
    first, *others = disk.children
    if first.size < disk.size:
        first = replace(first, size=disk.size)
    first = with_child_sizes(first)
    if first is disk.children[0]:
        return disk
    return replace(disk, children=(first, *others))


def corrected(disk: Disk, size: int, spindles: int | None) -> Disk:
    """Returns a disk with its real size (MiB) and spindles (None: unchanged)."""
    new = disk if disk.size == size else replace(disk, size=size)
    if spindles is not None and spindles != disk.spindles:
        new = replace(new, spindles=spindles)
    return with_child_sizes(new)


class RepairDiskSizes(LogicalUnit[ClusterRepairDiskSizes], runs=ClusterRepairDiskSizes):
    """Asks primary nodes for the sizes of disks; holds the instances exclusively."""

    names: tuple[str, ...]

    def expand(self, snapshot: Snapshot) -> None:
        """Finds the instances named; none named means all."""
        self.names = tuple(snapshot.instance(name).name for name in self.op.instances)

    def locks(self, level: Level, snapshot: Snapshot) -> WantedLocks:
        """Holds the instances, and shares the node resources of their primary nodes."""
        if level is Level.INSTANCE:
            return exclusive(self.names) if self.names else all_exclusive
        if level is Level.NODE_RES:
            if not self.names:
                return all_shared
            return shared(instance.primary_node for instance in self._instances(snapshot))
        return super().locks(level, snapshot)

    def _instances(self, snapshot: Snapshot) -> list[Instance]:
        if not self.names:
            return list(snapshot.instances.values())
        found = (snapshot.instances.named(name) for name in self.names)
        return [instance for instance in found if instance is not None]

    def exec(self, ctx: Context) -> list[list[Any]]:
        """Corrects the sizes; returns rows ``[instance, index, "size" or "spindles", value]``."""
        snapshot = ctx.snapshot()
        places: dict[str, list[DiskPlace]] = {}
        for instance in self._instances(snapshot):
            for index, disk in enumerate(snapshot.disks_of(instance)):
                place = DiskPlace(instance, index, disk)
                places.setdefault(instance.primary_node, []).append(place)

        def arguments(target: Target) -> list[Any]:
            return [
                [
                    node_objects.disk(snapshot, place.disk, place.instance, target.key)
                    for place in places[target.key]
                ]
            ]

        if not places:
            return []
        changed: list[list[Any]] = []
        for uuid, answer in ctx.call(places, calls.BLOCKDEV_GETDIMENSIONS, arguments).items():
            if answer.failed:
                ctx.warning(
                    f"Failure in blockdev_getdimensions call to node {answer.node}, ignoring:"
                    f" {answer.error}"
                )
                continue
            if len(answer.payload) != len(places[uuid]):
                ctx.warning(f"Invalid result from node {answer.node}, ignoring node results")
                continue
            node = snapshot.nodes[uuid]
            counts = bool(effective.of_node(snapshot, node).get("exclusive_storage"))
            for place, told in zip(places[uuid], answer.payload, strict=True):
                changed += self._correct(ctx, place, told, counts=counts)
        return changed

    def _correct(
        self, ctx: Context, place: DiskPlace, told: Dimensions | None, *, counts: bool
    ) -> Iterator[list[Any]]:
        """Corrects one disk; ``counts`` is whether its node assigns spindles to disks."""
        what = f"Disk {place.index} of instance {place.instance.name}"
        if told is None:
            ctx.warning(f"{what} did not return size information, ignoring")
            return
        size, spindles = told.size, told.spindles
        if counts and spindles is None:
            ctx.warning(f"{what} did not return valid spindles information, ignoring")
        spindles = spindles if counts else None
        old = place.disk
        new = corrected(old, size // _MIB, spindles)
        if new is old:
            return
        if new.size != old.size:
            ctx.info(
                f"{what} has mismatched size, correcting: recorded {old.size}, actual {new.size}"
            )
        if new.spindles != old.spindles:
            ctx.info(
                f"{what} has mismatched spindles, correcting: recorded {old.spindles}, actual"
                f" {new.spindles}"
            )
        if new.children != old.children:
            ctx.info(f"Child disk has size {old.children[0].size}, parent {new.size}, fixing")
        ctx.change(old.uuid, lambda disk: corrected(disk, size // _MIB, spindles))
        name = place.instance.name
        if new.size != old.size or new.children != old.children:
            yield [name, place.index, "size", new.size]
        if new.spindles != old.spindles:
            yield [name, place.index, "spindles", new.spindles]
