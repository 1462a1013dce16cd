"""A new instance is given content and started: its image, its operating system, its first start.

Texts and order of the calls are those of real daemon 3.0.2; where ours differs,
docs/differences.rst says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

from ganeti_masterd.config.base import Params
from ganeti_masterd.config.objects import Disk, Instance
from ganeti_masterd.errors import OpExecError
from ganeti_masterd.logical_units.context import Context, JobKilled
from ganeti_masterd.logical_units.disks.activating import shut_disks
from ganeti_masterd.logical_units.disks.syncing import pause_sync, sync_paused
from ganeti_masterd.logical_units.instances.power import (
    mark_up,
    settled_if_start_killed,
    turn_on,
)
from ganeti_masterd.logical_units.steps import node_objects
from ganeti_masterd.logical_units.steps.half_done import only_warned_of
from ganeti_masterd.logical_units.steps.polling import time_left
from ganeti_masterd.opcodes.types import Reason
from ganeti_masterd.rpc import calls


def image_disk(ctx: Context, instance: Instance, disk: Disk, image: str) -> None:
    """Writes an image on an instance's first disk, on its primary; raises ``OpExecError``."""
    primary = instance.primary_node
    name = ctx.snapshot().nodes[primary].name
    ctx.feedback("* imaging instance disks...")
    with sync_paused(ctx, instance, [disk]):
        ctx.info(f"Imaging disk '0' for instance '{instance.name}' on node '{name}'")
        sent = node_objects.disk(ctx.snapshot(), disk, instance, primary)
        began = ctx.seconds()
        ctx.call_one(primary, calls.BLOCKDEV_IMAGE, (sent, image, disk.size)).or_fail(
            f"Could not image disk '0' for instance '{instance.name}' on node '{name}'"
        )
        ctx.info(f"The image was written in {time_left(ctx.seconds() - began)}")


def run_create_scripts(
    ctx: Context, instance: Instance, secret: Params, *, debug: int, pause: Sequence[Disk] = ()
) -> None:
    """Installs the operating system of an instance, on its primary; raises ``OpExecError``.

    ``secret`` are OS parameters that are never stored; ``pause`` are mirrors whose
    synchronization stands still meanwhile.
    """
    primary = instance.primary_node
    snapshot = ctx.snapshot()
    sent = node_objects.instance(snapshot, instance, primary, osparams=secret)
    with _paused(ctx, instance, pause) if pause else nullcontext():
        ctx.feedback("* running the instance OS create scripts...")
        ctx.call_one(primary, calls.INSTANCE_OS_ADD, (sent, False, debug)).or_fail(
            f"Could not add os for instance {instance.name} on node {snapshot.nodes[primary].name}"
        )


def run_scripts_again(ctx: Context, instance: Instance, parameters: Params, *, debug: int) -> None:
    """Installs an operating system over what is on an instance's disks; raises ``OpExecError``.

    ``parameters`` are the OS parameters of all visibilities, filled; they all travel in the
    plain ``osparams`` then.
    """
    primary = instance.primary_node
    snapshot = ctx.snapshot()
    name = snapshot.nodes[primary].name
    sent = node_objects.instance(snapshot, instance, primary, osparams=parameters)
    ctx.info("Running instance OS create scripts...")
    began = ctx.seconds()
    ctx.call_one(primary, calls.INSTANCE_OS_ADD, (sent, True, debug)).or_fail(
        f"Could not install OS for instance '{instance.name}' on node '{name}'"
    )
    took = time_left(ctx.seconds() - began)
    ctx.info(f"Instance OS create scripts have finished after {took}")


@contextmanager
def _paused(ctx: Context, instance: Instance, disks: Sequence[Disk]) -> Iterator[None]:
    """As ``sync_paused``, with lines in the log, and what fails is only a warning."""
    name = ctx.snapshot().nodes[instance.primary_node].name
    ctx.feedback("* pausing disk sync to install instance OS")
    with only_warned_of(ctx):
        text = f"Failed to pause disk synchronization on node '{name}'"
        pause_sync(ctx, instance, disks, True, text)
    try:
        yield
    finally:
        with ctx.shielded():
            ctx.feedback("* resuming disk sync")
            with only_warned_of(ctx):
                text = f"Failed to resume disk synchronization on node '{name}'"
                pause_sync(ctx, instance, disks, False, text)


def tell_metadata(ctx: Context, instance: Instance, secret: Params) -> None:
    """Tells the metadata daemon of the primary about an instance; a failure is only logged."""
    sent = node_objects.instance_metadata(instance, secret=secret)
    answer = ctx.call_one(instance.primary_node, calls.INSTANCE_METADATA_MODIFY, (sent,))
    if answer.failed:
        ctx.feedback(f"Could not update metadata for instance '{instance.name}': {answer.error}")


def start_first(ctx: Context, instance: Instance, reason: Sequence[Reason]) -> None:
    """Marks an instance whose disks are ready as running, and starts it.

    If it can't be started it stays marked, so that the watcher tries again. After a kill it
    is marked as it is found. Raises ``OpExecError``.
    """
    with settled_if_start_killed(ctx, instance):
        up = mark_up(ctx, instance)
        ctx.feedback("* starting instance...")
        answer = turn_on(ctx, up, reason)
    answer.or_fail(
        f"Could not start instance {instance.name} on node {answer.node} (it is there, and "
        "marked to be up)"
    )


@contextmanager
def staying(ctx: Context, instance: Instance, state: str) -> Iterator[None]:
    """If what is done within fails, shuts the disks of an instance that stays in the cluster.

    The failure goes on, and says in what state the instance is.
    """
    try:
        yield
    except OpExecError as error:
        now = ctx.snapshot().instances.get(instance.uuid)
        with ctx.shielded():
            if now is not None:
                shut_disks(ctx, now)
        text = f"{error.args[0]}; instance {instance.name} {state}"
        raise JobKilled(text) if isinstance(error, JobKilled) else OpExecError(text)
