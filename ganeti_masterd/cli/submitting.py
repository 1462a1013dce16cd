"""``gnt-luxi submit``: submits jobs from a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from ganeti_masterd.cli.answers import read_as
from ganeti_masterd.cli.command import Command, CommandFault, PriorityType
from ganeti_masterd.cli.displays import Nothing, display, follow, without_log
from ganeti_masterd.cli.following import LogFollower
from ganeti_masterd.cli.jobfile import (
    JobFileError,
    RawJob,
    check_jobs,
    read_jobs,
    with_absolute_dependencies,
    with_priority,
    with_reason,
)
from ganeti_masterd.cli.rows import JobOutcome
from ganeti_masterd.cli.session import Session, pass_session
from ganeti_masterd.cli.words import counted, exception_text, printable
from ganeti_masterd.errors import GenericError, LuxiError
from ganeti_masterd.luxi.calls import Calls
from ganeti_masterd.luxi.failures import CallFailed

#: A job's id, or why it was refused.
SubmittedJobs = int | str


@click.command("submit", cls=Command)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option("--wait", is_flag=True, help="Show progress until all jobs have ended.")
@click.option("--drained", is_flag=True, help="Submit even while the queue is drained.")
@click.option(
    "--priority",
    type=PriorityType(submit=True),
    metavar="LEVEL",
    help="low, normal or high, for all opcodes.",
)
@click.option("--reason", metavar="TEXT", help="Why, for the opcodes' reason trail.")
@pass_session
def submit(
    session: Session,
    file: str,
    wait: bool,
    drained: bool,
    priority: int | None,
    reason: str | None,
) -> None:
    """Submit the jobs in FILE ('-': standard input).

    FILE holds JSON: one opcode, a list of opcodes (one job), or a list of such lists (many
    jobs). An opcode is an object with OP_ID and its parameters:

    \b
      {"OP_ID": "OP_TEST_DELAY", "duration": 2.5}

    Everything is checked before anything is sent. If the output isn't a terminal, the ids are
    printed, one per line (with --wait, the jobs' progress instead).
    The exit code is 1 if a job was refused, or, with --wait, if one failed.
    """  # noqa: D301 - click's mark of a paragraph to leave as it is
    jobs = _read(file, priority)
    results = _send(session.client, with_reason(jobs, reason, "submit"), drained=drained)
    accepted = [result for result in results if isinstance(result, int)]
    outcomes: dict[int, JobOutcome] = {}
    if not session.out.json:
        _tell(session, results, ids=not wait)
    if wait and accepted:
        shown = Nothing() if session.out.json else display(session.out, accepted)
        follower = LogFollower(session.client, accepted, timeout=session.timeout)
        outcomes = follow(follower.events(), shown)
    if session.out.json:
        session.out.document([_document(result, outcomes) for result in results])
    refused = len(results) - len(accepted)
    if refused or any(outcome.failed for outcome in outcomes.values()):
        raise click.exceptions.Exit(1)


def _read(file: str, priority: int | None) -> list[RawJob]:
    name = "standard input" if file == "-" else click.format_filename(file)
    try:
        with click.open_file(file, "rb") as opened:
            data: bytes = opened.read()
        jobs = read_jobs(data, name)
        if priority is not None:
            jobs = with_priority(jobs, priority)
        check_jobs(jobs, name)
    except JobFileError as error:
        raise CommandFault(str(error)) from None
    except OSError as error:
        raise CommandFault(f"{name} can't be read: {error.strerror}") from None
    return jobs


def _send(client: Calls, jobs: Sequence[RawJob], *, drained: bool) -> list[SubmittedJobs]:
    """Submits the jobs; raises the error of a single job, returns those of several."""
    if len(jobs) == 1:
        (job,) = jobs
        answer = client.submit_job_to_drained_queue(job) if drained else client.submit_job(job)
        return [read_as(int, answer, "a new job")]
    if not drained:
        answers = read_as(list[tuple[bool, Any]], client.submit_many_jobs(jobs), "new jobs")
        if len(answers) != len(jobs):
            raise LuxiError(f"The daemon answered for {len(answers)} jobs, not for {len(jobs)}")
        return [
            read_as(int, value, "a new job") if done else printable(str(value))
            for done, value in answers
        ]
    # No call submits several jobs to a drained queue.
    results: list[SubmittedJobs] = []
    for job in jobs:
        before = [result if isinstance(result, int) else None for result in results]
        try:
            ready = with_absolute_dependencies(job, before)
            answer = client.submit_job_to_drained_queue(ready)
            results.append(read_as(int, answer, "a new job"))
        except JobFileError as error:
            results.append(str(error))
        except CallFailed as error:
            if not results:
                raise
            # Go on, because the jobs that were already submitted must be reported.
            results.append(str(error))
            results += ["it was not sent"] * (len(jobs) - len(results))
            break
        except GenericError as error:
            results.append(exception_text(error))
    return results


def _tell(session: Session, results: Sequence[SubmittedJobs], *, ids: bool) -> None:
    accepted = [result for result in results if isinstance(result, int)]
    if not session.out.rich:
        # With --wait the lines that follow name the jobs.
        for job in accepted if ids else ():
            session.out.line(str(job))
    elif len(accepted) == 1:
        session.out.line(f"Submitted job {accepted[0]}.")
    elif accepted:
        session.out.line(
            f"Submitted {counted(len(accepted), 'job')}: {accepted[0]} to {accepted[-1]}."
        )
    for number, result in enumerate(results, 1):
        if isinstance(result, str):
            session.out.note(f"gnt-luxi: job {number} of {len(results)} was refused: {result}")


def _document(result: SubmittedJobs, outcomes: dict[int, JobOutcome]) -> dict[str, Any]:
    if isinstance(result, str):
        return {"id": None, "error": result}
    outcome = outcomes.get(result)
    return {"id": result} if outcome is None else without_log(outcome)
