"""A day in the life of a cluster of twenty nodes and 300 instances: an hour of it."""

from __future__ import annotations

import os
from pathlib import Path

from tests.functional.day import Size, began

SIZE = Size(nodes=20, instances=300, people=6)

#: Minutes that it lasts; for a shorter look, set ``GANETI_MASTERD_DAY`` to a number of them.
MINUTES = float(os.environ.get("GANETI_MASTERD_DAY", "60"))


def test_a_day(folder: Path) -> None:
    """Whatever happened, in the end the cluster is whole, and the end of each job is explained."""
    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}")
    with began(folder, SIZE, seed) as day:
        try:
            day.live(60 * MINUTES)
            day.judge()
        finally:
            print(day.diary)
