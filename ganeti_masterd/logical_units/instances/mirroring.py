"""Plain volumes become the data of DRBD mirrors, and the data of mirrors plain volumes.

The data stays where it is on the primary node. Nothing here changes the configuration.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from msgspec.structs import replace

from ganeti_masterd.config.objects import Disk, Instance
from ganeti_masterd.jobs.devices import commands
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.disks.activating import remove_disks
from ganeti_masterd.logical_units.disks.making import create_on
from ganeti_masterd.logical_units.disks.noting import disk_devices
from ganeti_masterd.logical_units.disks.renaming import rename_devices
from ganeti_masterd.logical_units.steps import node_objects
from ganeti_masterd.logical_units.steps.undo import UndoStack
from ganeti_masterd.rpc import calls

#: The volumes below a mirror, by their places among its children.
_DATA, _META = 0, 1


def mirror_volumes(
    ctx: Context,
    undo: UndoStack,
    instance: Instance,
    volumes: Sequence[Disk],
    mirrors: Sequence[Disk],
) -> list[Disk]:
    """Makes mirrors whose data on the primary node are plain volumes; returns them.

    ``mirrors`` are as they are to be, one for each volume. What was made is pushed on
    ``undo``, which leaves the volumes as they were. Raises ``OpExecError``.
    """
    primary = instance.primary_node
    _note_new(ctx, instance, mirrors)
    ctx.feedback("Creating additional volumes...")
    for mirror in mirrors:
        _create(ctx, undo, instance, mirror, _META, primary)
        for node in _others(instance, mirror):
            _create(ctx, undo, instance, mirror, _DATA, node)
            _create(ctx, undo, instance, mirror, _META, node)
    ctx.feedback("Renaming original volumes...")
    pairs = [
        (volume, replace(volume, logical_id=mirror.children[_DATA].logical_id))
        for volume, mirror in zip(volumes, mirrors, strict=True)
    ]
    rename_devices(ctx, undo, instance, pairs, "Failed to rename original LVs")
    ctx.feedback("Initializing DRBD devices...")
    ctx.note_devices(
        [
            device
            for mirror in mirrors
            for device in disk_devices(
                ctx, instance, mirror, (primary, *_others(instance, mirror)), children=()
            )
        ]
    )
    for mirror in mirrors:
        for node in (primary, *_others(instance, mirror)):
            _create_mirror(ctx, undo, instance, mirror, node)
    return list(mirrors)


def _note_new(ctx: Context, instance: Instance, mirrors: Sequence[Disk]) -> None:
    """Notes the volumes that are made below mirrors; the data on the primary are there already."""
    noted = []
    for mirror in mirrors:
        noted += disk_devices(
            ctx, instance, mirror, (instance.primary_node,), children=(_META,), itself=False
        )
        noted += disk_devices(ctx, instance, mirror, _others(instance, mirror), itself=False)
    ctx.note_devices(noted)


def note_forgotten(ctx: Context, instance: Instance, mirrors: Sequence[Disk]) -> None:
    """Notes what :func:`forget_mirrors` removes, before mirrors leave the configuration."""
    noted = []
    for mirror in mirrors:
        noted += disk_devices(ctx, instance, mirror, (instance.primary_node,), children=(_META,))
        noted += disk_devices(ctx, instance, mirror, _others(instance, mirror))
    ctx.note_devices(noted)


def volumes_of_mirrors(mirrors: Sequence[Disk], primary: str) -> list[Disk]:
    """Returns the data of mirrors as disks of their own, on a node (its uuid). Pure."""
    return [
        replace(
            mirror.children[_DATA],
            iv_name=mirror.iv_name,
            size=mirror.size,
            mode=mirror.mode,
            name=mirror.name,
            nodes=(primary,),
        )
        for mirror in mirrors
    ]


def forget_mirrors(ctx: Context, instance: Instance, mirrors: Sequence[Disk]) -> None:
    """Removes what is left of mirrors whose data have become disks; failures are warnings.

    Those are the mirrors with all below them on other nodes, and the metadata on the primary.
    """
    snapshot, primary = ctx.snapshot(), instance.primary_node
    ctx.feedback("Removing volumes on the secondary node...")
    for mirror in mirrors:
        remove_disks(ctx, instance, [mirror], nodes=_others(instance, mirror))
    ctx.feedback("Removing unneeded volumes on the primary node...")
    for index, mirror in enumerate(mirrors):
        sent = node_objects.disk_child(snapshot, mirror, _META, instance, primary)
        answer = ctx.call_one(primary, calls.BLOCKDEV_REMOVE, (sent,))
        if answer.failed:
            ctx.warning(
                f"Could not remove metadata for disk {index} on node {answer.node}, continuing "
                f"anyway: {answer.error}"
            )


def _others(instance: Instance, mirror: Disk) -> tuple[str, ...]:
    return tuple(node for node in mirror.all_nodes() if node != instance.primary_node)


def _create(
    ctx: Context, undo: UndoStack, instance: Instance, mirror: Disk, child: int, node: str
) -> None:
    """Makes one volume below a mirror on one node."""
    snapshot = ctx.snapshot()
    volume, name = mirror.children[child], snapshot.nodes[node].name
    sent = node_objects.disk_child(snapshot, mirror, child, instance, node)

    def remove() -> None:
        ctx.call_one(node, calls.BLOCKDEV_REMOVE, (sent,)).or_fail("the node refuses")

    made = disk_devices(ctx, instance, mirror, (node,), children=(child,), itself=False)
    undo.push(f"remove volume {volume.volume} from node {name}", remove, hint=commands(made))
    failure = f"Can't create volume {volume.volume} on node {name} for instance {instance.name}"
    # All of these are made as on a primary, whose failures are told in full.
    create_on(ctx, instance, mirror, child, node, failure, on_primary=True)


def _create_mirror(
    ctx: Context, undo: UndoStack, instance: Instance, mirror: Disk, node: str
) -> None:
    """Makes one end of a mirror; taking it back leaves the volumes below it."""
    snapshot = ctx.snapshot()
    name = snapshot.nodes[node].name
    sent = node_objects.disk(snapshot, mirror, instance, node)
    undo.push(
        f"shut down {mirror.iv_name} of instance {instance.name} on node {name}",
        partial(_shut, ctx, node, sent),
        hint=commands(disk_devices(ctx, instance, mirror, (node,), children=())),
    )
    failure = (
        f"Can't create block device {mirror.iv_name} (drbd) on node {name} for instance "
        f"{instance.name}"
    )
    create_on(ctx, instance, mirror, None, node, failure)


def _shut(ctx: Context, node: str, sent: object) -> None:
    ctx.call_one(node, calls.BLOCKDEV_SHUTDOWN, (sent,)).or_fail("the node refuses")
