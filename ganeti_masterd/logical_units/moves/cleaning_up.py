"""The cleanup after a migration that ended half-way: where the instance runs decides.

The order of the calls and the texts are those of real daemon 3.0.2; docs/procedures.rst shows
the steps, docs/differences.rst what is different.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from ganeti_masterd.config.objects import Instance
from ganeti_masterd.config.templates import Mirroring
from ganeti_masterd.errors import OpExecError
from ganeti_masterd.logical_units.context import Context, JobKilled
from ganeti_masterd.logical_units.disks.activating import current
from ganeti_masterd.logical_units.moves import mirror_steps
from ganeti_masterd.logical_units.moves.memory_transfer import (
    MemoryTransfer,
    Standing,
    standing,
)
from ganeti_masterd.logical_units.moves.mirror_steps import node_name
from ganeti_masterd.logical_units.moves.targets import mirroring_of
from ganeti_masterd.logical_units.steps import node_objects
from ganeti_masterd.logical_units.steps.procedure import Procedure, Step
from ganeti_masterd.rpc import calls

#: Under which names hypervisors list an instance that comes or goes.
_ALIASES = ("{}", "migrating-{}", "{}--incoming", "{}--migratedaway")

_BUSY = "if this hangs, the hypervisor might be in a bad state"


class CleanupState:
    """What the steps of a cleanup work on.

    ``target`` is the uuid of the node to which the instance was to go; empty if that isn't
    known. :attr:`runs_on` are the uuids of the nodes where it was found.
    """

    def __init__(self, ctx: Context, instance: Instance, target: str, *, live: bool) -> None:
        self.ctx = ctx
        self.before = instance
        self.primary = instance.primary_node
        self.target = target
        self.live = live
        kinds = mirroring_of(ctx.snapshot(), instance)
        self.external = kinds == {Mirroring.EXTERNAL}
        self.runs_on: frozenset[str] = frozenset()
        #: Where the disks are to be closed; empty if there is no such node.
        self.demoted = ""
        #: Whether the migration was ended here, on both nodes.
        self.ended = False

    def names(self) -> dict[str, str]:
        """See ``Undertaking.names``."""
        target = node_name(self.ctx, self.target) if self.target else "another node"
        return {
            "instance": self.before.name,
            "source": node_name(self.ctx, self.primary),
            "target": target,
            "on": f" -n {target}" if self.external and self.target else "",
        }

    @property
    def now(self) -> Instance:
        """The instance as it is in the configuration."""
        return current(self.ctx, self.before)

    def sent(self, node: str) -> dict[str, Any]:
        """Returns the instance as sent to a node."""
        return node_objects.instance(self.ctx.snapshot(), self.now, node)

    # The steps

    def look(self) -> None:
        """Asks all nodes whether the instance runs there."""
        ctx = self.ctx
        ctx.feedback(f"* checking where the instance actually runs ({_BUSY})")
        self.runs_on = self._found()
        names = sorted(node_name(ctx, node) for node in self.runs_on)
        ctx.feedback(f"* instance running on: {','.join(names)}")
        self._find_target()

    @property
    def _expected(self) -> frozenset[str]:
        return frozenset((self.primary, self.target))

    def _found(self) -> frozenset[str]:
        ctx = self.ctx
        snapshot = ctx.snapshot()
        hvparams = {name: dict(params) for name, params in snapshot.cluster.hvparams.items()}
        online = [node.uuid for node in snapshot.nodes.values() if not node.offline]
        arguments = ([self.before.hypervisor], hvparams)
        wanted = {alias.format(self.before.name) for alias in _ALIASES}
        found = set()
        for node, answer in ctx.call(online, calls.INSTANCE_LIST, arguments).items():
            if answer.failed:
                if self.external or node in self._expected:
                    answer.or_fail(f"Can't contact node {answer.node}")
                # It can't reach the disks.
                ctx.warning(f"Can't contact node {answer.node}: {answer.error}")
            elif wanted & set(answer.payload):
                found.add(node)
        return frozenset(found)

    def _find_target(self) -> None:
        """Takes the one other node on which it runs as the target.

        Raises ``OpExecError`` if it runs nowhere, or on more nodes than a migration has.
        """
        if not self.runs_on:
            raise OpExecError(
                "Instance does not seem to be running at all; in this case it's safer to repair "
                "by running 'gnt-instance stop' to ensure disk shutdown, and then restarting it"
            )
        others = self.runs_on - {self.primary}
        if len(others) > 1:
            raise OpExecError(
                "Instance seems to be running on several nodes besides its own; you will have to "
                "ensure manually that it runs only on one and restart this operation"
            )
        for node in others - {self.target}:
            if not self.external:
                raise OpExecError(
                    f"Instance runs on node {node_name(self.ctx, node)}, which has none of its "
                    "disks; you will have to stop it there manually and restart this operation"
                )
            self.target = node
            self.ctx.feedback(
                f"* instance running on unexpected node ({node_name(self.ctx, node)}), updating "
                "as the new secondary"
            )

    @property
    def on_both(self) -> bool:
        """Whether both nodes say that it runs there."""
        return bool(self.target) and self._expected <= self.runs_on

    def settle(self) -> None:
        """Ends a migration that both nodes still have: backwards, or forwards if it arrived."""
        ctx = self.ctx
        ctx.feedback("Trying to cleanup after failed migration")
        info = ctx.call_one(self.primary, calls.MIGRATION_INFO, (self.sent(self.primary),)).or_fail(
            f"Failed fetching source migration information from {node_name(ctx, self.primary)}"
        )
        found = standing(ctx, self.before, self.primary)
        if found is Standing.UNKNOWN:
            raise OpExecError(
                f"Node {node_name(ctx, self.primary)} doesn't say how far the migration is, so "
                "nothing is ended; restart this operation when it answers"
            )
        arrived = found is Standing.TARGET
        if arrived:
            ctx.feedback(
                f"* memory has been sent, instance goes over to {node_name(ctx, self.target)}"
            )
            MemoryTransfer(ctx, self.before, self.primary).wait()
        ends = [
            (
                self.primary,
                calls.INSTANCE_FINALIZE_MIGRATION_SRC,
                (self.sent(self.primary), arrived, self.live),
            ),
            (
                self.target,
                calls.INSTANCE_FINALIZE_MIGRATION_DST,
                (self.sent(self.target), info, arrived),
            ),
        ]
        failed = []
        for node, call, arguments in ends if arrived else reversed(ends):
            answer = ctx.call_one(node, call, arguments)
            if answer.failed:
                failed.append(f"{answer.node}: {answer.error}")
        if failed:
            raise OpExecError(f"Instance migration cleanup failed: {','.join(failed)}")
        self.ended = True
        self.runs_on = self._found()
        if self.on_both:
            raise OpExecError(
                "Instance seems to be running on two nodes, or the hypervisor is confused; you "
                "will have to ensure manually that it runs only on one and restart this operation"
            )
        self._find_target()

    def record(self) -> None:
        """Makes the node where it runs its primary one."""
        ctx = self.ctx
        if self.primary in self.runs_on:
            ctx.feedback(
                "* instance confirmed to be running on its primary node "
                f"({node_name(ctx, self.primary)})"
            )
            self.demoted = self.target
            return
        target = node_name(ctx, self.target)
        ctx.feedback(f"* instance running on secondary node ({target}), updating config")
        ctx.change(self.before.uuid, lambda now: replace(now, primary_node=self.target))
        self.demoted = self.primary
        if self.before.hypervisor == "kvm" and not self.ended:
            ctx.warning(
                f"Node {target} may not have ended the migration of {self.before.name}: its "
                "network may be incomplete until it is rebooted with 'gnt-instance reboot'"
            )

    def tidy(self) -> None:
        """Closes the disks where the instance doesn't run, and connects mirrors anew."""
        ctx, now = self.ctx, self.now
        if not self.demoted:
            ctx.info(
                "No other node is known on which disks may be open; one can be named with '-n'"
            )
            mirror_steps.open_disks(ctx, now, now.primary_node, exclusive=True)
            return
        if ctx.snapshot().nodes[self.demoted].offline:
            ctx.warning(
                f"Node {node_name(ctx, self.demoted)} is offline; what it has of the disks of "
                f"{now.name} stays as it is"
            )
            return
        answer = mirror_steps.close_disks(ctx, now, self.demoted)
        lost = (
            answer.failed
            and not self.external
            and mirror_steps.assemble_missing(ctx, now, self.demoted)
        )
        if not lost:
            answer.or_fail(f"Cannot close instance disks on node {answer.node}")
        if self.external:
            mirror_steps.open_disks(ctx, now, now.primary_node, exclusive=True)
            return
        nodes = (self.primary, self.target)
        try:
            mirror_steps.wait_in_sync(ctx, now, nodes)
        except JobKilled:
            raise
        except OpExecError as error:
            # Ends that stand alone or are still apart; they are connected next.
            ctx.info(str(error.args[0]))
        mirror_steps.disconnect(ctx, now, nodes)
        mirror_steps.attach(ctx, now, nodes, dual=False)
        mirror_steps.wait_in_sync(ctx, now, nodes)


_AGAIN = "gnt-instance migrate --cleanup{on} {instance}"

CLEANUP: Procedure[CleanupState] = Procedure(
    "Cleanup after a migration",
    (
        Step(
            does="find the nodes on which {instance} runs",
            leaves="Nothing is changed",
            finish=_AGAIN,
            run=CleanupState.look,
            looks=True,
        ),
        Step(
            does="end the migration of {instance}, if it runs on {source} and {target}",
            leaves="{instance} runs on {source}, its node, or on {target}",
            finish=_AGAIN,
            run=CleanupState.settle,
            skip=lambda state: not state.on_both,
            shielded=True,
        ),
        Step(
            does="make the node where {instance} runs its primary node",
            leaves="{instance} runs on {source} or {target}, and perhaps that isn't its node",
            finish=_AGAIN,
            run=CleanupState.record,
            final=True,
            shielded=True,
        ),
        Step(
            does="close the disks of {instance} on the other node, connect its mirrors",
            leaves="{instance} runs on its node; its mirrors may be disconnected or allow two "
            "primaries",
            finish=_AGAIN,
            run=CleanupState.tidy,
        ),
    ),
)
