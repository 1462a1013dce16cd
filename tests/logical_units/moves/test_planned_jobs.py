"""The order of jobs that move instances."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.logical_units.moves.planned_jobs import side_by_side

NODES = st.lists(st.sets(st.sampled_from("abcdef"), max_size=3), max_size=12)


def first_wave(order: Sequence[int], nodes: Sequence[set[str]]) -> int:
    """Returns how many jobs, from the first on, share no node."""
    used: set[str] = set()
    for place, job in enumerate(order):
        if used & nodes[job]:
            return place
        used |= nodes[job]
    return len(order)


class OrderTests(SynchronousTestCase):
    """Waves of jobs that share no node."""

    def test_waves(self) -> None:
        """What can run at once comes first, whatever was planned first."""
        nodes = ["ab", "ac", "bd", "ef", "ce"]
        self.assertEqual(side_by_side([1, 2, 3, 4, 5], nodes), [1, 4, 2, 3, 5])

    def test_evacuation_of_many(self) -> None:
        """Of fifty jobs on twenty nodes, each with three of them, many run from the start."""
        nodes = [{f"n{(3 * job + each) % 20}" for each in range(3)} for job in range(50)]
        planned = sorted(range(50), key=lambda job: sorted(nodes[job]))
        self.assertGreaterEqual(
            first_wave(side_by_side(planned, [nodes[i] for i in planned]), nodes), 5
        )

    @given(NODES)
    def test_nothing_is_lost(self, nodes: list[set[str]]) -> None:
        """All jobs are there once; those on the same nodes keep their order."""
        jobs = list(range(len(nodes)))
        order = side_by_side(jobs, nodes)
        self.assertEqual(sorted(order), jobs)
        for place, job in enumerate(order):
            for later in order[place + 1 :]:
                self.assertTrue(job < later or nodes[job] != nodes[later])

    @given(NODES)
    def test_from_the_start(self, nodes: list[set[str]]) -> None:
        """No job of a later wave could have run in the first one."""
        order = side_by_side(list(range(len(nodes))), nodes)
        wave = first_wave(order, nodes)
        used = {node for job in order[:wave] for node in nodes[job]}
        for job in order[wave:]:
            self.assertTrue(used & nodes[job])
