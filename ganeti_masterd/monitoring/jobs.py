"""Metrics of jobs: counts by status, ends by opcode, waits and run times.

They are updated by events, so that a scrape needn't look at any job.
"""

from __future__ import annotations

from collections import Counter as Multiset
from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client.core import Metric

from ganeti_masterd.constants import (
    STATUS_CANCELED,
    STATUS_CANCELING,
    STATUS_ERROR,
    STATUS_QUEUED,
    STATUS_RUNNING,
    STATUS_SUCCESS,
    STATUS_WAITING,
    STATUSES_FINALIZED,
)
from ganeti_masterd.errors import ERRORS
from ganeti_masterd.events import JobArchived, JobChanged
from ganeti_masterd.jobs.model import Job, Timestamp
from ganeti_masterd.monitoring import declarations as metrics
from ganeti_masterd.monitoring.oldest import OldestJobs
from ganeti_masterd.monitoring.tallies import Counter, Histogram
from ganeti_masterd.opcodes import OPCODES

#: The statuses of jobs, as a job goes through them.
STATUSES = (
    STATUS_QUEUED,
    STATUS_WAITING,
    STATUS_CANCELING,
    STATUS_RUNNING,
    STATUS_CANCELED,
    STATUS_SUCCESS,
    STATUS_ERROR,
)

#: The statuses of jobs that have not ended.
OPEN = tuple(status for status in STATUSES if status not in STATUSES_FINALIZED)

#: The label value for opcodes and errors unknown to Ganeti, from other programs' job files.
UNKNOWN = "unknown"


class JobMetrics:
    """Counts jobs. ``jobs`` are the queue's published jobs, used to look up single ones.

    :meth:`begin` counts those in the queue; from then on it must be given every event.
    """

    def __init__(self, jobs: Mapping[int, Job]) -> None:
        self._jobs = jobs
        #: How many jobs that aren't archived have each status.
        self.by_status: dict[str, int] = dict.fromkeys(STATUSES, 0)
        #: Since when the oldest job has each status that isn't final.
        self.oldest = OldestJobs(OPEN)
        #: Seconds that the last job of an opcode waited and ran, by that opcode.
        self.last_wait: dict[str, float] = {}
        self.last_run: dict[str, float] = {}
        self._submitted = Counter(metrics.JOBS_SUBMITTED)
        self._ended = Counter(metrics.JOBS_ENDED)
        self._archived = Counter(metrics.JOBS_ARCHIVED)
        self._errors = Counter(metrics.OPCODE_ERRORS)
        self._waits = Histogram(metrics.JOB_WAIT)
        self._runs = Histogram(metrics.JOB_RUN)
        self._opcode_runs = Histogram(metrics.OPCODE_RUN)

    def begin(self) -> None:
        """Counts the jobs that are in the queue now; only this iterates over all of them."""
        jobs = list(self._jobs.values())
        found = Multiset(job.status for job in jobs)
        self.by_status = {status: found[status] for status in STATUSES}
        self.oldest = OldestJobs(OPEN)
        for job in sorted(jobs, key=lambda job: job.end_timestamp or (0, 0)):
            if job.finished:
                self._last(job)
            else:
                self._enter(job, job.status)

    def changed(self, event: JobChanged) -> None:
        """Records that a job is new or its status changed."""
        if event.before is None:
            self._submitted.add()
        else:
            self.by_status[event.before] -= 1
            self.oldest.leave(event.before, event.job_id)
        self.by_status[event.after] += 1
        job = self._jobs.get(event.job_id)
        if job is None:
            return
        self._enter(job, event.after)
        if event.before in (None, STATUS_QUEUED) and event.after != STATUS_QUEUED:
            self._began(job)
        if event.after in STATUSES_FINALIZED:
            self._end(job, event.after)

    def archived(self, event: JobArchived) -> None:
        """Records that a job left the queue."""
        self.by_status[event.status] -= 1
        self._archived.add()

    def collect(self) -> Iterator[Metric]:
        """Yields all metrics except the counts by status, which need the cluster's name."""
        for counter in (self._submitted, self._ended, self._archived, self._errors):
            yield counter.family()
        for histogram in (self._waits, self._runs, self._opcode_runs):
            yield histogram.family()

    def _enter(self, job: Job, status: str) -> None:
        begun = status in (STATUS_RUNNING, STATUS_CANCELING)
        stamp = (begun and job.start_timestamp) or job.received_timestamp
        if stamp:
            self.oldest.enter(status, job.id, _seconds((0, 0), stamp))

    def _last(self, job: Job) -> None:
        op_id = _op_id(job.ops[0].input)
        if job.received_timestamp and job.start_timestamp:
            self.last_wait[op_id] = max(0, _seconds(job.received_timestamp, job.start_timestamp))
        if job.start_timestamp and job.end_timestamp:
            self.last_run[op_id] = max(0, _seconds(job.start_timestamp, job.end_timestamp))

    def _began(self, job: Job) -> None:
        # A job is queued again between two opcodes; only the first start is the job's.
        if not job.ops[0].finished and job.received_timestamp and job.start_timestamp:
            self._waits.observe(_seconds(job.received_timestamp, job.start_timestamp))

    def _end(self, job: Job, status: str) -> None:
        self._ended.add(_op_id(job.ops[0].input), status)
        self._last(job)
        if job.start_timestamp and job.end_timestamp:
            self._runs.observe(_seconds(job.start_timestamp, job.end_timestamp))
        for op in job.ops:
            if op.exec_timestamp and op.end_timestamp:
                took = _seconds(op.exec_timestamp, op.end_timestamp)
                self._opcode_runs.observe(took, _op_id(op.input))
        if status == STATUS_ERROR:
            # The opcodes after the one that failed have errors too, which only say so.
            failed = next(op for op in job.ops if op.status == STATUS_ERROR)
            self._errors.add(_error_class(failed.result))


def _seconds(start: Timestamp, end: Timestamp) -> float:
    return end[0] - start[0] + (end[1] - start[1]) / 1_000_000


def _op_id(values: Mapping[str, Any]) -> str:
    op_id: str = values["OP_ID"]
    return op_id if op_id in OPCODES else UNKNOWN


def _error_class(result: Any) -> str:
    """Returns the class of an encoded error, ``[class, args]``."""
    match result:
        case [str() as name, *_] if name in ERRORS:
            return name
    return UNKNOWN
