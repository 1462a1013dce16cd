"""Jobs that wait for others."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.jobs.dependencies import Dependencies, DependencyDecision, DependencyOutcome

NONE: frozenset[str] = frozenset()


class DependencyTests(SynchronousTestCase):
    """Decisions when jobs are added and when they end."""

    def setUp(self) -> None:
        self.dependencies = Dependencies()
        self.status = {1: "running", 2: "queued", 3: "success", 4: "error", 5: "canceled"}

    def add(self, job_id: int, wanted: dict[int, frozenset[str]]) -> DependencyDecision | None:
        return self.dependencies.add(job_id, wanted, self.status.__getitem__)

    def test_ended_already(self) -> None:
        """What has ended counts with its final state at once."""
        self.assertEqual(self.add(9, {3: NONE}), DependencyDecision(9, DependencyOutcome.READY))
        self.assertEqual(self.add(9, {4: NONE}), DependencyDecision(9, DependencyOutcome.READY))
        failed = self.add(9, {4: frozenset({"success"})})
        assert failed is not None
        self.assertEqual(failed.outcome, DependencyOutcome.FAILED)
        self.assertIn("Job 4", failed.reason)
        canceled = self.add(9, {1: NONE, 5: NONE})
        assert canceled is not None
        self.assertEqual(canceled.outcome, DependencyOutcome.CANCELED)
        self.assertEqual(
            self.add(9, {5: frozenset({"canceled"})}),
            DependencyDecision(9, DependencyOutcome.READY),
        )
        self.assertNotIn(9, self.dependencies)

    def test_waits_for_all(self) -> None:
        """A job is ready only once the last of its dependencies has ended."""
        self.assertIsNone(self.add(9, {1: NONE, 2: NONE}))
        self.assertEqual(self.dependencies.waiting_for(9), [1, 2])
        self.assertEqual(self.dependencies.ended(1, "success"), [])
        self.assertEqual(
            self.dependencies.ended(2, "error"), [DependencyDecision(9, DependencyOutcome.READY)]
        )
        self.assertEqual(self.dependencies.ended(2, "error"), [])

    def test_one_that_fails_decides(self) -> None:
        """The first dependency that ends badly ends the wait for all the others."""
        self.assertIsNone(self.add(9, {1: frozenset({"success"}), 2: NONE}))
        (decision,) = self.dependencies.ended(1, "error")
        self.assertEqual((decision.job_id, decision.outcome), (9, DependencyOutcome.FAILED))
        self.assertEqual(self.dependencies.dependants(2), [])

    def test_many_dependants(self) -> None:
        """Every dependant hears of the end, in the order of ids."""
        for job_id in (12, 10, 11):
            self.assertIsNone(self.add(job_id, {1: NONE}))
        self.dependencies.discard(11)
        decided = [decision.job_id for decision in self.dependencies.ended(1, "success")]
        self.assertEqual(decided, [10, 12])
