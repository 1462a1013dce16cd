"""Disks come to be on their nodes: created, and removed again if what follows fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os.path import dirname
from typing import Any

from ganeti_masterd.config.objects import Disk, Instance
from ganeti_masterd.config.parameters import effective
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.templates import DiskTemplate
from ganeti_masterd.jobs.devices import Fate, NotedDevice, commands
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.disks.noting import directory as noted_directory
from ganeti_masterd.logical_units.disks.noting import disk_devices
from ganeti_masterd.logical_units.steps import node_objects
from ganeti_masterd.logical_units.steps.undo import UndoStack
from ganeti_masterd.rpc import calls
from ganeti_masterd.rpc.interfaces import NodeResult, Target

#: What the tag of a volume, or the like, says of whom it belongs to.
OWNER = "originstname+"


def create_disks(
    ctx: Context,
    undo: UndoStack,
    instance: Instance,
    disks: Sequence[Disk],
    *,
    nodes: Sequence[str] | None = None,
    fresh: bool = True,
    kept: Sequence[Disk] = (),
    also: Sequence[NotedDevice] = (),
) -> None:
    """Makes disks on their nodes (or on ``nodes``, uuids); they are assembled then.

    ``instance`` need not be in the configuration. The volumes of a mirror are made on both
    its nodes at once. What was made is pushed on ``undo``; raises ``OpExecError`` with
    the node's words for the first call that fails.

    ``fresh``: the disks have names that nobody ever had, so whatever is found under them can
    be taken back, even if the call that made it failed. Otherwise only what a call has
    made for certain is taken back: what was there before is somebody's data. A mirror is
    taken back as soon as its volumes were made: no data can be below it. A directory in
    which one of ``kept`` is, disks that exist already, is never taken back. ``also`` is noted
    durably together with the disks.
    """
    if not disks:
        return
    if _in_directory(disks[0].template):
        directory = directory_of(disks[0])
        create_directory(ctx, undo, instance, directory, kept=directory in map(directory_of, kept))
    _note(ctx, instance, disks, nodes, also, fresh=fresh)
    for disk in disks:
        where = nodes_of_new(instance, disk) if nodes is None else tuple(nodes)
        if fresh:
            for node in where:
                _push_removal(ctx, undo, instance, disk, None, node)
        for child in (*range(len(disk.children)), None):
            mirror = child is None and bool(disk.children)
            if mirror and not fresh:
                for node in where:
                    _push_removal(ctx, undo, instance, disk, None, node)
            failures = []
            # No kill comes between such a call and the note of what it made (`Call.whole`).
            answers = _create(ctx, instance, disk, child, where)
            for node, answer in answers.items():
                if answer.failed:
                    failures.append(answer)
                elif not (fresh or mirror):
                    _push_removal(ctx, undo, instance, disk, child, node)
            ctx.checkpoint()
            for answer in failures:
                answer.or_fail(
                    f"Can't create block device {_called(disk)} ({disk.dev_type}) "
                    f"on node {answer.node} for instance {instance.name}"
                )


def _note(
    ctx: Context,
    instance: Instance,
    disks: Sequence[Disk],
    nodes: Sequence[str] | None,
    also: Sequence[NotedDevice],
    *,
    fresh: bool,
) -> None:
    """Notes disks that are about to be made, and other things, for a start after a crash."""
    # What has a name that others may have used is not to be removed unseen.
    fate = Fate.REMOVE if fresh else Fate.TELL
    noted = []
    for disk in disks:
        where = nodes_of_new(instance, disk) if nodes is None else tuple(nodes)
        mirror = Fate.REMOVE if disk.children else fate
        noted += disk_devices(ctx, instance, disk, where, fate=fate, mirror_fate=mirror)
    ctx.note_devices([*noted, *also])


def nodes_of_new(instance: Instance, disk: Disk) -> tuple[str, ...]:
    """Returns the uuids of the nodes where a disk is made, the primary first."""
    primary = instance.primary_node
    if not disk.template.internal:
        return (primary,)
    return (primary, *(node for node in disk.all_nodes() if node != primary))


def exclusive_storage(snapshot: Snapshot, node: str) -> bool:
    """Whether a node (its uuid) keeps each disk on physical volumes of its own."""
    return bool(effective.of_node(snapshot, snapshot.nodes[node]).get("exclusive_storage"))


def _in_directory(template: DiskTemplate) -> bool:
    return template.name in ("file", "sharedfile")


def directory_of(disk: Disk) -> str:
    """Returns the directory that holds a disk; empty if the disk isn't a file."""
    if not _in_directory(disk.template) or disk.logical_id is None:
        return ""
    return dirname(str(disk.logical_id[1]))


