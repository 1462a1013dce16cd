"""Devices get other names on the node that holds them: volumes and files, never mirrors."""

from __future__ import annotations

from collections.abc import Sequence

from ganeti_masterd.config.objects import Disk, Instance
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.steps import node_objects
from ganeti_masterd.logical_units.steps.undo import UndoStack
from ganeti_masterd.rpc import calls


def rename_devices(
    ctx: Context,
    undo: UndoStack,
    instance: Instance,
    pairs: Sequence[tuple[Disk, Disk]],
    failure: str,
) -> None:
    """Renames devices on an instance's primary node, in one call.

    Each pair is a disk with its old logical id and the same with the new one. Pushes what
    gives those that were renamed their old names back. Raises ``OpExecError`` whose text
    begins with ``failure``, which names what can't be renamed.
    """
    node = instance.primary_node
    name = ctx.snapshot().nodes[node].name

    def rename_back() -> None:
        renamed = [pair for pair in pairs if _is_there(ctx, instance, pair[1])]
        if renamed:
            sent = [_sent(new, old) for old, new in renamed]
            ctx.call_one(node, calls.BLOCKDEV_RENAME, (sent,)).or_fail("the node refuses")

    ids = ", ".join("/".join(map(str, old.logical_id or ())) for old, _ in pairs)
    undo.push(
        f"give disks of instance {instance.name} on node {name} their old names back ({ids})",
        rename_back,
    )
    sent = [_sent(old, new) for old, new in pairs]
    ctx.call_one_whole(node, calls.BLOCKDEV_RENAME, (sent,)).or_fail(
        f"{failure} of instance {instance.name} on node {name}"
    )


def _sent(disk: Disk, renamed: Disk) -> list[object]:
    return [node_objects.plain_disk(disk), list(renamed.logical_id or ())]


def _is_there(ctx: Context, instance: Instance, disk: Disk) -> bool:
    node = instance.primary_node
    sent = node_objects.disk(ctx.snapshot(), disk, instance, node)
    answer = ctx.call_one(node, calls.BLOCKDEV_GETDIMENSIONS, ([sent],))
    return bool(answer.or_fail("the node doesn't say which are renamed")[0] is not None)
