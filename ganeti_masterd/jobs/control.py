"""What clients may do to a job: cancel, kill, change its priority, archive it.

The answers are those of protocol/queue.rst, Cancel, priority, dependencies; each is given once
its effect is durable.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks, succeed

from ganeti_masterd.constants import (
    OP_PRIO_HIGHEST,
    OP_PRIO_LOWEST,
    STATUS_QUEUED,
    STATUS_RUNNING,
    STATUS_WAITING,
)
from ganeti_masterd.errors import prereq
from ganeti_masterd.jobs import model
from ganeti_masterd.jobs.model import Job
from ganeti_masterd.jobs.queue import JobQueue

#: Whether it was done, and a sentence for people.
ControlAnswer = tuple[bool, str]

#: How many jobs AutoArchiveJobs moves in one commit.
ARCHIVE_SLICE = 500


class JobControl:
    """Requests about single jobs, on a queue."""

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue

    def cancel(self, job_id: int, kill: bool = False) -> Deferred[ControlAnswer]:
        """Cancels a job that has not begun; informs (or with ``kill`` stops) a running one."""
        queue = self._queue
        job = queue.tip(job_id)
        if job is None or job.finished:
            return succeed((False, f"Job {job_id} not found in queue"))
        status = job.status
        if status == STATUS_QUEUED and job_id not in queue.scheduler.running:
            return self._dequeue(job)
        runner = queue.runner
        if runner is None:
            return succeed((False, f"Job {job_id} can't be cancelled yet: the daemon starts"))
        if status in (STATUS_QUEUED, STATUS_WAITING) and runner.cancel_waiting(job_id):
            ended = model.cancel(job, queue.timers.now(), model.CANCELED_BY_REQUEST)
            return queue.commit_surely([ended]).addCallback(
                lambda _: (True, "Job successfully cancelled")
            )
        if kill and runner.kill(job_id):
            return succeed((True, f"Job {job_id} is being killed"))
        return succeed((False, "Job no longer waiting, can't cancel (informed it anyway)"))

    def _dequeue(self, job: Job) -> Deferred[ControlAnswer]:
        queue = self._queue
        # Not to be begun while the disk is at work; a failed commit puts it back.
        queue.admission.withdraw(job.id)
        ended = model.cancel(job, queue.timers.now())
        return queue.commit([ended]).addCallback(lambda _: (True, f"Dequeued job {job.id}"))

    def change_priority(self, job_id: int, priority: int) -> Deferred[ControlAnswer]:
        """Changes the priority of a job's opcodes that have not begun to run.

        Raises ``OpPrereqError`` for a priority outside -20..19.
        """
        if not OP_PRIO_HIGHEST <= priority <= OP_PRIO_LOWEST:
            raise prereq(
                f"Priority {priority} is out of range: {OP_PRIO_HIGHEST} (most urgent) "
                f"to {OP_PRIO_LOWEST}"
            )
        queue = self._queue
        job = queue.tip(job_id)
        if job is None or job.finished:
            return succeed((False, f"Job {job_id} not found in queue"))
        if job.status == STATUS_RUNNING and job.current == len(job.ops) - 1:
            return succeed((False, f"Job {job_id} runs its last opcode"))
        changed = model.reprioritize(job, priority)

        def durable(_: object) -> ControlAnswer:
            queue.scheduler.reprioritize(job_id, priority)
            if queue.runner is not None:
                queue.runner.reprioritize(job_id, priority)
            return True, f"Priority of job {job_id} is {priority} now"

        return queue.commit([changed]).addCallback(durable)

    def archive(self, job_id: int) -> Deferred[bool]:
        """Archives a job; false if it isn't in the queue, has not ended, or is being archived."""
        job = self._queue.archivable(job_id)
        if job is None:
            return succeed(False)
        return self._queue.archive([job]).addCallback(lambda _: True)

    @inlineCallbacks
    def auto_archive(
        self, age: float, timeout: float, clock: Callable[[], float] | None = None
    ) -> Generator[Any, Any, tuple[int, int]]:
        """Archives jobs that ended (else began) more than ``age`` seconds ago.

        An age of -1 means every job that has ended. Fires with the number
        archived and the number not examined within ``timeout`` seconds. Jobs
        that have not ended, or never began, are left alone.
        """
        queue = self._queue
        seconds = clock or queue.timers.seconds
        deadline = seconds() + timeout
        now = queue.timers.now()
        todo = deque(queue.jobs)
        archived = 0
        while True:
            old: list[Job] = []
            while todo and len(old) < ARCHIVE_SLICE and seconds() <= deadline:
                job = queue.archivable(todo.popleft())
                if job is not None and _is_older(job, now, age):
                    old.append(job)
            if not old:
                return archived, len(todo)
            archived += len(old)
            yield queue.archive(old)


def _is_older(job: Job, now: float, age: float) -> bool:
    stamp = job.end_timestamp or job.start_timestamp
    if age == -1:
        return True
    return stamp is not None and now - (stamp[0] + stamp[1] / 1e6) > age
