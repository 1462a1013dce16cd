"""A job as a value, and every lawful step from one state of it to the next.

Pure: no clock, no I/O. A :class:`Job` never changes; each function below
returns a new one, or raises :class:`~ganeti_masterd.errors.ProgrammerError`
for a step that :data:`STEPS` doesn't allow. The structs are laid out as
Ganeti's job files are (protocol/queue.rst, Files of the queue), so encoding a job makes its file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from ganeti_masterd.constants import (
    OP_PRIO_NORMAL,
    STATUS_CANCELED,
    STATUS_CANCELING,
    STATUS_ERROR,
    STATUS_QUEUED,
    STATUS_RUNNING,
    STATUS_SUCCESS,
    STATUS_WAITING,
    STATUSES_FINALIZED,
)
from ganeti_masterd.decoding import decode_json
from ganeti_masterd.errors import OpExecError, ProgrammerError, encode_error
from ganeti_masterd.jobs.devices import NotedDevice
from ganeti_masterd.opcodes import redact
from ganeti_masterd.statuses import job_status

#: ``(seconds, microseconds)`` since the epoch.
Timestamp = tuple[int, int]

#: From each status of an opcode, the ones that may follow.
STEPS: dict[str, frozenset[str]] = {
    STATUS_QUEUED: frozenset(
        {STATUS_WAITING, STATUS_RUNNING, STATUS_CANCELING, STATUS_CANCELED, STATUS_ERROR}
    ),
    STATUS_WAITING: frozenset(
        {STATUS_QUEUED, STATUS_RUNNING, STATUS_CANCELING, STATUS_CANCELED, STATUS_ERROR}
    ),
    STATUS_CANCELING: frozenset({STATUS_CANCELED, STATUS_ERROR}),
    STATUS_RUNNING: frozenset({STATUS_WAITING, STATUS_SUCCESS, STATUS_ERROR}),
    STATUS_CANCELED: frozenset(),
    STATUS_SUCCESS: frozenset(),
    STATUS_ERROR: frozenset(),
}

CANCELED_BY_REQUEST = "Job canceled by request"
PRECEDING_FAILED = encode_error(OpExecError("Preceding opcode failed"))


_SENDER = re.compile(r";uid=(\d+)(?:;|$)")


def submitter(job: Job) -> int | None:
    """Returns the uid of the client that submitted a job; None if that isn't known.

    It is in the last entry of the reason trail, which the daemon adds to what clients give.
    """
    reason = job.ops[0].input.get("reason") if job.ops else None
    if not reason:
        return None
    found = _SENDER.search(str(reason[-1][1]))
    return None if found is None else int(found[1])


def timestamp(now: float) -> Timestamp:
    """Returns seconds since the epoch as Ganeti's pair."""
    return divmod(round(now * 1_000_000), 1_000_000)


def nanoseconds(now: float) -> int:
    """Returns seconds since the epoch as reason trails have them; whole microseconds."""
    return round(now * 1_000_000) * 1000


# What a job consists of is plain data that never refers back to it: with ``gc=False`` the
# collector, which meets perhaps 100,000 jobs, has fewer objects of each to look at.


class LogEntry(Struct, frozen=True, array_like=True, gc=False):
    """A line that an opcode said; serials count from 1 through the whole job."""

    serial: int
    time: Timestamp
    kind: str
    message: Any


class OpState(Struct, frozen=True, gc=False):
    """One opcode of a job: its parameters as on disk, and how far it is.

    Private parameters are on disk until the opcode has ended, as it may have to be started
    again after a restart.
    """

    input: dict[str, Any]
    status: str = STATUS_QUEUED
    result: Any = None
    log: tuple[LogEntry, ...] = ()
    priority: int = OP_PRIO_NORMAL
    start_timestamp: Timestamp | None = None
    exec_timestamp: Timestamp | None = None
    end_timestamp: Timestamp | None = None

    @property
    def finished(self) -> bool:
        """Whether nothing more can happen to it."""
        return self.status in STATUSES_FINALIZED


