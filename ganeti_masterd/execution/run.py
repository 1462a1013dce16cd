"""One job on its way: from its slot, opcode by opcode, to its end.

Waiting for locks takes no thread: a level is asked for, and the answer either
is there at once or comes by Deferred, while the job's slot goes to another.
Only then is ``running`` made durable, and only after that does the opcode get
a thread (architecture.rst, "How a request travels").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ganeti_masterd.constants import ELOG_MESSAGE, STATUS_QUEUED
from ganeti_masterd.errors import (
    ECODE_TEMP_NORES,
    DaemonStopping,
    GenericError,
    OpPrereqError,
    encode_error,
)
from ganeti_masterd.execution.acquiring import Acquisition
from ganeti_masterd.execution.context import OpcodeContext, Services
from ganeti_masterd.execution.killing import KillSwitch, Stretch
from ganeti_masterd.execution.phases import KILLABLE, WAITING, WITHOUT_SLOT, Phase, step
from ganeti_masterd.execution.sub_jobs import SubJobs
from ganeti_masterd.execution.unit import run_unit
from ganeti_masterd.jobs import model
from ganeti_masterd.jobs.model import Job
from ganeti_masterd.logical_units.base import LogicalUnit
from ganeti_masterd.logical_units.registry import unit_for
from ganeti_masterd.opcodes.base import Opcode

log = Logger()

#: Seconds until an opcode that lacked resources tries again.
RESOURCES_PAUSE = 5.0
#: Seconds until a job whose start could not be recorded is begun again.
DISK_PAUSE = 5.0


class Workplace(Protocol):
    """Where jobs are run: threads for what blocks, and who is under way. Reactor thread only."""

    data_dir: str

    def in_thread(
        self, function: Callable[[], Any], told: Callable[[bool, Any], object], /
    ) -> None:
        """Runs something that blocks in a pool thread.

        ``told`` is called in the reactor with whether it was good, and its result or ``Failure``.
        """

    def enqueue(self, job_id: int, /) -> None:
        """Lets a job begin again that could not be begun."""

    def lend_thread(self) -> None:
        """Allows one more thread, as a job keeps its own and gives its slot away."""

    def return_thread(self) -> None:
        """Takes back what :meth:`lend_thread` allowed."""

    def forget(self, job_id: int, /) -> None:
        """Notes that a job is not under way any more."""


class JobRun:
    """Runs one job. Reactor thread only, but for what threads may use of ``kills``."""

    def __init__(self, services: Services, workplace: Workplace, job_id: int) -> None:
        self.job_id = job_id
        self.phase = Phase.IDLE
        self._services = services
        self._queue = services.queue
        self._workplace = workplace
        self._unit: LogicalUnit[Any]
        self._acquisition: Acquisition
        self._index = 0
        self._attempt = 0
        self.kills = KillSwitch(job_id, self._warn_of_calls)
        #: What a thread does for the current opcode, or is to do.
        self._stretch: Stretch | None = None
        self._sub_jobs = SubJobs(services, job_id)
        self._canceled = False
        #: Fires when the thread that waits for a slot has one.
        self._slot: Deferred[None]

    # From the scheduler

    def proceed(self) -> None:
        """The job has a slot: begins its next opcode, or goes on with its locks.

        A new job comes here before its first commit (see ``JobQueue.enter``), as nothing runs
        before ``running`` is durable. The disk may yet refuse it: :meth:`_never_was`.
        """
        if self.phase is Phase.GRANTED:
            self._acquisition.resume()
            return
        if self.phase is Phase.RECLAIMING:
            self._slot_taken()
            return
        if self.phase is Phase.RESUMING:
            self._go(Phase.IDLE)
        self._begin()

    def _go(self, phase: Phase) -> None:
        self.phase = step(self.phase, phase)

    def _job(self) -> Job:
        job = self._queue.tip(self.job_id)
        assert job is not None
        return job

    def _never_was(self) -> bool:
        """Whether the disk refused the commit that would have made the job be."""
        return self._queue.tip(self.job_id) is None

    @property
    def _op(self) -> Opcode:
        return self._queue.opcodes[self.job_id][self._index]

    def _begin(self) -> None:
        self._index = self._job().current
        if self.kills.killed:
            self._refused(self.kills.error())
            return
        unit = unit_for(self._op)
        try:
            self._take_up(unit)
        except Exception as error:
            self._refused(error)
            return
        if unit.prepares:
            self._show_waiting()
            self._go(Phase.PREPARING)
            ctx = OpcodeContext(self._services, self, self._index)
            self._in_thread(unit.prepare, ctx).addCallbacks(
                lambda _: self._prepared(), self._not_prepared
            )
        else:
            self._acquisition.begin()

    def _take_up(self, unit: LogicalUnit[Any]) -> None:
        """Makes ``unit`` the current opcode's; raises what it says against its arguments."""
        services = self._services
        self._unit = unit
        unit.attempt = self._attempt
        self._acquisition = Acquisition(self, unit, services.locks, services.store)
        unit.expand(services.store.snapshot)

    def _prepared(self) -> None:
        if self._canceled:
            self._cancel()
        else:
            self._acquisition.begin()

    def _not_prepared(self, failure: Failure) -> None:
        if self._canceled:
            self._cancel()
        else:
            self._refused(_error(failure))

    def _cancel(self) -> None:
        if self._never_was():
            self._leave()
            return
        now = self._services.timers.now()
        self._end(model.cancel(self._job(), now, model.CANCELED_BY_REQUEST))

    def _show_waiting(self) -> None:
        job = self._job()
        if job.ops[self._index].status == STATUS_QUEUED:
            now = self._services.timers.now()
            self._queue.show(model.begin_waiting(job, self._index, now))

    # From the acquisition of locks

    def priority(self) -> int:
        """See ``Applicant.priority``."""
        return self._job().priority

    def locks_held(self) -> None:
        """See ``Applicant.locks_held``: the opcode begins once that is durable."""
        self._go(Phase.STARTING)
        services = self._services
        job = model.begin_running(self._job(), self._index, services.timers.now())
        services.queue.commit([job]).addCallbacks(self._run, self._not_begun)

    def locks_awaited(self) -> None:
        """See ``Applicant.locks_awaited``."""
        self._go(Phase.BLOCKED)
        self._show_waiting()
        self._queue.scheduler.block(self.job_id)
        self._queue.wake()

    def locks_granted(self) -> None:
        """See ``Applicant.locks_granted``."""
        if self._never_was():
            self._leave()
            return
        self._go(Phase.GRANTED)
        queue = self._services.queue
        queue.scheduler.resume(self.job_id, self.priority())
        queue.wake()

    def locks_refused(self, error: BaseException) -> None:
        """See ``Applicant.locks_refused``."""
        self._refused(error)

    # The opcode itself

    def _not_begun(self, failure: Failure) -> None:
        if failure.check(DaemonStopping) or self._never_was():
            self._leave()
            return
        if self.kills.killed:
            self._refused(self.kills.error())
            return
        self._leave()
        queue = self._services.queue
        # One that was seen to wait for locks starts over, too.
        queue.show(model.requeue(self._job()))
        log.error(
            "The start of job {job} can't be recorded, it waits {pause} s: {error}",
            job=self.job_id,
            pause=DISK_PAUSE,
            error=failure.value,
        )
        self._services.timers.later(DISK_PAUSE, self._workplace.enqueue, self.job_id)

    def _run(self, _: object) -> None:
        self._go(Phase.RUNNING)
        if self.kills.killed:
            self._failed(Failure(self.kills.error()))
            return
        ctx = OpcodeContext(self._services, self, self._index)
        done = self._in_thread(run_unit, self._unit, ctx, self._workplace.data_dir)
        done.addCallbacks(self._succeeded, self._failed)

    def _in_thread(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """Runs something that blocks in a pool thread; a kill calls it off until it begins."""
        stretch = self._stretch = Stretch(function, *args)
        done: Deferred[Any] = Deferred()

        def ended(good: bool, result: Any) -> None:
            if self._stretch is stretch:
                self._stretch = None
                done.callback(result)

        self._stretch_done = done
        self._workplace.in_thread(stretch.run, ended)
        return done

    def _succeeded(self, result: Any) -> None:
        now = self._services.timers.now()
        self._advance(model.succeed(self._job(), self._index, result, now))

    def _failed(self, failure: Failure) -> None:
        error = _error(failure)
        if (
            self._unit.waits_for_resources
            and not self.kills.killed
            and isinstance(error, OpPrereqError)
            and error.args[1:] == (ECODE_TEMP_NORES,)
        ):
            self._wait_for_resources()
            return
        if not isinstance(error, GenericError):
            log.failure(
                "Opcode {index} of job {job} failed in an unforeseen way",
                failure,
                index=self._index,
                job=self.job_id,
            )
        self._sub_jobs.drop()
        self._end(
            model.fail(self._job(), self._index, encode_error(error), self._services.timers.now())
        )

    def _wait_for_resources(self) -> None:
        services = self._services
        self._sub_jobs.drop()
        self._attempt += 1
        services.locks.release_all(self.job_id)
        services.reservations.drop(self.job_id)
        services.queue.show(model.wait_again(self._job(), self._index))
        self._go(Phase.BLOCKED)
        services.queue.scheduler.block(self.job_id)
        services.timers.later(RESOURCES_PAUSE, self._try_again)
        services.queue.wake()

    def _try_again(self) -> None:
        if self.phase is Phase.BLOCKED:
            self._go(Phase.RESUMING)
            queue = self._services.queue
            queue.scheduler.resume(self.job_id, self._job().priority)
            queue.wake()

    # Ends

    def _refused(self, error: BaseException) -> None:
        """The opcode fails before it ran."""
        services = self._services
        if isinstance(error, DaemonStopping):
            self._leave()
            return
        if not isinstance(error, GenericError):
            log.failure(
                "Opcode {index} of job {job} could not be begun",
                Failure(error),
                index=self._index,
                job=self.job_id,
            )
        job, now = self._job(), services.timers.now()
        if job.ops[self._index].status == STATUS_QUEUED:
            job = model.begin_waiting(job, self._index, now)
        self._end(model.fail(job, self._index, encode_error(error), now))

    def _advance(self, job: Job) -> None:
        """Records an opcode's success and begins the next one, if there is any."""
        if job.current == len(job.ops):
            self._end(job)
            return
        services = self._services
        self._attempt = 0
        services.locks.release_all(self.job_id)
        self._record(job).addCallbacks(self._go_on, self._stopped)

    def _go_on(self, _: object) -> None:
        self._go(Phase.IDLE)
        self._begin()

    def _end(self, job: Job) -> None:
        """Records the end of the job. Its locks are free at once, its slot once it is durable.

        Until then it is under way: a stop that waits for the last job waits for
        its end on disk, too.
        """
        self._let_go()
        recorded = self._record(job).addErrback(self._stopped)
        recorded.addBoth(lambda _: self._workplace.forget(self.job_id))

    def _record(self, job: Job) -> Deferred[None]:
        jobs, rows = self._sub_jobs.take()
        return self._queue.commit_surely([*jobs, job], rows)

    def _stopped(self, failure: Failure) -> None:
        if not failure.check(DaemonStopping):
            log.failure("Job {job} is stuck", failure, job=self.job_id)

    def _let_go(self) -> None:
        if self.phase in WITHOUT_SLOT:
            self._workplace.return_thread()
        self._go(Phase.ENDED)
        self._services.locks.release_all(self.job_id)
        self._services.reservations.drop(self.job_id)

    def _leave(self) -> None:
        """Leaves the job as it is on disk, without locks and without a slot."""
        self._let_go()
        self._workplace.forget(self.job_id)
        self._queue.scheduler.discard(self.job_id)

    # From clients

    def cancel_waiting(self) -> bool:
        """Ends the wait for locks; see ``Runner.cancel_waiting``."""
        if self.phase is Phase.PREPARING:
            self._canceled = True
            self._kill()
            return False
        if self.phase not in WAITING:
            return False
        self._acquisition.give_up()
        self._leave()
        return True

    def give_up_waiting(self) -> None:
        """Leaves a job that has not begun its opcode, as the daemon stops.

        One that waits in its thread for a slot gets it: the stop waits for its end.
        """
        if self.phase in WAITING:
            self._acquisition.give_up()
            self._leave()
        elif self.phase is Phase.RECLAIMING:
            self._take_slot_at_once()

    def kill(self) -> bool:
        """See ``Runner.kill``."""
        if self.phase not in KILLABLE:
            return False
        self._kill()
        return True

    def _kill(self) -> None:
        """Ends what the thread waits for, or the opcode if no thread has taken it up."""
        self.kills.kill()
        stretch = self._stretch
        if stretch is not None and stretch.call_off():
            self._stretch = None
            self._stretch_done.errback(self.kills.error())
        if self.phase is Phase.RECLAIMING:
            self._take_slot_at_once()

    def _warn_of_calls(self, text: str) -> None:
        self.log(self._index, ELOG_MESSAGE, f" - WARNING: The job is killed; {text}")

    def reprioritize(self, priority: int) -> None:
        """A new priority counts in the line for locks and for slots."""
        self._services.locks.set_priority(self.job_id, priority)

    # From the opcode's thread, by hops

    def nap(self, seconds: float) -> Deferred[None]:
        """Returns a Deferred that fires after a while."""
        return self._services.timers.sleep(seconds)

    def leave_slot(self) -> None:
        """Gives the slot to another job; locks, reservations and the thread stay."""
        self._go(Phase.OFF_SLOT)
        queue = self._services.queue
        queue.scheduler.block(self.job_id)
        self._workplace.lend_thread()
        queue.wake()

    def take_slot(self) -> Deferred[None]:
        """Fires once the job has a slot again; without delay if it was killed or in a stop."""
        self._go(Phase.RECLAIMING)
        slot = self._slot = Deferred()
        queue = self._services.queue
        if self.kills.killed or queue.closing:
            self._take_slot_at_once()
        else:
            queue.scheduler.resume(self.job_id, self.priority())
            queue.wake()
        return slot

    def _take_slot_at_once(self) -> None:
        self._queue.scheduler.reclaim(self.job_id)
        self._slot_taken()

    def _slot_taken(self) -> None:
        self._go(Phase.RUNNING)
        self._workplace.return_thread()
        self._slot.callback(None)

    def log(self, index: int, kind: str, message: Any) -> None:
        """Adds to the log of an opcode; a line that can't be recorded is only logged here."""
        self._queue.add_log(self.job_id, index, kind, message).addErrback(
            lambda failure: log.warn(
                "A log line of job {job} is lost: {error}", job=self.job_id, error=failure.value
            )
        )

    def progress(self, index: int, text: str) -> None:
        """Shows how far an opcode is."""
        self._queue.show_progress(self.job_id, index, text)

    def submit_with_result(self, index: int, jobs: Sequence[Sequence[Opcode]]) -> list[int]:
        """Gives ids to jobs that come to be with the opcode's success."""
        return self._sub_jobs.add(index, jobs)


def _error(failure: Failure) -> BaseException:
    assert failure.value is not None
    return failure.value
