"""OP_INSTANCE_MIGRATE: an instance goes to another node while it runs.

The order of the calls and the texts are those of real daemon 3.0.2; docs/procedures.rst shows
the steps, docs/differences.rst what is different.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

from msgspec.structs import replace

from ganeti_masterd.config.objects import Instance
from ganeti_masterd.config.parameters import effective
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.templates import Mirroring
from ganeti_masterd.errors import ECODE_INVAL, ECODE_NORES, ECODE_STATE, OpExecError, prereq
from ganeti_masterd.logical_units.base import HookNodes
from ganeti_masterd.logical_units.context import Context, JobKilled
from ganeti_masterd.logical_units.disks.activating import current
from ganeti_masterd.logical_units.disks.consistency import is_consistent
from ganeti_masterd.logical_units.instances.power import ask
from ganeti_masterd.logical_units.instances.whereabouts import require_not_elsewhere
from ganeti_masterd.logical_units.moves import mirror_steps
from ganeti_masterd.logical_units.moves.base import RelocationUnit
from ganeti_masterd.logical_units.moves.cleaning_up import CLEANUP, CleanupState
from ganeti_masterd.logical_units.moves.failing_over import fail_over
from ganeti_masterd.logical_units.moves.memory_transfer import (
    MemoryTransfer,
    Standing,
    standing,
)
from ganeti_masterd.logical_units.moves.mirror_steps import node_name
from ganeti_masterd.logical_units.moves.targets import mirroring_of
from ganeti_masterd.logical_units.moves.versions import is_safe
from ganeti_masterd.logical_units.steps import node_objects
from ganeti_masterd.logical_units.steps.procedure import Procedure, Step, carry_out
from ganeti_masterd.opcodes.instance_moves import InstanceFailover, InstanceMigrate
from ganeti_masterd.rpc import calls

#: The mode of a migration during which the instance goes on running.
LIVE = "live"

#: Hypervisors that send the memory while they are asked how far it is; others within the call
#: that begins it.
_SENDS_MEANWHILE = frozenset({"kvm"})


class MigrateInstance(RelocationUnit[InstanceMigrate], runs=InstanceMigrate):
    """Migrates an instance, or fails it over where that was allowed, or cleans up after one."""

    what = "migrations"
    moved = "migrated"

    #: Whether it has become a failover.
    fails_over: bool
    #: Whether the instance goes on running meanwhile.
    live: bool
    #: MiB of memory that the instance uses on its primary node.
    used: int | None

    def expand(self, snapshot: Snapshot) -> None:
        """See ``LogicalUnit.expand``."""
        super().expand(snapshot)
        self.fails_over = self.live = False
        self.used = None

    def check(self, ctx: Context) -> None:
        """Chooses between migration, failover and cleanup, and refuses what can't be."""
        snapshot = ctx.snapshot()
        instance = self.instance(snapshot)
        op = self.op
        if op.allow_failover and not op.cleanup and instance.admin_state != "up":
            ctx.info("Instance is marked down or offline, fallback allowed, switching to failover")
            self.fails_over = True
        self.choose_target(ctx, required=not op.cleanup)
        if op.cleanup:
            self.tell_no_memory(ctx)
        else:
            self._check_target(ctx, instance)
        if not self.fails_over:
            self.live = self._is_live(snapshot, instance)
        if not (self.fails_over or op.cleanup):
            self._check_memory(ctx, instance)
        if not op.cleanup and (instance.admin_state == "up" or not self.fails_over):
            require_not_elsewhere(ctx, instance, (self.target,))

    def _check_target(self, ctx: Context, instance: Instance) -> None:
        snapshot = ctx.snapshot()
        self.require_target(ctx, memory=not self.fails_over or instance.admin_state == "up")
        always = effective.backend(snapshot.cluster, instance).get("always_failover")
        if always and not self.fails_over:
            ctx.info("Instance configured to always failover; fallback to failover")
            self.fails_over = True
        self.require_able(snapshot)
        if self.fails_over:
            return
        sent = node_objects.instance(snapshot, instance, self.source)
        answer = ctx.call_one(self.source, calls.INSTANCE_MIGRATABLE, (sent,))
        if answer.failed:
            if not self.op.allow_failover:
                answer.or_refuse("Can't migrate, please use failover", ECODE_STATE)
            ctx.info("Can't migrate, instance offline, fallback to failover")
            self.fails_over = True

    def _is_live(self, snapshot: Snapshot, instance: Instance) -> bool:
        op = self.op
        if op.live is not None and op.mode is not None:
            raise prereq("Only one of the 'live' and 'mode' parameters are accepted", ECODE_INVAL)
        if op.live is not None:
            return op.live
        filled = effective.hypervisor(snapshot.cluster, instance)
        return bool((op.mode or filled.get("migration_mode", LIVE)) == LIVE)

    def _check_memory(self, ctx: Context, instance: Instance) -> None:
        """Refuses what would have to take memory from the instance where that isn't allowed."""
        names = ctx.snapshot().nodes
        info = ask(ctx, instance).or_refuse(
            f"Error checking instance on node {names[self.source].name}"
        )
        self.used = info.memory
        if self.used is None or self.free is None or self.used <= self.free:
            return
        if not self.op.allow_runtime_changes:
            raise prereq(
                "Memory ballooning not allowed and not enough free memory to fit instance "
                f"{instance.name} on target node {names[self.target].name} (have "
                f"{self.free}MB, need {self.used}MB)",
                ECODE_NORES,
            )

    def hook_nodes(self, snapshot: Snapshot) -> HookNodes:
        """The master and all nodes that take part."""
        nodes = (snapshot.master.uuid, self.source, *self.others, self.target)
        known = tuple(node for node in dict.fromkeys(nodes) if node)
        return HookNodes(known, known)

    def own_environment(self, snapshot: Snapshot) -> Mapping[str, object]:
        """Returns the nodes, and how it is done."""
        return {
            "MIGRATE_LIVE": self.live,
            "MIGRATE_CLEANUP": self.op.cleanup,
            "ALLOW_RUNTIME_CHANGES": self.op.allow_runtime_changes,
            **self.nodes_environment(snapshot),
        }

    def exec(self, ctx: Context) -> None:
        """Runs the procedure that was chosen."""
        instance = self.instance(ctx.snapshot())
        if self.fails_over:
            timeout = InstanceFailover(instance_name=instance.name).shutdown_timeout
            fail_over(ctx, instance, self.target, timeout=timeout, reason=self.op.reason)
            return
        ctx.feedback(f"Migrating instance {instance.name}")
        if self.op.cleanup:
            carry_out(CLEANUP, CleanupState(ctx, instance, self.target, live=self.live))
            ctx.feedback("* done")
            return
        state = MigrationState(
            ctx,
            instance,
            self.target,
            live=self.live,
            free=self.free,
            used=self.used,
            ignore_versions=self.op.ignore_hvversions,
        )
        carry_out(MIGRATION, state)
        if not state.untidy:
            ctx.feedback("* done")


