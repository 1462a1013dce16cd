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

# What nodes and instances have and use; only with --monitoring-nodes

NODE_CPUS = _gauge("ganeti_node_ctotal", "Logical processors of the node.", "cluster", "node")
NODE_MEMORY = _gauge("ganeti_node_mtotal", "Memory of the node in MiB.", "cluster", "node")
NODE_MEMORY_FREE = _gauge(
    "ganeti_node_mfree", "Memory that instances may get, in MiB.", "cluster", "node"
)
NODE_DISK = _gauge(
    "ganeti_node_dtotal", "Disk space for instances' disks in MiB.", "cluster", "node"
)
NODE_DISK_FREE = _gauge("ganeti_node_dfree", "Disk space that is free, in MiB.", "cluster", "node")
NODE_VCPUS = _gauge(
    "ganeti_node_p_oper_vcpus",
    "Virtual processors of running instances whose primary node this is.",
    "cluster",
    "node",
)
NODE_VCPUS_SECONDARY = _gauge(
    "ganeti_node_s_oper_vcpus",
    "Virtual processors of running instances whose secondary node this is.",
    "cluster",
    "node",
)
INSTANCE_MEMORY = _gauge(
    "ganeti_instance_oper_ram",
    "Memory that the instance has in MiB, 0 if it doesn't run.",
    "cluster",
    "instance",
)
INSTANCE_VCPUS = _gauge(
    "ganeti_instance_oper_vcpus",
    "Virtual processors that the instance has, 0 if it doesn't run.",
    "cluster",
    "instance",
)
NODES_ASKED = _gauge(
    "ganeti_nodes_asked_timestamp_seconds", "When nodes were last asked for all this (epoch)."
)

# Jobs

JOBS = _gauge(
    "ganeti_cluster_jobs", "Jobs that are not archived, by status.", "cluster", "job_status"
)
JOB_OLDEST = _gauge(
    "ganeti_job_oldest_seconds",
    "Age of the oldest job of a status: since its start if it runs or is being canceled, else "
    "since its submission; 0 if there is none.",
    "job_status",
)
LAST_WAIT = _gauge(
    "ganeti_job_wait_time",
    "From submission to start in seconds, of the last job that ended with this first opcode.",
    "cluster",
    "job_operation",
)
LAST_RUN = _gauge(
    "ganeti_job_run_time",
    "From start to end in seconds, of the last job that ended with this first opcode.",
    "cluster",
    "job_operation",
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
LOCK_OLDEST = _gauge(
    "ganeti_lock_oldest_wait_seconds",
    "How long the job has waited that waits longest for locks; 0 if none waits.",
)
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

# The configuration, certificates and the watcher

CONFIG_SERIAL = _gauge("ganeti_config_serial", "The configuration's serial number.")
CONFIG_FAULTS = _gauge(
    "ganeti_config_faults",
    "Faults of the configuration, as gnt-cluster verify finds them; checked once a minute at most.",
)
CERTIFICATE_EXPIRY = _gauge(
    "ganeti_certificate_expiry_timestamp_seconds",
    "When a certificate on the master node expires (epoch).",
    "file",
)
WATCHER_PAUSED = _gauge(
    "ganeti_watcher_paused_until_timestamp_seconds",
    "Until when the watcher pauses (epoch); 0 if it doesn't.",
)

# Other master candidates

REPLICAS_CURRENT = _gauge(
    "ganeti_replica_current",
    "1 if the master candidate is up to date and jobs wait for it, else 0.",
    "node",
)
REPLICAS_WAITING = _gauge(
    "ganeti_replica_waiting_files", "Files on their way to a master candidate.", "node"
)

REPLICAS_LAG = _gauge(
    "ganeti_replica_config_serial_lag",
    "How many serial numbers the configuration that a master candidate holds is behind.",
    "node",
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
DISK_SECONDS = _gauge(
    "ganeti_disk_work_seconds",
    "For how long the thread has been at what it does on the disk, 0 while it has no work.",
    "thread",
)
DISK_FREE = _gauge(
    "ganeti_queue_disk_free_bytes", "Room left for the queue, the journal and the configuration."
)
DISK_SIZE = _gauge("ganeti_queue_disk_size_bytes", "Size of the file system that has them.")
REACTOR_LATENCY = _histogram(
    "ganeti_reactor_latency_seconds", "How late a timer of the reactor ran.", bounds=SHORT
)
THREADS = _gauge("ganeti_pool_threads", "The most threads that a pool may have.", "pool")
THREADS_BUSY = _gauge("ganeti_pool_threads_busy", "Threads of a pool at work.", "pool")
