"""Killed while an opcode on an instance runs, the daemon ends the job, and all can be cleaned."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.instance_kills import ERRANDS, Interrupted


@pytest.mark.parametrize("writes", [3, 9, 15])
@pytest.mark.parametrize("errand", sorted(ERRANDS))
def test_kill(make_daemon: Callable[..., DaemonProcess], errand: str, writes: int) -> None:
    """Some writes of the journal; tests/soak tries all."""
    Interrupted(make_daemon("--simulate-log=synced"), errand).run(writes)
