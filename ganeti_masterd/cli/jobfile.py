"""Files with jobs: reading and checking them, and preparing the jobs for submission.

A file is JSON: one opcode, a list of opcodes (one job), or a list of such lists (many
jobs). An opcode is an object with ``OP_ID`` and its parameters, as LUXI has it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from ganeti_masterd.errors import OpPrereqError
from ganeti_masterd.luxi.documents import ProtocolError, parse_strictly
from ganeti_masterd.opcodes import decode_opcode

#: An opcode as sent over LUXI, and a job: a list of these.
RawOpcode = dict[str, Any]
RawJob = list[RawOpcode]

#: The most faults that are reported for one file.
MOST_FAULTS = 10

REASON_USER = "gnt:user"
REASON_CLIENT = "gnt:client:gnt-luxi"


class JobFileError(Exception):
    """A file with jobs can't be used; args: message, which names the file and the place."""


def read_jobs(data: bytes, name: str) -> list[RawJob]:
    """Returns the jobs in a file's content; ``name`` is the file's name in messages.

    Checks only the structure, not the opcodes. Raises ``JobFileError``.
    """
    try:
        document = parse_strictly(data)
    except ProtocolError as error:
        raise JobFileError(f"{name}{_position(data)}: {error}") from None
    match document:
        case dict():
            return [[document]]
        case [dict(), *_]:
            return [_job(document, name, "opcode")]
        case [list(), *_]:
            return [
                _job(job, f"{name}: job {number}", "opcode")
                if isinstance(job, list)
                else _refuse(name, f"job {number}", "a list of opcodes like the jobs before it")
                for number, job in enumerate(document, 1)
            ]
    raise JobFileError(
        f"{name}: expected an opcode (an object with OP_ID), a list of opcodes, "
        "or a list of such lists"
    )


def _job(values: list[Any], where: str, what: str) -> RawJob:
    if not values:
        raise JobFileError(f"{where}: a job needs at least one opcode")
    for number, value in enumerate(values, 1):
        if not isinstance(value, dict):
            _refuse(where, f"{what} {number}", "an object with OP_ID")
    return values


def _refuse(where: str, which: str, expected: str) -> Any:
    raise JobFileError(f"{where}: {which}: expected {expected}")


def _position(data: bytes) -> str:
    """Returns ``:line:column`` of a syntax error, or an empty string if it can't be found."""
    try:
        json.loads(data)
    except json.JSONDecodeError as error:
        return f":{error.lineno}:{error.colno}"
    except (ValueError, RecursionError):
        return ""
    return ""


def check_jobs(jobs: Sequence[RawJob], name: str) -> None:
    """Checks all opcodes as the daemon would; raises ``JobFileError`` with every fault found."""
    faults = []
    for number, job in enumerate(jobs, 1):
        for place, opcode in enumerate(job, 1):
            where = name
            if len(jobs) > 1:
                where += f": job {number}"
            if len(job) > 1:
                where += f": opcode {place}"
            try:
                decode_opcode(opcode, where)
            except OpPrereqError as error:
                faults.append(str(error.args[0]))
    if len(faults) > MOST_FAULTS:
        faults[MOST_FAULTS:] = [f"{name}: ... and {len(faults) - MOST_FAULTS} more faults"]
    if faults:
        raise JobFileError("\n".join(faults))


def with_priority(jobs: Sequence[RawJob], priority: int) -> list[RawJob]:
    """Returns the jobs with one priority for all opcodes."""
    return [[{**opcode, "priority": priority} for opcode in job] for job in jobs]


def with_reason(jobs: Sequence[RawJob], reason: str | None, command: str) -> list[RawJob]:
    """Returns the jobs with entries added to the reason trail of each opcode.

    Like in Ganeti's own clients: first the user's reason, if any, then the program
    and its command.
    """
    now = time.time_ns()
    entries: list[Any] = [] if reason is None else [[REASON_USER, reason, now]]
    entries.append([REASON_CLIENT, command, now])
    return [
        [{**opcode, "reason": [*(opcode.get("reason") or []), *entries]} for opcode in job]
        for job in jobs
    ]


def with_absolute_dependencies(job: RawJob, before: Sequence[int | None]) -> RawJob:
    """Returns a job whose relative dependencies are replaced by job ids.

    Needed if jobs are submitted one by one, because relative ids only work within one call.
    ``before`` are the ids of the jobs before it in the file, None for one that was refused.
    Raises ``JobFileError`` if it depends on a job that was not submitted.
    """
    return [_absolute(opcode, before) for opcode in job]


def _absolute(opcode: RawOpcode, before: Sequence[int | None]) -> RawOpcode:
    depends = opcode.get("depends")
    if not depends:
        return opcode
    resolved = []
    for job, *states in depends:
        number = int(job)
        if number < 0:
            found = before[number] if -number <= len(before) else None
            if found is None:
                raise JobFileError(f"it depends on job {number}, which was not submitted")
            number = found
        resolved.append([number, *states])
    return {**opcode, "depends": resolved}
