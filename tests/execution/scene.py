"""A queue, locks, nodes and an executor, on the real reactor and real threads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from threading import Event
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from ganeti_masterd.allocation.desk import PlacementDesk
from ganeti_masterd.config.newcluster import new_cluster
from ganeti_masterd.config.reservations import Reservations
from ganeti_masterd.config.store import ConfigStore
from ganeti_masterd.events import Events
from ganeti_masterd.execution.context import Services
from ganeti_masterd.execution.executor import Executor
from ganeti_masterd.execution.hops import Hops
from ganeti_masterd.execution.threads import OpcodeThreads
from ganeti_masterd.jobs.control import JobControl
from ganeti_masterd.jobs.files import QueueFolder
from ganeti_masterd.jobs.model import Job
from ganeti_masterd.jobs.queue import JobQueue
from ganeti_masterd.jobs.scheduler import Scheduler
from ganeti_masterd.jobs.submission import Submission
from ganeti_masterd.jobs.switches import Switches
from ganeti_masterd.jobs.watch import JobWatch
from ganeti_masterd.locking.keeper import LockKeeper
from ganeti_masterd.locking.levels import Level
from ganeti_masterd.logical_units.base import UNITS, LogicalUnit
from ganeti_masterd.opcodes import Opcode, decode_opcode
from ganeti_masterd.opcodes.tests import TestDummy
from ganeti_masterd.query.engine import QueryEngine
from ganeti_masterd.query.jobs import job_values
from ganeti_masterd.simulation.cluster import SimulatedNodes
from ganeti_masterd.testing.journal import MemoryJournal
from ganeti_masterd.timing import Timers


def dummy(**parameters: Any) -> Opcode:
    """Returns an opcode whose logical unit tests replace."""
    nothing = {"result": None, "messages": None, "fail": None, "submit_jobs": None}
    return decode_opcode({"OP_ID": "OP_TEST_DUMMY", **nothing, **parameters})


class ExecutionScene(TestCase):
    """Base of tests that run opcodes for real, on three simulated nodes."""

    timeout = 20
    limit = 3

    def setUp(self) -> None:
        from twisted.internet import reactor  # noqa: TID251 - real threads need a real one

        self.events = Events()
        self.timers = Timers(reactor)
        self.journal = MemoryJournal()
        self.store = ConfigStore(new_cluster("cluster", 3, 1000.0), self.journal, self.timers)
        self.nodes = SimulatedNodes(self.timers, master="node1")
        self.watch = JobWatch(self.timers, job_values)
        folder = QueueFolder(self.mktemp())
        os.makedirs(folder.queue)
        self.queue = JobQueue(
            folder, self.journal, self.timers, self.events, Scheduler(self.limit), self.watch
        )
        self.locks = LockKeeper(self.timers, self.events)
        snapshot = self.store.snapshot
        self.locks.populate(Level.NODE, snapshot.nodes)
        self.locks.populate(Level.NODEGROUP, snapshot.groups)
        self.switches = Switches(self.queue, folder.queue + "/pause")
        self.engine = QueryEngine(
            self.timers,
            lambda: self.store.snapshot,
            self.nodes,
            self.queue,
            self.locks.rows,
            self.switches,
        )
        self.submission = Submission(self.queue)
        self.control = JobControl(self.queue)
        self.hops = Hops(reactor)
        self.threads = OpcodeThreads(self.limit)
        self.reservations = Reservations()
        services = Services(
            queue=self.queue,
            submission=self.submission,
            store=self.store,
            locks=self.locks,
            reservations=self.reservations,
            desk=PlacementDesk(self.reservations.places),
            nodes=self.nodes,
            engine=self.engine,
            hops=self.hops,
            timers=self.timers,
        )
        self.executor = Executor(reactor, self.threads, services, "/data")
        self.threads.start()
        self.addCleanup(self._end)
        self.queue.run_with(self.executor)

    def _end(self) -> None:
        self.hops.close()
        self.threads.stop()
        self.timers.cancel_all()
        leftovers = (self.locks.rows(), len(self.reservations), len(self.hops))
        self.assertEqual(leftovers, ([], 0, 0), "locks, reservations or hops are left over")

    def unit(self, **attributes: Any) -> type[LogicalUnit[TestDummy]]:
        """Puts a logical unit with these methods in the place of OP_TEST_DUMMY's."""
        cls: type[LogicalUnit[TestDummy]] = type("Unit", (LogicalUnit,), attributes)
        self.patch_unit("OP_TEST_DUMMY", cls)
        return cls

    def patch_unit(self, op_id: str, cls: type[LogicalUnit[Any]]) -> None:
        before = UNITS[op_id]
        UNITS[op_id] = cls
        self.addCleanup(UNITS.__setitem__, op_id, before)

    async def submit(self, *ops: Opcode) -> int:
        """Submits one job; returns its id."""
        (job_id,) = await self.submission.submit([ops])
        assert isinstance(job_id, int)
        return job_id

    async def reaches(self, job_id: int, *statuses: str) -> Job:
        """Waits until a job has one of the statuses; returns it."""
        while (job := self.queue.jobs[job_id]).status not in statuses:
            self.assertFalse(job.finished, f"job {job_id} ended: {job.ops}")
            change = self.watch.wait(job, ["status"], [job.status], job.log_serial, 15)
            if isinstance(change, Deferred):
                await change
        return job

    async def ends(self, job_id: int) -> Job:
        """Waits for a job's end; returns it."""
        return await self.reaches(job_id, "success", "error", "canceled")

    async def run_job(self, *ops: Opcode) -> Job:
        """Submits a job and waits for its end."""
        return await self.ends(await self.submit(*ops))

    def tick(self) -> Deferred[None]:
        """Fires in a later turn of the reactor."""
        done: Deferred[None] = Deferred()
        self.timers.later(0.001, done.callback, None)
        return done

    async def until(self, event: Event) -> None:
        """Waits for a thread without blocking the reactor."""
        while not event.is_set():
            await self.tick()

    def messages(self, job: Job) -> Sequence[Any]:
        """Returns what a job's log says."""
        return [entry.message for op in job.ops for entry in op.log]
