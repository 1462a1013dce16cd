"""Waiting for mirrors to be in sync, and wiping new disks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ganeti_masterd.config.objects import Disk, Instance
from ganeti_masterd.errors import OpExecError, RemoteError
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.steps import node_objects
from ganeti_masterd.logical_units.steps.polling import Progress, poll, time_left
from ganeti_masterd.rpc import calls
from ganeti_masterd.rpc.results import DeviceStatus

#: How often the primary may fail to answer, one time after another, and the pause then.
UNANSWERED_TRIES = 10
UNANSWERED_PAUSE = 6.0
#: How often a mirror that is done but degraded is looked at again, as that may be passing.
DEGRADED_TRIES = 10
#: The pause without an estimate of the time left.
UNKNOWN_PAUSE = 5.0

#: The most MiB that are wiped by one call.
LARGEST_PIECE = 1024


def wait_for_sync(
    ctx: Context, instance: Instance, disks: Sequence[Disk] | None = None, *, once: bool = False
) -> bool:
    """Waits until the mirrors among disks are in sync; returns whether none is degraded.

    ``disks`` None: all of the instance. ``once``: only looks. Without mirrors there is
    nothing to wait for. A kill ends the wait, and the synchronization goes on. Raises
    ``RemoteError`` if the primary doesn't answer.
    """
    snapshot = ctx.snapshot()
    chosen = snapshot.disks_of(instance) if disks is None else tuple(disks)
    mirrors = [disk for disk in chosen if disk.template.internal]
    if not mirrors:
        return True
    watch = _SyncWatch(ctx, instance, mirrors, once)
    if not once:
        ctx.info(f"Waiting for instance {instance.name} to sync disks")
    poll(ctx, watch.look)
    if not once and not watch.degraded:
        ctx.info(f"Instance {instance.name}'s disks are in sync")
    return not watch.degraded


class _SyncWatch:
    """Looks at the mirrors of one instance."""

    def __init__(
        self, ctx: Context, instance: Instance, mirrors: Sequence[Disk], once: bool
    ) -> None:
        self._ctx = ctx
        self._instance = instance
        self._mirrors = mirrors
        self._once = once
        self._unanswered = 0
        self._degraded_looks = 0
        self._progress = Progress(ctx)
        #: Whether a mirror was degraded and not synchronizing at the last look.
        self.degraded = False

    def look(self) -> float | None:
        """Asks the primary; returns the seconds until the next look, None at the end."""
        ctx, instance = self._ctx, self._instance
        snapshot = ctx.snapshot()
        primary = instance.primary_node
        sent = [node_objects.disk(snapshot, disk, instance, primary) for disk in self._mirrors]
        answer = ctx.call_one(primary, calls.BLOCKDEV_GETMIRRORSTATUS, (sent,))
        if answer.failed:
            ctx.warning(f"Can't get any data from node {answer.node}: {answer.error}")
            self._unanswered += 1
            if self._unanswered == UNANSWERED_TRIES:
                raise RemoteError(f"Can't contact node {answer.node} for mirror data, aborting.")
            return UNANSWERED_PAUSE
        self._unanswered = 0
        syncing = [status for status in answer.payload if status.sync_percent is not None]
        self.degraded = any(
            status.is_degraded and status.sync_percent is None for status in answer.payload
        )
        if syncing:
            self._progress.tell(*self._lines(answer.payload))
        if syncing and not self._once:
            # An estimate of 0 is one, too: these mirrors are about to be in sync.
            return max(
                UNKNOWN_PAUSE if status.estimated_time is None else status.estimated_time
                for status in syncing
            )
        if self.degraded and self._degraded_looks < DEGRADED_TRIES:
            self._degraded_looks += 1
            return 1.0
        return None

    def _lines(self, statuses: Sequence[DeviceStatus]) -> Iterator[str]:
        for disk, status in zip(self._mirrors, statuses, strict=True):
            if status.sync_percent is None:
                continue
            left = (
                "no time estimate"
                if status.estimated_time is None
                else f"{time_left(status.estimated_time)} remaining (estimated)"
            )
            yield f"- device {disk.iv_name}: {status.sync_percent:5.2f}% done, {left}"


@contextmanager
def sync_paused(ctx: Context, instance: Instance, disks: Sequence[Disk]) -> Iterator[None]:
    """Within it the synchronization of mirrors stands still, so that writing is not slowed.

    Raises ``OpExecError`` if it can't be paused; that it can't be resumed is a warning.
    """
    name = ctx.snapshot().nodes[instance.primary_node].name
    pause_sync(ctx, instance, disks, True, f"Failed to pause disk synchronization on node '{name}'")
    try:
        yield
    finally:
        with ctx.shielded():
            try:
                text = f"Failed to resume disk synchronization on node '{name}'"
                pause_sync(ctx, instance, disks, False, text)
            except OpExecError as error:
                ctx.warning(str(error.args[0]))


def pause_sync(
    ctx: Context, instance: Instance, disks: Sequence[Disk], pause: bool, text: str
) -> None:
    """Pauses or resumes the synchronization of mirrors; raises ``OpExecError`` with ``text``."""
    snapshot, primary = ctx.snapshot(), instance.primary_node
    sent = [node_objects.disk(snapshot, disk, instance, primary) for disk in disks]
    ctx.call_one(primary, calls.BLOCKDEV_PAUSE_RESUME_SYNC, (sent, pause)).or_fail(text)


def wipe_disks(ctx: Context, instance: Instance, disks: Sequence[tuple[int, Disk, int]]) -> None:
    """Fills disks with zeros, on the primary: each given as (index, disk, MiB to begin at).

    Raises ``OpExecError``. A kill ends it between two pieces.
    """
    with sync_paused(ctx, instance, [disk for _, disk, _ in disks]):
        for index, disk, start in disks:
            _wipe(ctx, instance, index, disk, start)


def _wipe(ctx: Context, instance: Instance, index: int, disk: Disk, start: int) -> None:
    part = f" (from {start} to {disk.size})" if start else ""
    ctx.info(f"* Wiping disk {index}{part}")
    snapshot, primary = ctx.snapshot(), instance.primary_node
    sent = node_objects.disk(snapshot, disk, instance, primary)
    piece = max(1, min(LARGEST_PIECE, disk.size // 10))
    began, progress = ctx.seconds(), Progress(ctx)
    progress.wait()
    offset = start
    while offset < disk.size:
        size = min(piece, disk.size - offset)
        ctx.call_one(primary, calls.BLOCKDEV_WIPE, (sent, offset, size)).or_fail(
            f"Could not wipe disk {index} at offset {offset} for size {size}"
        )
        offset += size
        if offset < disk.size:
            done = (offset - start) / (disk.size - start)
            left = (ctx.seconds() - began) * (1 - done) / done
            progress.tell(f" - done: {done * 100:.1f}% ETA: {time_left(left)}")
    if offset > start:
        ctx.info(f" - disk {index} is wiped")