class Job(Struct, frozen=True, gc=False):
    """A list of opcodes that run one after another, and where they stand.

    ``livelock`` and ``process_id`` are luxid's, kept as found and never set. ``devices`` is what
    the opcode that runs makes, renames or removes on nodes, in that order; it is in the file only
    while there is any.
    """

    id: int
    ops: tuple[OpState, ...]
    received_timestamp: Timestamp | None = None
    start_timestamp: Timestamp | None = None
    end_timestamp: Timestamp | None = None
    livelock: str | UnsetType | None = UNSET
    process_id: int | UnsetType | None = UNSET
    devices: tuple[NotedDevice, ...] | UnsetType = UNSET

    @property
    def status(self) -> str:
        """The status of the whole job, as :func:`~ganeti_masterd.statuses.job_status` has it."""
        ops = self.ops
        # Most jobs have one opcode, and are asked for their status again and again.
        return ops[0].status if len(ops) == 1 else job_status([op.status for op in ops])

    @property
    def finished(self) -> bool:
        """Whether the job has ended."""
        return self.status in STATUSES_FINALIZED

    @property
    def priority(self) -> int:
        """The most urgent priority among its unfinished opcodes; 0 once it has ended."""
        return min(
            [op.priority for op in self.ops if op.status not in STATUSES_FINALIZED],
            default=OP_PRIO_NORMAL,
        )

    @property
    def log_serial(self) -> int:
        """The serial of the last log entry, 0 without any."""
        return max([op.log[-1].serial for op in self.ops if op.log], default=0)

    @property
    def current(self) -> int:
        """The index of the first opcode that has not ended (the number of opcodes at the end)."""
        for index, op in enumerate(self.ops):
            if op.status not in STATUSES_FINALIZED:
                return index
        return len(self.ops)


_encoder = msgspec.json.Encoder()


def encode_job(job: Job) -> bytes:
    """Returns the content of the job's file."""
    return _encoder.encode(job)


def decode_job(body: bytes) -> Job:
    """Reads a job file of ours or of luxid; raises ``msgspec.DecodeError`` for any other."""
    job = decode_json(body, Job)
    if not job.ops:
        raise msgspec.ValidationError("a job without opcodes")
    for op in job.ops:
        if op.status not in STEPS:
            raise msgspec.ValidationError(f"an opcode of unknown status {op.status!r}")
        if not isinstance(op.input.get("OP_ID"), str):
            raise msgspec.ValidationError("an opcode without OP_ID")
    return job


def decode_job_of(job_id: int, body: bytes) -> Job:
    """Reads the file of one job; raises ``msgspec.DecodeError`` also if it is another one's."""
    job = decode_job(body)
    if job.id != job_id:
        raise msgspec.ValidationError(f"the file holds job {job.id}")
    return job


def new_job(job_id: int, inputs: Iterable[dict[str, Any]], now: float) -> Job:
    """Returns a queued job; each opcode's priority is the one in its parameters."""
    ops = tuple(
        OpState(input=item, priority=item.get("priority") or OP_PRIO_NORMAL) for item in inputs
    )
    return Job(id=job_id, ops=ops, received_timestamp=timestamp(now))


def _with_op(job: Job, index: int, op: OpState) -> tuple[OpState, ...]:
    return (*job.ops[:index], op, *job.ops[index + 1 :])


def _step(op: OpState, status: str) -> None:
    if status not in STEPS[op.status]:
        raise ProgrammerError(f"an opcode can't go from {op.status} to {status}")


def _ended(op: OpState, status: str, **about: Any) -> OpState:
    """Returns an opcode that has ended, without its private parameters."""
    return replace(op, status=status, input=redact(op.input), **about)


def begin_waiting(job: Job, index: int, now: float) -> Job:
    """The opcode asks for its locks; the first time counts as its and its job's start."""
    op = job.ops[index]
    _step(op, STATUS_WAITING)
    stamp = timestamp(now)
    op = replace(op, status=STATUS_WAITING, start_timestamp=op.start_timestamp or stamp)
    return replace(job, ops=_with_op(job, index, op), start_timestamp=job.start_timestamp or stamp)


def begin_running(job: Job, index: int, now: float) -> Job:
    """The opcode holds its locks and runs from now on."""
    op = job.ops[index]
    _step(op, STATUS_RUNNING)
    stamp = timestamp(now)
    op = replace(
        op,
        status=STATUS_RUNNING,
        start_timestamp=op.start_timestamp or stamp,
        exec_timestamp=stamp,
    )
    return replace(job, ops=_with_op(job, index, op), start_timestamp=job.start_timestamp or stamp)


