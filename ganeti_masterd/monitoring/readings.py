"""Metrics that are read from the daemon's parts at each scrape: gauges and some counters."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric

from ganeti_masterd import __version__
from ganeti_masterd.monitoring import declarations as metrics
from ganeti_masterd.monitoring.jobs import JobMetrics
from ganeti_masterd.monitoring.parts import Parts
from ganeti_masterd.replication.standing import CandidateStanding


class Readings:
    """Reads metrics at each scrape, at a cost that doesn't depend on the number of jobs."""

    def __init__(self, parts: Parts, jobs: JobMetrics) -> None:
        self._parts = parts
        self._jobs = jobs

    def collect(self) -> Iterator[Metric]:
        """Yields the metrics."""
        yield metrics.INFO.family({(__version__,): 1})
        yield from self._cluster()
        yield from self._queue()
        yield from self._clients()
        yield from self._replicas()
        yield from self._configuration()
        yield from self._daemon()

    def _cluster(self) -> Iterator[Metric]:
        snapshot = self._parts.snapshot()
        cluster = snapshot.cluster.cluster_name
        nodes = list(snapshot.nodes.values())
        yield metrics.NODES.family({(cluster,): len(nodes)})
        yield metrics.OFFLINE_NODES.family({(cluster,): sum(node.offline for node in nodes)})
        yield metrics.INSTANCES.family({(cluster,): len(snapshot.instances)})
        yield metrics.PRIMARIES.family(
            {(cluster, node.name): len(snapshot.instances_on(node)) for node in nodes}
        )
        yield metrics.SECONDARIES.family(
            {(cluster, node.name): len(snapshot.secondaries_on(node)) for node in nodes}
        )
        yield metrics.JOBS.family(
            {(cluster, status): count for status, count in self._jobs.by_status.items()}
        )
        for declared, last in (
            (metrics.LAST_WAIT, self._jobs.last_wait),
            (metrics.LAST_RUN, self._jobs.last_run),
        ):
            yield declared.family({(cluster, op_id): value for op_id, value in last.items()})

    def _queue(self) -> Iterator[Metric]:
        queue = self._parts.queue
        scheduler = queue.scheduler
        yield metrics.DRAINED.family({(): queue.drained})
        yield metrics.SLOTS.family({(): scheduler.limit})
        yield metrics.SLOTS_USED.family({(): len(scheduler.running)})
        yield metrics.AWAITING_LOCKS.family({(): len(scheduler.blocked)})
        ages = self._jobs.oldest.ages(self._parts.timers.now())
        yield metrics.JOB_OLDEST.family({(status,): age for status, age in ages.items()})
        yield metrics.LOCK_OLDEST.family({(): self._parts.lock_wait()})

    def _clients(self) -> Iterator[Metric]:
        listeners = self._parts.listeners.items()
        yield metrics.MESSAGES.family({(name,): each.requests for name, each in listeners})
        yield metrics.CONNECTIONS.family({(name,): each.connections for name, each in listeners})
        yield metrics.CONNECTIONS_LIMIT.family(
            {(name,): each.max_connections for name, each in listeners}
        )
        yield metrics.CLIENTS_WAITING.family({(): len(self._parts.queue.watch)})

    def _replicas(self) -> Iterator[Metric]:
        replicas = self._parts.replicas()
        yield metrics.REPLICAS_CURRENT.family(
            {(each.node,): each.standing is CandidateStanding.CURRENT for each in replicas}
        )
        yield metrics.REPLICAS_WAITING.family({(each.node,): each.waiting for each in replicas})
        serial = self._parts.snapshot().header.serial_no
        yield metrics.REPLICAS_LAG.family(
            {
                (each.node,): max(0, serial - each.config_serial)
                for each in replicas
                if each.config_serial is not None
            }
        )

    def _configuration(self) -> Iterator[Metric]:
        parts = self._parts
        yield metrics.CONFIG_SERIAL.family({(): parts.snapshot().header.serial_no})
        faults = parts.config_faults()
        yield metrics.CONFIG_FAULTS.family({} if faults is None else {(): faults})
        yield metrics.CERTIFICATE_EXPIRY.family(
            {(name,): expiry for name, expiry in parts.files.expiries().items()}
        )
        yield metrics.WATCHER_PAUSED.family({(): parts.watcher_pause() or 0})

    def _daemon(self) -> Iterator[Metric]:
        journal = self._parts.journal
        pools = self._parts.pools.items()
        yield metrics.BACKLOG.family({(): journal.backlog})
        yield metrics.WRITABLE.family({(): journal.fault is None})
        seconds = self._parts.disk_seconds()
        yield metrics.DISK_SECONDS.family({(name,): value for name, value in seconds.items()})
        room = self._parts.files.room()
        yield metrics.DISK_FREE.family({} if room is None else {(): room[0]})
        yield metrics.DISK_SIZE.family({} if room is None else {(): room[1]})
        yield metrics.THREADS.family({(name,): pool.limit for name, pool in pools})
        yield metrics.THREADS_BUSY.family({(name,): pool.busy for name, pool in pools})
