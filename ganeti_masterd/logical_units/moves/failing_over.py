"""OP_INSTANCE_FAILOVER: an instance is stopped, and started on another node that has its data.

The order of the calls and the texts are those of real daemon 3.0.2; docs/procedures.rst shows
the steps, docs/differences.rst what is different.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from ganeti_masterd.config.objects import Instance
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.templates import Mirroring
from ganeti_masterd.errors import ECODE_INVAL, OpExecError, prereq
from ganeti_masterd.logical_units.base import HookNodes
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.disks.activating import activate_disks, current, shut_disks
from ganeti_masterd.logical_units.disks.consistency import is_consistent
from ganeti_masterd.logical_units.instances.base import is_running
from ganeti_masterd.logical_units.instances.power import ask, turn_off, turn_on
from ganeti_masterd.logical_units.instances.whereabouts import require_not_elsewhere
from ganeti_masterd.logical_units.moves.base import RelocationUnit
from ganeti_masterd.logical_units.moves.mirror_steps import close_disks, node_name
from ganeti_masterd.logical_units.moves.targets import mirroring_of
from ganeti_masterd.logical_units.steps.procedure import Procedure, Step, carry_out
from ganeti_masterd.opcodes.instance_moves import InstanceFailover


class FailOverInstance(RelocationUnit[InstanceFailover], runs=InstanceFailover):
    """Moves an instance with a stop and a start; one that is only planned gets another node."""

    forthcoming_too = True
    what = "failovers"
    moved = "failed over"

    def check(self, ctx: Context) -> None:
        """Finds the node that takes over, and refuses what can't be."""
        if self.op.cleanup:
            raise prereq(
                "A failover has nothing to clean up; 'gnt-instance migrate --cleanup' finds where "
                "an instance runs after a migration that failed",
                ECODE_INVAL,
            )
        instance = self.instance(ctx.snapshot())
        self.choose_target(ctx)
        self.require_target(ctx, memory=instance.admin_state == "up")
        self.require_able(ctx.snapshot())
        if instance.admin_state == "up":
            require_not_elsewhere(ctx, instance, (self.target,))

    def hook_nodes(self, snapshot: Snapshot) -> HookNodes:
        """Before it the master and where the disks go; after it also where they were."""
        first = (snapshot.master.uuid, *self.others, self.target)
        return HookNodes(tuple(dict.fromkeys(first)), tuple(dict.fromkeys((*first, self.source))))

    def own_environment(self, snapshot: Snapshot) -> Mapping[str, object]:
        """Returns the nodes, and how it is done."""
        return {
            "IGNORE_CONSISTENCY": self.op.ignore_consistency,
            "SHUTDOWN_TIMEOUT": self.op.shutdown_timeout,
            "FAILOVER_CLEANUP": self.op.cleanup,
            **self.nodes_environment(snapshot),
        }

    def exec(self, ctx: Context) -> None:
        """Runs the procedure."""
        instance = self.instance(ctx.snapshot())
        if instance.forthcoming:
            ctx.feedback("Instance is forthcoming, just updating the  configuration")
            ctx.change(instance.uuid, lambda now: replace(now, primary_node=self.target))
            return
        fail_over(
            ctx,
            instance,
            self.target,
            timeout=self.op.shutdown_timeout,
            reason=self.op.reason,
            ignore_consistency=self.op.ignore_consistency,
        )


