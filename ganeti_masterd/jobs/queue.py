"""The job queue: every job's tip and published state, and who must hear of a change.

Reactor thread only. A change is applied to the *tip* first and committed to
the journal; once it is durable it is *published*: readers, waiting clients and
dependants see it then, never earlier (architecture.rst, journal rule 1). A
commit that fails drops the tips back to what is published.

The queue decides nothing about opcodes: whoever executes them registers with
:meth:`JobQueue.run_with` and is handed each job that may go on.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

import msgspec
from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from ganeti_masterd.constants import STATUSES_FINALIZED
from ganeti_masterd.errors import DaemonStopping, JobQueueError
from ganeti_masterd.events import Events, JobArchived, JobChanged, JobShown
from ganeti_masterd.jobs import model
from ganeti_masterd.jobs.admission import Admission
from ganeti_masterd.jobs.devices import NotedDevice
from ganeti_masterd.jobs.endings import Endings
from ganeti_masterd.jobs.files import QueueFolder
from ganeti_masterd.jobs.model import Job, LogEntry, encode_job, timestamp
from ganeti_masterd.jobs.scheduler import Scheduler
from ganeti_masterd.jobs.watch import JobWatch
from ganeti_masterd.journal.interfaces import IJournal
from ganeti_masterd.journal.rows import JobRow, LogRow, Row
from ganeti_masterd.opcodes.base import Opcode
from ganeti_masterd.timing import Timer, Timers

log = Logger()

#: No final states at all.
NONE_ENDED: Mapping[int, str] = MappingProxyType({})

#: The kind of log entries that say how far an opcode is; an opcode's log holds the last only.
PROGRESS = "progress"

#: How many job files are read from the archive in one go of the disk thread.
READ_SLICE = 50


class Runner(Protocol):
    """Whoever executes jobs; the queue calls it, always in the reactor."""

    def proceed(self, job_id: int) -> None:
        """The job has a slot: begin it, or go on after its wait for locks."""

    def cancel_waiting(self, job_id: int) -> bool:
        """Ends the job's wait for locks; false if it does not wait any more."""

    def kill(self, job_id: int) -> bool:
        """Ends a running job, at once where it only waits; false if it doesn't run."""

    def reprioritize(self, job_id: int, priority: int) -> None:
        """The priority of a job that may be waiting for locks changed."""


class _Entry(msgspec.Struct, eq=False):
    """A new job until its first commit, which carries ``rows`` as well."""

    job: Job
    rows: Sequence[Row]
    #: The client's: fires when that commit is published, or fails with it.
    told: Deferred[None]


