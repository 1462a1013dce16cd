"""Live migrations in progress, as functions of the clock. Pure."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from ganeti_masterd.constants import (
    HV_KVM_MIGRATION_POSTCOPY_ACTIVE,
    HV_MIGRATION_ACTIVE,
    HV_MIGRATION_COMPLETED,
    HV_MIGRATION_FAILED,
)

MEBIBYTE = 1048576

#: The percentage from which on a migration that may switch to postcopy does so when it is asked.
POSTCOPY_FROM = 50.0


class Migration(Struct, frozen=True):
    """An instance whose memory (MiB) goes from one node to another.

    ``target`` is None if no node waited for it, so that nothing arrives. ``speed`` is in MiB/s;
    None: at once. ``fails_at`` is the percentage at which it fails, or None. ``may_postcopy``:
    the target may take over before all memory is there; ``postcopy``: it has.
    """

    source: str
    target: str | None
    memory: int
    speed: float | None
    started: float
    fails_at: float | None = None
    broken: bool = False
    may_postcopy: bool = False
    postcopy: bool = False

    @property
    def counts(self) -> bool:
        """Whether the memory that is sent is counted."""
        return self.target is not None

    def switches(self, now: float) -> bool:
        """Whether a question at that time makes it switch to postcopy."""
        return self.may_postcopy and not self.postcopy and POSTCOPY_FROM <= self.percent(now) < 100

    def percent(self, now: float) -> float:
        """Returns the percentage of the memory that has arrived."""
        if self.speed is None:
            return 100.0
        return min(100.0, 100.0 * max(0.0, now - self.started) * self.speed / max(1, self.memory))

    def arrived(self, now: float) -> bool:
        """Whether all memory is at the target, or fetched by it, so that the source has stopped."""
        if self.broken or (self.fails_at is not None and self.percent(now) >= self.fails_at):
            return False
        return self.postcopy or self.percent(now) >= 100.0

    def status(self, now: float) -> dict[str, Any]:
        """Returns what ``instance_get_migration_status`` shows."""
        percent = self.percent(now)
        if self.broken or (self.fails_at is not None and percent >= self.fails_at):
            return {"status": HV_MIGRATION_FAILED}
        total = self.memory * MEBIBYTE
        memory = {"transferred_ram": int(total * percent / 100.0), "total_ram": total}
        if percent >= 100.0:
            return {"status": HV_MIGRATION_COMPLETED, **(memory if self.counts else {})}
        if self.postcopy:
            return {"status": HV_KVM_MIGRATION_POSTCOPY_ACTIVE, **memory}
        status = {"status": HV_MIGRATION_ACTIVE, **memory}
        if self.switches(now):
            status["postcopy_status"] = HV_KVM_MIGRATION_POSTCOPY_ACTIVE
        return status
