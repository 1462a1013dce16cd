"""The fields of jobs, and their values for WaitForJobChange and QueryJobs."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from ganeti_masterd.errors import ProgrammerError
from ganeti_masterd.jobs.model import Job, LogEntry, OpState, Timestamp
from ganeti_masterd.opcodes import OPCODES, load_opcode, redact, summary
from ganeti_masterd.query.fields import Matching, fields, flag, number, other, text

#: The field whose presence in a query includes archived jobs.
ARCHIVED = "archived"

#: Parameters that luxid shows even if they are None.
_SHOWN_NULL = frozenset({"depends", "comment"})

#: Summaries with longer parameter values aren't cached.
_SHORT = 256


def status(job: Job) -> str:
    """Returns a job's status; has a fast path for jobs with one opcode."""
    ops = job.ops
    return ops[0].status if len(ops) == 1 else job.status


def op_summary(values: dict[str, Any]) -> str:
    """Returns the summary that job lists show for an opcode, given its parameters.

    For an opcode that is unknown or invalid, this is its name.
    """
    op_id = str(values.get("OP_ID"))
    declared = OPCODES.get(op_id)
    if declared is None or declared.SUMMARY is None:
        return op_id.removeprefix("OP_")
    telling = values.get(declared.SUMMARY)
    if type(telling) in (int, float) or (type(telling) is str and len(telling) <= _SHORT):
        known = _summary_of(op_id, telling)
        if known is not None:
            return known
    return _summary(values) or op_id.removeprefix("OP_")


@lru_cache(maxsize=4096, typed=True)
def _summary_of(op_id: str, telling: str | int | float) -> str | None:
    """Returns the summary of an opcode with no parameter but its ``SUMMARY``, or None.

    None if the opcode needs other parameters.
    """
    return _summary({"OP_ID": op_id, str(OPCODES[op_id].SUMMARY): telling})


def _summary(values: dict[str, Any]) -> str | None:
    try:
        return summary(load_opcode(values))
    except Exception:  # an old job file may contain anything
        return None


def _time(stamp: Timestamp | None) -> list[int] | None:
    return None if stamp is None else list(stamp)


def _log(entries: tuple[LogEntry, ...]) -> list[list[Any]]:
    return [[entry.serial, list(entry.time), entry.kind, entry.message] for entry in entries]


def _shown(values: dict[str, Any]) -> dict[str, Any]:
    """Returns the parameters to show for an opcode: without private ones and ones not set."""
    return {
        name: value
        for name, value in redact(values).items()
        if value is not None or name in _SHOWN_NULL
    }


def _each(value: Callable[[OpState], Any]) -> Callable[[Job], list[Any]]:
    return lambda job: [value(op) for op in job.ops]


JOB_FIELDS = fields(
    number("id", "ID", of=lambda job: job.id, matching=Matching.JOB_ID, doc="The job's id."),
    text("status", "Status", of=status, doc="The job's status."),
    number(
        "priority",
        "Priority",
        of=lambda job: job.priority,
        doc="The most urgent priority of its unfinished opcodes; lower is more urgent.",
    ),
    flag(
        ARCHIVED,
        "Archived",
        given=lambda view, job: job.id in view.archived,
        doc="Whether it is in the archive.",
    ),
    other(
        "received_ts",
        "Received",
        of=lambda job: _time(job.received_timestamp),
        matching=Matching.SPLIT_TIME,
        doc="When it was submitted, as seconds and microseconds.",
    ),
    other(
        "start_ts",
        "Start",
        of=lambda job: _time(job.start_timestamp),
        matching=Matching.SPLIT_TIME,
        doc="When it began, as seconds and microseconds.",
    ),
    other(
        "end_ts",
        "End",
        of=lambda job: _time(job.end_timestamp),
        matching=Matching.SPLIT_TIME,
        doc="When it ended, as seconds and microseconds.",
    ),
    other(
        "ops",
        "OpCodes",
        of=_each(lambda op: _shown(op.input)),
        doc="The parameters of each opcode; private ones are hidden.",
    ),
    other(
        "summary", "Summary", of=_each(lambda op: op_summary(op.input)), doc="Each opcode in short."
    ),
    other("opstatus", "OpCode_status", of=_each(lambda op: op.status), doc="Each opcode's status."),
    other(
        "opresult",
        "OpCode_result",
        of=_each(lambda op: op.result),
        doc="Each opcode's result, or its error.",
    ),
    other("oplog", "OpCode_log", of=_each(lambda op: _log(op.log)), doc="What each opcode logged."),
    other(
        "oppriority",
        "OpCode_prio",
        of=_each(lambda op: op.priority),
        doc="Each opcode's priority.",
    ),
    other(
        "opstart",
        "OpCode_start",
        of=_each(lambda op: _time(op.start_timestamp)),
        doc="When each opcode began to wait for its locks.",
    ),
    other(
        "opexec",
        "OpCode_exec",
        of=_each(lambda op: _time(op.exec_timestamp)),
        doc="When each opcode got its locks.",
    ),
    other(
        "opend",
        "OpCode_end",
        of=_each(lambda op: _time(op.end_timestamp)),
        doc="When each opcode ended.",
    ),
)


def job_values(job: Job, names: tuple[str, ...]) -> list[Any]:
    """Returns the fields of a job that isn't archived as plain JSON values.

    Missing data is None; if one of the fields is unknown, all values are None (luxid
    3.0.2, WaitForJobChange).
    """
    getters = _getters(names)
    if getters is None:
        return [None] * len(names)
    return [getter(job) for getter in getters]


@lru_cache(maxsize=256)
def _getters(names: tuple[str, ...]) -> tuple[Callable[[Job], Any], ...] | None:
    found: list[Callable[[Job], Any]] = []
    for name in names:
        field = JOB_FIELDS.get(name)
        if field is None:
            return None
        if name == ARCHIVED:
            found.append(lambda job: False)
        elif field.of is None:
            raise ProgrammerError(f"The job field {name} can't be computed from the job alone")
        else:
            found.append(field.of)
    return tuple(found)
