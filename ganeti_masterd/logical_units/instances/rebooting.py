"""OP_INSTANCE_REBOOT: an instance is rebooted by its hypervisor, or stopped and started.

Texts and the order of calls are those of real daemon 3.0.2; docs/differences.rst, Instances says
where ours differs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ganeti_masterd.config.objects import Instance
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import OpExecError
from ganeti_masterd.logical_units.context import Context, JobKilled
from ganeti_masterd.logical_units.disks.activating import current, shut_disks, start_disks
from ganeti_masterd.logical_units.instances.base import (
    InstanceUnit,
    is_running,
    require_online,
    require_state,
)
from ganeti_masterd.logical_units.instances.power import (
    ask,
    mark_up,
    settled_if_start_killed,
    turn_off,
    turn_on,
)
from ganeti_masterd.logical_units.instances.requirements import check_bridges
from ganeti_masterd.logical_units.instances.whereabouts import require_not_elsewhere
from ganeti_masterd.logical_units.steps import node_objects
from ganeti_masterd.opcodes.instances import InstanceReboot
from ganeti_masterd.rpc import calls
from ganeti_masterd.rpc.results import InstanceInfo


class RebootInstance(InstanceUnit[InstanceReboot], runs=InstanceReboot):
    """Reboots an instance; one that doesn't run is started."""

    #: What the hypervisor knew of the instance at the check.
    info: InstanceInfo

    def own_environment(self, snapshot: Snapshot) -> Mapping[str, object]:
        """Returns how it is rebooted."""
        return {
            "IGNORE_SECONDARIES": self.op.ignore_secondaries,
            "REBOOT_TYPE": self.op.reboot_type,
            "SHUTDOWN_TIMEOUT": self.op.shutdown_timeout,
        }

    def check(self, ctx: Context) -> None:
        """Refuses what the instance's state or its nodes don't allow."""
        snapshot = ctx.snapshot()
        instance = self.instance(snapshot)
        require_state(instance, ("down", "up"))
        require_online(snapshot, instance.primary_node)
        check_bridges(ctx, instance.nics, (instance.primary_node,))
        answer = ask(ctx, instance)
        self.info = answer.or_refuse(f"Error checking node {answer.node}")
        if not is_running(self.info):
            require_not_elsewhere(ctx, instance)

    def exec(self, ctx: Context) -> None:
        """Reboots or starts it; only then is it recorded that it ought to run."""
        instance = self.instance(ctx.snapshot())
        if is_running(self.info) and self.op.reboot_type != "full":
            self._reboot(ctx, instance)
            mark_up(ctx, instance)
            return
        with settled_if_start_killed(ctx, instance):
            if self.info.known:
                self._stop(ctx, instance)
            if not is_running(self.info):
                ctx.info(f"Instance {instance.name} was already stopped, starting now")
            with _told_if_stopped(ctx, instance):
                self._start(ctx, current(ctx, instance))
            mark_up(ctx, instance)

    def _reboot(self, ctx: Context, instance: Instance) -> None:
        node = instance.primary_node
        sent = node_objects.instance(ctx.snapshot(), instance, node)
        arguments = (sent, self.op.reboot_type, self.op.shutdown_timeout, list(self.op.reason))
        answer = ctx.call_one(node, calls.INSTANCE_REBOOT, arguments)
        answer.or_fail(f"Could not reboot instance '{instance.name}' on node {answer.node}")

    def _stop(self, ctx: Context, instance: Instance) -> None:
        turn_off(ctx, instance, self.op.shutdown_timeout, self.op.reason).or_fail(
            f"Could not shutdown instance '{instance.name}' for full reboot"
        )
        shut_disks(ctx, current(ctx, instance))

    def _start(self, ctx: Context, instance: Instance) -> None:
        # None rather than False: the hint at an option --force, which a reboot hasn't got.
        start_disks(ctx, instance, force=self.op.ignore_secondaries or None)
        answer = turn_on(ctx, instance, self.op.reason)
        if answer.failed:
            with ctx.shielded():
                shut_disks(ctx, current(ctx, instance))
            raise OpExecError(
                f"Could not start instance '{instance.name}' on node {answer.node} for full "
                f"reboot: {answer.error}"
            )


@contextmanager
def _told_if_stopped(ctx: Context, instance: Instance) -> Iterator[None]:
    """If the instance can't be started, says that it is stopped. The failure goes on."""
    try:
        yield
    except JobKilled:
        raise
    except OpExecError:
        with ctx.shielded():
            ctx.warning(
                f"Instance {instance.name} is stopped, and marked to be "
                f"{current(ctx, instance).admin_state}",
                hint=f"'gnt-instance startup {instance.name}' starts it",
            )
        raise
