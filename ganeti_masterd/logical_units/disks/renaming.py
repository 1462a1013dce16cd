"""Devices get other names on the node that holds them: volumes and files, never mirrors."""

from __future__ import annotations

from collections.abc import Sequence

from ganeti_masterd.config.objects import Disk, Instance
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.disks.noting import renamed_device
from ganeti_masterd.logical_units.steps import node_objects
from ganeti_masterd.logical_units.steps.undo import UndoStack
from ganeti_masterd.rpc import calls

#: A device under its name of now, and the same under the one that it is to have.
Renamed = tuple[Disk, Disk]


def rename_devices(
    ctx: Context,
    undo: UndoStack,
    instance: Instance,
    pairs: Sequence[Renamed],
    failure: str,
) -> None:
    """Renames devices on an instance's primary node, in one call.

    Each pair is a disk with its old logical id and the same with the new one. Pushes what
    gives those that were renamed their old names back. Raises ``OpExecError`` whose text
    begins with ``failure``, which names what can't be renamed.
    """
    node = instance.primary_node
    name = ctx.snapshot().nodes[node].name
    ids = ", ".join("/".join(map(str, old.logical_id or ())) for old, _ in pairs)
    ctx.note_devices([renamed_device(ctx, instance, node, old, new) for old, new in pairs])
    undo.push(
        f"give disks of instance {instance.name} on node {name} their old names back ({ids})",
        lambda: rename_back(ctx, instance, node, pairs),
    )
    rename(ctx, node, pairs, f"{failure} of instance {instance.name} on node {name}")


def rename(ctx: Context, node: str, pairs: Sequence[Renamed], failure: str) -> None:
    """Renames devices on a node (its uuid), in one call; calls nobody if there are none.

    Raises ``OpExecError``, beginning with ``failure``. Some may have their new names then.
    """
    if pairs:
        sent = [_sent(old, new) for old, new in pairs]
        ctx.call_one(node, calls.BLOCKDEV_RENAME, (sent,)).or_fail(failure)


def rename_back(ctx: Context, instance: Instance, node: str, pairs: Sequence[Renamed]) -> None:
    """Gives those of the devices that have their new names the old ones back.

    Raises ``OpExecError``.
    """
    renamed = [(new, old) for old, new in pairs if is_there(ctx, instance, new, node)]
    rename(ctx, node, renamed, "the node refuses")


def is_there(ctx: Context, instance: Instance, disk: Disk, node: str) -> bool:
    """Whether a node has a device of that name; raises ``OpExecError`` if it can't say."""
    sent = node_objects.disk(ctx.snapshot(), disk, instance, node)
    answer = ctx.call_one(node, calls.BLOCKDEV_GETDIMENSIONS, ([sent],))
    return bool(answer.or_fail("the node doesn't say which are renamed")[0] is not None)


def _sent(disk: Disk, renamed: Disk) -> list[object]:
    return [node_objects.plain_disk(disk), list(renamed.logical_id or ())]
