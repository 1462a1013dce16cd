"""The daemon's status as one document, and whether it is healthy."""

from __future__ import annotations

from msgspec import Struct

from ganeti_masterd import __version__
from ganeti_masterd.monitoring.jobs import JobMetrics
from ganeti_masterd.monitoring.latency import ReactorLatency
from ganeti_masterd.monitoring.parts import Parts
from ganeti_masterd.query.waits import JobWait
from ganeti_masterd.replication.standing import CandidateStanding

#: How many waits for locks are shown, and how many for other jobs or filter rules.
WAITS = 100


class QueueStatus(Struct, frozen=True):
    """The job queue; ``jobs`` is how many jobs that aren't archived have each status."""

    jobs: dict[str, int]
    last_id: int
    drained: bool
    slots: int
    slots_used: int
    awaiting_locks: int


class SocketStatus(Struct, frozen=True):
    """A LUXI socket: clients connected, their limit, and messages received since the start."""

    connections: int
    limit: int
    messages: int


class JournalStatus(Struct, frozen=True):
    """The journal.

    ``backlog`` is how many rows are not written to the files yet. ``fault`` is why the last
    commit failed, ``files_fault`` why the files can't be written, None if they can.
    """

    backlog: int
    fault: str | None
    files_fault: str | None


class ConfigLockStatus(Struct, frozen=True):
    """A lock on the configuration that tools hold.

    ``since`` is in seconds since the epoch; ``changes_waiting`` counts changes that jobs and
    others want to make meanwhile.
    """

    holders: list[str]
    since: float
    changes_waiting: int


class ReplicaStatus(Struct, frozen=True):
    """A master candidate: whether it is up to date, and how many files are waiting to be sent."""

    current: bool
    waiting: int


class PoolStatus(Struct, frozen=True):
    """A thread pool: threads that are working, and their limit."""

    busy: int
    limit: int


class Status(Struct, frozen=True):
    """What ``/status`` shows. ``since`` and ``now`` are seconds since the epoch.

    ``since`` is when the daemon started. ``faults`` are sentences; empty if it is healthy.
    ``reactor_latency`` is in seconds. ``waits`` says why jobs wait, except those that only
    lack a slot; at most 200. ``config_lock`` is None while no tool has the configuration locked.
    """

    version: str
    cluster: str
    master: str
    nodes: int
    offline_nodes: int
    instances: int
    since: float
    now: float
    faults: list[str]
    queue: QueueStatus
    sockets: dict[str, SocketStatus]
    clients_waiting: int
    journal: JournalStatus
    replicas: dict[str, ReplicaStatus]
    pools: dict[str, PoolStatus]
    reactor_latency: float
    waits: list[JobWait]
    config_lock: ConfigLockStatus | None


def faults(parts: Parts) -> list[str]:
    """Returns the reasons why the daemon can't do its work, as sentences."""
    found = []
    if parts.queue.closing:
        found.append("The daemon is stopping: no more jobs are started")
    elif parts.queue.runner is None:
        found.append("The daemon is starting: no jobs run yet")
    if parts.journal.fault is not None:
        found.append(f"Commits fail: {parts.journal.fault}")
    found.extend(f"The disk does not answer: {hang}" for hang in parts.disk_hangs())
    if parts.journal.clerk_fault is not None:
        found.append(f"Job files are written more slowly: {parts.journal.clerk_fault}")
    return found


class StatusReport:
    """Makes a :class:`Status` when called; ``since`` is when the daemon started (epoch)."""

    def __init__(
        self, parts: Parts, jobs: JobMetrics, latency: ReactorLatency, since: float
    ) -> None:
        self._parts = parts
        self._jobs = jobs
        self._latency = latency
        self._since = since

    def __call__(self) -> Status:
        """Returns the current status."""
        parts = self._parts
        snapshot, queue = parts.snapshot(), parts.queue
        return Status(
            version=__version__,
            cluster=snapshot.cluster.cluster_name,
            master=snapshot.master.name,
            nodes=len(snapshot.nodes),
            offline_nodes=sum(node.offline for node in snapshot.nodes.values()),
            instances=len(snapshot.instances),
            since=self._since,
            now=parts.timers.now(),
            faults=faults(parts),
            queue=QueueStatus(
                jobs=self._jobs.by_status,
                last_id=queue.last_id,
                drained=queue.drained,
                slots=queue.scheduler.limit,
                slots_used=len(queue.scheduler.running),
                awaiting_locks=len(queue.scheduler.blocked),
            ),
            sockets={
                name: SocketStatus(each.connections, each.max_connections, each.requests)
                for name, each in parts.listeners.items()
            },
            clients_waiting=len(queue.watch),
            journal=JournalStatus(
                parts.journal.backlog, parts.journal.fault, parts.journal.files_fault
            ),
            replicas={
                each.node: ReplicaStatus(each.standing is CandidateStanding.CURRENT, each.waiting)
                for each in parts.replicas()
            },
            pools={name: PoolStatus(pool.busy, pool.limit) for name, pool in parts.pools.items()},
            reactor_latency=self._latency.last,
            waits=parts.waits(WAITS),
            config_lock=_config_lock(parts),
        )


def _config_lock(parts: Parts) -> ConfigLockStatus | None:
    lock = parts.config_lock()
    if lock is None:
        return None
    return ConfigLockStatus(list(lock.holders), lock.since, lock.changes_waiting)
