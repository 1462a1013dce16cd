"""The documents that the page asks for. Times are seconds since the epoch, sizes are MiB."""

from __future__ import annotations

from msgspec import Struct

from ganeti_masterd.monitoring.schema import JobView
from ganeti_masterd.query.waits import JobWait


class NodeRow(Struct, frozen=True, gc=False):
    """A node; what only it knows is None until it was asked, and if it doesn't answer.

    ``role`` is ``master``, ``candidate``, ``regular``, ``drained`` or ``offline``.
    """

    name: str
    group: str
    role: str
    vm_capable: bool
    primaries: int
    secondaries: int
    memory: int | None = None
    memory_free: int | None = None
    disk: int | None = None
    disk_free: int | None = None
    cpus: int | None = None


class InstanceRow(Struct, frozen=True, gc=False):
    """An instance; ``wanted`` is its state in the configuration: up, down or offline.

    ``status`` compares that with what its node says, in the words of ``gnt-instance list``; None
    until the node was asked.
    """

    name: str
    node: str
    secondaries: list[str]
    wanted: str
    os: str
    template: str
    status: str | None = None
    memory: int | None = None
    vcpus: int | None = None


class PoolUse(Struct, frozen=True):
    """How many of what there is are used."""

    used: int
    limit: int


class DaemonView(Struct, frozen=True):
    """The daemon itself. ``lateness`` is how late the reactor's last timer ran, in seconds.

    ``rows`` are what the journal made durable since the start; ``backlog`` those that the files
    don't have yet. ``measured`` is when nodes were last asked, ``measure_fault`` why that failed.
    ``expiring`` are certificates that expire soon or have, by their names, and when (epoch);
    ``config_faults`` is how many faults the configuration has, None if not known yet.
    """

    version: str
    since: float
    now: float
    lateness: float
    clients: dict[str, PoolUse]
    threads: dict[str, PoolUse]
    viewers: PoolUse
    backlog: int
    rows: int
    files_fault: str | None
    measured: float | None
    measuring: bool
    measure_fault: str | None
    expiring: dict[str, float]
    config_faults: int | None


class OpcodeView(Struct, frozen=True, gc=False):
    """One opcode of a job, without its parameters."""

    summary: str
    status: str
    started: float | None
    ended: float | None


class LoggedLine(Struct, frozen=True, gc=False):
    """A line of a job's log; ``serial`` counts all lines of the job."""

    serial: int
    time: float
    text: str


class JobPage(Struct, frozen=True):
    """A job with its log; ``left_out`` is how many earlier lines aren't in it."""

    job: JobView
    opcodes: list[OpcodeView]
    log: list[LoggedLine]
    left_out: int
    wait: JobWait | None
