"""Whether disks can be relied on, as their nodes see them.

Which device counts as degraded or faulty is in protocol/disks.rst.
"""

from __future__ import annotations

from ganeti_masterd.config.objects import Disk, Instance
from ganeti_masterd.constants import LDS_FAULTY, LDS_OKAY
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.steps import node_objects
from ganeti_masterd.rpc import calls
from ganeti_masterd.rpc.interfaces import NodeResult
from ganeti_masterd.rpc.results import DeviceStatus


def look_at(
    ctx: Context, instance: Instance, disk: Disk, node: str, child: int | None = None
) -> NodeResult[DeviceStatus | None]:
    """Asks a node (its uuid) for a disk, or for one of the volumes below it.

    The payload is None where the node doesn't have it, or it isn't assembled.
    """
    snapshot = ctx.snapshot()
    if child is None:
        sent = node_objects.disk(snapshot, disk, instance, node)
    else:
        sent = node_objects.disk_child(snapshot, disk, child, instance, node)
    return ctx.call_one(node, calls.BLOCKDEV_FIND, (sent,))


def is_consistent(
    ctx: Context, instance: Instance, disk: Disk, node: str, *, local_only: bool = False
) -> bool:
    """Whether a node (its uuid) has all data of a disk; one that isn't found is a warning.

    ``local_only``: the disk may lack its other half, as long as this one is whole.
    """
    for child in (None, *range(len(disk.children))):
        answer = look_at(ctx, instance, disk, node, child)
        status = None if answer.failed else answer.payload
        if status is None:
            reason = f": {answer.error}" if answer.failed else ""
            ctx.warning(f"Can't find disk on node {answer.node}{reason}")
            return False
        if child is None and local_only:
            if status.ldisk_status != LDS_OKAY:
                return False
        elif status.is_degraded:
            return False
    return True


def faulty_disks(ctx: Context, instance: Instance, node: str) -> list[int]:
    """Returns the indices of disks whose half on a node (its uuid) is lost.

    Raises ``OpPrereqError`` with ``environment_error`` if the node can't say.
    """
    snapshot = ctx.snapshot()
    disks = snapshot.disks_of(instance)
    sent = [node_objects.disk(snapshot, disk, instance, node) for disk in disks]
    answer = ctx.call_one(node, calls.BLOCKDEV_GETMIRRORSTATUS, (sent,))
    found = answer.or_refuse(f"Failed to get disk status from node {answer.node}")
    return [index for index, each in enumerate(found) if each.ldisk_status == LDS_FAULTY]
