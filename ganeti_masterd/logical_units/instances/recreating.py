"""OP_INSTANCE_RECREATE_DISKS: lost disks are made anew, empty, on the same nodes or on others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from ganeti_masterd.allocation.requests import Allocate
from ganeti_masterd.config.changes import Change, Update
from ganeti_masterd.config.objects import Disk, Instance
from ganeti_masterd.config.parameters import effective
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.templates import summary_name
from ganeti_masterd.errors import ECODE_INVAL, ECODE_NORES, prereq
from ganeti_masterd.locking.levels import Level, WantedLocks, exclusive, shared
from ganeti_masterd.logical_units.base import HookNodes
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.disks.making import create_disks
from ganeti_masterd.logical_units.disks.naming import ReservedNaming
from ganeti_masterd.logical_units.disks.syncing import wipe_disks
from ganeti_masterd.logical_units.instances.base import (
    InstanceUnit,
    require_online,
    require_state,
    require_stopped,
)
from ganeti_masterd.logical_units.steps.allocating import find_nodes
from ganeti_masterd.logical_units.steps.undo import UndoStack
from ganeti_masterd.opcodes.instance_disks import InstanceRecreateDisks

#: What may be changed of a disk as it is made anew.
CHANGEABLE = frozenset({"size", "mode", "spindles"})

#: What the instance can't be while its disks are made.
_REFUSAL = "cannot recreate disks"


class RecreateDisks(InstanceUnit[InstanceRecreateDisks], runs=InstanceRecreateDisks):
    """Makes disks under their old names; one that is there already stays as it is, and is an error.

    The configuration changes when all disks are made, in one transaction.
    """

    def expand(self, snapshot: Snapshot) -> None:
        """Reads which disks, with which changes, and on which nodes."""
        super().expand(snapshot)
        op = self.op
        self._changes = _changes(op.disks)
        if op.nodes and op.iallocator:
            raise prereq("Do not specify both, iallocator and node", ECODE_INVAL)
        self._nodes = [snapshot.node(name).uuid for name in op.nodes]

    def locks(self, level: Level, snapshot: Snapshot) -> WantedLocks:
        """Holds the nodes named; with an allocator the members of the primary's group."""
        instance = self.instance(snapshot)
        group = snapshot.nodes[instance.primary_node].group
        if level is Level.NODEGROUP and self.op.iallocator:
            return shared(group)
        if level in (Level.NODE, Level.NODE_RES):
            if self.op.iallocator:
                return exclusive(node.uuid for node in snapshot.members(group))
            return exclusive(self._nodes or snapshot.nodes_of(instance))
        return super().locks(level, snapshot)

    def hook_nodes(self, snapshot: Snapshot) -> HookNodes:
        """The master and the nodes before the change."""
        return self._hook_nodes

    def check(self, ctx: Context) -> None:
        """Checks nodes, disks and the instance's state; asks the allocator."""
        snapshot = ctx.snapshot()
        instance = self.instance(snapshot)
        self._hook_nodes = super().hook_nodes(snapshot)
        current = snapshot.nodes_of(instance)
        if self._nodes and len(self._nodes) != len(current):
            raise prereq(
                f"Instance {instance.name} currently has {len(current)} nodes, but "
                f"{len(self._nodes)} replacement nodes were specified",
                ECODE_INVAL,
            )
        moves = bool(self._nodes or self.op.iallocator)
        if not self.op.iallocator:
            require_online(snapshot, (self._nodes or current)[0])
        if not instance.disks:
            raise prereq(f"Instance '{instance.name}' has no disks", ECODE_INVAL)
        if moves and snapshot.nodes[instance.primary_node].offline:
            require_state(instance, ("down", "offline"), _REFUSAL)
        else:
            require_stopped(ctx, instance, _REFUSAL)
        self._check_disks(instance, moves)
        if self.op.iallocator:
            self._nodes = self._allocated(ctx, instance)
        for node in self._nodes or current:
            require_online(snapshot, node)

    def _check_disks(self, instance: Instance, moves: bool) -> None:
        for index in self._changes:
            if index >= len(instance.disks):
                raise prereq(
                    f"Invalid disk index '{index}' (instance {instance.name} has disks 0 to "
                    f"{len(instance.disks) - 1})",
                    ECODE_INVAL,
                )
        if moves and self._changes and len(self._changes) != len(instance.disks):
            raise prereq(
                "Can't recreate disks partially and change the nodes at the same time", ECODE_INVAL
            )

    def _allocated(self, ctx: Context, instance: Instance) -> list[str]:
        """Returns the uuids of the nodes that the allocator chose, all of the primary's group."""
        snapshot = ctx.snapshot()
        disks = snapshot.disks_of(instance)
        group = snapshot.nodes[instance.primary_node].group
        backend = effective.backend(snapshot.cluster, instance)
        request = Allocate(
            name=instance.name,
            memory=backend["maxmem"],
            vcpus=backend["vcpus"],
            spindle_use=backend["spindle_use"],
            disk_template=summary_name(disk.dev_type for disk in disks),
            disks=[{"size": disk.size, "mode": disk.mode} for disk in disks],
            os=instance.os,
            hypervisor=instance.hypervisor,
            tags=instance.tags,
            group_name=snapshot.groups[group].name,
        )
        name = self.op.iallocator
        found = find_nodes(ctx, request, None if name == "." else name)
        nodes = [snapshot.node(each) for each in found]
        if any(node.group != group for node in nodes):
            raise prereq(
                f"Can't compute nodes using iallocator '{name}': it chose {', '.join(found)}, not "
                f"all of them in group {snapshot.groups[group].name} of instance {instance.name}",
                ECODE_NORES,
            )
        ctx.info(
            f"Selected nodes for instance {instance.name} via iallocator {name}: "
            f"{', '.join(node.name for node in nodes)}"
        )
        uuids = [node.uuid for node in nodes]
        ctx.release(Level.NODE, uuids)
        ctx.release(Level.NODE_RES, uuids)
        return uuids

    def exec(self, ctx: Context) -> None:
        """Makes the disks, then writes what changed."""
        before = self.instance(ctx.snapshot())
        after = replace(before, primary_node=self._nodes[0]) if self._nodes else before
        if self._nodes:
            ctx.warning(
                "Changing the instance's nodes, you will have to remove any disks left on the "
                "older nodes manually"
            )
            for text in _left_behind(ctx.snapshot(), before, self._nodes):
                ctx.warning(text)
        held = list(enumerate(ctx.snapshot().disks_of(before)))
        naming = ReservedNaming(ctx)
        chosen = [
            (index, self._changed(naming, index, disk))
            for index, disk in held
            if not self._changes or index in self._changes
        ]
        with UndoStack(ctx) as undo:
            made = [disk for _, disk in chosen]
            kept = [disk for _, disk in held]
            create_disks(ctx, undo, after, made, fresh=False, kept=kept)
            # Nobody has to wait until the disks are wiped.
            ctx.release(Level.NODE_RES)
            if ctx.snapshot().cluster.prealloc_wipe_disks:
                wipe_disks(ctx, after, [(index, disk, 0) for index, disk in chosen])
            ctx.change_all(_written(before, after, made))
            undo.keep()

    def _changed(self, naming: ReservedNaming, index: int, disk: Disk) -> Disk:
        """Returns a disk with what is to change of it, its minors reserved."""
        changes: dict[str, Any] = dict(self._changes.get(index, {}))
        if self._nodes and not disk.template.external:
            changes["nodes"] = tuple(self._nodes)
        children = disk.children
        if disk.template.internal and self._nodes:
            minors = naming.minors(self._nodes)
            port, secret = (disk.logical_id or ())[2], (disk.logical_id or ())[5]
            changes["logical_id"] = (*self._nodes, port, *minors, secret)
            children = tuple(replace(child, nodes=tuple(self._nodes)) for child in children)
        if children and "size" in changes:
            children = (replace(children[0], size=changes["size"]), *children[1:])
        return replace(disk, **changes, children=children)


