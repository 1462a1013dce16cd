"""Disks are made ready on their nodes, shut down, and removed.

The order of the calls, what counts as a failure, and the texts are those of real daemon 3.0.2
(protocol/disks.rst); where ours differs, docs/differences.rst says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from os.path import dirname
from typing import NamedTuple

from msgspec.structs import replace

from ganeti_masterd.config.objects import Disk, Instance
from ganeti_masterd.errors import OpExecError
from ganeti_masterd.jobs.devices import Fate
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.disks.noting import directory as noted_directory
from ganeti_masterd.logical_units.disks.noting import disk_devices
from ganeti_masterd.logical_units.steps import node_objects
from ganeti_masterd.rpc import calls
from ganeti_masterd.rpc.interfaces import Target

_RETRY_WITH_FORCE = (
    "If the message above refers to a secondary node, you can retry the operation using '--force'"
)


class Activated(NamedTuple):
    """Whether disks could be made ready, and where: (primary's name, ``disk/0``, path or None)."""

    good: bool
    devices: list[tuple[str, str, str | None]]


def current(ctx: Context, instance: Instance) -> Instance:
    """Returns the instance as it is in the configuration now; itself if it isn't there."""
    return ctx.snapshot().instances.get(instance.uuid, instance)


def activate_disks(
    ctx: Context,
    instance: Instance,
    disks: Sequence[Disk] | None = None,
    *,
    ignore_secondaries: bool = False,
    ignore_size: bool = False,
) -> Activated:
    """Makes disks ready, on all their nodes first and then, to be written, on the primary.

    ``disks`` None: all of the instance, which is then marked as having active disks. A
    failure is a warning in the log. It counts unless it is that of a secondary which is
    marked offline, or ``ignore_secondaries``; if one counts and the disks were inactive
    before, they are marked inactive again. ``ignore_size``: as large as they are found.
    """
    snapshot = ctx.snapshot()
    chosen = snapshot.disks_of(instance) if disks is None else tuple(disks)
    was_active = instance.disks_active
    if disks is None and not was_active:
        instance = mark_disks(ctx, instance, active=True)
    good = True
    for index, disk in _numbered(ctx, instance, chosen):
        for node in _assemble(ctx, instance, disk, index, disk_nodes(instance, disk), ignore_size):
            offline = snapshot.nodes[node].offline and node != instance.primary_node
            good = good and (offline or ignore_secondaries)
    devices = []
    primary = instance.primary_node
    for index, disk in _numbered(ctx, instance, chosen):
        paths: list[str | None] = []
        failed = _assemble(ctx, instance, disk, index, (primary,), ignore_size, paths)
        good = good and not failed
        path = paths[0] if paths else None
        devices.append((snapshot.nodes[primary].name, disk.iv_name, path))
    if not good and disks is None and not was_active:
        mark_disks(ctx, instance, active=False)
    return Activated(good, devices)


def start_disks(ctx: Context, instance: Instance, *, force: bool | None = None) -> None:
    """Makes all disks of an instance ready; shuts them down and raises if that fails.

    ``force``: failures of secondaries don't count; None where that was no choice of the
    caller's. Raises ``OpExecError``.
    """
    if activate_disks(ctx, instance, ignore_secondaries=bool(force)).good:
        return
    with ctx.shielded():
        shut_disks(ctx, current(ctx, instance))
        if force is False:
            ctx.feedback(f"      Hint: {_RETRY_WITH_FORCE}")
    raise OpExecError("Disk consistency error")


def shut_disks(
    ctx: Context,
    instance: Instance,
    disks: Sequence[Disk] | None = None,
    *,
    ignore_primary: bool = False,
) -> bool:
    """Shuts disks down on all their nodes; returns whether all that counts went well.

    ``disks`` None: all of the instance, which is marked as having inactive disks first. A
    failure is a warning; it counts on the primary (unless ``ignore_primary``), and on
    another node that isn't marked offline. A kill is put off, so that disks that are
    marked inactive are so, too.
    """
    with ctx.shielded():
        return _shut_disks(ctx, instance, disks, ignore_primary)


def _shut_disks(
    ctx: Context, instance: Instance, disks: Sequence[Disk] | None, ignore_primary: bool
) -> bool:
    snapshot = ctx.snapshot()
    chosen = snapshot.disks_of(instance) if disks is None else tuple(disks)
    if disks is None:
        instance = mark_disks(ctx, instance, active=False)
    good = True
    for disk in chosen:
        answers = ctx.call(
            disk_nodes(instance, disk),
            calls.BLOCKDEV_SHUTDOWN,
            lambda target, disk=disk: (  # type: ignore[misc]
                node_objects.disk(snapshot, disk, instance, target.key),
            ),
        )
        for node, answer in answers.items():
            if not answer.failed:
                continue
            ctx.warning(
                f"Could not shutdown block device {disk.iv_name} on node {answer.node}: "
                f"{answer.error}"
            )
            if node == instance.primary_node:
                good = good and ignore_primary
            elif not answer.offline:
                good = False
    return good


def remove_disks(
    ctx: Context,
    instance: Instance,
    disks: Iterable[Disk],
    *,
    nodes: Sequence[str] | None = None,
    kept: Iterable[Disk] = (),
) -> bool:
    """Removes disks from their nodes (or from ``nodes``); returns whether all that counts is gone.

    The configuration is the caller's to change. A failure is a warning; it counts unless the
    node is a secondary that is marked offline. A directory in which none of ``kept`` is goes
    with the last file.
    """
    snapshot = ctx.snapshot()
    removed = tuple(disks)
    good = True
    for place, disk in enumerate(removed):
        index = disk.iv_name.rpartition("/")[2] or place
        answers = ctx.call(
            disk_nodes(instance, disk) if nodes is None else nodes,
            calls.BLOCKDEV_REMOVE,
            lambda target, disk=disk: (  # type: ignore[misc]
                node_objects.disk(snapshot, disk, instance, target.key),
            ),
        )
        for node, answer in answers.items():
            if answer.failed:
                ctx.warning(
                    f"Could not remove disk {index} on node {answer.node}, continuing anyway: "
                    f"{answer.error}"
                )
                if not (answer.offline and node != instance.primary_node):
                    good = False
    for directory in sorted(_directories(removed) - _directories(kept)):
        primary = instance.primary_node if nodes is None else nodes[0]
        answer = ctx.call_one(primary, calls.FILE_STORAGE_DIR_REMOVE, (directory,))
        if answer.failed:
            ctx.warning(
                f"Could not remove directory '{directory}' on node {answer.node}: {answer.error}"
            )
            good = False
    return good


def note_removed(
    ctx: Context,
    instance: Instance,
    disks: Sequence[Disk],
    *,
    nodes: Sequence[str] | None = None,
    fate: Fate = Fate.REMOVE,
) -> None:
    """Notes what :func:`remove_disks` removes, before disks leave the configuration."""
    primary = instance.primary_node if nodes is None else nodes[0]
    # Noted first, they go last.
    noted = [noted_directory(ctx, instance, primary, path) for path in sorted(_directories(disks))]
    for disk in disks:
        where = disk_nodes(instance, disk) if nodes is None else nodes
        own = Fate.REMOVE if disk.children else fate
        noted += disk_devices(ctx, instance, disk, where, fate=fate, mirror_fate=own)
    ctx.note_devices(noted)


def mark_disks(ctx: Context, instance: Instance, *, active: bool) -> Instance:
    """Records whether an instance's disks ought to be ready; writes nothing if that is so already.

    An instance that isn't in the configuration is returned as it is.
    """
    if instance.uuid not in ctx.snapshot().instances:
        return instance

    def marked(now: Instance) -> Instance:
        return now if now.disks_active is active else replace(now, disks_active=active)

    changed: Instance = ctx.change(instance.uuid, marked)
    return changed


def disk_nodes(instance: Instance, disk: Disk) -> tuple[str, ...]:
    """Returns the uuids of the nodes that have to do with a disk, in the order of its id."""
    return disk.all_nodes() if disk.template.internal else (instance.primary_node,)


def _numbered(ctx: Context, instance: Instance, disks: Sequence[Disk]) -> list[tuple[int, Disk]]:
    """Returns disks with their index in the instance; those that it lacks come last."""
    places = {uuid: index for index, uuid in enumerate(instance.disks)}
    return [(places.get(disk.uuid, len(places)), disk) for disk in disks]


def _assemble(
    ctx: Context,
    instance: Instance,
    disk: Disk,
    index: int,
    nodes: Sequence[str],
    ignore_size: bool,
    paths: list[str | None] | None = None,
) -> list[str]:
    """Assembles a disk on nodes; returns those that failed.

    As primary where ``paths`` is given, which gets the path.
    """
    snapshot = ctx.snapshot()
    on_primary = paths is not None

    def arguments(target: Target) -> tuple[object, ...]:
        node = target.key
        sent = node_objects.disk(snapshot, disk, instance, node)
        if ignore_size:
            sent = without_size(sent)
        return sent, node_objects.instance(snapshot, instance, node), on_primary, index

    failed = []
    for node, answer in ctx.call(nodes, calls.BLOCKDEV_ASSEMBLE, arguments).items():
        if answer.failed:
            ctx.warning(
                f"Could not prepare block device {disk.iv_name} on node {answer.node} "
                f"(is_primary={on_primary}, pass={2 if on_primary else 1}): {answer.error}"
            )
            failed.append(node)
        elif paths is not None:
            paths.append(str(answer.payload.path))
    return failed


def without_size(sent: dict[str, object]) -> dict[str, object]:
    """Returns a disk as sent to a node with no size, so that it is taken as large as it is."""
    children = [without_size(child) for child in sent.get("children", ())]  # type: ignore[attr-defined]
    return {**sent, "size": 0, **({"children": children} if "children" in sent else {})}


def _directories(disks: Iterable[Disk]) -> set[str]:
    return {
        dirname(str(disk.logical_id[1]))
        for disk in disks
        if disk.dev_type in ("file", "sharedfile") and disk.logical_id is not None
    }
