"""What stands between a queued job and the scheduler: filter rules, then dependencies.

Reactor thread only. Rules are weighed when a job comes in, when its last
dependency has ended, and for all queued jobs whenever the rules change; a job
that is under way is left alone
(protocol/queue.rst, Order and filter rules). A job held back stands in a set
and costs nothing until then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ganeti_masterd.config.objects import FilterRule
from ganeti_masterd.constants import STATUS_QUEUED
from ganeti_masterd.errors import encode_error, prereq
from ganeti_masterd.jobs import model
from ganeti_masterd.jobs.dependencies import Dependencies, DependencyDecision, DependencyOutcome
from ganeti_masterd.jobs.model import Job
from ganeti_masterd.jobs.rules import Action, JobRule, RuleVerdict, in_order, weigh
from ganeti_masterd.jobs.scheduler import Limit, Scheduler
from ganeti_masterd.timing import Timers

log = Logger()


class QueueOfJobs(Protocol):
    """The queue whose jobs are let through, as far as that needs it."""

    timers: Timers
    scheduler: Scheduler

    def known(self) -> Iterable[Job]:
        """Returns all jobs as they are published, and new ones that aren't yet."""

    def tip(self, job_id: int, /) -> Job | None:
        """Returns a job with what is pending."""

    def status_of(self, job_id: int, /) -> str | None:
        """Returns the published status of a live or just archived job; None for any other."""

    def wanted_by(self, job_id: int, /) -> Mapping[int, frozenset[str]]:
        """Returns the ids, with the final states, that a job's opcodes depend on."""

    def wake(self) -> None:
        """Hands jobs to the runner while there are slots."""

    def commit_surely(self, jobs: Sequence[Job], /) -> Deferred[Any]:
        """Commits states again and again until the disk takes them."""


class Admission:
    """Lets the queued jobs of one queue through to its scheduler."""

    def __init__(self, queue: QueueOfJobs) -> None:
        self._queue = queue
        self._dependencies = Dependencies()
        self._rules: list[JobRule] = []
        #: Jobs that only a PAUSE keeps from the scheduler.
        self.paused: set[int] = set()
        #: Jobs whose end was decided here and is not published yet.
        self._ending: set[int] = set()

    def admit(self, job: Job) -> None:
        """Takes in a queued job; one in any other state, or that is here, is left alone."""
        if job.status != STATUS_QUEUED or job.id in self:
            return
        if self._rules and (verdict := weigh(self._rules, job)).action is Action.REJECT:
            self._reject(job, verdict)
            return
        queue = self._queue
        wanted = queue.wanted_by(job.id)
        if not wanted:
            self._place(job)
            return
        decision = self._dependencies.add(job.id, wanted, lambda n: queue.status_of(n) or "")
        if decision is not None:
            self._decide(decision)

    def readmit(self, job: Job) -> None:
        """Takes a job in again that had been let through and could not be begun."""
        if job.status == STATUS_QUEUED and job.id not in self:
            self._place(job)
            self._queue.wake()

    def withdraw(self, job_id: int) -> None:
        """Takes a job out, here and in the scheduler: it ended, may not begin, or never was."""
        self.paused.discard(job_id)
        self._ending.discard(job_id)
        self._dependencies.discard(job_id)
        self._queue.scheduler.discard(job_id)

    def ended(self, job_id: int, status: str) -> None:
        """A job has ended: its dependants may go on, or end as well."""
        self.withdraw(job_id)
        for decision in self._dependencies.ended(job_id, status):
            self._decide(decision)

    def __contains__(self, job_id: int) -> bool:
        """Whether it is known what the job waits for, or that it is under way."""
        scheduler = self._queue.scheduler
        return (
            job_id in scheduler
            or scheduler.under_way(job_id)
            or job_id in self._dependencies
            or job_id in self.paused
            or job_id in self._ending
        )

    def waiting_for(self, job_id: int) -> list[int]:
        """Returns the ids of the jobs whose end a job waits for, in order."""
        return self._dependencies.waiting_for(job_id)

    def dependent(self) -> Iterable[int]:
        """Returns the ids of all jobs that wait for the end of others."""
        return self._dependencies.waiting()

    def rule_of(self, job: Job) -> str:
        """Returns the uuid of the filter rule that decides about a job; empty for none."""
        return weigh(self._rules, job).rule

    def set_rules(self, rules: Iterable[FilterRule]) -> None:
        """Puts other filter rules in the place of all former ones, and weighs the jobs again."""
        self._rules = in_order(rules)
        queue = self._queue
        for job in queue.known():
            if job.status == STATUS_QUEUED:
                self._weigh_again(job)
        queue.scheduler.limit_anew(self._limits_of)
        queue.wake()

    def _weigh_again(self, job: Job) -> None:
        scheduler = self._queue.scheduler
        ready = job.id in scheduler
        if not ready and job.id not in self.paused and job.id not in self._dependencies:
            return  # under way, or about to end
        verdict = weigh(self._rules, job)
        if verdict.action is Action.REJECT:
            self.withdraw(job.id)
            self._reject(job, verdict)
        elif verdict.action is Action.PAUSE:
            if ready:
                scheduler.discard(job.id)
                self.paused.add(job.id)
        elif job.id in self.paused:
            self.paused.discard(job.id)
            scheduler.add(job.id, job.priority, verdict.limits)

    def _limits_of(self, job_id: int) -> tuple[Limit, ...]:
        job = self._queue.tip(job_id)
        return () if job is None else weigh(self._rules, job).limits

    def _place(self, job: Job) -> None:
        """Nothing but the rules stands between the job and a slot."""
        verdict = weigh(self._rules, job)
        if verdict.action is Action.PAUSE:
            self.paused.add(job.id)
        else:
            self._queue.scheduler.add(job.id, job.priority, verdict.limits)

    def _reject(self, job: Job, verdict: RuleVerdict) -> None:
        log.info("Filter rule {rule} rejects job {job}", rule=verdict.rule, job=job.id)
        now = self._queue.timers.now()
        self._end(model.cancel(job, now, f"Job rejected by filter rule {verdict.rule}"))

    def _decide(self, decision: DependencyDecision) -> None:
        queue = self._queue
        job = queue.tip(decision.job_id)
        if job is None or job.status != STATUS_QUEUED:
            return
        if decision.outcome is DependencyOutcome.READY:
            self._place(job)
            queue.wake()
            return
        now = queue.timers.now()
        if decision.outcome is DependencyOutcome.CANCELED:
            self._end(model.cancel(job, now, decision.reason))
        else:
            error = encode_error(prereq(decision.reason, "wrong_state"))
            self._end(model.fail(job, job.current, error, now))

    def _end(self, job: Job) -> None:
        self._ending.add(job.id)
        self._queue.commit_surely([job]).addErrback(
            lambda failure: log.info(
                "The end of job {job} is decided anew after a restart: {error}",
                job=job.id,
                error=failure.value,
            )
        )
