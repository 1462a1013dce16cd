"""OP_INSTANCE_REMOVE: an instance goes, with its disks and with all that it held."""

from __future__ import annotations

from collections.abc import Mapping

from ganeti_masterd.config.objects import Instance
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import OpExecError
from ganeti_masterd.locking.levels import Level
from ganeti_masterd.logical_units.base import HookNodes
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.disks.activating import mark_disks, remove_disks
from ganeti_masterd.logical_units.instances.base import InstanceUnit
from ganeti_masterd.logical_units.instances.environment import instance_environment
from ganeti_masterd.logical_units.instances.power import mark, settled_if_stop_killed
from ganeti_masterd.logical_units.instances.publishing import WholeInstance, changes_between
from ganeti_masterd.logical_units.steps import node_objects
from ganeti_masterd.opcodes.instances import InstanceRemove
from ganeti_masterd.rpc import calls


class RemoveInstance(InstanceUnit[InstanceRemove], runs=InstanceRemove):
    """Removes an instance; one that is only planned needs no node for that.

    It is marked down before it is shut down, so that nothing starts it again where its
    removal fails half-way; a second try goes on from there. A kill is put off from the
    first disk on.
    """

    node_levels = (Level.NODE, Level.NODE_RES)
    forthcoming_too = True

    def check(self, ctx: Context) -> None:
        """Keeps what hooks are told after the instance is gone."""
        snapshot = ctx.snapshot()
        instance = self.instance(snapshot)
        self._environment = instance_environment(snapshot, instance)
        self._nodes = snapshot.nodes_of(instance)

    def hook_nodes(self, snapshot: Snapshot) -> HookNodes:
        """Before it the master alone, after it the nodes of the instance too."""
        master = snapshot.master.uuid
        return HookNodes((master,), tuple(dict.fromkeys((master, *self._nodes))))

    def hook_environment(self, snapshot: Snapshot) -> Mapping[str, object]:
        """Describes the instance as it was."""
        return {**self._environment, "SHUTDOWN_TIMEOUT": self.op.shutdown_timeout}

    def exec(self, ctx: Context) -> None:
        """Shuts down, removes the disks, then all of it from the configuration at once."""
        instance = self.instance(ctx.snapshot())
        if instance.forthcoming:
            _forget(ctx, instance)
            return
        with settled_if_stop_killed(ctx, instance):
            instance = mark(ctx, instance, admin_state="down", admin_state_source="admin")
            self._shut_down(ctx, instance)
        remove_stopped(ctx, instance, ignore_failures=self.op.ignore_failures)

    def _shut_down(self, ctx: Context, instance: Instance) -> None:
        snapshot = ctx.snapshot()
        primary = instance.primary_node
        answer = ctx.call_one(
            primary,
            calls.INSTANCE_SHUTDOWN,
            (
                node_objects.instance(snapshot, instance, primary),
                self.op.shutdown_timeout,
                self.op.reason,
            ),
        )
        if answer.failed and self.op.ignore_failures:
            ctx.feedback(f"Warning: can't shutdown instance: {answer.error}")
            return
        answer.or_fail(
            f"Could not shutdown instance {instance.name} on node {answer.node} (it is marked "
            "down, but may still run)"
        )


def remove_stopped(ctx: Context, instance: Instance, *, ignore_failures: bool) -> None:
    """Removes an instance that doesn't run and is marked so: its disks, then its entry.

    A kill is put off. Raises ``OpExecError`` if a disk can't be removed, unless failures are
    ignored; the instance is still there then.
    """
    with ctx.shielded():
        # From here on nobody may make the disks ready again.
        instance = mark_disks(ctx, instance, active=False)
        disks = ctx.snapshot().disks_of(instance)
        if not remove_disks(ctx, instance, disks):
            if not ignore_failures:
                ctx.warning(
                    f"Instance {instance.name} is still there, marked to be down, and has "
                    "lost a part of its disks",
                    hint=f"'gnt-instance remove {instance.name}' removes the rest, and with "
                    "'--ignore-failures' forgets what can't be removed",
                )
                raise OpExecError("Can't remove instance's disks")
            ctx.feedback("Warning: can't remove instance's disks")
        _forget(ctx, instance)


def _forget(ctx: Context, instance: Instance) -> None:
    snapshot = ctx.snapshot()
    whole = WholeInstance(instance, tuple(snapshot.disks_of(instance)))
    ctx.change_all(changes_between(whole, None, snapshot.cluster))
    ctx.remove_lock(Level.INSTANCE, instance.name)
