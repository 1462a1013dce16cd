"""LUXI's methods as Python methods, shared by both clients (protocol/luxi.rst, Methods).

Each sends one request. The blocking client returns the result described, the Twisted
client a Deferred of it. Errors are those of :mod:`ganeti_masterd.errors`, as the server
names them, and those of :mod:`ganeti_masterd.luxi.failures`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from ganeti_masterd.constants import LUXI_WFJC_TIMEOUT

#: An opcode as it travels: ``OP_ID``, its parameters, and ``reason``.
OpCode = Mapping[str, Any]


class Calls(ABC):
    """The methods of the master daemon. Job ids are integers."""

    @abstractmethod
    def call(self, method: str, *args: Any, timeout: float | None = None) -> Any:
        """Calls any method by its name."""

    # Jobs

    def submit_job(self, opcodes: Sequence[OpCode]) -> Any:
        """Submits one job of these opcodes; its id."""
        return self.call("SubmitJob", opcodes)

    def submit_job_to_drained_queue(self, opcodes: Sequence[OpCode]) -> Any:
        """Submits one job even if the queue is drained; its id."""
        return self.call("SubmitJobToDrainedQueue", opcodes)

    def submit_many_jobs(self, jobs: Sequence[Sequence[OpCode]]) -> Any:
        """Submits jobs; for each ``[true, id]`` or ``[false, message]``.

        Fails, and submits none, if one of them can't be read.
        """
        return self.call("SubmitManyJobs", jobs)

    def wait_for_job_change(
        self,
        job: int,
        fields: Sequence[str],
        previous: Sequence[Any] | None = None,
        log_serial: int | None = None,
        timeout: float = LUXI_WFJC_TIMEOUT,
    ) -> Any:
        """Waits until the job differs from ``[previous, []]``; ``[values, log entries]``.

        The server caps ``timeout`` (seconds); when it has passed, the values come unchanged,
        with no log entries. The log entries are those newer than ``log_serial``.
        """
        return self.call("WaitForJobChange", job, fields, previous, log_serial, timeout)

    def query_jobs(self, jobs: Sequence[int] | None, fields: Sequence[str]) -> Any:
        """Asks for fields of these jobs, or of all that aren't archived; rows of values."""
        return self.call("QueryJobs", jobs, fields)

    def query_job_wait(self, job: int) -> Any:
        """Asks why a job waits; ``{"id", "sentence", "kind", "jobs"}``; luxid has no such call."""
        return self.call("QueryJobWait", job)

    def cancel_job(self, job: int, kill: bool = False) -> Any:
        """Cancels a job, or ends a running one with ``kill``; ``[whether, text]``."""
        return self.call("CancelJob", job, True) if kill else self.call("CancelJob", job)

    def change_job_priority(self, job: int, priority: int) -> Any:
        """Changes the priority of a job's opcodes that don't run yet; ``[whether, text]``."""
        return self.call("ChangeJobPriority", job, priority)

    def archive_job(self, job: int) -> Any:
        """Archives a finished job; whether it was."""
        return self.call("ArchiveJob", job)

    def auto_archive_jobs(self, age: float, timeout: float) -> Any:
        """Archives jobs that ended ``age`` seconds ago (-1: all); ``[archived, not examined]``.

        Stops after ``timeout`` seconds.
        """
        return self.call("AutoArchiveJobs", age, timeout)

    # Queries

    def query(self, what: str, fields: Sequence[str], filter: Any = None) -> Any:
        """Asks for resources; ``{"fields": [...], "data": rows of [status, value]}``."""
        return self.call("Query", what, fields, filter)

    def query_fields(self, what: str, names: Sequence[str] | None = None) -> Any:
        """Asks which fields a kind of resource has; ``{"fields": [...]}``."""
        return self.call("QueryFields", what, names)

    def query_nodes(self, names: Sequence[str], fields: Sequence[str]) -> Any:
        """Asks for fields of nodes; rows of plain values."""
        return self.call("QueryNodes", names, fields, False)

    def query_instances(self, names: Sequence[str], fields: Sequence[str]) -> Any:
        """Asks for fields of instances; rows of plain values."""
        return self.call("QueryInstances", names, fields, False)

    def query_groups(self, names: Sequence[str], fields: Sequence[str]) -> Any:
        """Asks for fields of node groups; rows of plain values."""
        return self.call("QueryGroups", names, fields, False)

    def query_networks(self, names: Sequence[str], fields: Sequence[str]) -> Any:
        """Asks for fields of networks; rows of plain values."""
        return self.call("QueryNetworks", names, fields, False)

    def query_exports(self, nodes: Sequence[str]) -> Any:
        """Asks for the exports on nodes; ``[node, export or null]`` for each."""
        return self.call("QueryExports", nodes, False)

    def query_tags(self, kind: str, name: str | None = None) -> Any:
        """Asks for the tags of an object, or of the cluster (no name); a list."""
        return self.call("QueryTags", kind, "" if name is None else name)

    # The cluster

    def cluster_info(self) -> Any:
        """Asks about the cluster; an object."""
        return self.call("QueryClusterInfo")

    def config_values(self, fields: Sequence[str]) -> Any:
        """Asks for values of the configuration; one for each field."""
        return self.call("QueryConfigValues", fields)

    def set_drain_flag(self, drained: bool) -> Any:
        """Closes the queue to new jobs, or opens it; true."""
        return self.call("SetDrainFlag", drained)

    def set_watcher_pause(self, until: float | None) -> Any:
        """Pauses the watcher until a time (seconds since the epoch; null: no more); that time."""
        return self.call("SetWatcherPause", until)

    # Filter rules

    def query_filters(self, uuids: Sequence[str] | None, fields: Sequence[str]) -> Any:
        """Asks for fields of filter rules; rows of values."""
        return self.call("QueryFilters", uuids, fields)

    def replace_filter(
        self,
        uuid: str | None,
        priority: int,
        predicates: Sequence[Any],
        action: Any,
        reason: Sequence[Any] = (),
    ) -> Any:
        """Makes a filter rule, or replaces the one of that uuid; its uuid."""
        return self.call("ReplaceFilter", uuid, priority, predicates, action, reason)

    def delete_filter(self, uuid: str) -> Any:
        """Removes a filter rule; null."""
        return self.call("DeleteFilter", uuid)
