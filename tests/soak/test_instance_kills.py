"""Kills at each write during an opcode that makes, changes or removes disks."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import pytest

from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.instance_kills import ERRANDS, Interrupted


@pytest.mark.parametrize("errand", sorted(ERRANDS))
def test_kills(make_daemon: Callable[..., DaemonProcess], errand: str) -> None:
    """After each, the job has ended, and the instance can be removed or made again."""
    for writes in count():
        daemon = make_daemon("--simulate-log=synced", name=f"node1-{errand}-{writes}/node1")
        if not Interrupted(daemon, errand).run(writes):
            break
    assert writes > 5
