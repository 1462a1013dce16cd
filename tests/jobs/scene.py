"""A queue on a journal in memory, with a clock and a runner that tests drive."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.errors import OpPrereqError
from ganeti_masterd.events import Events
from ganeti_masterd.jobs import model
from ganeti_masterd.jobs.control import JobControl
from ganeti_masterd.jobs.files import QueueFolder
from ganeti_masterd.jobs.model import Job
from ganeti_masterd.jobs.queue import JobQueue
from ganeti_masterd.jobs.scheduler import Scheduler
from ganeti_masterd.jobs.submission import Submission, Submitted
from ganeti_masterd.jobs.watch import JobWatch
from ganeti_masterd.opcodes import Opcode, decode_opcode
from ganeti_masterd.testing.journal import MemoryJournal
from ganeti_masterd.timing import Timers


def delay(**parameters: Any) -> Opcode:
    """Returns an opcode that does nothing for a moment."""
    return decode_opcode({"OP_ID": "OP_TEST_DELAY", "duration": 0.001, **parameters})


def values(job: Job, fields: tuple[str, ...]) -> list[Any]:
    """Returns fields of a job, as much as these tests need."""
    known = {
        "id": lambda: job.id,
        "status": lambda: job.status,
        "opstatus": lambda: [op.status for op in job.ops],
        "priority": lambda: job.priority,
    }
    return [known[field]() for field in fields]


class FakeRunner:
    """A :class:`~ganeti_masterd.jobs.queue.Runner` that only writes down what it is told."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.waiting: set[int] = set()
        self.killed: list[int] = []
        self.priorities: list[tuple[int, int]] = []

    def proceed(self, job_id: int) -> None:
        self.begun.append(job_id)

    def cancel_waiting(self, job_id: int) -> bool:
        found = job_id in self.waiting
        self.waiting.discard(job_id)
        return found

    def kill(self, job_id: int) -> bool:
        self.killed.append(job_id)
        return True

    def reprioritize(self, job_id: int, priority: int) -> None:
        self.priorities.append((job_id, priority))


class QueueScene(SynchronousTestCase):
    """Base of tests that need a queue; its files are below a folder of the test's own."""

    limit = 2

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.timers = Timers(self.clock)
        self.journal = MemoryJournal()
        self.folder = QueueFolder(self.mktemp())
        os.makedirs(self.folder.queue + "/archive/0")
        self.events = Events()
        self.make_queue()
        self.runner = FakeRunner()

    def make_queue(self) -> None:
        """Makes a fresh queue, as after a start of the daemon."""
        self.watch = JobWatch(self.timers, values)
        self.queue = JobQueue(
            self.folder, self.journal, self.timers, self.events, Scheduler(self.limit), self.watch
        )
        self.submission = Submission(self.queue)
        self.control = JobControl(self.queue)

    def start(self) -> None:
        """Lets jobs begin."""
        self.queue.run_with(self.runner)

    def submit(self, *jobs: Sequence[Opcode] | OpPrereqError) -> list[Submitted]:
        """Submits jobs and returns what came of each."""
        done: Deferred[list[Submitted]] = self.submission.submit(jobs)
        while not done.called:
            self.assertGreater(len(self.timers), 0, "the submission waits for nothing")
            self.clock.advance(0)
        return self.successResultOf(done)

    def submit_one(self, *ops: Opcode) -> int:
        """Submits one job and returns its id."""
        (job_id,) = self.submit(ops or (delay(),))
        assert isinstance(job_id, int)
        return job_id

    def status(self, job_id: int) -> str:
        """Returns the published status."""
        return self.queue.jobs[job_id].status

    def finish(self, job_id: int, error: Any = None) -> None:
        """Runs a job's current opcodes to their end, as the executor would."""
        job = self.queue.tip(job_id)
        assert job is not None
        now = self.timers.now()
        while not job.finished:
            index = job.current
            job = model.begin_running(job, index, now)
            self.queue.commit([job])
            if error is not None:
                job = model.fail(job, index, error, now)
            else:
                job = model.succeed(job, index, None, now)
            self.queue.commit([job])
