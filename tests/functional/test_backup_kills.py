"""Killed while a backup is made or imported, the daemon leaves nothing that looks whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.backup_kills import InterruptedBackup, describe

#: Errands, and the writes at which they are killed here.
KILLED = (("import", 14), ("import", 20), ("zero-running", 16))


@pytest.mark.parametrize(("errand", "writes"), KILLED)
def test_kill(
    make_daemon: Callable[..., DaemonProcess], folder: Path, errand: str, writes: int
) -> None:
    """Killed at some writes; tests/soak tries all."""
    daemon = make_daemon("--simulate-log=synced", nodes=describe(folder))
    InterruptedBackup(daemon, errand).run(writes)