class FailoverState:
    """What the steps of a failover work on.

    ``target`` is the uuid of the node that takes over; ``timeout`` are the seconds that the
    instance has to stop. ``reason`` is the opcode's.
    """

    def __init__(
        self,
        ctx: Context,
        instance: Instance,
        target: str,
        *,
        timeout: int,
        reason: Any,
        ignore_consistency: bool = False,
    ) -> None:
        self.ctx = ctx
        #: The instance as it was.
        self.before = instance
        self.source = instance.primary_node
        self.target = target
        self.timeout = timeout
        self.reason = reason
        self.ignore_consistency = ignore_consistency
        snapshot = ctx.snapshot()
        self.source_offline = snapshot.nodes[self.source].offline
        self.external = mirroring_of(snapshot, instance) == {Mirroring.EXTERNAL}
        #: Whether it is known by now not to run on the source, so that it has to be started again
        #: there if the failover is taken back.
        self.stopped = False

    def names(self) -> dict[str, str]:
        """See ``Undertaking.names``."""
        return {
            "instance": self.before.name,
            "source": node_name(self.ctx, self.source),
            "target": node_name(self.ctx, self.target),
        }

    @property
    def now(self) -> Instance:
        """The instance as it is in the configuration."""
        return current(self.ctx, self.before)

    @property
    def starts(self) -> bool:
        """Whether it is to run."""
        return self.before.admin_state == "up"

    # The steps

    def check_disks(self) -> None:
        """Refuses to rely on disks that lack data; raises ``OpExecError``."""
        ctx = self.ctx
        if not (self.before.disks_active or self._runs_all_the_same()):
            ctx.feedback("* not checking disk consistency as instance is not running")
            return
        ctx.feedback("* checking disk consistency between source and target")
        if self.external:
            return
        for index, disk in enumerate(ctx.snapshot().disks_of(self.before)):
            if is_consistent(ctx, self.before, disk, self.target):
                continue
            if self.source_offline:
                names = self.names()
                ctx.feedback(
                    f"Node {names['source']} is offline, ignoring degraded disk {index} on "
                    f"target node {names['target']}"
                )
            elif not self.ignore_consistency:
                raise OpExecError(f"Disk {index} is degraded on target node, aborting failover")

    def _runs_all_the_same(self) -> bool:
        """Whether it runs though its disks are said to be down, as after they were forced to be.

        What it has written since is on the source only.
        """
        if not self.starts or self.source_offline:
            return False
        answer = ask(self.ctx, self.before)
        return not answer.failed and is_running(answer.payload)

    def stop(self) -> None:
        """Stops it on the source, or makes sure that it doesn't run there."""
        ctx = self.ctx
        self.announce_stop()
        answer = turn_off(ctx, self.before, self.timeout, self.reason)
        if answer.failed:
            self._require_stopped(str(answer.error))
        self.stopped = True

    def announce_stop(self) -> None:
        """Says that the instance is being stopped."""
        self.ctx.feedback("* shutting down instance on source node")

    def announce_activation(self) -> None:
        """Says that its disks are being made ready."""
        target = self.names()["target"]
        self.ctx.feedback(f"* activating the instance's disks on target node {target}")

    def announce_start(self) -> None:
        """Says that it is being started."""
        target = self.names()["target"]
        self.ctx.feedback(f"* starting the instance on the target node {target}")

    def _require_stopped(self, error: str) -> None:
        """Goes on where the source says that it doesn't run, or can't and is known to be down."""
        ctx, name, source = self.ctx, self.before.name, self.names()["source"]
        text = f"Could not shutdown instance {name} on node {source}"
        if not self.source_offline:
            answer = ask(ctx, self.before)
            if not answer.failed:
                if is_running(answer.payload):
                    raise OpExecError(
                        f"{text}: {error}; it still runs there, so it is not started on node "
                        f"{self.names()['target']}"
                    )
                ctx.info(f"Instance {name} doesn't run on node {source}: {error}")
                return
            if not self.ignore_consistency:
                raise OpExecError(f"{text}: {error}")
        ctx.warning(
            f"{text}, proceeding anyway; please make sure node {source} is down; error details: "
            f"{error}"
        )

    def close(self) -> None:
        """Has the source let go of storage that the target is to open."""
        answer = close_disks(self.ctx, self.before, self.source)
        if not answer.failed:
            return
        if not (self.source_offline or self.ignore_consistency):
            raise OpExecError(f"Cannot close instance disks on node {answer.node}: {answer.error}")
        self.ctx.warning(
            f"Could not close instance disks on node {answer.node}, proceeding anyway: "
            f"{answer.error}"
        )

    def deactivate(self) -> None:
        """Shuts the disks down; what the source can't do counts unless it is known to be down.

        A mirror that stays open there can't be opened on the target.
        """
        self.ctx.feedback("* deactivating the instance's disks on source node")
        ignores = self.source_offline or self.ignore_consistency
        if not shut_disks(self.ctx, self.now, ignore_primary=ignores):
            raise OpExecError("Can't shut down the instance's disks")

    def restart(self) -> None:
        """Takes all of the above back: what ran on the source runs there again."""
        if not self.stopped or self.source_offline:
            return
        ctx = self.ctx
        if not (self.starts or self.before.disks_active):
            return
        if not activate_disks(ctx, self.now, ignore_secondaries=True).good:
            raise OpExecError("Can't activate the instance's disks")
        if self.starts:
            source = self.names()["source"]
            ctx.feedback(f"* starting the instance on the source node {source} again")
            turn_on(ctx, self.now, self.reason).or_fail(
                f"Could not start instance {self.before.name} on node {source}"
            )

    def record(self) -> None:
        """Makes the target the primary node."""
        self.ctx.change(self.before.uuid, lambda now: replace(now, primary_node=self.target))

    def activate(self) -> None:
        """Makes the disks ready on the target."""
        ctx = self.ctx
        self.announce_activation()
        if activate_disks(ctx, self.now, ignore_secondaries=True).good:
            return
        with ctx.shielded():
            shut_disks(ctx, self.now)
        raise OpExecError("Can't activate the instance's disks")

    def start(self) -> None:
        """Starts it on the target; one whose start failed but that runs is as good."""
        ctx, names = self.ctx, self.names()
        self.announce_start()
        answer = turn_on(ctx, self.now, self.reason)
        if not answer.failed:
            return
        with ctx.shielded():
            found = ask(ctx, self.now)
            if not found.failed and is_running(found.payload):
                ctx.warning(f"Instance {names['instance']} runs, but: {answer.error}")
                return
            shut_disks(ctx, self.now)
        raise OpExecError(
            f"Could not start instance {names['instance']} on node {names['target']}: "
            f"{answer.error}"
        )


