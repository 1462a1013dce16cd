"""OP_INSTANCE_STARTUP: an instance is started.

Texts and the order of calls are those of real daemon 3.0.2; docs/differences.rst, Instances says
where ours differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ganeti_masterd.config.objects import Instance
from ganeti_masterd.config.parameters import effective
from ganeti_masterd.config.parameters.hypervisors import check_hypervisor
from ganeti_masterd.config.parameters.limits import check_backend, split_memory
from ganeti_masterd.config.parameters.types import BACKEND, HYPERVISOR, enforce
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import OpExecError
from ganeti_masterd.locking.levels import Level, WantedLocks, exclusive
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.disks.activating import (
    activate_disks,
    current,
    shut_disks,
    start_disks,
)
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
    stopped_by_user,
    turn_off,
    turn_on,
)
from ganeti_masterd.logical_units.instances.requirements import (
    check_bridges,
    check_hypervisor_on_nodes,
    require_memory,
)
from ganeti_masterd.logical_units.instances.whereabouts import require_not_elsewhere
from ganeti_masterd.opcodes.instances import InstanceStartup


class StartInstance(InstanceUnit[InstanceStartup], runs=InstanceStartup):
    """Starts an instance on its primary node.

    Holds the resources of that node alone, so that no two starts share what memory is left.
    """

    #: The parameters for this start only, with their types.
    hvparams: dict[str, Any]
    beparams: dict[str, Any]
    #: Whether the primary node is offline, so that there is nothing but the record to change.
    only_marks: bool
    #: Whether it runs already.
    runs: bool
    #: Whether what is left of an instance that was shut down from within goes first.
    clears: bool

    def expand(self, snapshot: Snapshot) -> None:
        """Finds the instance; gives the parameters their types."""
        super().expand(snapshot)
        self.hvparams = enforce(self.op.hvparams, HYPERVISOR)
        self.beparams = enforce(split_memory(self.op.beparams), BACKEND)
        self.only_marks = self.runs = self.clears = False

    def locks(self, level: Level, snapshot: Snapshot) -> WantedLocks:
        """See ``LogicalUnit.locks``."""
        if level is Level.NODE_RES:
            return exclusive(self.instance(snapshot).primary_node)
        return super().locks(level, snapshot)

    def own_environment(self, snapshot: Snapshot) -> Mapping[str, object]:
        """Returns whether faults of secondary nodes are ignored."""
        return {"FORCE": self.op.force}

    def check(self, ctx: Context) -> None:
        """Refuses what the instance's state, its nodes or their memory don't allow."""
        snapshot = ctx.snapshot()
        instance = self.instance(snapshot)
        self._check_parameters(ctx, instance)
        require_state(instance, ("down", "up"))
        primary = snapshot.nodes[instance.primary_node]
        if primary.offline and self.op.ignore_offline_nodes:
            self.only_marks = True
            ctx.warning("Ignoring offline primary node")
            if self.op.hvparams or self.op.beparams:
                ctx.warning("Overridden parameters are ignored")
            return
        require_online(snapshot, primary.uuid)
        check_bridges(ctx, instance.nics, (primary.uuid,))
        info = ask(ctx, instance).or_refuse(f"Error checking node {primary.name}")
        self.runs = is_running(info)
        self.clears = stopped_by_user(snapshot, instance, info)
        if not self.runs:
            require_not_elsewhere(ctx, instance)
        if info.known:
            return
        needed = {**effective.backend(snapshot.cluster, instance), **self.beparams}["minmem"]
        reason = f"starting instance {instance.name}"
        require_memory(ctx, primary.uuid, instance.hypervisor, needed, reason)

    def exec(self, ctx: Context) -> None:
        """Records that it ought to run, then makes its disks ready and starts it.

        An instance that could not be started is left marked as up: the watcher tries again.
        """
        before = self.instance(ctx.snapshot())
        remember = not self.op.no_remember
        if self.only_marks:
            if remember:
                mark_up(ctx, before)
            ctx.info("Primary node offline, marked instance as started")
            return
        with settled_if_start_killed(ctx, before, remember=remember):
            instance = mark_up(ctx, before) if remember else before
            if self.clears:
                timeout = self.op.shutdown_timeout
                turn_off(ctx, instance, timeout, self.op.reason).or_fail(
                    f"Could not shutdown instance '{instance.name}'"
                )
                shut_disks(ctx, current(ctx, instance))
            self._activate(ctx, current(ctx, instance))
            self._start(ctx, instance)

    def _activate(self, ctx: Context, instance: Instance) -> None:
        """Makes the disks ready; those of an instance that runs are not shut down on failure."""
        if not self.runs:
            start_disks(ctx, instance, force=self.op.force)
        elif not activate_disks(ctx, instance, ignore_secondaries=self.op.force).good:
            raise OpExecError(f"Disk consistency error; instance '{instance.name}' runs on")

    def _start(self, ctx: Context, instance: Instance) -> None:
        answer = turn_on(
            ctx,
            instance,
            self.op.reason,
            paused=self.op.startup_paused,
            hvparams=self.hvparams,
            beparams=self.beparams,
        )
        if not answer.failed:
            return
        if not self.runs:
            with ctx.shielded():
                shut_disks(ctx, current(ctx, instance))
        raise OpExecError(
            f"Could not start instance '{instance.name}' on node {answer.node}: {answer.error}"
        )

    def _check_parameters(self, ctx: Context, instance: Instance) -> None:
        snapshot = ctx.snapshot()
        if self.hvparams:
            filled = {**effective.hypervisor(snapshot.cluster, instance), **self.hvparams}
            check_hypervisor(instance.hypervisor, filled)
            nodes = snapshot.nodes_of(instance)
            check_hypervisor_on_nodes(ctx, nodes, instance.hypervisor, filled)
        if self.beparams:
            check_backend({**effective.backend(snapshot.cluster, instance), **self.beparams})
