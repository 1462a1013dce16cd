"""Killed at random moments under load, the daemon loses nothing and runs nothing twice."""

from __future__ import annotations

import os
from collections.abc import Callable

from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.crashing import Crashes

KILLS = 8


def test_promises_are_kept_through_kills(make_daemon: Callable[..., DaemonProcess]) -> None:
    """Every acknowledged change is there after each start, and no opcode ever runs twice."""
    seed = int.from_bytes(os.urandom(4))
    crashes = Crashes(make_daemon("--simulate-log=synced"), seed)
    print(f"seed {seed}")
    # With fewer answers the load would prove nothing; a busy machine needs more kills for them.
    while crashes.kills < KILLS or crashes.answered <= 50 * KILLS:
        crashes.once()
    crashes.finish()
    assert crashes.ledger.canceled
    assert crashes.ledger.archived
    assert crashes.ledger.lines
    assert crashes.ledger.tags
    print(f"{crashes.kills} kills, {crashes.answered} answers, {len(crashes.ledger.jobs)} jobs")
