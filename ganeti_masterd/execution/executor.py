"""All jobs that are under way, and the threads that their opcodes block in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads

from ganeti_masterd.execution.aftermath import Aftermath
from ganeti_masterd.execution.context import Services
from ganeti_masterd.execution.run import JobRun
from ganeti_masterd.execution.threads import OpcodeThreads
from ganeti_masterd.jobs.model import reprioritize


class Executor:
    """Implements :class:`~ganeti_masterd.jobs.queue.Runner`. Reactor thread only.

    ``threads`` are for opcodes alone and as many as the limit of running jobs.
    """

    def __init__(
        self,
        reactor: IReactorFromThreads,
        threads: OpcodeThreads,
        services: Services,
        data_dir: str,
    ) -> None:
        self._reactor = reactor
        self._threads = threads
        self._services = services
        self.data_dir = data_dir
        self._runs: dict[int, JobRun | Aftermath] = {}
        self._idle: list[Deferred[None]] = []
        #: How many jobs without a slot keep a thread.
        self._lent = 0

    def __len__(self) -> int:
        return len(self._runs)

    def set_limit(self, limit: int) -> None:
        """Lets at most ``limit`` jobs run from now on; those that run go on."""
        queue = self._services.queue
        queue.scheduler.limit = limit
        self._threads.set_limit(limit + self._lent)
        queue.wake()

    def clear_away(self, job_ids: Iterable[int]) -> None:
        """Ends jobs that a former daemon left running, once their devices are cleared away.

        To be called before any job begins: what these have reserved is theirs at once.
        """
        begun = []
        for job_id in job_ids:
            aftermath = self._runs[job_id] = Aftermath(self._services, self.forget, job_id)
            begun.append(aftermath)
        for aftermath in begun:
            aftermath.reserve()
        for aftermath in begun:
            aftermath.begin()

    # From the queue

    def proceed(self, job_id: int) -> None:
        """See ``Runner.proceed``."""
        run = self._runs.get(job_id)
        if run is None:
            run = self._runs[job_id] = JobRun(self._services, self, job_id)
        run.proceed()

    def cancel_waiting(self, job_id: int) -> bool:
        """See ``Runner.cancel_waiting``."""
        run = self._runs.get(job_id)
        return run is not None and run.cancel_waiting()

    def kill(self, job_id: int) -> bool:
        """See ``Runner.kill``."""
        run = self._runs.get(job_id)
        return run is not None and run.kill()

    def reprioritize(self, job_id: int, priority: int) -> None:
        """See ``Runner.reprioritize``."""
        run = self._runs.get(job_id)
        if run is not None:
            run.reprioritize(priority)

    def aged(self, job_id: int, priority: int) -> None:
        """A job became more urgent by waiting for locks; its opcode shows it."""
        job = self._services.queue.tip(job_id)
        if job is not None and not job.finished:
            self._services.queue.show(reprioritize(job, priority))

    # From the runs

    def in_thread(self, function: Callable[[], Any], told: Callable[[bool, Any], object]) -> None:
        """Runs something that blocks in a pool thread; see ``Workplace.in_thread``."""
        back = partial(self._reactor.callFromThread, told)
        self._threads.callInThreadWithCallback(back, function)

    def lend_thread(self) -> None:
        """A job that gives its slot away keeps its thread: there may be one more."""
        self._lent += 1
        self._threads.set_limit(self._threads.limit + 1)

    def return_thread(self) -> None:
        """The job has a slot again, or has ended."""
        self._lent -= 1
        self._threads.set_limit(self._threads.limit - 1)

    def forget(self, job_id: int) -> None:
        """The job is not under way any more."""
        self._runs.pop(job_id, None)
        if not self._runs:
            waiting, self._idle = self._idle, []
            for done in waiting:
                done.callback(None)

    def when_idle(self) -> Deferred[None]:
        """Fires once no job is under way."""
        done: Deferred[None] = Deferred()
        if self._runs:
            self._idle.append(done)
        else:
            done.callback(None)
        return done

    def under_way(self) -> list[int]:
        """Returns the ids of the jobs that are under way."""
        return sorted(self._runs)

    def give_up_waiting(self) -> None:
        """Takes the jobs that wait for locks off their way; they stay queued on disk."""
        for run in list(self._runs.values()):
            run.give_up_waiting()

    def enqueue(self, job_id: int) -> None:
        """A job that could not be begun is ready again."""
        queue = self._services.queue
        job = queue.jobs.get(job_id)
        if job is not None:
            queue.admission.readmit(job)
