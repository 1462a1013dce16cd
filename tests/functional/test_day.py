"""Some seconds of a day in the life of a cluster; ``tests/soak`` has it for an hour."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.functional.day import Misfortune, Size, began
from tests.functional.waiting import equal_to, until

SIZE = Size(nodes=6, instances=16, people=3)
SECONDS = 20.0


@pytest.mark.soak  # what happens is up to chance, and so are the errors that it explains
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


@pytest.mark.skipif(os.getuid() != 0, reason="the remote API runs as another user")
def test_a_kill_at_the_return_of_a_node(folder: Path) -> None:
    """Nodes come back, although the daemon is killed while the job runs that brings one back."""
    faults = folder / "node1/simulation/faults.json"
    with began(folder, Size(nodes=3, instances=0, people=0), seed=1) as day:
        misfortune = Misfortune(day, "misfortune")
        misfortune.end()
        faults.write_text('[{"kind": "delay", "call": "version", "seconds": 60, "count": 1}]')
        with day.daemon.client() as client:
            for node in ("node2", "node3"):
                misfortune.let_die(client, node, [])
            misfortune.start()
            until(
                "the job for the first runs",
                lambda: client.query_jobs(None, ["status"])[-1],
                equal_to(["running"]),
            )
        day.daemon.kill()
        faults.write_text("[]")
        day.daemon.start()
        misfortune.join(60)
        day.judge()
        assert day.diary.counts["explained: the daemon was killed"] == 1
        with day.daemon.client() as client:
            rows = client.query("node", ["offline"])["data"]
    assert [offline for ((_, offline),) in rows] == [False, False, False]
