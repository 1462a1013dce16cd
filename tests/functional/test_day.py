"""Some seconds of a day in the life of a cluster; ``tests/soak`` has it for an hour."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.functional.day import Size, began

SIZE = Size(nodes=6, instances=16, people=3)
SECONDS = 20.0


@pytest.mark.skipif(os.getuid() != 0, reason="the watcher needs a mount of its own, only for root")
def test_a_day(folder: Path) -> None:
    """Whatever happened, in the end the cluster is whole, and the end of each job is explained."""
    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}")
    with began(folder, SIZE, seed) as day:
        try:
            day.live(SECONDS)
            day.judge()
        finally:
            print(day.diary)
