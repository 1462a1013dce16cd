"""OP_INSTANCE_SHUTDOWN: an instance is stopped.

Texts and the order of calls are those of real daemon 3.0.2; docs/differences.rst, Instances says
where ours differs.
"""

from __future__ import annotations

from collections.abc import Mapping

from ganeti_masterd.config.objects import Instance
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import ECODE_STATE, OpExecError, prereq
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.disks.activating import current, shut_disks
from ganeti_masterd.logical_units.instances.base import (
    InstanceUnit,
    require_online,
    require_state,
)
from ganeti_masterd.logical_units.instances.power import (
    ask,
    mark,
    settled_if_stop_killed,
    stopped_by_user,
    turn_off,
)
from ganeti_masterd.opcodes.instances import InstanceShutdown

#: Who can have wanted an instance to be down: its user, from within.
USER = "user"


class StopInstance(InstanceUnit[InstanceShutdown], runs=InstanceShutdown):
    """Stops an instance; one that is stopped has its disks shut down and its state recorded."""

    #: Whether the primary node is offline, so that there is nothing but the record to change.
    only_marks: bool

    def expand(self, snapshot: Snapshot) -> None:
        """See ``LogicalUnit.expand``."""
        super().expand(snapshot)
        self.only_marks = False

    def own_environment(self, snapshot: Snapshot) -> Mapping[str, object]:
        """Returns how many seconds the instance has."""
        return {"TIMEOUT": self.op.timeout}

    def check(self, ctx: Context) -> None:
        """Refuses what the states of the instance and of its node don't allow."""
        snapshot = ctx.snapshot()
        instance = self.instance(snapshot)
        if self.op.no_remember and self.op.admin_state_source is not None:
            ctx.warning(
                "Parameter 'admin_state_source' has no effect if used with parameter 'no_remember'"
            )
        if self.op.force:
            ctx.warning("Ignoring offline instance check")
        else:
            require_state(instance, ("down", "up"))
        primary = snapshot.nodes[instance.primary_node]
        if primary.offline and self.op.ignore_offline_nodes:
            self.only_marks = True
            ctx.warning("Ignoring offline primary node")
        else:
            require_online(snapshot, primary.uuid)
        if self.op.admin_state_source == USER:
            info = ask(ctx, instance).or_refuse(f"Error checking instance '{instance.name}'")
            if not stopped_by_user(snapshot, instance, info):
                raise prereq(
                    f"Instance '{instance.name}' was not shutdown by the user", ECODE_STATE
                )

    def exec(self, ctx: Context) -> None:
        """Records that it ought not to run, stops it, and shuts its disks down."""
        before = self.instance(ctx.snapshot())
        remember = not self.op.no_remember and before.admin_state != "offline"
        if self.only_marks:
            if remember:
                self._mark_down(ctx, before)
            ctx.info("Primary node offline, marked instance as stopped")
            return
        with settled_if_stop_killed(ctx, before, remember=remember):
            instance = self._mark_down(ctx, before) if remember else before
            answer = turn_off(ctx, instance, self.op.timeout, self.op.reason)
            if answer.failed:
                raise OpExecError(
                    f"Could not shutdown instance '{instance.name}': {answer.error} (it is marked "
                    f"to be {instance.admin_state} and may still run on node {answer.node})"
                )
            shut_disks(ctx, current(ctx, instance))

    def _mark_down(self, ctx: Context, instance: Instance) -> Instance:
        source = self.op.admin_state_source or "admin"
        return mark(ctx, instance, admin_state="down", admin_state_source=source)
