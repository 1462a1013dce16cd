"""The whole daemon as one Twisted service: orders start and stop.

Start, in the process that has detached and given up root: the locks, then
recovery, configuration and jobs, then the nodes, the socket, the threads, and
last the jobs run. Stop is the reverse, as :mod:`.startup.shutdown` decides;
what was acknowledged is on disk before the process ends.
"""

from __future__ import annotations

import contextlib
import gc
import resource
import sqlite3
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import Deferred, DeferredList, inlineCallbacks
from twisted.internet.interfaces import IReactorSocket, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ganeti_masterd.assembly import Assembly, OpenedListener, Settings
from ganeti_masterd.config.document import apply_rows
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.verify import verify
from ganeti_masterd.errors import GenericError, JobQueueError
from ganeti_masterd.jobs import files as job_files
from ganeti_masterd.jobs.model import decode_job_of, merge_log
from ganeti_masterd.jobs.restart import STOPPED_UNCLEANLY, after_restart, restore
from ganeti_masterd.jobs.takeover import is_locked, living
from ganeti_masterd.journal.disk import RealDisk
from ganeti_masterd.journal.recovery import Identity, Recovered, recover
from ganeti_masterd.luxi.factory import LuxiFactory
from ganeti_masterd.startup.configuration import read_config
from ganeti_masterd.startup.dumps import forbid_dumps
from ganeti_masterd.startup.locks import Locks, patiently
from ganeti_masterd.startup.notify import ALIVE, READY
from ganeti_masterd.startup.ownership import groups_of
from ganeti_masterd.startup.socket import LOOK_EVERY
from ganeti_masterd.startup.stopping import Stopping
from ganeti_masterd.startup.surroundings import ProcessService, ProcessSurroundings
from ganeti_masterd.startup.teardown import end_in_order
from ganeti_masterd.timing import Timers

if TYPE_CHECKING:
    from ganeti_masterd.monitoring.service import Monitoring

log = Logger()

#: File descriptors that the daemon needs besides those of its client connections.
SPARE_DESCRIPTORS = 256

#: For :func:`gc.set_threshold`. With Python's default of 700, a daemon with a long queue would
#: keep scanning jobs that stay alive anyway.
GC_THRESHOLDS = (5000, 10, 10)

#: Seconds that abandoned opcodes have to notice that they are to end.
GRACE = 2.0


