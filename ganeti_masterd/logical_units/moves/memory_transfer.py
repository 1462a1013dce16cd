"""The memory of an instance on its way to another node: how far it is, and who can run it.

Under KVM a question may itself change something: with the capability ``postcopy-ram`` noded 3.0.2
switches to postcopy as it is asked, so that asking must not stop before the end.
"""

from __future__ import annotations

from enum import Enum

from ganeti_masterd.config.objects import Instance
from ganeti_masterd.constants import (
    HV_KVM_MIGRATION_POSTCOPY_ACTIVE,
    HV_MIGRATION_ACTIVE,
    HV_MIGRATION_CANCELLED,
    HV_MIGRATION_COMPLETED,
    HV_MIGRATION_FAILED,
)
from ganeti_masterd.errors import OpExecError
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.disks.activating import current
from ganeti_masterd.logical_units.steps import node_objects
from ganeti_masterd.logical_units.steps.polling import Progress, poll, time_left
from ganeti_masterd.rpc import calls
from ganeti_masterd.rpc.interfaces import NodeResult
from ganeti_masterd.rpc.results import MigrationStatus

#: Seconds between two questions.
PAUSE = 1.0
#: How often in a row the source may fail to answer.
UNANSWERED_TRIES = 5

MEBIBYTE = 1024 * 1024


class Standing(Enum):
    """Which node can run an instance that is or was being migrated."""

    SOURCE = "the source"
    TARGET = "the target"
    UNKNOWN = "not known"


def standing(ctx: Context, instance: Instance, source: str) -> Standing:
    """Asks the source (its uuid) of a migration which node can run the instance by now.

    Hypervisors that don't count memory say that a migration is complete also where there was
    none: there it is the source until both nodes have been told otherwise.
    """
    for _ in range(UNANSWERED_TRIES):
        answer = ask_status(ctx, instance, source)
        if not answer.failed:
            return standing_of(answer.payload)
    return Standing.UNKNOWN


def standing_of(status: MigrationStatus) -> Standing:
    """Returns which node can run an instance whose migration has this status. Pure."""
    arrived = status.status == HV_MIGRATION_COMPLETED and status.transferred_ram is not None
    return Standing.TARGET if arrived or is_postcopy(status) else Standing.SOURCE


def is_postcopy(status: MigrationStatus) -> bool:
    """Whether the target runs the instance already, and fetches memory as it needs it. Pure."""
    return HV_KVM_MIGRATION_POSTCOPY_ACTIVE in (status.status, status.postcopy_status)


def ask_status(ctx: Context, instance: Instance, source: str) -> NodeResult[MigrationStatus]:
    """Asks the source (its uuid) of a migration how far it is."""
    sent = node_objects.instance(ctx.snapshot(), current(ctx, instance), source)
    return ctx.call_one(source, calls.INSTANCE_GET_MIGRATION_STATUS, (sent,))


class MemoryTransfer:
    """Waits for the memory of an instance that ``source`` (a uuid) sends to another node."""

    def __init__(self, ctx: Context, instance: Instance, source: str) -> None:
        self._ctx = ctx
        self._instance = instance
        self._source = source
        self._unanswered = 0
        self._postcopy = False
        self._last: tuple[float, int] | None = None
        self._progress = Progress(ctx)
        self._progress.wait()

    def wait(self) -> None:
        """Returns when all of it has arrived; raises ``OpExecError`` if that fails.

        A kill ends the wait, but not in postcopy, from which there is no way back.
        """
        self._ctx.feedback("* starting memory transfer")
        poll(self._ctx, self._look)
        if self._postcopy:
            with self._ctx.shielded():
                self._ctx.feedback("* memory transfer has switched to postcopy")
                poll(self._ctx, self._look_on)
        with self._ctx.shielded():
            self._ctx.feedback("* memory transfer complete")

    def _look(self) -> float | None:
        """Returns the seconds until the next question; None at the end, and with postcopy."""
        pause = self._look_on()
        return None if self._postcopy else pause

    def _look_on(self) -> float | None:
        answer = ask_status(self._ctx, self._instance, self._source)
        if answer.failed:
            self._unanswered += 1
            if self._unanswered >= UNANSWERED_TRIES:
                self._fail(str(answer.error))
            return PAUSE
        self._unanswered = 0
        status = answer.payload
        if status.status in (HV_MIGRATION_FAILED, HV_MIGRATION_CANCELLED):
            self._fail("hypervisor returned failure")
        self._postcopy = self._postcopy or is_postcopy(status)
        if status.status not in (HV_MIGRATION_ACTIVE, HV_KVM_MIGRATION_POSTCOPY_ACTIVE):
            return None
        self._tell(status)
        return PAUSE

    def _fail(self, reason: str) -> None:
        self._ctx.feedback("Migration failed, aborting")
        raise OpExecError(f"Could not migrate instance {self._instance.name}: {reason}")

    def _tell(self, status: MigrationStatus) -> None:
        if not status.total_ram or status.transferred_ram is None:
            return
        now = self._ctx.seconds()
        text = (
            f"* memory transfer progress: {status.transferred_ram * 100 / status.total_ram:.2f} %"
        )
        if self._last is not None and now > self._last[0]:
            rate = (status.transferred_ram - self._last[1]) / (now - self._last[0])
            text += f", {rate / MEBIBYTE:.1f} MiB/s"
            left = status.total_ram - status.transferred_ram
            # What the instance changes meanwhile is sent again, so that it may be more than all.
            if rate > 0 and left > 0:
                text += f", {time_left(left / rate)} left"
        self._last = now, status.transferred_ram
        self._progress.tell(text)