class MigrationState:
    """What the steps of a migration work on.

    ``target`` is the uuid of the node that takes over, ``free`` and ``used`` are MiB of memory:
    what it has left, and what the instance uses.
    """

    def __init__(
        self,
        ctx: Context,
        instance: Instance,
        target: str,
        *,
        live: bool = True,
        free: int | None = None,
        used: int | None = None,
        ignore_versions: bool = False,
    ) -> None:
        self.ctx = ctx
        self.before = instance
        self.source = instance.primary_node
        self.target = target
        self.live = live
        self.free = free
        self.used = used
        self.ignore_versions = ignore_versions
        kinds = mirroring_of(ctx.snapshot(), instance)
        self.external = kinds == {Mirroring.EXTERNAL}
        #: What the source says of itself to the target.
        self.info: Any = None
        #: Whether the source may have begun to send memory.
        self.began = False
        #: Where the instance's memory is.
        self.standing = Standing.SOURCE
        #: Whether a step after the migration failed, so that a cleanup is needed.
        self.untidy = False

    def names(self) -> dict[str, str]:
        """See ``Undertaking.names``; ``on`` is what else a cleanup of external storage needs."""
        target = node_name(self.ctx, self.target)
        return {
            "instance": self.before.name,
            "source": node_name(self.ctx, self.source),
            "target": target,
            "on": f" -n {target}" if self.external else "",
        }

    @property
    def now(self) -> Instance:
        """The instance as it is in the configuration."""
        return current(self.ctx, self.before)

    @property
    def nodes(self) -> tuple[str, str]:
        """Source and target."""
        return self.source, self.target

    def sent(self, node: str) -> dict[str, Any]:
        """Returns the instance as sent to a node."""
        return node_objects.instance(self.ctx.snapshot(), self.now, node)

    # Before anything is changed

    def check_versions(self) -> None:
        """Refuses hypervisors of which the target's can't take over from the source's."""
        ctx, kind = self.ctx, self.before.hypervisor
        specs = [[kind, dict(ctx.snapshot().cluster.hvparams.get(kind, {}))]]
        answers = ctx.call(self.nodes, calls.NODE_INFO, (None, specs))
        versions = []
        for answer in answers.values():
            info = answer.or_fail(f"Can't get data from node {answer.node}")
            versions.append(info.hypervisors[0].hv_version if info.hypervisors else None)
        source, target = versions
        if source == target:
            return
        ctx.feedback(
            f"* warning: hypervisor version mismatch between source ({source}) and target "
            f"({target}) node"
        )
        says = f"  migrating from hypervisor version {source} to {target}"
        if is_safe(kind, source, target):
            ctx.feedback(f"{says} should be safe")
            return
        ctx.feedback(f"{says} is likely unsupported")
        if not self.ignore_versions:
            raise OpExecError(
                f"Unsupported migration between hypervisor versions ({source} to {target})"
            )
        ctx.feedback("  continuing anyway (told to ignore version mismatch)")

    def check_disks(self) -> None:
        """Refuses to rely on disks that lack data."""
        ctx = self.ctx
        ctx.feedback("* checking disk consistency between source and target")
        if self.external:
            return
        for index, disk in enumerate(ctx.snapshot().disks_of(self.before)):
            if not is_consistent(ctx, self.before, disk, self.target):
                raise OpExecError(
                    f"Disk {index} is degraded or not fully synchronized on target node, "
                    "aborting migration"
                )

    @property
    def fits(self) -> bool:
        """Whether the target has memory for all that the instance uses."""
        return self.used is None or self.free is None or self.used <= self.free

    def shrink(self) -> None:
        """Takes memory from the instance, so that it fits on the target."""
        self.ctx.feedback(f"* setting instance memory to {self.free}")
        self._set_memory(self.free)

    def grow_again(self) -> None:
        """Gives the instance the memory back that it had."""
        if self.standing is Standing.SOURCE:
            self._set_memory(self.used)

    def _set_memory(self, size: int | None) -> None:
        arguments = (self.sent(self.source), size)
        self.ctx.call_one(self.source, calls.INSTANCE_BALLOON_MEMORY, arguments).or_fail(
            "Cannot modify instance runtime memory"
        )

    def fetch_information(self) -> None:
        """Asks the source for what the target has to know."""
        names = self.names()
        self.info = self.ctx.call_one(
            self.source, calls.MIGRATION_INFO, (self.sent(self.source),)
        ).or_fail(f"Failed fetching source migration information from {names['source']}")

    # The disks are opened on both nodes

    def close_target(self) -> None:
        """Makes sure that the target has the disks closed."""
        answer = mirror_steps.close_disks(self.ctx, self.before, self.target)
        answer.or_fail(f"Cannot close instance disks on node {answer.node}")

    def disconnect(self) -> None:
        """Makes both ends of the mirrors stand alone."""
        mirror_steps.disconnect(self.ctx, self.before, self.nodes)

    def make_dual(self) -> None:
        """Connects the mirrors so that both ends may be written to."""
        mirror_steps.attach(self.ctx, self.before, self.nodes, dual=True)
        mirror_steps.wait_in_sync(self.ctx, self.before, self.nodes)

    def open_both(self) -> None:
        """Opens the disks on both nodes."""
        for node in self.nodes:
            mirror_steps.open_disks(self.ctx, self.before, node, exclusive=False)

    # What takes these back

    @property
    def demoted(self) -> str:
        """The node where the instance doesn't stay; raises ``OpExecError`` if that isn't known."""
        if self.standing is Standing.UNKNOWN:
            names = self.names()
            raise OpExecError(
                f"it isn't known whether instance {names['instance']} runs on {names['source']} or "
                f"{names['target']}"
            )
        return self.source if self.standing is Standing.TARGET else self.target

    def close_one(self) -> None:
        """Closes the disks where the instance doesn't stay; the other node has them alone."""
        demoted = self.demoted
        answer = mirror_steps.close_disks(self.ctx, self.before, demoted)
        mirror_steps.unmap_disks(self.ctx, self.before, demoted)
        answer.or_fail(f"Cannot close instance disks on node {answer.node}")
        if self.external:
            (kept,) = set(self.nodes) - {demoted}
            mirror_steps.open_disks(self.ctx, self.before, kept, exclusive=True)

    def reconnect(self) -> None:
        """Connects the mirrors so that one end may be written to."""
        _ = self.demoted
        mirror_steps.reconnect(self.ctx, self.before, self.nodes)

    # The memory is sent

    def accept(self) -> None:
        """Has the target wait for the instance."""
        ctx, names = self.ctx, self.names()
        ctx.feedback(f"* preparing {names['target']} to accept the instance")
        address = ctx.snapshot().nodes[self.target].secondary_ip
        arguments = (self.sent(self.target), self.info, address)
        answer = ctx.call_one(self.target, calls.ACCEPT_INSTANCE, arguments)
        if answer.failed:
            ctx.feedback("Pre-migration failed, aborting")
            raise OpExecError(f"Could not pre-migrate instance {names['instance']}: {answer.error}")

    def send(self) -> None:
        """Has the source send the memory, and waits until all has arrived.

        A kill acts while the source can still go on with the instance.
        """
        ctx = self.ctx
        meanwhile = self.before.hypervisor in _SENDS_MEANWHILE
        with nullcontext() if meanwhile else ctx.shielded():
            with ctx.shielded():
                self._begin()
            MemoryTransfer(ctx, self.before, self.source).wait()

    def _begin(self) -> None:
        ctx, names = self.ctx, self.names()
        ctx.feedback(f"* migrating instance to {names['target']}")
        snapshot = ctx.snapshot()
        address = snapshot.nodes[self.target].secondary_ip
        arguments = (
            snapshot.cluster.cluster_name,
            self.sent(self.source),
            address,
            self.live,
        )
        self.began = True
        answer = ctx.call_one(self.source, calls.INSTANCE_MIGRATE, arguments)
        if answer.failed:
            ctx.feedback("Migration failed, aborting")
            raise OpExecError(f"Could not migrate instance {names['instance']}: {answer.error}")

    def abort(self) -> None:
        """Ends what was begun: the instance goes on on the source, unless it has left that.

        If all its memory has arrived, or the target fetches the rest as it needs it, then only
        the target can run it, and the migration is finished instead. Raises ``OpExecError`` for
        that, or if it can't be found out.
        """
        ctx, names = self.ctx, self.names()
        if self.began:
            self.standing = standing(ctx, self.before, self.source)
        if self.standing is Standing.UNKNOWN:
            _ = self.demoted
        if self.standing is Standing.TARGET:
            self.standing = Standing.UNKNOWN
            MemoryTransfer(ctx, self.before, self.source).wait()
            self.finalize()
            self.record()
            raise OpExecError(
                f"the memory of instance {names['instance']} was on {names['target']} already, "
                f"where it runs now"
            )
        failed = [
            answer
            for answer in (self._finalize_target(False), self._finalize_source(False))
            if answer.failed
        ]
        if failed:
            raise OpExecError("; ".join(f"node {answer.node}: {answer.error}" for answer in failed))

    def finalize(self) -> None:
        """Tells both nodes that the instance is on the target; both in any case."""
        answers = (self._finalize_source(True), self._finalize_target(True))
        failed = [f"{answer.node}: {answer.error}" for answer in answers if answer.failed]
        if failed:
            raise OpExecError(f"Could not finalize instance migration: {'; '.join(failed)}")

    def _finalize_source(self, success: bool) -> Any:
        return self.ctx.call_one(
            self.source,
            calls.INSTANCE_FINALIZE_MIGRATION_SRC,
            (self.sent(self.source), success, self.live),
        )

    def _finalize_target(self, success: bool) -> Any:
        return self.ctx.call_one(
            self.target,
            calls.INSTANCE_FINALIZE_MIGRATION_DST,
            (self.sent(self.target), self.info, success),
        )

    def record(self) -> None:
        """Makes the target the primary node."""
        self.standing = Standing.TARGET
        self.ctx.change(self.before.uuid, lambda now: replace(now, primary_node=self.target))

    # The instance runs on the target

    def close_source(self) -> None:
        """Closes the disks on the source."""
        answer = mirror_steps.close_disks(self.ctx, self.before, self.source)
        answer.or_fail(f"Cannot close instance disks on node {answer.node}")

    def make_single(self) -> None:
        """Connects the mirrors so that only the target may write to them."""
        mirror_steps.wait_in_sync(self.ctx, self.before, self.nodes)
        mirror_steps.disconnect(self.ctx, self.before, self.nodes)
        mirror_steps.attach(self.ctx, self.before, self.nodes, dual=False)
        mirror_steps.wait_in_sync(self.ctx, self.before, self.nodes)

    def take_alone(self) -> None:
        """Has the target open external storage alone, and the source forget it."""
        mirror_steps.open_disks(self.ctx, self.before, self.target, exclusive=True)
        mirror_steps.unmap_disks(self.ctx, self.before, self.source)


