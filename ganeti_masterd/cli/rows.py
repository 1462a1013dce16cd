"""The daemon's answers about jobs, as typed values.

Each class stands for one query: its fields are the LUXI fields to ask for, in order
(protocol/luxi.rst, Methods, QueryJobs).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from ganeti_masterd.cli.words import Stamp
from ganeti_masterd.constants import STATUSES_FINALIZED
from ganeti_masterd.errors import LuxiError
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


R = TypeVar("R", bound=ShownJob)


def fetch(client: Calls, kind: type[R], jobs: Sequence[int] | None) -> dict[int, R]:
    """Returns the jobs (all that aren't archived if None) that exist, by id.

    Raises like :meth:`Calls.query_jobs`, and ``LuxiError`` for a malformed answer.
    """
    if jobs is not None and not jobs:
        return {}
    return understand(client.query_jobs(jobs, kind.__struct_fields__), kind)


def understand(rows: Any, kind: type[R]) -> dict[int, R]:
    """Returns the rows of an answer to QueryJobs by id, without those of missing jobs."""
    try:
        # The row of a missing job is None except for the id; classic daemons send null.
        there = [row for row in rows if row is not None and row[1] is not None]
        # Not strict, because classic daemons send ids as strings.
        return {
            row.id: row for row in (msgspec.convert(each, kind, strict=False) for each in there)
        }
    except (msgspec.ValidationError, TypeError, IndexError) as error:
        raise LuxiError(f"The daemon's answer about jobs can't be understood: {error}") from None


def as_object(row: ShownJob) -> dict[str, Any]:
    """Returns a row for JSON output: LUXI's fields by their names."""
    values = {name: getattr(row, name) for name in row.__struct_fields__}
    return dict(msgspec.to_builtins(values))
