"""The base of the tests of single rules: a table, and steps."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.locking.decisions import (
    Granted,
    LockDecision,
    LockOutcome,
    Waiting,
)
from ganeti_masterd.locking.levels import (
    BGL,
    Level,
    WantedLocks,
    shared,
)
from ganeti_masterd.locking.table import LockTable

NODES = ("n1", "n2", "n3")


class TableCase(SynchronousTestCase):
    """A table with three nodes and an instance; jobs 1 to 9 share the cluster lock."""

    def setUp(self) -> None:
        self.table = LockTable()
        self.table.add(Level.NODE, NODES)
        self.table.add(Level.INSTANCE, ["inst1"])
        for job in range(1, 10):
            self.table.request(job, Level.CLUSTER, shared(BGL))

    def ask(self, job: int, wanted: WantedLocks, priority: int = 0) -> LockDecision:
        return self.table.request(job, Level.NODE, wanted, priority)

    def gets(self, job: int, wanted: WantedLocks, priority: int = 0) -> frozenset[str]:
        decision = self.ask(job, wanted, priority)
        assert isinstance(decision, Granted), decision
        return decision.names

    def waits(self, job: int, wanted: WantedLocks, priority: int = 0) -> None:
        self.assertEqual(self.ask(job, wanted, priority), Waiting(job, Level.NODE))

    def assert_granted(self, outcomes: list[LockOutcome], *jobs: int) -> None:
        self.assertEqual([outcome.owner for outcome in outcomes], list(jobs))
        for outcome in outcomes:
            self.assertIsInstance(outcome, Granted)
