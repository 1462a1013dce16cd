"""The composition root: builds every part, wires it, orders start and stop.

Start: the locks, then recovery, configuration and jobs, then the disk thread
and the nodes, then the socket, and last the jobs. Stop is the reverse; what
was acknowledged is on disk before the process ends.
"""

from __future__ import annotations

import os
import resource
import time
from typing import Any, cast

from msgspec import Struct
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, inlineCallbacks
from twisted.internet.interfaces import (
    IReactorCore,
    IReactorFromThreads,
    IReactorProcess,
    IReactorSocket,
    IReactorThreads,
    IReactorTime,
)
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from ganeti_masterd.config.document import apply_rows
from ganeti_masterd.config.reservations import Reservations
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.store import ConfigStore
from ganeti_masterd.config.verify import verify
from ganeti_masterd.constants import LUXI_DEF_RWTO, LUXI_SOCKET_PERMS
from ganeti_masterd.events import Events
from ganeti_masterd.execution.context import Services
from ganeti_masterd.execution.executor import Executor
from ganeti_masterd.execution.hops import Hops
from ganeti_masterd.jobs import files as job_files
from ganeti_masterd.jobs.control import JobControl
from ganeti_masterd.jobs.files import QueueFolder
from ganeti_masterd.jobs.model import merge_log
from ganeti_masterd.jobs.queue import JobQueue
from ganeti_masterd.jobs.restart import restore
from ganeti_masterd.jobs.scheduler import Scheduler
from ganeti_masterd.jobs.submission import Submission
from ganeti_masterd.jobs.switches import Switches
from ganeti_masterd.jobs.watch import JobWatch
from ganeti_masterd.journal.disk import Disk
from ganeti_masterd.journal.files import Files
from ganeti_masterd.journal.journal import Journal
from ganeti_masterd.journal.recovery import Identity, Recovered, recover
from ganeti_masterd.journal.thread import DiskThread
from ganeti_masterd.locking.keeper import LockKeeper
from ganeti_masterd.locking.levels import Level
from ganeti_masterd.luxi.factory import MAX_CONNECTIONS, LuxiFactory
from ganeti_masterd.luxi.framing import MAX_MESSAGE_SIZE
from ganeti_masterd.query.engine import QueryEngine
from ganeti_masterd.query.jobs import job_values
from ganeti_masterd.requests.daemon import Daemon
from ganeti_masterd.requests.registry import Answers
from ganeti_masterd.simulation.calllog import Mode
from ganeti_masterd.simulation.cluster import SimulatedNodes
from ganeti_masterd.startup.locks import LockedFile
from ganeti_masterd.startup.paths import Paths
from ganeti_masterd.startup.simulated_root import read_config
from ganeti_masterd.startup.socket import MasterSocket
from ganeti_masterd.timing import Timers

log = Logger()

#: Descriptors that the daemon needs besides those of its connections.
SPARE_DESCRIPTORS = 256


class Settings(Struct, frozen=True):
    """What the daemon was started with."""

    paths: Paths
    max_connections: int = MAX_CONNECTIONS
    max_message_size: int = MAX_MESSAGE_SIZE
    idle_timeout: float | None = LUXI_DEF_RWTO
    socket_mode: int = LUXI_SOCKET_PERMS
    simulate_log: Mode = "buffered"
    stop_timeout: float | None = None


