"""Steps that turn an instance on and off, and what they record of it.

Everything here is about the primary node. What is left after a kill is told in
docs/differences.rst, Instances.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from msgspec.structs import replace

from ganeti_masterd.config.base import Params
from ganeti_masterd.config.objects import Instance
from ganeti_masterd.config.parameters import effective
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.logical_units.context import Context, JobKilled
from ganeti_masterd.logical_units.disks.activating import current, mark_disks, shut_disks
from ganeti_masterd.logical_units.instances.base import SHUT_DOWN, is_running
from ganeti_masterd.logical_units.steps import node_objects
from ganeti_masterd.rpc import calls
from ganeti_masterd.rpc.interfaces import NodeResult
from ganeti_masterd.rpc.results import InstanceInfo


def ask(ctx: Context, instance: Instance) -> NodeResult[InstanceInfo]:
    """Asks the primary node what its hypervisor knows of an instance."""
    return ctx.call_one(
        instance.primary_node, calls.INSTANCE_INFO, info_arguments(ctx.snapshot(), instance)
    )


def info_arguments(snapshot: Snapshot, instance: Instance) -> tuple[Any, ...]:
    """Returns the arguments of ``instance_info``."""
    params = snapshot.cluster.hvparams.get(instance.hypervisor, {})
    return instance.name, instance.hypervisor, dict(params)


def turn_on(
    ctx: Context,
    instance: Instance,
    reason: Any,
    *,
    paused: bool = False,
    hvparams: Params | None = None,
    beparams: Params | None = None,
) -> NodeResult[Any]:
    """Has the primary node start an instance whose disks are ready.

    ``reason`` is the opcode's; ``paused`` leaves it stopped at its first instruction. The
    parameters given hold for this start only.
    """
    node = instance.primary_node
    sent = node_objects.instance(
        ctx.snapshot(), current(ctx, instance), node, hvparams=hvparams, beparams=beparams
    )
    return ctx.call_one(node, calls.INSTANCE_START, (sent, paused, list(reason)))


def turn_off(ctx: Context, instance: Instance, timeout: int, reason: Any) -> NodeResult[Any]:
    """Has the primary node stop an instance, by force after ``timeout`` seconds."""
    node = instance.primary_node
    sent = node_objects.instance(ctx.snapshot(), current(ctx, instance), node)
    return ctx.call_one(node, calls.INSTANCE_SHUTDOWN, (sent, timeout, list(reason)))


def mark(ctx: Context, instance: Instance, **state: Any) -> Instance:
    """Records an instance's state; returns it. Writes nothing if all is so already.

    ``state`` are fields of the instance: ``admin_state``, ``admin_state_source``,
    ``disks_active``.
    """

    def marked(now: Instance) -> Instance:
        same = all(getattr(now, name) == value for name, value in state.items())
        return now if same else replace(now, **state)

    changed: Instance = ctx.change(instance.uuid, marked)
    return changed


def mark_up(ctx: Context, instance: Instance) -> Instance:
    """Records that an administrator wants an instance to run, with its disks ready."""
    return mark(ctx, instance, admin_state="up", admin_state_source="admin", disks_active=True)


def stopped_by_user(snapshot: Snapshot, instance: Instance, info: InstanceInfo) -> bool:
    """Whether an instance was shut down from within, and may be. Pure.

    Its hypervisor knows such an instance still; KVM tells only of those that are allowed to.
    """
    if not info.known or info.state != SHUT_DOWN:
        return False
    filled = effective.hypervisor(snapshot.cluster, instance)
    return instance.hypervisor != "kvm" or bool(filled.get("user_shutdown"))


@contextmanager
def settled_if_start_killed(
    ctx: Context, before: Instance, *, remember: bool = True
) -> Iterator[None]:
    """After a kill, leaves an instance that was being started either running or as it was.

    If it runs by then it is recorded as up (where ``remember``); otherwise its disks are shut
    down and its state is that of ``before``. The kill goes on.
    """
    try:
        yield
    except JobKilled:
        with ctx.shielded():
            _settle_start(ctx, before, remember)
        raise


@contextmanager
def settled_if_stop_killed(
    ctx: Context, before: Instance, *, remember: bool = True
) -> Iterator[None]:
    """After a kill, records an instance that was being stopped as it is found.

    One that still runs has the state of ``before`` again; otherwise what was begun is
    finished: its disks are shut down, and it is recorded as down (where ``remember``). The
    kill goes on.
    """
    try:
        yield
    except JobKilled:
        with ctx.shielded():
            _settle_stop(ctx, before, remember)
        raise


def _settle_start(ctx: Context, before: Instance, remember: bool) -> None:
    running = _runs_by_now(ctx, before)
    if running is False:
        # Disks that are in use can't be shut down: it may have come up meanwhile.
        if shut_disks(ctx, current(ctx, before)) or not _runs_by_now(ctx, before):
            _restore(ctx, before)
            return
        mark_disks(ctx, current(ctx, before), active=True)
    if running is not None and remember:
        mark_up(ctx, before)


def _settle_stop(ctx: Context, before: Instance, remember: bool) -> None:
    running = _runs_by_now(ctx, before)
    if running:
        _restore(ctx, before)
    elif running is False:
        if remember and before.admin_state != "offline":
            mark(ctx, before, admin_state="down")
        shut_disks(ctx, current(ctx, before))


def _restore(ctx: Context, before: Instance) -> None:
    mark(
        ctx,
        before,
        admin_state=before.admin_state,
        admin_state_source=before.admin_state_source,
    )


def _runs_by_now(ctx: Context, instance: Instance) -> bool | None:
    """Whether an instance runs on its primary node; None, with a warning, if that can't say."""
    answer = ask(ctx, instance)
    if answer.failed:
        state = current(ctx, instance).admin_state
        ctx.warning(
            f"Can't tell whether instance {instance.name} runs on node {answer.node}: "
            f"{answer.error}",
            hint=f"It is marked to be {state}; when the node is back, 'gnt-instance startup' or "
            "'gnt-instance shutdown' brings both together",
        )
        return None
    return is_running(answer.payload)
