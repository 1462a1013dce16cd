"""Builds every part of the daemon and wires it to the others; starts nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from msgspec import Struct
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime

from ganeti_masterd.allocation.desk import PlacementDesk
from ganeti_masterd.config.reservations import Reservations
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.store import ConfigStore
from ganeti_masterd.constants import LUXI_DEF_RWTO, LUXI_SOCKET_PERMS, WCONFD_SOCKET_PERMS
from ganeti_masterd.events import Events
from ganeti_masterd.execution.context import Services
from ganeti_masterd.execution.executor import Executor
from ganeti_masterd.execution.hops import Hops
from ganeti_masterd.execution.threads import OpcodeThreads
from ganeti_masterd.history.recorder import ConfigHistory
from ganeti_masterd.jobs.control import JobControl
from ganeti_masterd.jobs.files import QueueFolder
from ganeti_masterd.jobs.model import submitter
from ganeti_masterd.jobs.published import PublishedState
from ganeti_masterd.jobs.queue import JobQueue
from ganeti_masterd.jobs.scheduler import Scheduler
from ganeti_masterd.jobs.submission import Submission
from ganeti_masterd.jobs.switches import Switches
from ganeti_masterd.jobs.watch import JobWatch
from ganeti_masterd.journal.clerk import Clerk
from ganeti_masterd.journal.hanging import DiskWatch
from ganeti_masterd.journal.journal import Journal
from ganeti_masterd.journal.recovery import Recovered
from ganeti_masterd.journal.thread import DiskThread
from ganeti_masterd.locking.keeper import LockKeeper
from ganeti_masterd.locking.levels import Level
from ganeti_masterd.luxi.aside import LargeRequests, ReadAhead
from ganeti_masterd.luxi.budget import MAX_BUFFERED, Budget
from ganeti_masterd.luxi.factory import MAX_CONNECTIONS, AnswerFunction, LuxiFactory
from ganeti_masterd.luxi.framing import MAX_MESSAGE_SIZE
from ganeti_masterd.mailbox import Mailbox, RunInThread
from ganeti_masterd.query.engine import QueryEngine, Rows
from ganeti_masterd.query.jobs import job_values
from ganeti_masterd.query.waits import JobWaits
from ganeti_masterd.replication.acknowledgement import Ack
from ganeti_masterd.replication.journal import ReplicatedJournal
from ganeti_masterd.replication.replication import Replication
from ganeti_masterd.requests.backup_desk import BackupDesk
from ganeti_masterd.requests.config_lock import ConfigLock, LiveLocks
from ganeti_masterd.requests.config_writing import ConfigWriter
from ganeti_masterd.requests.daemon import Daemon, HistoryParts
from ganeti_masterd.requests.methods import Method, size_bound
from ganeti_masterd.requests.observed import ObservedAnswers
from ganeti_masterd.requests.registry import METHODS, OWN_METHODS, LuxiAnswers
from ganeti_masterd.requests.wconfd import WCONFD_METHODS, WconfdAnswers, WconfdParts
from ganeti_masterd.simulation.calllog import CallLogMode
from ganeti_masterd.simulation.description import Description
from ganeti_masterd.startup.accounts import Account
from ganeti_masterd.startup.doors import open_door
from ganeti_masterd.startup.ownership import groups_of
from ganeti_masterd.startup.paths import Paths
from ganeti_masterd.startup.socket import MasterSocket
from ganeti_masterd.startup.tracing import trace, traced
from ganeti_masterd.timing import Timers

if TYPE_CHECKING:
    from ganeti_masterd.monitoring.access import Access
    from ganeti_masterd.monitoring.service import Monitoring


class Settings(Struct, frozen=True):
    """What the daemon was started with.

    ``simulate_log`` is None for real nodes, ``description`` unless a file describes
    the simulated ones, ``account`` where the daemon stays the user that started it,
    ``monitor_socket`` without such a socket, ``monitoring`` (a Twisted endpoint)
    without such pages, which also answer to the names ``monitoring_hosts``;
    ``monitoring_access`` is who may look at them, None for everybody.
    ``monitoring_nodes`` is in seconds: how often nodes are asked what they have, 0 for never.
    ``max_connections_per_user`` is None for half of ``max_connections``.
    ``stop_timeout`` is in seconds, None for no bound.
    """

    paths: Paths
    simulate_log: CallLogMode | None = None
    description: Description | None = None
    account: Account | None = None
    max_connections: int = MAX_CONNECTIONS
    max_connections_per_user: int | None = None
    max_message_size: int = MAX_MESSAGE_SIZE
    max_buffered: int = MAX_BUFFERED
    idle_timeout: float | None = LUXI_DEF_RWTO
    socket_mode: int = LUXI_SOCKET_PERMS
    monitor_socket: str | None = None
    monitor_socket_mode: int = LUXI_SOCKET_PERMS
    monitoring: str | None = None
    monitoring_hosts: tuple[str, ...] = ()
    monitoring_access: Access | None = None
    monitoring_nodes: float = 0.0
    stop_timeout: float | None = None
    ack: Ack = Ack.CANDIDATES
    debug: bool = False


class OpenedListener(Struct, frozen=True):
    """A LUXI socket and those who are connected to it."""

    name: str
    factory: LuxiFactory
    socket: MasterSocket


def make_listener(
    settings: Settings,
    timers: Timers,
    budget: Budget,
    name: str,
    answers: AnswerFunction,
    read_ahead: ReadAhead,
    in_thread: RunInThread,
    methods: Mapping[str, Method],
    path: str,
    mode: int,
) -> OpenedListener:
    """Returns a socket at ``path``, not listening yet, whose clients ``answers`` answers.

    Large requests are read by ``in_thread``, and their arguments typed by ``read_ahead``.
    """
    largest = size_bound(methods)
    factory = LuxiFactory(
        traced(answers, timers.seconds) if settings.debug else answers,
        timers,
        idle_timeout=settings.idle_timeout,
        max_connections=settings.max_connections,
        max_each=settings.max_connections_per_user or max(1, settings.max_connections // 2),
        max_message_size=settings.max_message_size,
        trusted=trusted_users(settings),
        budget=budget,
        largest=largest,
        aside=LargeRequests(in_thread, largest, read_ahead),
    )
    owner = None if settings.account is None else (-1, settings.account.gid)
    return OpenedListener(name, factory, MasterSocket(path, mode, owner))


class Assembly:
    """The parts of one daemon, from a recovered journal and the configuration.

    ``queue_lock`` is the descriptor that holds the queue's lock. Each part is built from
    those above it. What a part below tells or is asked by one above stands in
    :meth:`_wire`: nothing is looked up before it exists.
    """

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        recovered: Recovered,
        snapshot: Snapshot,
        *,
        queue_lock: int,
    ) -> None:
        self._reactor = reactor
        self._settings = settings
        paths = settings.paths
        limit = snapshot.cluster.max_running_jobs

        # Time, threads, and the way from these to the reactor.
        self.events = Events()
        self.timers = Timers(cast(IReactorTime, reactor), time.time)
        mailbox = Mailbox(cast(IReactorFromThreads, reactor))
        self.hops = Hops(mailbox)
        self.threads = OpcodeThreads(limit)
        disk_thread = DiskThread(mailbox)
        #: Reads large requests, and large answers of nodes.
        self.reading_thread = DiskThread(mailbox, "reading", "reading messages")
        history_thread = DiskThread(mailbox, "history", f"work on {paths.history}")
        self.disk_watch = DiskWatch(
            disk_thread.progress, self.timers, {"history": history_thread.progress}
        )

        # What is durable: the journal, and the configuration and the jobs that it keeps.
        clerk = Clerk(disk_thread.resume, groups_of(paths, settings.account), keep=[queue_lock])
        self.journal = Journal(
            recovered, disk_thread, self.timers, events=self.events, job_files=clerk
        )
        self._replicated = ReplicatedJournal(self.journal)
        self.store = ConfigStore(snapshot, self._replicated, self.timers)
        self.queue = JobQueue(
            QueueFolder(paths.queue),
            self._replicated,
            self.timers,
            self.events,
            Scheduler(limit),
            JobWatch(self.timers, job_values),
        )

        # The nodes, and what they are sent of all that.
        self.door = open_door(
            reactor,
            self.timers,
            paths,
            snapshot.master.name,
            simulate_log=settings.simulate_log,
            description=settings.description,
            events=self.events,
            in_thread=self.reading_thread.run,
        )
        self.replication = Replication(
            self.door.nodes,
            paths.queue_files,
            self.timers,
            PublishedState(self.queue, self.store),
            settings.ack,
            disk_thread.run,
        )

        # What the configuration was before, and who changed it.
        self._in_history_thread = history_thread.run
        self.history = ConfigHistory(
            paths.history,
            history_thread,
            self.timers,
            lambda: self.store.snapshot,
            self._uid_of,
        )

        # What clients and jobs need.
        self.locks = LockKeeper(self.timers, self.events)
        self.switches = Switches(self.queue, paths.watcher_pause, self.replication)
        submission = Submission(
            self.queue,
            refusal=lambda: self.disk_watch.refusal() or self.replication.refusal(),
        )
        self.engine = QueryEngine(
            self.timers,
            lambda: self.store.snapshot,  # another one after each change
            self.door.nodes,
            self.queue,
            self.locks.rows,
            self.switches,
        )

        # From a ready job to its result.
        reservations = Reservations()
        services = Services(
            queue=self.queue,
            submission=submission,
            store=self.store,
            locks=self.locks,
            reservations=reservations,
            desk=PlacementDesk(reservations.places),
            nodes=self.door.nodes,
            engine=self.engine,
            hops=self.hops,
            timers=self.timers,
            root=paths.root,
        )
        self.executor = Executor(mailbox, self.threads, services, paths.data)

        # What answers clients.
        self.config_lock = ConfigLock(self.store, self.timers, LiveLocks(paths.live_locks))
        self.waits = JobWaits(self.queue, self.locks, lambda: self.store.snapshot)
        daemon = Daemon(
            queue=self.queue,
            submission=submission,
            control=JobControl(self.queue),
            switches=self.switches,
            store=self.store,
            engine=self.engine,
            history=HistoryParts(
                self.history,
                self.locks,
                self.door.nodes,
                history_thread.run,
                BackupDesk(self.timers),
            ),
            waits=self.waits,
        )
        self.listeners = self._listeners(daemon)

        self._fill(snapshot)
        self._wire()

    def _uid_of(self, job_id: int) -> int | None:
        """Returns whose a job is; None if that isn't known."""
        job = self.queue.tip(job_id)
        return None if job is None else submitter(job)

    def _fill(self, snapshot: Snapshot) -> None:
        """Gives the parts what they begin with of the configuration."""
        self.locks.populate(Level.INSTANCE, [i.name for i in snapshot.instances.values()])
        self.locks.populate(Level.NODEGROUP, snapshot.groups)
        self.locks.populate(Level.NODE, snapshot.nodes)
        self.locks.populate(Level.NODE_RES, snapshot.nodes)
        self.locks.populate(Level.NETWORK, snapshot.networks)
        self.queue.admission.set_rules(snapshot.filters.values())

    def _wire(self) -> None:
        """Connects parts to those that were built after them.

        One connection is missing here: jobs begin once the service calls
        :meth:`JobQueue.run_with <ganeti_masterd.jobs.queue.JobQueue.run_with>`.
        """
        # When a commit is published, the other candidates are sent its rows.
        self._replicated.replicate_with(self.replication)
        # When a round of the files begins, config.data becomes what is published by then.
        self.journal.config_from(self.store.image)
        # When the journal closes, the file serial gets the last id that was given.
        self.journal.serial_from(lambda: self.queue.last_id)
        # When a change of the configuration is published, the history records it.
        self.store.on_publication(self.history.record)
        # When the configuration changes, other nodes are sent what concerns them,
        self.store.on_change(self.replication.configured)
        # as many jobs may run as it says,
        self.store.on_change(self._follow_limit)
        # and its filter rules decide about jobs.
        self.store.on_change(self._follow_rules)
        # When a job has waited for locks so long that it ages, its opcode shows it.
        self.locks.on_aged(self.executor.aged)
        # When something happens, and --debug is set, the log says so.
        if self._settings.debug:
            trace(self.events)

    def _follow_limit(self, before: Snapshot, after: Snapshot) -> None:
        if before.cluster.max_running_jobs != after.cluster.max_running_jobs:
            self.executor.set_limit(after.cluster.max_running_jobs)

    def _follow_rules(self, before: Snapshot, after: Snapshot) -> None:
        if before.filters is not after.filters:
            self.queue.admission.set_rules(after.filters.values())

    def _listeners(self, daemon: Daemon) -> list[OpenedListener]:
        settings, paths = self._settings, self._settings.paths
        self._budget = Budget(settings.max_buffered, trusted_users(settings))
        slices = self.engine.slices
        wconfd = WconfdAnswers(
            WconfdParts(
                store=self.store,
                locks=self.locks.states,
                flushed=self._flushed,
                slices=slices,
                lock_file=paths.pid,
                pid=os.getpid(),
                config_lock=self.config_lock,
                writer=ConfigWriter(
                    self.store, self.config_lock, slices, self.timers, self._flushed
                ),
            )
        )
        methods = {**METHODS, **OWN_METHODS}
        answers, mode = LuxiAnswers(daemon), settings.socket_mode
        listeners = [self._listener("master", answers, methods, paths.socket, mode)]
        if settings.monitor_socket is not None:
            asking = LuxiAnswers(daemon, read_only=True)
            path, mode = settings.monitor_socket, settings.monitor_socket_mode
            listeners.append(self._listener("monitor", asking, methods, path, mode))
        path, mode = paths.wconfd_socket, WCONFD_SOCKET_PERMS
        listeners.append(self._listener("wconfd", wconfd, WCONFD_METHODS, path, mode))
        return listeners

    def _flushed(self) -> Deferred[None]:
        """Fires when the files here and those of the candidates hold all that is published."""
        return self.journal.settle().addCallback(lambda _: self.replication.flushed())

    def _listener(
        self,
        name: str,
        answers: LuxiAnswers | WconfdAnswers,
        methods: Mapping[str, Method],
        path: str,
        mode: int,
    ) -> OpenedListener:
        observed = ObservedAnswers(answers, methods, self.events, self.timers.seconds)
        return make_listener(
            self._settings,
            self.timers,
            self._budget,
            name,
            observed,
            answers.read_ahead,
            self.reading_thread.run,
            methods,
            path,
            mode,
        )

    def monitoring(self) -> Monitoring | None:
        """Returns what serves the pages for monitors, not started; None if not asked for."""
        endpoint = self._settings.monitoring
        if endpoint is None:
            return None
        # Here, as only who asks for it needs its libraries in memory.
        from ganeti_masterd.monitoring.access import EVERYBODY
        from ganeti_masterd.monitoring.configfaults import ConfigFaults
        from ganeti_masterd.monitoring.endpoints import local
        from ganeti_masterd.monitoring.files import NodeFiles
        from ganeti_masterd.monitoring.parts import Parts
        from ganeti_masterd.monitoring.service import Monitoring

        paths = self._settings.paths
        parts = Parts(
            events=self.events,
            timers=self.timers,
            snapshot=lambda: self.store.snapshot,
            queue=self.queue,
            journal=self.journal,
            listeners={listener.name: listener.factory for listener in self.listeners},
            pools={"opcodes": self.threads},
            replicas=lambda: self.replication.replicas,
            hosts=self._settings.monitoring_hosts,
            watcher_pause=lambda: self.switches.watcher_pause,
            waits=self.waits.all,
            why=self.waits.of,
            measure=self._measure,
            config_lock=lambda: self.config_lock.state,
            lock_wait=lambda: self.locks.longest_wait,
            disk_hangs=self.disk_watch.hanging,
            disk_seconds=self.disk_watch.seconds,
            config_faults=ConfigFaults(
                lambda: self.store.snapshot, self.timers, self._in_history_thread
            ),
            files=NodeFiles(paths.certificates, paths.data),
            nodes_interval=self._settings.monitoring_nodes,
        )
        server = serverFromString(self._reactor, local(endpoint))
        access = self._settings.monitoring_access or EVERYBODY
        return Monitoring(self._reactor, parts, server, endpoint, access)

    def _measure(
        self, kind: str, names: Sequence[str], fields: Sequence[str]
    ) -> Rows | Deferred[Rows]:
        ask = self.engine.nodes if kind == "node" else self.engine.instances
        return ask(names, fields)


def trusted_users(settings: Settings) -> frozenset[int]:
    """Returns the users for whom places and memory are kept: root and the daemon's own."""
    own = os.geteuid() if settings.account is None else settings.account.uid
    return frozenset({0, own})
