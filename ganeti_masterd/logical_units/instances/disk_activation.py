"""OP_INSTANCE_ACTIVATE_DISKS and OP_INSTANCE_DEACTIVATE_DISKS."""

from __future__ import annotations

from ganeti_masterd.errors import OpExecError
from ganeti_masterd.locking.levels import Level
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.disks.activating import (
    activate_disks,
    shut_disks,
)
from ganeti_masterd.logical_units.disks.syncing import wait_for_sync
from ganeti_masterd.logical_units.instances.base import (
    InstanceUnit,
    require_online,
    require_stopped,
)
from ganeti_masterd.logical_units.steps.undo import UndoStack
from ganeti_masterd.opcodes.instance_disks import InstanceActivateDisks, InstanceDeactivateDisks


class ActivateDisks(InstanceUnit[InstanceActivateDisks], runs=InstanceActivateDisks):
    """Makes an instance's disks ready; safe while it runs, mirrors are repaired by it."""

    node_levels = (Level.NODE,)

    def check(self, ctx: Context) -> None:
        """The primary node has to be there."""
        require_online(ctx.snapshot(), self.instance(ctx.snapshot()).primary_node)

    def exec(self, ctx: Context) -> list[tuple[str, str, str | None]]:
        """Returns (node, disk, path) of each disk. Disks that were inactive stay so on failure."""
        instance = self.instance(ctx.snapshot())
        with UndoStack(ctx) as undo:
            if not instance.disks_active:
                undo.push(
                    f"shut down the disks of instance {instance.name}",
                    lambda: shut_disks(ctx, self.instance(ctx.snapshot())),
                )
            good, devices = activate_disks(ctx, instance, ignore_size=self.op.ignore_size)
            if not good:
                raise OpExecError("Cannot activate block devices")
            undo.keep()
        if self.op.wait_for_sync and not wait_for_sync(ctx, instance):
            if not instance.disks_active:
                shut_disks(ctx, self.instance(ctx.snapshot()))
            raise OpExecError("Some disks of the instance are degraded!")
        return devices


class DeactivateDisks(InstanceUnit[InstanceDeactivateDisks], runs=InstanceDeactivateDisks):
    """Shuts an instance's disks down, by force also where it is meant to run."""

    node_levels = (Level.NODE,)

    def check(self, ctx: Context) -> None:
        """Unless forced, the instance is marked down and doesn't run."""
        if not self.op.force:
            require_stopped(ctx, self.instance(ctx.snapshot()), "cannot shutdown disks", ("down",))

    def exec(self, ctx: Context) -> None:
        """Shuts them down; a device that refuses is a warning. A kill is put off."""
        shut_disks(ctx, self.instance(ctx.snapshot()))
