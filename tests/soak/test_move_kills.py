"""Kills at each write while an instance moves."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.move_kills import MOVES, InterruptedMove, describe


@pytest.mark.parametrize("errand", sorted(MOVES))
def test_kills(folder: Path, make_daemon: Callable[..., DaemonProcess], errand: str) -> None:
    """After each the way out leads to an instance that runs once, and mirrors that are whole."""
    daemon = make_daemon("--simulate-log=synced", nodes=describe(folder))
    for writes in count():
        if not InterruptedMove(daemon, errand).run(writes):
            break
    assert writes > 5
