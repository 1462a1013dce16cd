"""Killed while an opcode on an instance runs, the daemon ends the job, and all can be cleaned."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.instance_kills import Interrupted

#: Errands, and the writes at which they are killed here.
KILLED = (("create", 6), ("create", 11), ("remove", 8), ("grow", 6), ("convert", 9))


@pytest.mark.parametrize(("errand", "writes"), KILLED)
def test_kill(make_daemon: Callable[..., DaemonProcess], errand: str, writes: int) -> None:
    """Killed at some writes; tests/soak tries all."""
    Interrupted(make_daemon("--simulate-log=synced"), errand).run(writes)
