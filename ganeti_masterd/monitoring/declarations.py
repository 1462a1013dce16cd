"""The table of all metrics: name, kind, meaning and labels.

Metrics that ganeti/prometheus-ganeti-exporter has too keep its names and labels. No
label value is a job's id or a text chosen by a client, so the number
of time series is bounded by the cluster and by the code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

MetricKind = Literal["counter", "gauge", "histogram"]

#: Values of a metric's labels, in the declared order.
MetricKey = tuple[str, ...]

#: Upper bounds in seconds, for durations from milliseconds to an hour.
LONG = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
#: Upper bounds in seconds, for durations that should be short.
SHORT = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)


class Declared(Struct, frozen=True):
    """One metric; ``bounds`` are a histogram's upper bounds in seconds, ascending."""

    name: str
    kind: MetricKind
    text: str
    labels: MetricKey = ()
    bounds: tuple[float, ...] = ()

    def family(self, values: Mapping[MetricKey, float]) -> Metric:
        """Returns the counter or gauge, given its values by label values."""
        if self.kind == "counter":
            counts = CounterMetricFamily(self.name, self.text, labels=self.labels)
            for key, value in values.items():
                counts.add_metric(key, value)
            return counts
        gauge = GaugeMetricFamily(self.name, self.text, labels=self.labels)
        for key, value in values.items():
            gauge.add_metric(key, value)
        return gauge


#: Every metric of the daemon's own, by its name.
METRICS: dict[str, Declared] = {}


def _declare(
    name: str, kind: MetricKind, text: str, labels: MetricKey, bounds: tuple[float, ...] = ()
) -> Declared:
    return METRICS.setdefault(name, Declared(name, kind, text, labels, bounds))


def _gauge(name: str, text: str, *labels: str) -> Declared:
    return _declare(name, "gauge", text, labels)


def _counter(name: str, text: str, *labels: str) -> Declared:
    return _declare(name, "counter", text, labels)


def _histogram(name: str, text: str, *labels: str, bounds: tuple[float, ...]) -> Declared:
    return _declare(name, "histogram", text, labels, bounds)


# The cluster

INFO = _gauge("ganeti_masterd_info", "1, with the version of the daemon.", "version")
NODES = _gauge("ganeti_cluster_node_count", "Nodes of the cluster.", "cluster")
OFFLINE_NODES = _gauge("ganeti_cluster_offline_nodes", "Nodes marked offline.", "cluster")
INSTANCES = _gauge(
    "ganeti_cluster_instance_count", "Instances of the cluster, running or not.", "cluster"
)
PRIMARIES = _gauge(
    "ganeti_node_pinst_cnt", "Instances whose primary node this is.", "cluster", "node"
)
SECONDARIES = _gauge(
    "ganeti_node_sinst_cnt", "Instances whose secondary node this is.", "cluster", "node"
)

# Jobs

JOBS = _gauge(
    "ganeti_cluster_jobs", "Jobs that are not archived, by status.", "cluster", "job_status"
)
JOBS_SUBMITTED = _counter("ganeti_jobs_submitted_total", "Jobs accepted.")
JOBS_ENDED = _counter(
    "ganeti_jobs_ended_total",
    "Jobs that ended, by first opcode and final status.",
    "op_id",
    "job_status",
)
JOBS_ARCHIVED = _counter("ganeti_jobs_archived_total", "Jobs moved to the archive.")
JOB_WAIT = _histogram(
    "ganeti_job_wait_seconds", "From a job's submission to its start.", bounds=LONG
)
JOB_RUN = _histogram(
    "ganeti_job_run_seconds",
    "From a job's start to its end, waits for locks included.",
    bounds=LONG,
)
OPCODE_RUN = _histogram(
    "ganeti_opcode_run_seconds",
    "How long opcodes ran, waits for locks not included.",
    "op_id",
    bounds=LONG,
)
OPCODE_ERRORS = _counter(
    "ganeti_opcode_errors_total", "Jobs that failed, by class of the error.", "error"
)
DRAINED = _gauge("ganeti_queue_drained", "1 if the queue takes no new jobs.")
SLOTS = _gauge("ganeti_queue_slots", "How many jobs may run at a time.")
SLOTS_USED = _gauge("ganeti_queue_slots_used", "Jobs that have a slot.")
AWAITING_LOCKS = _gauge("ganeti_queue_jobs_awaiting_locks", "Jobs that wait for locks.")
LOCK_WAIT = _histogram(
    "ganeti_lock_wait_seconds",
    "How long a job waited for its locks of a level.",
    "level",
    bounds=LONG,
)

# Nodes

NODE_CALLS = _counter(
    "ganeti_node_calls_total", "Calls to nodes, one for each node called.", "procedure", "outcome"
)
NODE_SECONDS = _histogram(
    "ganeti_node_call_seconds", "How long calls to nodes took.", "procedure", bounds=SHORT
)
NODE_ERRORS = _counter("ganeti_node_errors_total", "Calls that failed, by node.", "node")

# Other master candidates

REPLICAS_CURRENT = _gauge(
    "ganeti_replica_current",
    "1 if the master candidate is up to date and jobs wait for it, else 0.",
    "node",
)
REPLICAS_WAITING = _gauge(
    "ganeti_replica_waiting_files", "Files on their way to a master candidate.", "node"
)

# Clients

REQUESTS = _counter(
    "ganeti_luxi_requests_total", "LUXI requests answered, by method.", "method", "outcome"
)
REQUEST_SECONDS = _histogram(
    "ganeti_luxi_request_seconds", "How long the answer took.", "method", bounds=SHORT
)
REQUEST_ERRORS = _counter(
    "ganeti_luxi_errors_total", "LUXI requests refused or failed, by class of the error.", "error"
)
MESSAGES = _counter("ganeti_luxi_messages_total", "Messages received, understood or not.", "socket")
CONNECTIONS = _gauge("ganeti_luxi_connections", "Clients connected.", "socket")
CONNECTIONS_LIMIT = _gauge(
    "ganeti_luxi_connections_limit", "The most clients that are served at a time.", "socket"
)
CLIENTS_WAITING = _gauge("ganeti_luxi_clients_waiting", "Clients that wait for a job to change.")

# The daemon itself

COMMIT_SECONDS = _histogram(
    "ganeti_journal_commit_seconds", "How long transactions of the journal took.", bounds=SHORT
)
ROWS = _counter("ganeti_journal_rows_total", "Rows made durable.")
BACKLOG = _gauge("ganeti_journal_backlog_rows", "Rows that Ganeti's files do not hold yet.")
WRITABLE = _gauge("ganeti_journal_writable", "1 if the journal took the last commit, else 0.")
REACTOR_LATENCY = _histogram(
    "ganeti_reactor_latency_seconds", "How late a timer of the reactor ran.", bounds=SHORT
)
THREADS = _gauge("ganeti_pool_threads", "The most threads that a pool may have.", "pool")
THREADS_BUSY = _gauge("ganeti_pool_threads_busy", "Threads of a pool at work.", "pool")
