"""Tests of the oldest job of each status."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.monitoring.oldest import SPARE, OldestJobs
from tests.examples import examples


class OldestTests(SynchronousTestCase):
    """:class:`OldestJobs`."""

    @settings(max_examples=examples(100, 3000), deadline=None)
    @given(
        st.lists(
            st.tuples(st.sampled_from("ab"), st.integers(1, 5), st.integers(0, 20), st.booleans())
        )
    )
    def test_as_a_walk_would_find(self, steps: list[tuple[str, int, int, bool]]) -> None:
        """Whatever comes and goes, the oldest is the one that a walk over all jobs finds."""
        oldest = OldestJobs(("a", "b"))
        model: dict[tuple[str, int], int] = {}
        for status, job_id, since, comes in steps:
            if comes:
                oldest.enter(status, job_id, since)
                model[status, job_id] = since
            else:
                oldest.leave(status, job_id)
                model.pop((status, job_id), None)
            for each in "ab":
                stamps = [since for (of, _), since in model.items() if of == each]
                age = 20.0 - min(stamps, default=20)
                self.assertEqual(oldest.ages(20.0)[each], age)

    def test_unknown_status(self) -> None:
        """Statuses that nobody waits in cost nothing."""
        oldest = OldestJobs(("running",))
        oldest.enter("success", 1, 0.0)
        oldest.leave("success", 1)
        self.assertEqual(oldest.ages(10.0), {"running": 0})

    def test_clock_set_back(self) -> None:
        """An age is never negative."""
        oldest = OldestJobs(("running",))
        oldest.enter("running", 1, 100.0)
        self.assertEqual(oldest.ages(10.0), {"running": 0})

    def test_bounded(self) -> None:
        """Beneath one job that stays, thousands that pass leave no more than a few entries."""
        oldest = OldestJobs(("running",))
        oldest.enter("running", 1, 0.0)
        for job_id in range(2, 5000):
            oldest.enter("running", job_id, float(job_id))
            oldest.leave("running", job_id)
            self.assertEqual(oldest.ages(5000.0), {"running": 5000})
        self.assertLessEqual(len(oldest._heaps["running"]), SPARE + 4)
