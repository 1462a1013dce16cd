"""An instance's disks change hands: opened and closed on nodes, mirrors connected anew.

Calls and texts are those of real daemon 3.0.2. What takes several nodes names them by uuid.
Mirrors below are the instance's disks, all with two ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from ganeti_masterd.config.objects import Instance
from ganeti_masterd.errors import OpExecError
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.disks.activating import current
from ganeti_masterd.logical_units.steps import node_objects
from ganeti_masterd.logical_units.steps.polling import Progress, poll
from ganeti_masterd.rpc import calls
from ganeti_masterd.rpc.declarations import Call
from ganeti_masterd.rpc.interfaces import NodeResult, Target

#: Seconds between two looks at mirrors that are being synchronized.
PAUSE = 2.0


def node_name(ctx: Context, node: str) -> str:
    """Returns the name of a node, given its uuid."""
    return ctx.snapshot().nodes[node].name


def close_disks(ctx: Context, instance: Instance, node: str) -> NodeResult[Any]:
    """Has a node let go of an instance's disks, so that another may write to them."""
    ctx.feedback(f"* closing instance disks on node {node_name(ctx, node)}")
    return ctx.call_one(node, calls.BLOCKDEV_CLOSE, (instance.name, _sent(ctx, instance, node)))


def open_disks(ctx: Context, instance: Instance, node: str, *, exclusive: bool) -> None:
    """Has a node open an instance's disks, alone or with others; raises ``OpExecError``."""
    name = node_name(ctx, node)
    mode = "exclusive" if exclusive else "shared"
    ctx.feedback(f"* opening instance disks on node {name} in {mode} mode")
    arguments = (instance.name, _sent(ctx, instance, node), exclusive)
    ctx.call_one(node, calls.BLOCKDEV_OPEN, arguments).or_fail(
        f"Cannot open instance disks on node {name}"
    )


def unmap_disks(ctx: Context, instance: Instance, node: str) -> None:
    """Has a node unmap disks that it had to map; a failure is a warning."""
    snapshot = ctx.snapshot()
    mapped = [disk for disk in snapshot.disks_of(instance) if disk.template.mapped]
    if not mapped:
        return
    names = ", ".join(disk.iv_name for disk in mapped)
    ctx.feedback(f"* unmapping instance's disks {names} from {node_name(ctx, node)}")
    for disk in mapped:
        sent = node_objects.disk(snapshot, disk, current(ctx, instance), node)
        answer = ctx.call_one(node, calls.BLOCKDEV_SHUTDOWN, (sent,))
        if answer.failed:
            ctx.warning(f"Could not unmap {disk.iv_name} from node {answer.node}: {answer.error}")


def disconnect(ctx: Context, instance: Instance, nodes: Sequence[str]) -> None:
    """Makes both ends of mirrors stand alone; raises ``OpExecError``."""
    ctx.feedback("* changing into standalone mode")
    _require(_disconnect(ctx, instance, nodes), "Cannot disconnect disks node {}")


def attach(ctx: Context, instance: Instance, nodes: Sequence[str], *, dual: bool) -> None:
    """Connects the ends of mirrors that stand alone; ``dual``: both may be written to.

    Raises ``OpExecError``. Nodes wait for some time only until both ends are up to date: if
    that takes longer, it is waited for here.
    """
    answers = _attach(ctx, instance, nodes, dual=dual)
    failed = [answer for answer in answers.values() if answer.failed]
    if failed and dual and _is_syncing(ctx, instance, nodes):
        wait_in_sync(ctx, instance, nodes)
        return
    _require(answers, "Cannot change disks config on node {}")


def wait_in_sync(ctx: Context, instance: Instance, nodes: Sequence[str]) -> None:
    """Waits until no end of a mirror is being synchronized; a kill acts. Raises ``OpExecError``."""
    ctx.feedback("* wait until resync is done")
    progress = Progress(ctx)

    def look() -> float | None:
        answers = _ask_progress(ctx, instance, nodes)
        _require(answers, "Cannot resync disks on node {}")
        told = [answer.payload for answer in answers.values()]
        if all(done for done, _ in told):
            return None
        progress.tell(f"- progress: {min(percent for _, percent in told):.1f}%")
        return PAUSE

    poll(ctx, look)