class MasterService(Service):
    """The whole daemon as one Twisted service."""

    name = "gnt-masterd"

    def __init__(self, reactor: Any, settings: Settings) -> None:
        self._reactor = reactor
        self._settings = settings
        self._locks: list[LockedFile] = []

    # Start

    def startService(self) -> None:
        """Starts every part; raises what keeps it from starting, having undone the rest."""
        began = time.monotonic()
        try:
            self._lock()
            recovered, snapshot = self._recover()
            self._build(recovered, snapshot)
            self._start()
        except BaseException:
            self._unlock()
            raise
        super().startService()
        log.info(
            "Master daemon of cluster {cluster} is up on {path}: {jobs} jobs, {nodes} nodes, "
            "{seconds:.2f} s",
            cluster=snapshot.cluster.cluster_name,
            path=self._settings.paths.socket,
            jobs=len(self.queue.jobs),
            nodes=len(snapshot.nodes),
            seconds=time.monotonic() - began,
        )

    def _lock(self) -> None:
        paths = self._settings.paths
        self._locks.append(LockedFile(paths.pid, 0o644))
        self._locks[0].write(f"{os.getpid()}\n")
        self._locks.append(LockedFile(paths.queue_lock))

    def _unlock(self) -> None:
        while len(self._locks) > 1:
            self._locks.pop().release()
        while self._locks:
            self._locks.pop().release(remove=True)

    def _recover(self) -> tuple[Recovered, Snapshot]:
        """Brings Ganeti's files up to date with the journal, then reads them."""
        paths = self._settings.paths
        before = read_config(paths)
        recovered = recover(
            paths.journal,
            identity=Identity(before.cluster.uuid, before.master.name),
            files=Files(queue=paths.queue, config=paths.config),
            disk=Disk(),
            merge_log=merge_log,
            merge_config=apply_rows,
            now=time.time,
        )
        snapshot = read_config(paths) if recovered.replayed else before
        for fault in verify(snapshot):
            log.warn("The configuration has a fault: {fault}", fault=fault)
        return recovered, snapshot

    def _build(self, recovered: Recovered, snapshot: Snapshot) -> None:
        reactor, settings, paths = self._reactor, self._settings, self._settings.paths
        limit = snapshot.cluster.max_running_jobs
        self.events = Events()
        self.timers = Timers(cast(IReactorTime, reactor), time.time)
        self.journal = Journal(
            recovered,
            DiskThread(cast(IReactorFromThreads, reactor)),
            self.timers,
            config_image=lambda: self.store.image(),
            exact_serial=lambda: self.queue.last_id,
            events=self.events,
        )
        self.store = ConfigStore(snapshot, self.journal, self.timers)
        self._side_pool = ThreadPool(1, 1, "simulation")
        self.nodes = SimulatedNodes(
            self.timers,
            root=paths.root,
            master=snapshot.master.name,
            log=settings.simulate_log,
            in_disk_thread=lambda function, *args: deferToThreadPool(
                reactor, self._side_pool, function, *args
            ),
            processes=cast(IReactorProcess, reactor),
            events=self.events,
        )
        self.watch = JobWatch(self.timers, job_values)
        folder = QueueFolder(paths.queue)
        self.queue = JobQueue(
            folder, self.journal, self.timers, self.events, Scheduler(limit), self.watch
        )
        self.locks = LockKeeper(self.timers, self.events, lambda *aged: self.executor.aged(*aged))
        switches = Switches(self.queue, paths.watcher_pause)
        self.engine = QueryEngine(
            self.timers,
            lambda: self.store.snapshot,
            self.nodes,
            self.queue,
            self.locks.rows,
            switches,
        )
        submission = Submission(self.queue)
        self.hops = Hops(cast(IReactorFromThreads, reactor))
        self.pool = ThreadPool(1, limit, "opcodes")
        services = Services(
            queue=self.queue,
            submission=submission,
            store=self.store,
            locks=self.locks,
            reservations=Reservations(),
            nodes=self.nodes,
            engine=self.engine,
            hops=self.hops,
            timers=self.timers,
        )
        self.executor = Executor(cast(IReactorThreads, reactor), self.pool, services, paths.data)
        self.store.on_change(self._configuration_changed)
        daemon = Daemon(
            queue=self.queue,
            submission=submission,
            control=JobControl(self.queue),
            switches=switches,
            store=self.store,
            engine=self.engine,
        )
        self.factory = LuxiFactory(
            Answers(daemon),
            self.timers,
            idle_timeout=settings.idle_timeout,
            max_connections=settings.max_connections,
            max_message_size=settings.max_message_size,
        )
        self.socket = MasterSocket(paths.socket, settings.socket_mode)
        self._add_locks(snapshot)

    def _start(self) -> None:
        _raise_descriptor_limit(self._settings.max_connections + SPARE_DESCRIPTORS)
        loaded = job_files.load(self.queue.folder)
        job_files.set_aside(self.queue.folder, loaded.corrupt)
        self.pool.start()
        self._side_pool.start()
        self.journal.start()
        restored = restore(self.queue, loaded)
        self.socket.listen(cast(IReactorSocket, self._reactor), self.factory)
        ready = DeferredList([restored, self.nodes.start()], fireOnOneErrback=True)
        ready.addCallbacks(lambda _: self.queue.run_with(self.executor), self._not_started)

    def _not_started(self, failure: Failure) -> None:
        failure = getattr(failure.value, "subFailure", failure)
        log.critical("The daemon can't start: {error}", error=failure.getErrorMessage())
        cast(IReactorCore, self._reactor).stop()

    def _add_locks(self, snapshot: Snapshot) -> None:
        self.locks.populate(Level.INSTANCE, [i.name for i in snapshot.instances.values()])
        self.locks.populate(Level.NODEGROUP, snapshot.groups)
        self.locks.populate(Level.NODE, snapshot.nodes)
        self.locks.populate(Level.NODE_RES, snapshot.nodes)
        self.locks.populate(Level.NETWORK, snapshot.networks)

    def _configuration_changed(self, before: Snapshot, after: Snapshot) -> None:
        if before.cluster.max_running_jobs != after.cluster.max_running_jobs:
            self.executor.set_limit(after.cluster.max_running_jobs)

    # Stop

    def stopService(self) -> Deferred[None]:
        """Stops every part in order; fires once all that was acknowledged is in the files."""
        super().stopService()
        return self._stop()

    @inlineCallbacks
    def _stop(self) -> Any:
        log.info("The master daemon stops")
        self.socket.close()
        self.queue.close()
        self.executor.give_up_waiting()
        yield self._running_jobs_ended()
        self.locks.close()
        self.hops.close()
        yield self.executor.when_idle()
        yield self.factory.close()
        self.engine.close()
        yield self.nodes.close()
        try:
            yield self.journal.close()
        except Exception as error:
            log.error("{error}", error=error)
        self.timers.cancel_all()
        self.pool.stop()
        self._side_pool.stop()
        self._unlock()
        log.info("The master daemon has stopped")

    def _running_jobs_ended(self) -> Deferred[None]:
        """Fires when no job runs any more, or the time for that is over."""
        done: Deferred[None] = Deferred()
        ended = self.executor.when_idle()
        timeout = self._settings.stop_timeout

        def over() -> None:
            if not done.called:
                done.callback(None)

        timer = None if timeout is None else self.timers.later(timeout, over)

        def idle(_: object) -> None:
            if timer is not None:
                timer.cancel()
            over()

        ended.addCallback(idle)
        return done


def _raise_descriptor_limit(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        if limit < wanted:
            log.warn(
                "This process may open {limit} files, fewer than --max-connections needs",
                limit=limit,
            )
