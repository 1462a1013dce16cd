"""Replayed calls about disks get the same answers from simulated nodes as from real ones.

The recording is of five node daemons of Ganeti 3.0.2 with every disk template, including faults;
the simulated cluster is described in ``recorded.toml``.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

from ganeti_masterd.simulation.description import read
from tests.simulation.nodes import SimulationCase
from tests.simulation.replaying import Player, differs

RECORDED = json.loads((Path(__file__).parent.parent / "data" / "noded_disks.json").read_text())

CLUSTER = str(files("ganeti_masterd") / "simulation" / "clusters" / "recorded.toml")

#: How many rows of a group may differ, and why.
KNOWN: dict[str, int] = {
    # The mirror's sync ended during the few tenths of a second that a call took.
    "batch-create": 2,
    "inst-create": 1,
    # Three: node2 still ran an instance from an earlier recording.
    "inst-disks": 6,
    "inst-life": 0,
    # A compressed copy took three seconds longer.
    "inst-move": 4,
}


class DiskReplayTests(SimulationCase):
    def replay(self, group: str) -> None:
        """Replays a group; the answers must be the same except for known differences."""
        self.nodes = self.make(description=read(CLUSTER))
        rows = Player(self, RECORDED).play(group)
        found = [fault for fault in map(differs, rows) if fault is not None]
        self.assertGreater(len(rows), 100)
        self.assertEqual(len(found), KNOWN[group], "\n".join(found))
        self.assertEqual(self.nodes.pending, 0)

    def test_groups(self) -> None:
        """Every group of the recording has a test."""
        self.assertEqual(set(RECORDED["groups"]), set(KNOWN))

    def test_batch(self) -> None:
        """Many instances created at once, and removed."""
        self.replay("batch-create")

    def test_create(self) -> None:
        """Instances created with every template, with valid and invalid arguments."""
        self.replay("inst-create")

    def test_life(self) -> None:
        """Instances started, stopped, rebooted, reinstalled, renamed, crashed."""
        self.replay("inst-life")

    def test_disks(self) -> None:
        """Disks grown, replaced, recreated, activated; mirrors broken and repaired."""
        self.replay("inst-disks")

    def test_moves(self) -> None:
        """Instances migrated, failed over, moved; nodes restarted meanwhile."""
        self.replay("inst-move")