def create_directory(
    ctx: Context, undo: UndoStack, instance: Instance, directory: str, *, kept: bool = False
) -> None:
    """Makes a directory for disks on an instance's primary node; it may exist already.

    With ``kept``, it holds disks already and isn't taken back. Raises ``OpExecError``.
    """
    node = instance.primary_node
    name = ctx.snapshot().nodes[node].name

    def remove() -> None:
        ctx.call_one(node, calls.FILE_STORAGE_DIR_REMOVE, (directory,)).or_fail("the node refuses")

    if not kept:
        ctx.note_devices([noted_directory(ctx, instance, node, directory)])
        undo.push(f"remove directory '{directory}' from node {name}", remove)
    ctx.call_one(node, calls.FILE_STORAGE_DIR_CREATE, (directory,)).or_fail(
        f"Failed to create directory '{directory}' on node {name}"
    )


def _push_removal(
    ctx: Context,
    undo: UndoStack,
    instance: Instance,
    disk: Disk,
    child: int | None,
    node: str,
) -> None:
    def remove() -> None:
        sent = _sent(ctx.snapshot(), instance, disk, child, node)
        ctx.call_one(node, calls.BLOCKDEV_REMOVE, (sent,)).or_fail("the node refuses")

    name = ctx.snapshot().nodes[node].name
    made = (
        disk_devices(ctx, instance, disk, (node,))
        if child is None
        else disk_devices(ctx, instance, disk, (node,), children=(child,), itself=False)
    )
    undo.push(
        f"remove {_called(disk)} of instance {instance.name} from node {name}",
        remove,
        hint=commands(reversed(made)),
    )


def create_on(
    ctx: Context,
    instance: Instance,
    disk: Disk,
    child: int | None,
    node: str,
    failure: str,
    *,
    on_primary: bool | None = None,
) -> None:
    """Makes a disk, or the volume ``child`` below it, on one node (its uuid).

    The node is told whether it is the instance's primary, or else ``on_primary``. Pushes
    nothing that would take it back. Raises ``OpExecError``, beginning with ``failure``.
    """
    (answer,) = _create(ctx, instance, disk, child, (node,), on_primary).values()
    answer.or_fail(failure)


def _create(
    ctx: Context,
    instance: Instance,
    disk: Disk,
    child: int | None,
    nodes: Sequence[str],
    on_primary: bool | None = None,
) -> Mapping[str, NodeResult[Any]]:
    """Makes a disk, or one of the volumes below it, on several nodes at once."""
    snapshot = ctx.snapshot()
    size = disk.size if child is None else disk.children[child].size

    def arguments(target: Target) -> tuple[object, ...]:
        node = target.key
        sent = _sent(snapshot, instance, disk, child, node)
        primary = node == instance.primary_node if on_primary is None else on_primary
        exclusive = exclusive_storage(snapshot, node)
        return sent, size, instance.name, primary, OWNER + instance.name, exclusive

    return ctx.call(nodes, calls.BLOCKDEV_CREATE, arguments)


def _sent(
    snapshot: Snapshot, instance: Instance, disk: Disk, child: int | None, node: str
) -> dict[str, Any]:
    if child is None:
        return node_objects.disk(snapshot, disk, instance, node)
    return node_objects.disk_child(snapshot, disk, child, instance, node)


def _called(disk: Disk) -> str:
    return disk.iv_name or f"disk {disk.uuid}"