def reconnect(ctx: Context, instance: Instance, nodes: Sequence[str]) -> None:
    """Connects mirrors of which one end may be written to, whatever state they are in.

    The ends are disconnected and connected also if one of them fails, so that the other waits
    for it. Raises ``OpExecError`` for the first that failed.
    """
    ctx.feedback("* changing into standalone mode")
    apart = _disconnect(ctx, instance, nodes)
    answers = _attach(ctx, instance, nodes, dual=False)
    _require(apart, "Cannot disconnect disks node {}")
    _require(answers, "Cannot change disks config on node {}")


def assemble_missing(ctx: Context, instance: Instance, node: str) -> bool:
    """Assembles mirrors that a node has lost, as after a restart; returns whether it had to.

    Raises ``OpExecError``.
    """
    snapshot = ctx.snapshot()
    now, name, missing = current(ctx, instance), node_name(ctx, node), False
    for index, disk in enumerate(snapshot.disks_of(instance)):
        sent = node_objects.disk(snapshot, disk, now, node)
        found = ctx.call_one(node, calls.BLOCKDEV_FIND, (sent,)).or_fail(
            f"Can't look for {disk.iv_name} on node {name}"
        )
        if found is not None:
            continue
        if not missing:
            missing = True
            if not now.disks_active:
                now = ctx.change(instance.uuid, lambda held: replace(held, disks_active=True))
        arguments = (sent, node_objects.instance(snapshot, now, node), False, index)
        ctx.call_one(node, calls.BLOCKDEV_ASSEMBLE, arguments).or_fail(
            f"Could not prepare block device {disk.iv_name} on node {name}"
        )
    return missing


def _disconnect(
    ctx: Context, instance: Instance, nodes: Sequence[str]
) -> Mapping[str, NodeResult[Any]]:
    return _call(ctx, calls.DRBD_DISCONNECT_NET, instance, nodes)


def _attach(
    ctx: Context, instance: Instance, nodes: Sequence[str], *, dual: bool
) -> Mapping[str, NodeResult[Any]]:
    mode = "dual" if dual else "single"
    ctx.feedback(f"* changing disks into {mode}-master mode")
    return _call(ctx, calls.DRBD_ATTACH_NET, instance, nodes, dual)


def _ask_progress(
    ctx: Context, instance: Instance, nodes: Sequence[str]
) -> Mapping[str, NodeResult[tuple[bool, float]]]:
    return _call(ctx, calls.DRBD_WAIT_SYNC, instance, nodes)


def _is_syncing(ctx: Context, instance: Instance, nodes: Sequence[str]) -> bool:
    answers = list(_ask_progress(ctx, instance, nodes).values())
    return not any(answer.failed for answer in answers) and not all(
        answer.payload[0] for answer in answers
    )


def _call(
    ctx: Context, call: Call[Any], instance: Instance, nodes: Sequence[str], *rest: object
) -> Mapping[str, NodeResult[Any]]:
    """Makes a call about all disks of an instance to nodes, at the same time."""

    def arguments(target: Target) -> tuple[object, ...]:
        return (_sent(ctx, instance, target.key), *rest)

    return ctx.call(nodes, call, arguments)


def _sent(ctx: Context, instance: Instance, node: str) -> list[dict[str, Any]]:
    snapshot, now = ctx.snapshot(), current(ctx, instance)
    return [node_objects.disk(snapshot, disk, now, node) for disk in snapshot.disks_of(now)]


def _require(answers: Mapping[str, NodeResult[Any]], text: str) -> None:
    for answer in answers.values():
        if answer.failed:
            raise OpExecError(f"{text.format(answer.node)}: {answer.error}")