class MasterService(ProcessService):
    """The whole daemon as one Twisted service; see :class:`.startup.stopping.Stoppable`."""

    def __init__(self, reactor: Any, settings: Settings, surroundings: ProcessSurroundings) -> None:
        super().__init__(reactor, settings.account, surroundings)
        self._settings = settings
        self._locks = Locks()
        self._parts: Assembly
        self._monitoring: Monitoring | None = None
        self._stopping: Stopping | None = None
        # Not those of the parts: these are cancelled before the shutdown is over.
        self._timers = Timers(cast(IReactorTime, reactor))

    # Start

    def startService(self) -> None:
        """Starts every part; if one can't be started, undoes the rest and ends the process."""
        began = time.monotonic()
        recovered: Recovered | None = None
        listening: list[OpenedListener] = []
        try:
            forbid_dumps()
            queue_lock = self._lock()
            recovered, snapshot = self._recover()
            self._parts = Assembly(
                self._reactor, self._settings, recovered, snapshot, queue_lock=queue_lock
            )
            listening = self._parts.listeners
            self._monitoring = self._parts.monitoring()
            restored = self._prepare(recovered)
        except BaseException as error:
            self._undo(recovered, listening)
            if isinstance(error, GenericError):
                self._surroundings.launch.refuse(str(error))
            if isinstance(error, (OSError, sqlite3.Error)):
                data = self._settings.paths.data
                self._surroundings.launch.refuse(f"The daemon can't work below {data}: {error}")
            raise
        try:
            self._start_threads()
        except Exception as error:
            self._end_at_once(error, listening)
        restored.addCallback(lambda _: self._run_jobs()).addErrback(self._not_started)
        super().startService()
        gc.collect()
        gc.set_threshold(*GC_THRESHOLDS)
        gc.freeze()  # later collections ignore what was loaded so far, as it stays anyway
        log.info(
            "Master daemon of cluster {cluster} is up on {path}: {jobs} jobs, {nodes} nodes, "
            "{seconds:.2f} s",
            cluster=snapshot.cluster.cluster_name,
            path=self._settings.paths.socket,
            jobs=len(self._parts.queue.jobs),
            nodes=len(snapshot.nodes),
            seconds=time.monotonic() - began,
        )
        self._surroundings.launch.succeeded()
        self._surroundings.logs.gather(lambda write: self._timers.later(0.0, write))

    def _undo(self, recovered: Recovered | None, listening: list[OpenedListener]) -> None:
        """Undoes what a failing start has done so far; no thread is running yet."""
        if self._monitoring is not None:
            self._monitoring.close()
        for listener in listening:
            listener.socket.close()
        if recovered is not None:
            recovered.store.close()
        self._locks.release()

    def _end_at_once(self, error: Exception, listening: list[OpenedListener]) -> None:
        """Ends the process of a failed start whose threads, already running, would keep it up."""
        log.failure("A part of the daemon can't be started")
        self._undo(None, listening)
        with contextlib.suppress(SystemExit):
            self._surroundings.launch.refuse(f"A part of the daemon can't be started: {error}")
        self._surroundings.ending.failed()
        self._surroundings.ending.now()

    def _lock(self) -> int:
        """Takes all locks; returns the descriptor that holds the queue's."""
        paths = self._settings.paths
        self._locks.take_pid_file(paths.pid)
        queue_lock = patiently(lambda: self._locks.take(paths.queue_lock))
        if self._settings.simulate_log is None:
            # luxid and wconfd can't be started beside this daemon.
            for path in paths.peers_pids:
                self._locks.take_pid_file(path)
        return queue_lock.fileno()

    def _recover(self) -> tuple[Recovered, Snapshot]:
        """Brings Ganeti's files up to date with the journal, then reads them."""
        paths = self._settings.paths
        before = read_config(paths)
        recovered = recover(
            paths.journal,
            identity=Identity(before.cluster.uuid, before.master.name),
            files=paths.queue_files,
            disk=RealDisk(groups_of(paths, self._settings.account)),
            merge_log=merge_log,
            check_job=decode_job_of,
            merge_config=apply_rows,
            now=time.time,
        )
        try:
            snapshot = read_config(paths) if recovered.replayed else before
        except BaseException:
            recovered.store.close()
            raise
        for fault in verify(snapshot):
            log.warn("The configuration has a fault: {fault}", fault=fault)
        return recovered, snapshot

    def _prepare(self, recovered: Recovered) -> Deferred[Any]:
        """Does all that can fail; returns what fires once the jobs found are durable again."""
        parts = self._parts
        fit_descriptors([listener.factory for listener in parts.listeners])
        loaded = job_files.load(parts.queue.folder)
        alive = living(loaded.jobs.values(), is_locked)
        if alive:
            raise JobQueueError(
                f"Processes of luxid still run jobs: {', '.join(map(str, alive))}; start"
                " ganeti-wconfd, which they need for their end, and this daemon after it"
            )
        job_files.set_aside(parts.queue.folder, recovered.disk, loaded.corrupt)
        _raise_if_failed(parts.door.start())
        # A journal that is new knows nothing of the jobs that are found.
        restored = restore(parts.queue, loaded, own=recovered.numbered > 0)
        for listener in parts.listeners:
            listener.socket.listen(cast(IReactorSocket, self._reactor), listener.factory)
        waits = [restored]
        if self._monitoring is not None:
            waits.append(_raise_if_failed(self._monitoring.start()))
        return DeferredList(waits, fireOnOneErrback=True, consumeErrors=True)

    def _start_threads(self) -> None:
        """Starts the threads; nothing should fail from here on, and nothing blocks."""
        surroundings = self._surroundings
        self._parts.threads.start()
        self._parts.reading_thread.start()
        self._parts.door.start_threads()
        self._parts.replication.start()
        self._parts.journal.start()
        self._parts.history.start()
        self._parts.disk_watch.begin()
        self._take_signals()
        for listener in self._parts.listeners:
            self._timers.every(LOOK_EVERY, listener.socket.restore)
        watchdog = surroundings.notifier.watchdog
        if watchdog is not None:
            self._timers.every(watchdog, surroundings.notifier.tell, ALIVE)

    def _run_jobs(self) -> None:
        self._parts.executor.clear_away(self._parts.queue.cut_off)
        self._parts.queue.run_with(self._parts.executor)
        self._surroundings.notifier.tell(READY)

    def _not_started(self, failure: Failure) -> None:
        failure = getattr(failure.value, "subFailure", failure)
        log.critical("The daemon can't start: {error}", error=failure.getErrorMessage())
        self._surroundings.ending.failed()
        self._stop_reactor()

    # Stop

    def _asked_to_end(self) -> None:
        if self._stopping is not None:
            self._stopping.signal()
        else:
            self._stop_reactor()

    def stopService(self) -> Deferred[None]:
        """Stops every part in order; fires once everything acknowledged is in the files."""
        super().stopService()
        log.info("The master daemon stops")
        self._stopping = Stopping(self, Timers(self._reactor), self._settings.stop_timeout)
        self._stopping.signal()
        return self._stopping.finished

    def refuse_jobs(self) -> None:
        """See ``Stoppable.refuse_jobs``."""
        self._parts.queue.closing = True
        self._parts.executor.give_up_waiting()

    def running_jobs(self) -> int:
        """See ``Stoppable.running_jobs``."""
        return len(self._parts.executor)

    def when_idle(self) -> Deferred[None]:
        """See ``Stoppable.when_idle``."""
        return self._parts.executor.when_idle()

    def disk_hangs(self, patience: float, *, commits: bool) -> Sequence[object]:
        """See ``Stoppable.disk_hangs``."""
        return self._parts.disk_watch.hanging(patience, commits=commits)

    def clients(self) -> int:
        """See ``Stoppable.clients``."""
        return sum(listener.factory.connections for listener in self._parts.listeners)

    def stop_listening(self) -> None:
        """See ``Stoppable.stop_listening``."""
        for listener in self._parts.listeners:
            listener.socket.close()

    @inlineCallbacks
    def tear_down(self, abandon: bool) -> Any:
        """See ``Stoppable.tear_down``."""
        parts, monitoring = self._parts, self._monitoring
        failed: list[str] = yield end_in_order(
            [
                ("monitoring", monitoring.close if monitoring is not None else lambda: None),
                ("the queue", parts.queue.close),
                ("the locks", parts.locks.close),
                ("the configuration's lock", parts.config_lock.close),
                ("the hops", lambda: parts.hops.close(STOPPED_UNCLEANLY)),
                ("the jobs", lambda: self._idle_or(GRACE) if abandon else None),
                ("the connections", self._close_connections),
                ("the queries", parts.engine.close),
                ("replication", parts.replication.close),
                ("the nodes", parts.door.close),
                # Large answers of nodes are read there, too.
                ("the reading of messages", parts.reading_thread.close),
                ("the record of stuck jobs", self._record_stuck),
                ("the journal", parts.journal.close),
                ("the history", parts.history.close),
                ("commits to be tried again", parts.queue.give_up),
                ("the timers", self._cancel_timers),
                ("the threads", self._stop_threads),
                ("the file locks", self._locks.release),
            ]
        )
        log.info("The master daemon has stopped")
        self._end(bool(failed))

    def _close_connections(self) -> Deferred[Any]:
        return DeferredList([listener.factory.close() for listener in self._parts.listeners])

    def _cancel_timers(self) -> None:
        self._parts.timers.cancel_all()
        self._timers.cancel_all()

    def _stop_threads(self) -> None:
        if not self._surroundings.ending.stuck:
            self._parts.threads.stop()

    def cut_short(self) -> None:
        """See ``Stoppable.cut_short``; what was acknowledged is in the journal."""
        self._locks.release()
        self._surroundings.ending.failed()
        self._surroundings.ending.now()

    def _idle_or(self, seconds: float) -> Deferred[None]:
        """Fires when no job is running any more, or after ``seconds``, whichever comes first."""
        done: Deferred[None] = Deferred()

        def fire(_: object = None) -> None:
            if not done.called:
                timer.cancel()
                done.callback(None)

        timer = self._timers.later(seconds, fire)
        self._parts.executor.when_idle().addBoth(fire)
        return done

    def _record_stuck(self) -> None:
        """Ends jobs whose threads ignored the stop in the state that a restart would give them."""
        queue = self._parts.queue
        found = [queue.tip(job_id) for job_id in self._parts.executor.under_way()]
        stuck = [job for job in found if job is not None and not job.finished]
        if len(self._parts.executor):
            self._surroundings.ending.stuck = True
            log.warn("Jobs whose thread is stuck: {ids}", ids=[job.id for job in stuck])
        if stuck:
            now = self._parts.timers.now()
            queue.commit([after_restart(job, now) for job in stuck]).addErrback(
                lambda failure: log.error("{error}", error=failure.value)
            )


