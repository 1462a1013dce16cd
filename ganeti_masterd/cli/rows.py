"""The daemon's answers about jobs, as typed values.

Each class stands for one query: its fields are the LUXI fields to ask for, in order
(protocol/luxi.rst, Methods, QueryJobs).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from ganeti_masterd.cli.answers import read_as
from ganeti_masterd.cli.words import Stamp
from ganeti_masterd.constants import STATUSES_FINALIZED
from ganeti_masterd.luxi.calls import Calls


class LogLine(Struct, frozen=True, array_like=True):
    """A log entry of an opcode; serials are numbered throughout the job."""

    serial: int
    time: Stamp
    kind: str
    message: Any


class ShownJob(Struct, frozen=True, array_like=True):
    """The fields that all queries of jobs have."""

    id: int
    status: str


class JobStep(ShownJob, frozen=True, array_like=True):
    """A job's progress."""

    opstatus: list[str]


class Listed(ShownJob, frozen=True, array_like=True):
    """The fields that a list of jobs shows."""

    summary: list[str]
    received_ts: Stamp | None
    start_ts: Stamp | None
    end_ts: Stamp | None


class JobOutcome(Listed, frozen=True, array_like=True):
    """How a job ended."""

    opstatus: list[str]
    opresult: list[Any]
    oplog: list[list[LogLine]]

    @property
    def failed(self) -> bool:
        """Whether its status is anything but success."""
        return self.status in STATUSES_FINALIZED and self.status != "success"


class Whole(JobOutcome, frozen=True, array_like=True):
    """Everything about a job."""

    priority: int
    archived: bool | None
    ops: list[dict[str, Any]]
    oppriority: list[int]
    opstart: list[Stamp | None]
    opexec: list[Stamp | None]
    opend: list[Stamp | None]

    def __post_init__(self) -> None:
        """Raises ``ValueError``, as msgspec wants it, unless there is one value for each opcode."""
        of_opcodes = (
            *(self.summary, self.opstatus, self.opresult, self.oplog),
            *(self.oppriority, self.opstart, self.opexec, self.opend),
        )
        if any(len(values) != len(self.ops) for values in of_opcodes):
            raise ValueError("not one value for each opcode")


R = TypeVar("R", bound=ShownJob)


def fetch(client: Calls, kind: type[R], jobs: Sequence[int] | None) -> dict[int, R]:
    """Returns the jobs (all that aren't archived if None) that exist, by id.

    Raises like :meth:`Calls.query_jobs`, and ``LuxiError`` for a malformed answer.
    """
    if jobs is not None and not jobs:
        return {}
    found = understand(client.query_jobs(jobs, kind.__struct_fields__), kind)
    return found if jobs is None else {job: found[job] for job in jobs if job in found}


def understand(rows: Any, kind: type[R]) -> dict[int, R]:
    """Returns the rows of an answer to QueryJobs by id, without those of missing jobs."""
    listed = read_as(list[list[Any] | None], rows, "jobs")
    # The row of a missing job is None except for the id; classic daemons send null.
    there = [row for row in listed if row and row[1:2] != [None]]
    return {row.id: row for row in (read_as(kind, each, "jobs") for each in there)}


def as_object(row: ShownJob) -> dict[str, Any]:
    """Returns a row for JSON output: LUXI's fields by their names."""
    values = {name: getattr(row, name) for name in row.__struct_fields__}
    return dict(msgspec.to_builtins(values))
