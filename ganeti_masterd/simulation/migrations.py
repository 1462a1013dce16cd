"""Live migrations in progress, as functions of the clock. Pure."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from ganeti_masterd.constants import (
    HV_MIGRATION_ACTIVE,
    HV_MIGRATION_COMPLETED,
    HV_MIGRATION_FAILED,
)

MEBIBYTE = 1048576


class Migration(Struct, frozen=True):
    """An instance whose memory (MiB) goes from one node to another.

    ``target`` is None if no node waited for it, so that nothing arrives. ``speed`` is in MiB/s;
    None: at once. ``fails_at`` is the percentage at which it fails, or None.
    """

    source: str
    target: str | None
    memory: int
    speed: float | None
    started: float
    fails_at: float | None = None
    broken: bool = False

    def percent(self, now: float) -> float:
        """Returns the percentage of the memory that has arrived."""
        if self.speed is None:
            return 100.0
        return min(100.0, 100.0 * max(0.0, now - self.started) * self.speed / max(1, self.memory))

    def status(self, now: float) -> dict[str, Any]:
        """Returns what ``instance_get_migration_status`` shows."""
        percent = self.percent(now)
        if self.broken or (self.fails_at is not None and percent >= self.fails_at):
            return {"status": HV_MIGRATION_FAILED}
        if percent >= 100.0:
            return {"status": HV_MIGRATION_COMPLETED}
        total = self.memory * MEBIBYTE
        return {
            "status": HV_MIGRATION_ACTIVE,
            "transferred_ram": int(total * percent / 100.0),
            "total_ram": total,
        }