def _raise_if_failed(done: Deferred[None]) -> Deferred[None]:
    """Returns the Deferred unchanged, or raises its error if it has already failed."""
    faults: list[Failure] = []

    def note(failure: Failure) -> Failure:
        faults.append(failure)
        return failure

    done.addErrback(note)
    if faults:
        done.addErrback(lambda _: None)
        faults[0].raiseException()
    return done


def fit_descriptors(factories: Sequence[LuxiFactory]) -> None:
    """Makes room for the descriptors of all connections, or leaves as many places as there is.

    Raises ``GenericError`` where the system's limit leaves none.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = SPARE_DESCRIPTORS + sum(factory.descriptors for factory in factories)
    if hard != resource.RLIM_INFINITY and wanted > hard:
        places = places_within(hard, factories)
        if places < 1:
            raise GenericError(
                f"This process may open {hard} files at most (RLIMIT_NOFILE, LimitNOFILE= of the "
                f"unit), which leaves no place for clients: {wanted} are wanted"
            )
        log.warn(
            "This process may open {hard} files at most (RLIMIT_NOFILE, LimitNOFILE= of the unit), "
            "and --max-connections={asked} needs {wanted}: each socket takes {places} clients",
            hard=hard,
            asked=max(factory.max_connections for factory in factories),
            wanted=wanted,
            places=places,
        )
        for factory in factories:
            factory.max_connections = min(places, factory.max_connections)
        wanted = hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def places_within(limit: int, factories: Sequence[LuxiFactory]) -> int:
    """Returns how many clients each socket can take where ``limit`` descriptors may be open."""
    besides = sum(factory.descriptors - factory.max_connections for factory in factories)
    return (limit - SPARE_DESCRIPTORS - besides) // len(factories)
