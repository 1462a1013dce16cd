"""The interfaces of the daemon's parts that monitoring uses, reduced to what it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct
from twisted.internet.defer import Deferred

from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.events import Events
from ganeti_masterd.jobs.queue import JobQueue
from ganeti_masterd.monitoring.files import MonitoredFiles, NoFiles
from ganeti_masterd.query.waits import JobWait
from ganeti_masterd.replication.replication import Replica
from ganeti_masterd.timing import Timers


class MonitoredJournal(Protocol):
    """The journal and the files written from it. A fault is None if there is none."""

    @property
    def backlog(self) -> int:
        """How many rows are not written to the files yet."""

    @property
    def fault(self) -> str | None:
        """Why the last commit failed."""

    @property
    def files_fault(self) -> str | None:
        """Why the files can't be written."""

    @property
    def clerk_fault(self) -> str | None:
        """What is wrong with the process for job files."""


class MonitoredListener(Protocol):
    """A LUXI socket's connections."""

    requests: int
    max_connections: int

    @property
    def connections(self) -> int:
        """How many clients are connected."""


class MonitoredPool(Protocol):
    """A thread pool."""

    @property
    def limit(self) -> int:
        """The most threads that the pool may have."""

    @property
    def busy(self) -> int:
        """How many threads are working."""


#: Rows of values: of a kind (``node`` or ``instance``), the fields named, of the objects named; of
#: all if none is named. A value that isn't known is None.
Measure = Callable[[str, Sequence[str], Sequence[str]], list[list[Any]] | Deferred[list[list[Any]]]]


def _nothing_measured(kind: str, names: Sequence[str], fields: Sequence[str]) -> list[list[Any]]:
    return []


class MonitoredConfigLock(Protocol):
    """The lock that a tool holds on the configuration."""

    @property
    def holders(self) -> Sequence[str]:
        """Those who hold it."""

    @property
    def since(self) -> float:
        """Since when, in seconds since the epoch."""

    @property
    def changes_waiting(self) -> int:
        """How many changes of the daemon's own wait for them."""


class Parts(Struct, frozen=True):
    """The parts to monitor; the keys of ``listeners`` and ``pools`` are used as labels.

    ``watcher_pause`` returns until when the watcher pauses, None if it doesn't.
    ``waits`` returns why jobs wait, no more than so many of each kind.
    ``why`` returns why one job waits, None if it doesn't.
    ``waits`` returns why jobs wait, no more than so many of each kind. ``config_lock`` returns
    None while no tool has the configuration locked.
    ``lock_wait`` returns for how many seconds the job has waited that waits longest for locks.
    ``disk_hangs`` returns what the disk doesn't end, for messages; ``disk_seconds`` for how long
    each disk thread has been at what it does, 0 where it waits for work.
    ``config_faults`` returns how many faults the configuration has, None if not known yet.
    Nodes are asked each ``nodes_interval`` seconds what they have; 0 is never.
    ``hosts`` are further names by which the pages may be asked for.
    ``measure`` asks nodes for what only they know; see :class:`Measure`. ``users_file`` has the
    names of users, as ``/etc/passwd``.
    """

    events: Events
    timers: Timers
    snapshot: Callable[[], Snapshot]
    queue: JobQueue
    journal: MonitoredJournal
    listeners: Mapping[str, MonitoredListener]
    pools: Mapping[str, MonitoredPool]
    replicas: Callable[[], Sequence[Replica]] = tuple
    hosts: Sequence[str] = ()
    watcher_pause: Callable[[], int | None] = lambda: None
    waits: Callable[[int], list[JobWait]] = lambda limit: []
    why: Callable[[int], JobWait | None] = lambda job_id: None
    measure: Measure = _nothing_measured
    users_file: str = "/etc/passwd"
    config_lock: Callable[[], MonitoredConfigLock | None] = lambda: None
    lock_wait: Callable[[], float] = lambda: 0.0
    disk_hangs: Callable[[], Sequence[object]] = tuple
    disk_seconds: Callable[[], Mapping[str, float]] = dict
    config_faults: Callable[[], int | None] = lambda: None
    files: MonitoredFiles = NoFiles()
    nodes_interval: float = 0.0

    def own_names(self) -> tuple[str, str]:
        """Returns the names of the cluster and of its master."""
        snapshot = self.snapshot()
        return snapshot.cluster.cluster_name, snapshot.master.name