def succeed(job: Job, index: int, result: Any, now: float) -> Job:
    """The opcode ended well; the job ends with its last one."""
    op = job.ops[index]
    _step(op, STATUS_SUCCESS)
    stamp = timestamp(now)
    op = _ended(op, STATUS_SUCCESS, result=result, end_timestamp=stamp)
    last = index == len(job.ops) - 1
    return replace(
        job,
        ops=_with_op(job, index, op),
        end_timestamp=stamp if last else job.end_timestamp,
        devices=UNSET,
    )


def fail(job: Job, index: int, error: Any, now: float) -> Job:
    """The opcode failed with ``error`` as it travels; those after it fail with it."""
    stamp = timestamp(now)
    ops = list(job.ops)
    _step(ops[index], STATUS_ERROR)
    ops[index] = _ended(ops[index], STATUS_ERROR, result=error, end_timestamp=stamp)
    for later in range(index + 1, len(ops)):
        ops[later] = _ended(ops[later], STATUS_ERROR, result=PRECEDING_FAILED, end_timestamp=stamp)
    return replace(job, ops=tuple(ops), end_timestamp=stamp, devices=UNSET)


def note_devices(job: Job, devices: Iterable[NotedDevice]) -> Job:
    """The opcode that runs is about to make, rename or remove devices."""
    return replace(job, devices=(*(job.devices or ()), *devices))


def forget_devices(job: Job, devices: Iterable[NotedDevice]) -> Job:
    """The opcode that runs has seen to some of the devices that it had noted."""
    gone = list(devices)
    left = tuple(device for device in job.devices or () if device not in gone)
    return replace(job, devices=left or UNSET)


def wait_again(job: Job, index: int) -> Job:
    """A running opcode goes back to wait for resources (protocol/queue.rst, Running an opcode)."""
    op = job.ops[index]
    _step(op, STATUS_WAITING)
    return replace(
        job, ops=_with_op(job, index, replace(op, status=STATUS_WAITING, exec_timestamp=None))
    )


def _unfinished(job: Job, change: Callable[[OpState], OpState]) -> tuple[OpState, ...]:
    return tuple(op if op.finished else change(op) for op in job.ops)


def cancel(job: Job, now: float, result: Any = None) -> Job:
    """Every opcode that has not ended is cancelled; a dequeued one has no result."""

    def canceled(op: OpState) -> OpState:
        _step(op, STATUS_CANCELED)
        return _ended(op, STATUS_CANCELED, result=result)

    ops = _unfinished(job, canceled)
    return replace(job, ops=ops, end_timestamp=timestamp(now), devices=UNSET)


def requeue(job: Job) -> Job:
    """A job that waited when the daemon stopped starts over with its next opcode."""
    ops = tuple(
        replace(op, status=STATUS_QUEUED) if op.status == STATUS_WAITING else op for op in job.ops
    )
    return replace(job, ops=ops, livelock=UNSET, process_id=UNSET)


def reprioritize(job: Job, priority: int) -> Job:
    """Sets the priority of the opcodes that have not begun to run."""
    ops = tuple(
        replace(op, priority=priority) if not op.finished and op.status != STATUS_RUNNING else op
        for op in job.ops
    )
    return replace(job, ops=ops)


def add_log(job: Job, index: int, entry: LogEntry) -> Job:
    """Appends a log entry to the opcode."""
    op = job.ops[index]
    return replace(job, ops=_with_op(job, index, replace(op, log=(*op.log, entry))))


def show_progress(job: Job, index: int, entry: LogEntry) -> Job:
    """Appends a log entry to the opcode in place of the last one of the same kind."""
    op = job.ops[index]
    kept = tuple(each for each in op.log if each.kind != entry.kind)
    return replace(job, ops=_with_op(job, index, replace(op, log=(*kept, entry))))


def merge_log(body: bytes, entries: Iterable[tuple[int, bytes]]) -> bytes:
    """Returns a job file with log entries added that it does not hold yet.

    ``entries`` are ``(opcode index, entry as JSON)`` in order. Recovery uses it
    to bring back what a running opcode said before a crash.
    """
    job = decode_job(body)
    for index, raw in entries:
        entry = msgspec.json.decode(raw, type=LogEntry)
        if index < len(job.ops) and entry.serial > job.log_serial:
            job = add_log(job, index, entry)
    return encode_job(job)
