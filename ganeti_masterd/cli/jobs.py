"""``gnt-luxi jobs`` and ``gnt-luxi job``: what is in the queue, and all about one job."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import click
import msgspec
from msgspec import Struct

from ganeti_masterd.cli.answers import read_as
from ganeti_masterd.cli.command import Command, JobIdType
from ganeti_masterd.cli.listings import JOBS, Wish, ask, chosen_fields, read_filter, show, wishes
from ganeti_masterd.cli.output import Column, Output
from ganeti_masterd.cli.rows import Listed, LogLine, ShownJob, Whole, as_object, fetch, understand
from ganeti_masterd.cli.session import Session, pass_session
from ganeti_masterd.cli.words import (
    STYLES,
    counted,
    failure_text,
    json_text,
    log_text,
    minute,
    moment,
    printable,
    span,
    summaries,
)
from ganeti_masterd.constants import (
    STATUS_CANCELED,
    STATUS_CANCELING,
    STATUS_ERROR,
    STATUS_QUEUED,
    STATUS_RUNNING,
    STATUS_SUCCESS,
    STATUS_WAITING,
)
from ganeti_masterd.errors import JobLost

STATUSES = (
    STATUS_QUEUED,
    STATUS_WAITING,
    STATUS_RUNNING,
    STATUS_CANCELING,
    STATUS_CANCELED,
    STATUS_SUCCESS,
    STATUS_ERROR,
)

#: How many jobs are shown on a terminal by default.
TERMINAL_LIMIT = 50

_COLUMNS = (
    Column("ID", right=True),
    Column("Status", status=True),
    Column("Received"),
    Column("Took", right=True),
    Column("Opcodes", wraps=True),
)

_SHOWN_ABOVE = frozenset({"OP_ID", "priority"})

#: Default values of common parameters, which aren't shown.
_UNSAID: dict[str, tuple[Any, ...]] = {
    "dry_run": (None, False),
    "debug_level": (None, 0),
    "depends": (None, []),
    "comment": (None, ""),
}


@click.command("jobs", cls=Command)
@click.option(
    "--status",
    "statuses",
    type=click.Choice(STATUSES),
    multiple=True,
    help="Only jobs with this status; may be given more than once.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    help=f"Only so many of the latest jobs; 0 is all. Default: {TERMINAL_LIMIT} on a terminal, "
    "otherwise all.",
)
@click.option("--archived", is_flag=True, help="Archived jobs, too.")
@partial(wishes, sizes=False)
@pass_session
def jobs(
    session: Session, statuses: tuple[str, ...], limit: int | None, archived: bool, wish: Wish
) -> None:
    """List jobs, the latest last.

    If the output isn't a terminal: id, status, time of submission, time taken and opcodes,
    separated by tabs.
    """
    if limit is None:
        limit = TERMINAL_LIMIT if session.out.rich else 0
    # First two fields of all jobs, then the other fields of only those that are shown.
    known = _known(session, archived, wish.filter)
    wanted = sorted(row.id for row in known.values() if not statuses or row.status in statuses)
    chosen = wanted[-limit:] if limit else wanted
    if wish.fields is not None:
        fields = chosen_fields(wish.fields, JOBS.shown)
        show(
            session, ask(session, JOBS, fields, ["|", *(["=", "id", job] for job in chosen)]), wish
        )
        return
    rows = fetch(session.client, Listed, chosen)
    if session.out.json:
        session.out.document([as_object(row) for row in rows.values()])
        return
    now = time.time()
    session.out.table(
        _COLUMNS,
        [
            (
                str(row.id),
                row.status,
                minute(row.received_ts),
                span(row.start_ts, row.end_ts, now),
                summaries(row.summary),
            )
            for row in rows.values()
        ],
        headers=wish.headers,
        separator=wish.separator,
    )
    if session.out.rich:
        if not wanted:
            session.out.note("No jobs.")
        elif len(chosen) < len(wanted):
            more = len(wanted) - len(chosen)
            session.out.note(f"{counted(more, 'older job')} not shown; --limit 0 shows all.")


def _known(session: Session, archived: bool, text: str | None) -> dict[int, ShownJob]:
    """Returns all jobs, or those that pass the filter, by id."""
    fields = [*ShownJob.__struct_fields__, *(["archived"] if archived else [])]
    if text is None:
        return understand(session.client.query_jobs(None, fields), ShownJob)
    found = ask(session, JOBS, fields, read_filter(text))
    return understand([[value for _, value in row] for row in found.data], ShownJob)


@click.command("job", cls=Command)
@click.argument("job_id", metavar="ID", type=JobIdType())
@pass_session
def job(session: Session, job_id: int) -> None:
    """Show all about one job.

    This includes its opcodes with their parameters, times, log, and result or error.
    """
    found = fetch(session.client, Whole, [job_id]).get(job_id)
    if found is None:
        raise JobLost(f"There is no job {job_id}")
    if session.out.json:
        session.out.document(as_object(found))
        return
    _show(session.out, found)


class WaitAnswer(Struct, frozen=True):
    """What the daemon says of a job's wait; ``kind`` is None if it doesn't wait."""

    id: int
    sentence: str
    kind: str | None
    jobs: list[int]


@click.command("why", cls=Command)
@click.argument("job_id", metavar="ID", type=JobIdType())
@pass_session
def why(session: Session, job_id: int) -> None:
    """Say why a job waits, in one sentence.

    It names the locks and the jobs that hold them, the jobs that it depends on, the filter rule, or
    those that have all the slots.
    """
    answer = read_as(WaitAnswer, session.client.query_job_wait(job_id), f"job {job_id}")
    if session.out.json:
        session.out.document(msgspec.to_builtins(answer))
    else:
        session.out.line(printable(answer.sentence))


def _show(out: Output, job: Whole) -> None:
    now = time.time()
    archived = ", archived" if job.archived else ""
    out.line(f"Job {job.id}: {job.status}{archived}", STYLES.get(job.status))
    out.line(f"  Received: {moment(job.received_ts)}")
    if job.start_ts is not None:
        waited = span(job.received_ts, job.start_ts)
        out.line(f"  Started:  {moment(job.start_ts)} (after {waited})")
    if job.end_ts is not None:
        took = f" (took {span(job.start_ts, job.end_ts)})" if job.start_ts else ""
        out.line(f"  Ended:    {moment(job.end_ts)}{took}")
    for index in range(len(job.ops)):
        out.line()
        _show_opcode(out, job, index, now)


def _show_opcode(out: Output, job: Whole, index: int, now: float) -> None:
    status, opcode = job.opstatus[index], job.ops[index]
    out.line(
        f"  Opcode {index + 1} of {len(job.ops)}: {printable(job.summary[index])}: {status}",
        STYLES.get(status),
    )
    start, begun, end = job.opstart[index], job.opexec[index], job.opend[index]
    if start is not None:
        held = begun or end
        out.line(f"    Waited for locks: {span(start, held, None if end else now)}")
    if begun is not None:
        out.line(f"    Ran:              {span(begun, end, now)}, from {moment(begun)}")
    out.line(f"    Priority:         {job.oppriority[index]}")
    for name, value in opcode.items():
        if name == "reason":
            for line in _reasons(value):
                out.line(f"    Reason:           {line}")
        elif name not in _SHOWN_ABOVE and value not in _UNSAID.get(name, ()):
            out.line(f"    {name}: {json_text(value)}")
    for line in _log_lines(job.oplog[index]):
        out.line(f"    {line}")
    result = job.opresult[index]
    if status == STATUS_ERROR or (status == STATUS_CANCELED and result is not None):
        out.line(f"    Error: {failure_text(result)}", STYLES[status])
    elif status == STATUS_SUCCESS:
        out.line(f"    Result: {json_text(result)}")


def _reasons(value: Any) -> Iterator[str]:
    """Yields the entries of a reason trail; one of another shape as it is."""
    for entry in value if isinstance(value, list) else [value]:
        if isinstance(entry, list) and len(entry) >= 2:
            yield printable(f"{entry[0]}: {entry[1]}")
        elif entry is not None:
            yield json_text(entry)


def _log_lines(entries: list[LogLine]) -> Iterator[str]:
    if entries:
        yield "Log:"
    for entry in entries:
        first, *rest = log_text(entry.message).splitlines() or [""]
        stamp = moment(entry.time)
        yield f"  {stamp}  {first}"
        for line in rest:
            yield f"  {'':{len(stamp)}}  {line}"
