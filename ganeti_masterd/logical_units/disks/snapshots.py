"""Snapshots of an instance's disks, which are copied while the instance runs on.

A snapshot is a disk of its own on the primary node, which the configuration doesn't know: a
volume (of a mirror: of its data), or what an external provider makes.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import uuid4

from msgspec.structs import replace

from ganeti_masterd.config.objects import Disk, Instance
from ganeti_masterd.errors import OpExecError
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.disks.noting import disk_devices
from ganeti_masterd.logical_units.steps import node_objects
from ganeti_masterd.logical_units.steps.undo import UndoStack
from ganeti_masterd.rpc import calls
from ganeti_masterd.rpc.interfaces import NodeResult

#: What the name of a snapshot ends with, as nodes give it.
SUFFIX = ".snap"

_KINDS = ("plain", "drbd", "ext")


def can_snapshot(disks: Sequence[Disk]) -> bool:
    """Whether there can be snapshots of all these disks."""
    return all(disk.dev_type in _KINDS for disk in disks)


class Snapshots:
    """The snapshots of one instance that are there, by the index of their disk."""

    def __init__(self, ctx: Context, instance: Instance) -> None:
        self._ctx = ctx
        self._instance = instance
        self._node = ctx.snapshot().nodes[instance.primary_node].name
        #: Those that are there, or may be.
        self.held: dict[int, Disk] = {}

    def take(self, undo: UndoStack, disks: Sequence[Disk]) -> list[Disk]:
        """Makes a snapshot of each disk, in order; raises ``OpExecError``.

        Those that are still there are removed by ``undo``. One that an export has left under
        such a name is replaced by the node.
        """
        ctx, instance = self._ctx, self._instance
        primary = (instance.primary_node,)
        ctx.note_devices(
            [
                device
                for disk in disks
                for device in disk_devices(ctx, instance, _snapshot_of(disk), primary)
            ]
        )
        for index, disk in enumerate(disks):
            ctx.feedback(f"Creating a snapshot of disk/{index} on node {self._node}")
            # A call that fails may have made it, and nodes give it this name.
            self.held[index] = _snapshot_of(disk)
            undo.push(
                f"remove the snapshot of disk/{index} of instance {instance.name} from node "
                f"{self._node}",
                lambda index=index: self._remove_left(index),  # type: ignore[misc]
            )
            sent = node_objects.disk(ctx.snapshot(), disk, instance, instance.primary_node)
            answer = ctx.call_one(
                instance.primary_node, calls.BLOCKDEV_SNAPSHOT, (sent, None, None)
            )
            made = answer.or_fail(f"Could not snapshot disk/{index} on node {self._node}")
            self.held[index] = replace(self.held[index], logical_id=tuple(made))
            ctx.checkpoint()
        return [self.held[index] for index in range(len(disks))]

    def remove(self, index: int) -> None:
        """Removes a snapshot that has served; what fails is a warning."""
        if index not in self.held:
            return
        self._ctx.feedback(f"Removing snapshot of disk/{index} on node {self._node}")
        answer = self._sent_removal(index)
        if answer.failed:
            self._ctx.warning(
                f"Could not remove snapshot for disk/{index} from node {self._node}: {answer.error}"
            )
        else:
            del self.held[index]

    def _remove_left(self, index: int) -> None:
        if index in self.held:
            answer = self._sent_removal(index)
            if answer.failed:
                raise OpExecError(str(answer.error))
            del self.held[index]

    def _sent_removal(self, index: int) -> NodeResult[object]:
        primary = self._instance.primary_node
        sent = node_objects.disk(self._ctx.snapshot(), self.held[index], self._instance, primary)
        return self._ctx.call_one(primary, calls.BLOCKDEV_REMOVE, (sent,))


def _snapshot_of(disk: Disk) -> Disk:
    """Returns the snapshot of a disk under the name that its node is to give it."""
    base = disk.children[0] if disk.dev_type == "drbd" and disk.children else disk
    container, volume = base.logical_id or ("", "")
    return Disk(
        dev_type=base.dev_type,
        logical_id=(container, f"{volume}{SUFFIX}"),
        size=disk.size,
        iv_name=disk.iv_name,
        mode=disk.mode,
        name=disk.name,
        params=base.params,
        uuid=str(uuid4()),
    )
