"""Volumes below mirrors, on one node: made, removed, and taken back by a procedure."""

from __future__ import annotations

from collections.abc import Iterable

from ganeti_masterd.config.objects import Disk, Instance
from ganeti_masterd.errors import OpExecError
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.disks.making import create_on
from ganeti_masterd.logical_units.steps import node_objects
from ganeti_masterd.rpc import calls


def make_volume(ctx: Context, instance: Instance, disk: Disk, child: int, node: str) -> None:
    """Makes a volume below a mirror on a node (its uuid); raises ``OpExecError``."""
    failure = (
        f"Can't create volume {disk.children[child].volume} of {disk.iv_name} on node "
        f"{ctx.snapshot().nodes[node].name} for instance {instance.name}"
    )
    create_on(ctx, instance, disk, child, node, failure, on_primary=False)


def make_mirror(ctx: Context, instance: Instance, disk: Disk, node: str) -> None:
    """Makes the end of a mirror on a secondary node (its uuid); raises ``OpExecError``."""
    failure = (
        f"Can't create block device {disk.iv_name} (drbd) on node "
        f"{ctx.snapshot().nodes[node].name} for instance {instance.name}"
    )
    create_on(ctx, instance, disk, None, node, failure, on_primary=False)


def remove_volumes(ctx: Context, instance: Instance, disk: Disk, node: str) -> bool:
    """Removes what is below a mirror from a node (its uuid); returns whether all is gone.

    A volume that isn't there is fine; one that stays is a warning.
    """
    snapshot = ctx.snapshot()
    good = True
    for place, child in enumerate(disk.children):
        sent = node_objects.disk_child(snapshot, disk, place, instance, node)
        answer = ctx.call_one(node, calls.BLOCKDEV_REMOVE, (sent,))
        if answer.failed:
            good = False
            ctx.warning(
                f"Can't remove LV {child.volume} on node {answer.node}: {answer.error}",
                hint="remove unused LVs manually",
            )
    return good


def take_back_volumes(ctx: Context, instance: Instance, disks: Iterable[Disk], node: str) -> None:
    """Removes what was made below mirrors on a node (its uuid); raises ``OpExecError``."""
    kept = [disk for disk in disks if not remove_volumes(ctx, instance, disk, node)]
    if kept:
        names = ", ".join(str(child.volume) for disk in kept for child in disk.children)
        raise OpExecError(f"of {names} some are left on node {ctx.snapshot().nodes[node].name}")


def assemble(ctx: Context, instance: Instance, disk: Disk, index: int, node: str) -> None:
    """Brings up a mirror's end on a node (its uuid): with its volumes and network if it can.

    Raises ``OpExecError``. What fits the configuration already stays as it is.
    """
    snapshot = ctx.snapshot()
    arguments = (
        node_objects.disk(snapshot, disk, instance, node),
        node_objects.instance(snapshot, instance, node),
        False,
        index,
    )
    ctx.call_one(node, calls.BLOCKDEV_ASSEMBLE, arguments).or_fail(
        f"Can't assemble {disk.iv_name} on node {snapshot.nodes[node].name}"
    )
