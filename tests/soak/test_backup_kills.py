"""Kills at each write while a backup is made or imported."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.backup_kills import BACKUPS, InterruptedBackup, describe


@pytest.mark.parametrize("errand", sorted(BACKUPS))
def test_kills(make_daemon: Callable[..., DaemonProcess], folder: Path, errand: str) -> None:
    """After each, nothing looks whole that isn't, and the same command succeeds."""
    nodes = describe(folder)
    for writes in count():
        daemon = make_daemon(
            "--simulate-log=synced", name=f"node1-{errand}-{writes}/node1", nodes=nodes
        )
        if not InterruptedBackup(daemon, errand).run(writes):
            break
    assert writes > 10