def _left_behind(snapshot: Snapshot, before: Instance, nodes: list[str]) -> list[str]:
    """Returns what may be left of an instance's disks on nodes that it leaves, one text each."""
    parts = [
        part
        for disk in snapshot.disks_of(before)
        if not disk.template.external
        for part in disk.children or (disk,)
    ]
    names = [part.volume or str((part.logical_id or ("", ""))[1]) for part in parts]
    return [
        f"On node {snapshot.nodes[uuid].name} may be left: {', '.join(names)}"
        for uuid in snapshot.nodes_of(before)
        if names and uuid not in nodes
    ]


def _changes(disks: tuple[Any, ...]) -> dict[int, Mapping[str, Any]]:
    """Returns what the opcode says of each disk that it names; raises ``OpPrereqError``."""
    named = [(each, {}) if isinstance(each, int) else tuple(each) for each in disks]
    indices = [index for index, _ in named]
    twice = sorted(index for index, count in Counter(indices).items() if count > 1)
    if twice:
        raise prereq(
            f"Some disks have been specified more than once: {', '.join(map(str, twice))}",
            ECODE_INVAL,
        )
    for index, changes in named:
        if wrong := sorted(set(changes) - CHANGEABLE):
            raise prereq(
                f"Parameters for disk {index} try to change unmodifyable parameter(s): "
                f"{', '.join(wrong)}",
                ECODE_INVAL,
            )
    return dict(named)


def _written(before: Instance, after: Instance, disks: list[Disk]) -> list[Change]:
    """Returns the changes of the configuration; of what stays as it is none."""

    def remade(disk: Disk) -> Change:
        def change(now: Disk) -> Disk:
            changed = replace(
                now,
                logical_id=disk.logical_id,
                nodes=disk.nodes,
                size=disk.size,
                mode=disk.mode,
                spindles=disk.spindles,
                children=disk.children,
            )
            return now if changed == now else changed

        return Update(disk.uuid, change)

    changes = [remade(disk) for disk in disks]
    if before.primary_node != after.primary_node:
        changes.append(
            Update(before.uuid, lambda now: replace(now, primary_node=after.primary_node))
        )
    return changes
