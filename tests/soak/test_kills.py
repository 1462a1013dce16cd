"""Two hundred kills: ten daemons, twenty kills each, all that they promised checked."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.crashing import Crashes

KILLS = 20


@pytest.mark.parametrize("number", range(10))
def test_promises_are_kept_through_kills(
    make_daemon: Callable[..., DaemonProcess], number: int
) -> None:
    """Every acknowledged change is there after each start, and no opcode ever runs twice."""
    seed = int.from_bytes(os.urandom(4))
    print(f"daemon {number}, seed {seed}")
    crashes = Crashes(make_daemon("--simulate-log=synced"), seed, clients=8)
    while crashes.kills < KILLS:
        crashes.once()
    crashes.finish()
    assert crashes.answered > 50 * KILLS
    print(f"{crashes.kills} kills, {crashes.answered} answers, {len(crashes.ledger.jobs)} jobs")