_AGAIN = "gnt-instance failover {instance}"
#: The command that starts an instance which has its new node.
START = "gnt-instance startup {instance}"

#: How a step leaves an instance that stopped and still has its old node.
ON_SOURCE = "{instance} is stopped; its node is {source}, where the watcher starts it again"

#: The step that stops an instance on the node that it leaves.
STOP: Step[FailoverState] = Step(
    does="stop {instance} on {source}",
    leaves="{instance} is stopped or still stops; its node is {source}, where the watcher "
    "starts it again",
    finish=_AGAIN,
    run=FailoverState.stop,
    undo=FailoverState.restart,
    shielded=True,
)

#: The steps that start an instance on its new node, if it is to run.
STARTING: tuple[Step[FailoverState], ...] = (
    Step(
        does="activate the disks of {instance} on {target}",
        leaves="{instance} is stopped; its node is {target}, where the watcher starts it",
        finish=START,
        run=FailoverState.activate,
        skip=lambda state: not state.starts,
    ),
    Step(
        does="start {instance} on {target}",
        leaves="{instance} is stopped or runs on {target}, its node, where the watcher starts it",
        finish=START,
        run=FailoverState.start,
        skip=lambda state: not state.starts,
    ),
)

#: Nothing is started on the target before the source has stopped it, or is known to be down.
FAILOVER: Procedure[FailoverState] = Procedure(
    "Failover",
    (
        Step(
            does="check that the disks of {instance} are whole on {target}",
            leaves="Nothing is changed",
            finish=_AGAIN,
            run=FailoverState.check_disks,
            looks=True,
        ),
        STOP,
        Step(
            does="close the disks of {instance} on {source} (external storage only)",
            leaves=ON_SOURCE,
            finish=_AGAIN,
            run=FailoverState.close,
            skip=lambda state: not state.external,
            shielded=True,
        ),
        Step(
            does="shut the disks of {instance} down",
            leaves=ON_SOURCE,
            finish=_AGAIN,
            run=FailoverState.deactivate,
            shielded=True,
        ),
        Step(
            does="make {target} the primary node of {instance}",
            leaves="{instance} is stopped; its node is {source} or {target}, and the watcher "
            "starts it there",
            finish=START,
            run=FailoverState.record,
            final=True,
            shielded=True,
        ),
        *STARTING,
    ),
)


def fail_over(
    ctx: Context,
    instance: Instance,
    target: str,
    *,
    timeout: int,
    reason: Any,
    ignore_consistency: bool = False,
) -> None:
    """Fails an instance over to a node (its uuid); see :class:`FailoverState`."""
    ctx.feedback(f"Failover instance {instance.name}")
    state = FailoverState(
        ctx,
        instance,
        target,
        timeout=timeout,
        reason=reason,
        ignore_consistency=ignore_consistency,
    )
    carry_out(FAILOVER, state)
