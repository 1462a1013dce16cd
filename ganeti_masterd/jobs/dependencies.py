"""Which jobs wait for which others, and what a job's end means for those.

Pure. A job that depends on others stays queued until each has ended
(protocol/queue.rst, States of jobs; Cancel, priority, dependencies). An id that is unknown is
refused before it gets here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import Enum

from msgspec import Struct

from ganeti_masterd.constants import (
    STATUS_CANCELED,
    STATUS_ERROR,
    STATUS_SUCCESS,
    STATUSES_FINALIZED,
)

#: What an empty list of states asks for (protocol/luxi.rst, Opcodes).
DEFAULT_STATES = frozenset({STATUS_SUCCESS, STATUS_ERROR})


class DependencyOutcome(Enum):
    """What the end of its dependencies means for a job."""

    READY = "ready"
    CANCELED = "canceled"
    FAILED = "failed"


class DependencyDecision(Struct, frozen=True):
    """The outcome for one job, with the text that its result shows."""

    job_id: int
    outcome: DependencyOutcome
    reason: str = ""


def judge(dependency: int, status: str, wanted: frozenset[str]) -> tuple[DependencyOutcome, str]:
    """Returns what a dependency that ended in ``status`` means for the dependant."""
    if status in (wanted or DEFAULT_STATES):
        return DependencyOutcome.READY, ""
    if status == STATUS_CANCELED:
        return (
            DependencyOutcome.CANCELED,
            f"Job {dependency}, on which this one depends, was canceled",
        )
    return (
        DependencyOutcome.FAILED,
        f"Job {dependency}, on which this one depends, ended in {status}, "
        f"not in {' or '.join(sorted(wanted or DEFAULT_STATES))}",
    )


class Dependencies:
    """The jobs that wait for others, by both ends."""

    def __init__(self) -> None:
        self._wanted: dict[int, dict[int, frozenset[str]]] = {}
        self._dependants: dict[int, set[int]] = {}

    def __contains__(self, job_id: int) -> bool:
        return job_id in self._wanted

    def waiting_for(self, job_id: int) -> list[int]:
        """Returns the ids that the job still waits for, in order."""
        return sorted(self._wanted.get(job_id, ()))

    def dependants(self, job_id: int) -> list[int]:
        """Returns the ids of the jobs that wait for this one, in order."""
        return sorted(self._dependants.get(job_id, ()))

    def waiting(self) -> Mapping[int, Iterable[int]]:
        """Returns each job that waits, with the ids that it waits for."""
        return self._wanted

    def add(
        self,
        job_id: int,
        wanted: Mapping[int, frozenset[str]],
        status_of: Callable[[int], str],
    ) -> DependencyDecision | None:
        """Adds a job; returns a decision if it need not wait, else None."""
        open_ones: dict[int, frozenset[str]] = {}
        for dependency, states in wanted.items():
            status = status_of(dependency)
            if status not in STATUSES_FINALIZED:
                open_ones[dependency] = states
                continue
            outcome, reason = judge(dependency, status, states)
            if outcome is not DependencyOutcome.READY:
                return DependencyDecision(job_id, outcome, reason)
        if not open_ones:
            return DependencyDecision(job_id, DependencyOutcome.READY)
        self._wanted[job_id] = open_ones
        for dependency in open_ones:
            self._dependants.setdefault(dependency, set()).add(job_id)
        return None

    def discard(self, job_id: int) -> None:
        """Forgets that the job waits, as it ended another way."""
        for dependency in self._wanted.pop(job_id, ()):
            waiters = self._dependants.get(dependency)
            if waiters is not None:
                waiters.discard(job_id)
                if not waiters:
                    del self._dependants[dependency]

    def ended(self, job_id: int, status: str) -> list[DependencyDecision]:
        """Returns the decisions that the end of a job brings, by job id."""
        decisions = []
        for dependant in sorted(self._dependants.pop(job_id, ())):
            wanted = self._wanted[dependant]
            outcome, reason = judge(job_id, status, wanted.pop(job_id))
            if outcome is not DependencyOutcome.READY:
                self.discard(dependant)
                decisions.append(DependencyDecision(dependant, outcome, reason))
            elif not wanted:
                del self._wanted[dependant]
                decisions.append(DependencyDecision(dependant, DependencyOutcome.READY))
        return decisions
