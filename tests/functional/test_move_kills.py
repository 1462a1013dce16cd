"""Killed while an instance moves, the daemon ends the job, and the same command goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.move_kills import InterruptedMove, describe

#: Moves, and the writes at which they are killed here.
KILLED = (
    ("migrate", 14),
    ("move", 10),
    ("evacuate", 16),
)


def test_kills(folder: Path, make_daemon: Callable[..., DaemonProcess]) -> None:
    """One after the other on the same cluster; tests/soak tries all moves, and all writes."""
    daemon = make_daemon("--simulate-log=synced", nodes=describe(folder))
    for errand, writes in KILLED:
        InterruptedMove(daemon, errand).run(writes)