class JobQueue:
    """All jobs that aren't archived, by id."""

    def __init__(
        self,
        folder: QueueFolder,
        journal: IJournal,
        timers: Timers,
        events: Events,
        scheduler: Scheduler,
        watch: JobWatch,
    ) -> None:
        self.folder = folder
        self.journal = journal
        self.timers = timers
        self.scheduler = scheduler
        self.watch = watch
        self.admission = Admission(self)
        #: Published jobs; read it, never change it.
        self.jobs: dict[int, Job] = {}
        #: Whether one was published after another with a higher id, as large submissions are.
        self._disordered = False
        #: The typed opcodes of jobs that haven't ended, secrets included; see :meth:`hold`.
        self.opcodes: dict[int, tuple[Opcode, ...]] = {}
        #: Jobs archived so lately that their files may not have moved yet.
        self.just_archived: dict[int, Job] = {}
        # Jobs that are being archived: durable or not yet, a second time would be once too often.
        self._leaving: set[int] = set()
        #: Final states of archived jobs that live ones depend on.
        self.endings = Endings()
        self.last_id = 0
        self.reserved = 0
        self.drained = False
        self.closing = False
        #: Jobs found running, whose devices on nodes are to be cleared away before they end.
        self.cut_off: list[int] = []
        self._events = events
        self._tip: dict[int, Job] = {}
        self._pending: dict[int, int] = {}
        #: The job that :meth:`enter` lets in; None again once it is committed.
        self._entry: _Entry | None = None
        #: Commits that the disk refused and that are tried again, see :meth:`commit_surely`.
        self._retries: dict[Deferred[None], Timer] = {}
        #: New jobs in such commits: their opcodes are held although the disk refused one.
        self._coming: set[int] = set()
        #: Who executes jobs; None until :meth:`run_with`.
        self.runner: Runner | None = None
        self._waking = False
        journal.on_rollback(self._rollback)

    # Reading

    def live(self) -> Mapping[int, Job]:
        """Returns the published jobs that aren't archived, ids ascending."""
        if self._disordered:
            self._disordered = False
            ordered = sorted(self.jobs.items())
            self.jobs.clear()
            self.jobs.update(ordered)
        return self.jobs

    def tip(self, job_id: int) -> Job | None:
        """Returns the newest state of a job, durable or not yet."""
        job = self._tip.get(job_id)
        return job if job is not None else self.jobs.get(job_id)

    def known(self) -> list[Job]:
        """Returns all jobs as they are published, and new ones that aren't yet."""
        return list({**self._tip, **self.jobs}.values())

    @inlineCallbacks
    def archived(self, job_ids: Iterable[int]) -> Generator[Any, Any, Mapping[int, Job]]:
        """Returns archived jobs from their files, ids ascending.

        Those that aren't there, or can't be read, are left out. The disk thread
        reads them in slices, so that commits go on meanwhile; cancelled, it reads
        no more than the slice that it has begun.
        """
        wanted = [job_id for job_id in dict.fromkeys(job_ids) if job_id not in self.jobs]
        found = {n: self.just_archived[n] for n in wanted if n in self.just_archived}
        wanted = [n for n in wanted if n not in found and 0 < n <= self.last_id]
        for start in range(0, len(wanted), READ_SLICE):
            part = wanted[start : start + READ_SLICE]
            found.update((yield self._in_disk_thread(self.folder.read_archived, part)))
        return dict(sorted(found.items()))

    @inlineCallbacks
    def archived_ids(self) -> Generator[Any, Any, list[int]]:
        """Returns the ids of all archived jobs, ascending; lists one folder at a time."""
        found: set[int] = set()
        folders = yield self._in_disk_thread(self.folder.archive_folders)
        for folder in folders:
            # A job that is archived meanwhile may go to a folder that was listed already.
            found.update(self.just_archived)
            found.update((yield self._in_disk_thread(self.folder.ids_in, folder)))
        return sorted({*found, *self.just_archived})

    def _in_disk_thread(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        done: Deferred[Any] = self.journal.effect(lambda disk: function(*args))
        return done

    # Changing

    def hold(
        self, job_id: int, ops: tuple[Opcode, ...], ended: Mapping[int, str] = NONE_ENDED
    ) -> None:
        """Keeps a job's opcodes until it ends, or until :meth:`let_go`.

        ``ended`` are final states of archived jobs; those that it depends on are kept as long.
        """
        self.opcodes[job_id] = ops
        wanted = self.wanted_by(job_id)
        self.endings.want(job_id, wanted)
        for dependency in wanted:
            if dependency in ended:
                self.endings.note(dependency, ended[dependency])

    def let_go(self, job_id: int) -> None:
        """Forgets the opcodes of a job that has ended, or did not come to be."""
        self.opcodes.pop(job_id, None)
        self.endings.release(job_id)

    def adopt(self, jobs: Iterable[Job]) -> None:
        """Takes in jobs that are on disk, ids ascending, before anything else happens."""
        found = list(jobs)
        for job in found:
            self.jobs[job.id] = job
        for job in found:
            self.admission.admit(job)

    def commit(
        self,
        changed: Sequence[Job],
        rows: Sequence[Row] = (),
        publish: Callable[[], object] | None = None,
    ) -> Deferred[None]:
        """Makes new states of jobs durable, together with other rows, then publishes them.

        ``publish`` runs before the jobs are published: what they say they did
        is to be seen by whoever sees them. Fails as :meth:`IJournal.commit`.
        """
        all_rows = [*rows, *[JobRow(job.id, encode_job(job)) for job in changed]]
        entry = self._entry
        if entry is not None:
            if entry.job.id in [job.id for job in changed]:
                self._entry = None
                all_rows = [*entry.rows, *all_rows]
            else:
                entry = None
        for job in changed:
            self._tip[job.id] = job
            self._pending[job.id] = self._pending.get(job.id, 0) + 1

        def published() -> None:
            # Whatever one of these raises, the states are durable: all of them are published.
            if publish is not None:
                _guarded(publish)
            for job in changed:
                _guarded(self._committed, job)
            self.wake()

        done = self.journal.commit(all_rows, published)
        return done if entry is None else self._entered(entry, done)

    def enter(self, job: Job, rows: Sequence[Row]) -> Deferred[None]:
        """Lets a new job in and makes it durable, with other rows; fires once it is published.

        Its opcodes are in ``opcodes``. It is admitted before its first commit, and begins if
        there is a slot. What it comes to in this turn of the reactor is what it commits first:
        most jobs run, some are refused or rejected. Any other is committed as queued. If that
        commit fails there never was a job: it leaves its slot and its locks.
        """
        entry = self._entry = _Entry(job, rows, Deferred())
        self._tip[job.id] = job
        _guarded(self.admission.admit, job)
        self.wake()
        if self._entry is entry:
            shown = self._tip[job.id]
            self.commit([job]).addErrback(lambda _: None)  # ``told`` fails, too
            if shown is not job:
                self.show(shown)
        return entry.told

    def _entered(self, entry: _Entry, done: Deferred[None]) -> Deferred[None]:
        """Returns the Deferred of a new job's first commit for whoever made that commit.

        The client has another one, as a client that goes away cancels what it waits for. It
        fires last: where the disk refuses the job, nothing of it is left by then.
        """
        first: Deferred[None] = Deferred()

        def settled(result: Any) -> None:
            first.callback(result)
            if isinstance(result, Failure):
                if self.runner is not None:
                    _guarded(self.runner.cancel_waiting, entry.job.id)
                self.wake()
            entry.told.callback(result)

        done.addBoth(settled)
        return first

    def show(self, job: Job) -> None:
        """Publishes a state that a crash may forget, such as a wait for locks; it makes no row.

        It is published after the commits of the job that are under way, and of a new job
        after its first.
        """
        if self._entry is not None and self._entry.job.id == job.id:
            self._tip[job.id] = job
        elif job.id in self._pending:
            self._commit_rows(job, []).addErrback(
                lambda failure: log.warn(
                    "Job {job}: its wait could not be shown: {error}",
                    job=job.id,
                    error=failure.value,
                )
            )
        else:
            self._publish(job)

    def add_log(self, job_id: int, index: int, kind: str, message: Any) -> Deferred[None]:
        """Appends a line to an opcode's log; seen by clients once it is durable."""
        job = self.tip(job_id)
        if job is None or job.ops[index].finished:
            return succeed(None)
        entry = LogEntry(job.log_serial + 1, timestamp(self.timers.now()), kind, message)
        row = LogRow(job_id, index, msgspec.json.encode(entry))
        return self._commit_rows(model.add_log(job, index, entry), [row])

    def note_devices(self, job_id: int, devices: Sequence[NotedDevice]) -> Deferred[None]:
        """Adds to what a running job makes, renames or removes on nodes; fires once durable."""
        job = self.tip(job_id)
        assert job is not None
        return self.commit([model.note_devices(job, devices)])

    def forget_devices(self, job_id: int, devices: Sequence[NotedDevice]) -> Deferred[None]:
        """Takes some of what a running job had noted off its record; fires once durable."""
        job = self.tip(job_id)
        assert job is not None
        return self.commit([model.forget_devices(job, devices)])

    def forget_surely(
        self, job_id: int, devices: Sequence[NotedDevice], retry: float = 5.0
    ) -> Deferred[None]:
        """As :meth:`forget_devices`, again and again until the disk takes it.

        It is tried every ``retry`` seconds, each time on what the job is by then; once the job
        has ended nothing of it counts any longer. Fails with ``DaemonStopping`` once the journal
        is closed, see :meth:`give_up`.
        """

        def forget() -> Deferred[None]:
            job = self.tip(job_id)
            if job is None or job.finished:
                return succeed(None)
            return self.forget_devices(job_id, devices)

        return self._until_taken(forget, job_id, "What is done with", retry)

    def show_progress(self, job_id: int, index: int, text: str) -> None:
        """Shows how far an opcode is, in place of what was shown before; a crash may forget it.

        Clients that wait for a change of the job see it as a log entry of its own kind.
        """
        job = self.tip(job_id)
        if job is None or job.ops[index].finished:
            return
        now = timestamp(self.timers.now())
        entry = LogEntry(job.log_serial + 1, now, PROGRESS, text)
        self.show(model.show_progress(job, index, entry))

    def _commit_rows(self, job: Job, rows: Sequence[Row]) -> Deferred[None]:
        """Makes rows durable that are not a job's whole new state, then publishes that."""
        self._tip[job.id] = job
        self._pending[job.id] = self._pending.get(job.id, 0) + 1
        return self.journal.commit(rows, lambda: self._committed(job))

    def _committed(self, job: Job) -> None:
        left = self._pending[job.id] - 1
        if left:
            self._pending[job.id] = left
        else:
            del self._pending[job.id], self._tip[job.id]
        self._publish(job)

    def _publish(self, job: Job) -> None:
        before = self.jobs.get(job.id)
        if before is None and self.jobs and next(reversed(self.jobs)) > job.id:
            self._disordered = True
        self.jobs[job.id] = job
        status = job.status
        if status in STATUSES_FINALIZED:
            if before is None or before.status not in STATUSES_FINALIZED:
                self._ended(job, status)
        elif before is None:
            # By now it may be about to end.
            self.admission.admit(self._tip.get(job.id, job))
        self.watch.changed(job)
        if self._events.observed(JobShown):
            self._events.publish(JobShown(job.id))
        if self._events.observed(JobChanged) and (before is None or before.status != status):
            self._events.publish(JobChanged(job.id, before.status if before else None, status))

    def _rollback(self) -> None:
        dropped = list(self._tip)
        self._tip.clear()
        self._pending.clear()
        for job_id in dropped:
            if job_id not in self.jobs and job_id not in self._coming:
                self.let_go(job_id)
                self.admission.withdraw(job_id)
        for job_id in dropped:
            if (job := self.jobs.get(job_id)) is not None:
                self.admission.admit(job)

    # Who runs, who waits

    def run_with(self, runner: Runner) -> None:
        """Names who executes jobs; the jobs that are ready begin."""
        self.runner = runner
        self.wake()

    def wake(self) -> None:
        """Hands jobs to the runner while there are slots."""
        if self.runner is None or self._waking or self.closing:
            return
        self._waking = True
        try:
            while (job_id := self.scheduler.take()) is not None:
                try:
                    self.runner.proceed(job_id)
                except Exception:
                    log.failure("Job {job} is stuck", job=job_id)
        finally:
            self._waking = False

    def wanted_by(self, job_id: int) -> dict[int, frozenset[str]]:
        """Returns the ids, with the final states, that a job's opcodes depend on."""
        wanted: dict[int, frozenset[str]] = {}
        for op in self.opcodes.get(job_id, ()):
            for dependency in op.depends or ():
                wanted[dependency.job] = frozenset(dependency.states)
        return wanted

    def status_of(self, job_id: int) -> str | None:
        """Returns the published status of a job; None if it isn't known here.

        Known are the live jobs, and of those in the archive the ones that were archived just
        now or that a live job depends on.
        """
        job = self.jobs.get(job_id) or self.just_archived.get(job_id)
        return job.status if job is not None else self.endings.of(job_id)

    def commit_surely(
        self, jobs: Sequence[Job], rows: Sequence[Row] = (), retry: float = 5.0
    ) -> Deferred[None]:
        """Commits states that must not be lost, again and again until the disk takes them.

        The last of ``jobs`` is the one that it is about, those before it are new with it. Where
        the disk has refused the submission of that job nothing is left to commit, and the
        Deferred fires. It fails with ``DaemonStopping`` once the journal is closed, see
        :meth:`give_up`, and with what it is for states that no disk could ever take.
        """
        done = self._until_taken(lambda: self.commit(jobs, rows), jobs[-1].id, "The end of", retry)
        if len(jobs) > 1:
            coming = {job.id for job in jobs[:-1]}
            self._coming |= coming

            def over(result: Any) -> Any:
                self._coming -= coming
                return result

            done.addBoth(over)
        return done

    def _until_taken(
        self, commit: Callable[[], Deferred[None]], job_id: int, what: str, retry: float
    ) -> Deferred[None]:
        """Calls ``commit`` until the disk takes it; ``what`` of the job that is, in the log."""
        begun: Deferred[None] = maybeDeferred(commit)
        return begun.addErrback(self._try_again, commit, job_id, what, retry)

    def _try_again(
        self,
        failure: Failure,
        commit: Callable[[], Deferred[None]],
        job_id: int,
        what: str,
        retry: float,
    ) -> Deferred[None]:
        """Goes on for :meth:`_until_taken` after a first ``failure``."""
        done: Deferred[None] = Deferred()

        def attempt() -> None:
            self._retries.pop(done, None)
            begun: Deferred[None] = maybeDeferred(commit)
            begun.addCallbacks(done.callback, refused)

        def refused(failure: Failure) -> None:
            if failure.check(DaemonStopping) or not failure.check(JobQueueError):
                done.errback(failure)
                return
            if self.tip(job_id) is None:
                done.callback(None)
                return
            log.error(
                "{what} job {job} can't be recorded, trying again in {retry} s: {error}",
                what=what,
                job=job_id,
                retry=retry,
                error=failure.value,
            )
            self._retries[done] = self.timers.later(retry, attempt)

        refused(failure)
        return done

    def give_up(self) -> None:
        """The journal is closed: ends the wait for what was still to be committed again."""
        while self._retries:
            done, timer = self._retries.popitem()
            timer.cancel()
            done.errback(DaemonStopping("The master daemon stops, and the disk takes nothing"))

    def _ended(self, job: Job, status: str) -> None:
        self.let_go(job.id)
        self.admission.ended(job.id, status)

    # Archiving

    def archivable(self, job_id: int) -> Job | None:
        """Returns a job that has ended, is in the queue, and isn't leaving it already."""
        job = self.jobs.get(job_id)
        return job if job is not None and job.finished and job_id not in self._leaving else None

    def archive(self, jobs: Sequence[Job]) -> Deferred[None]:
        """Makes jobs that are :meth:`archivable` leave the queue for the archive."""
        rows = [JobRow(job.id, encode_job(job), archived=True) for job in jobs]
        leaving = {job.id for job in jobs}
        self._leaving |= leaving

        def moved() -> None:
            for job in jobs:
                if self.jobs.pop(job.id, None) is not None:
                    self.just_archived[job.id] = job
                    self.endings.note(job.id, job.status)
                    self.watch.gone(job.id)
                    if self._events.observed(JobArchived):
                        self._events.publish(JobArchived(job.id, job.status))
            self.journal.settle().addBoth(lambda _: forget())

        def forget() -> None:
            for job in jobs:
                self.just_archived.pop(job.id, None)

        def left(result: Any) -> Any:
            self._leaving -= leaving
            return result

        return self.journal.commit(rows, moved).addBoth(left)

    # Counting

    def close(self) -> None:
        """From now on no job begins and none is accepted."""
        self.closing = True
        self.watch.close()


def _guarded(function: Callable[..., object], *args: Any) -> None:
    try:
        function(*args)
    except Exception:
        log.failure("What follows a change of jobs failed: {function}", function=function)
