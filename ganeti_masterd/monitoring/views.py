"""The parts of the daemon as viewers see them. Pure; nothing here shows an opcode's parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from ganeti_masterd.config.kinds import SECTIONS
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.constants import STATUS_ERROR
from ganeti_masterd.jobs.model import Job, LogEntry, Timestamp, submitter
from ganeti_masterd.jobs.queue import PROGRESS
from ganeti_masterd.monitoring.schema import JobView, ObjectChange
from ganeti_masterd.query.jobs import op_summary

#: The most characters of a text that a job made, and the most opcodes that are named.
LONGEST, MOST_OPCODES = 2000, 20
#: The most characters of an opcode's summary.
SHORT = 200


def seconds(stamp: Timestamp | None) -> float | None:
    """Returns Ganeti's pair as seconds since the epoch."""
    return None if stamp is None else stamp[0] + stamp[1] / 1_000_000


def job_view(job: Job, user: Callable[[int], str]) -> JobView:
    """Returns what is shown of a job; ``user`` returns the name of a user id."""
    uid = submitter(job)
    index = min(job.current, len(job.ops) - 1)
    return JobView(
        id=job.id,
        status=job.status,
        summary=[op_summary(op.input)[:SHORT] for op in job.ops[:MOST_OPCODES]],
        done=sum(op.finished for op in job.ops),
        received=seconds(job.received_timestamp),
        started=seconds(job.start_timestamp),
        ended=seconds(job.end_timestamp),
        progress=None if job.finished else _progress(job.ops[index].log),
        error=_error(job) if job.status == STATUS_ERROR else None,
        user=None if uid is None else user(uid),
        last=None if job.finished else _last_line(job),
    )


def log_lines(job: Job, after: int) -> Iterator[LogEntry]:
    """Yields the lines that a job logged after the one with that serial, without its progress."""
    for op in job.ops:
        for entry in op.log:
            if entry.serial > after and entry.kind != PROGRESS:
                yield entry


def log_text(entry: LogEntry) -> str:
    """Returns a line's text, cut off where it is very long."""
    message = entry.message
    return (message if isinstance(message, str) else repr(message))[:LONGEST]


def changes(before: Snapshot, after: Snapshot, most: int) -> tuple[list[ObjectChange], int]:
    """Returns what became of which objects, no more than ``most``, and how many more there are.

    A section that is still the same costs nothing.
    """
    found = _changes(before, after)
    return list(islice(found, most)), sum(1 for _ in found)


def _changes(before: Snapshot, after: Snapshot) -> Iterator[ObjectChange]:
    if before.cluster is not after.cluster:
        name = after.cluster.cluster_name
        yield ObjectChange("cluster", name, "changed", _serial(after.cluster))
    for section in SECTIONS:
        old, new = before.section(section), after.section(section)
        if old is new:
            continue
        for uuid, obj in new.items():
            known = old.get(uuid)
            if known is None:
                yield ObjectChange(section, _name(obj), "added", _serial(obj))
            elif known is not obj:
                yield ObjectChange(section, _name(obj), "changed", _serial(obj))
        for uuid, obj in old.items():
            if uuid not in new:
                yield ObjectChange(section, _name(obj), "removed", None)


def _name(obj: Any) -> str:
    return str(getattr(obj, "name", None) or obj.uuid)


def _serial(obj: Any) -> int | None:
    serial = getattr(obj, "serial_no", None)
    return serial if isinstance(serial, int) else None


def _progress(log: tuple[LogEntry, ...]) -> str | None:
    entry = next((entry for entry in reversed(log) if entry.kind == PROGRESS), None)
    return None if entry is None else log_text(entry)


def _last_line(job: Job) -> str | None:
    for op in reversed(job.ops):
        for entry in reversed(op.log):
            if entry.kind != PROGRESS:
                return log_text(entry)
    return None


def _error(job: Job) -> str | None:
    """Returns the first failed opcode's error: the message in ``[class, [message, ...]]``."""
    result = next((op.result for op in job.ops if op.status == STATUS_ERROR), None)
    match result:
        case [str(), [str(message), *_]]:
            return message[:LONGEST]
        case str():
            return result[:LONGEST]
    return None if result is None else repr(result)[:LONGEST]