def _tidying(work: Callable[[MigrationState], None]) -> Callable[[MigrationState], None]:
    """Returns a step after the migration: its failure is a warning, and the next are skipped."""

    def run(state: MigrationState) -> None:
        try:
            work(state)
        except JobKilled:
            raise
        except OpExecError as error:
            state.untidy = True
            names = state.names()
            state.ctx.warning(
                f"Instance {names['instance']} runs on node {names['target']}, but its disks are "
                f"not as they should be: {error.args[0]}",
                _CLEAN_UP.format_map(names),
            )

    return run


_AGAIN = "gnt-instance migrate {instance}"
_CLEAN_UP = "gnt-instance migrate --cleanup{on} {instance}"
_RUNS_ON_SOURCE = "{instance} runs on {source}, its node"
_EITHER = "{instance} runs on {source} or on {target}; its node is {source}"
_ARRIVED = "{instance} runs on {target}, its node"

MIGRATION: Procedure[MigrationState] = Procedure(
    "Migration",
    (
        Step(
            does="compare the hypervisors of {source} and {target}",
            leaves="Nothing is changed",
            finish=_AGAIN,
            run=MigrationState.check_versions,
            looks=True,
        ),
        Step(
            does="check that the disks of {instance} are whole on {target}",
            leaves="Nothing is changed",
            finish=_AGAIN,
            run=MigrationState.check_disks,
            looks=True,
        ),
        Step(
            does="take memory from {instance}, if {target} has less than it uses",
            leaves=_RUNS_ON_SOURCE + ", perhaps with less memory",
            finish=_AGAIN,
            run=MigrationState.shrink,
            undo=MigrationState.grow_again,
            skip=lambda state: state.fits,
        ),
        Step(
            does="ask {source} what {target} has to know of {instance}",
            leaves="Nothing is changed",
            finish=_AGAIN,
            run=MigrationState.fetch_information,
        ),
        Step(
            does="close the disks of {instance} on {target}",
            leaves="Nothing is changed",
            finish=_AGAIN,
            run=MigrationState.close_target,
        ),
        Step(
            does="disconnect the mirrors of {instance} (DRBD only)",
            leaves=_RUNS_ON_SOURCE + "; its mirrors may be disconnected",
            finish=_CLEAN_UP,
            run=MigrationState.disconnect,
            undo=MigrationState.reconnect,
            skip=lambda state: state.external,
        ),
        Step(
            does="connect the mirrors of {instance} for two primaries (DRBD only)",
            leaves=_RUNS_ON_SOURCE + "; its mirrors are disconnected, or allow two primaries",
            finish=_CLEAN_UP,
            run=MigrationState.make_dual,
            skip=lambda state: state.external,
        ),
        Step(
            does="open the disks of {instance} on {source} and {target}",
            leaves=_RUNS_ON_SOURCE + "; its disks may be open on {target} too",
            finish=_CLEAN_UP,
            run=MigrationState.open_both,
            undo=MigrationState.close_one,
        ),
        Step(
            does="have {target} wait for {instance}",
            leaves=_RUNS_ON_SOURCE + "; {target} may wait for it",
            finish=_CLEAN_UP,
            run=MigrationState.accept,
            undo=MigrationState.abort,
        ),
        Step(
            does="send the memory of {instance} from {source} to {target}",
            leaves=_EITHER,
            finish=_CLEAN_UP,
            run=MigrationState.send,
            final=True,
        ),
        Step(
            does="tell {source} and {target} that {instance} has moved",
            leaves=_EITHER,
            finish=_CLEAN_UP,
            run=MigrationState.finalize,
            shielded=True,
        ),
        Step(
            does="make {target} the primary node of {instance}",
            leaves="{instance} runs on {target}; its node is {source} or {target}",
            finish=_CLEAN_UP,
            run=MigrationState.record,
            shielded=True,
        ),
        Step(
            does="close the disks of {instance} on {source}",
            leaves=_ARRIVED + "; its disks may be open on {source} too",
            finish=_CLEAN_UP,
            run=_tidying(MigrationState.close_source),
        ),
        Step(
            does="connect the mirrors of {instance} for one primary (DRBD only)",
            leaves=_ARRIVED + "; its mirrors are disconnected, or allow two primaries",
            finish=_CLEAN_UP,
            run=_tidying(MigrationState.make_single),
            skip=lambda state: state.external or state.untidy,
        ),
        Step(
            does="give {target} the disks of {instance} alone (external storage only)",
            leaves=_ARRIVED + "; {target} shares its disks, or they are mapped on {source} too",
            finish=_CLEAN_UP,
            run=_tidying(MigrationState.take_alone),
            skip=lambda state: not state.external or state.untidy,
        ),
    ),
)
