"""``gnt-luxi cancel``, ``priority`` and ``archive``: what can be done to jobs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import click
from msgspec import Meta

from ganeti_masterd.cli.answers import read_as
from ganeti_masterd.cli.command import Command, JobIdType, PriorityType, Seconds, job_ids
from ganeti_masterd.cli.session import Session, pass_session
from ganeti_masterd.cli.words import counted, printable

#: Seconds that the daemon may spend on one round of archiving.
ARCHIVE_ROUND = 30.0

#: The age that means all jobs that have ended (protocol/luxi.rst, Methods, AutoArchiveJobs).
ALL_AGES = -1.0

#: A number of jobs in an answer.
JobCount = Annotated[int, Meta(ge=0, le=2**53)]


@click.command("cancel", cls=Command)
@job_ids
@click.option("--kill", is_flag=True, help="Stop running jobs, too.")
@pass_session
def cancel(session: Session, jobs: tuple[int, ...], kill: bool) -> None:
    """Cancel jobs that have not begun to run.

    The exit code is 1 if one could not be cancelled.
    """
    _each(session, jobs, lambda job: session.client.cancel_job(job, kill))


@click.command("priority", cls=Command, context_settings={"ignore_unknown_options": True})
@click.argument("level", type=PriorityType())
@job_ids
@pass_session
def priority(session: Session, level: int, jobs: tuple[int, ...]) -> None:
    """Change the priority of opcodes that have not begun to run.

    LEVEL is low, normal, high, or a number from -20 (most urgent) to 19. The exit code is 1
    if a job's priority could not be changed.
    """
    _each(session, jobs, lambda job: session.client.change_job_priority(job, level))


@click.command("archive", cls=Command)
@click.argument("jobs", metavar="[ID]...", type=JobIdType(), nargs=-1)
@click.option(
    "--age",
    type=Seconds(all=ALL_AGES),
    metavar="AGE",
    help="Archive jobs that ended at least so long ago (90, 30m, 12h, 7d, 2w), or 'all'.",
)
@pass_session
def archive(session: Session, jobs: tuple[int, ...], age: float | None) -> None:
    """Archive jobs that have ended, by id or by age.

    Archived jobs are no longer listed, but can still be shown by their ids. The exit code is 1 if
    a job given by id could not be archived.
    """
    if bool(jobs) == (age is not None):
        raise click.UsageError("Give either jobs or an age.")
    if age is not None:
        _archive_by_age(session, age)
        return

    def one(job: int) -> tuple[bool, str]:
        if read_as(bool, session.client.archive_job(job), f"job {job}"):
            return True, f"Archived job {job}"
        return False, f"Job {job} has not ended, or is not in the queue"

    _each(session, dict.fromkeys(jobs), one)


def _archive_by_age(session: Session, age: float) -> None:
    archived = 0
    while True:
        answer = session.client.call(
            "AutoArchiveJobs", age, ARCHIVE_ROUND, timeout=ARCHIVE_ROUND + session.timeout
        )
        now_archived, left = read_as(tuple[JobCount, JobCount], answer, "archived jobs")
        archived += now_archived
        if not left or not now_archived:
            break
    if session.out.json:
        session.out.document({"archived": archived, "not_examined": left})
        return
    text = f"Archived {counted(archived, 'job')}"
    session.out.line(text + (f"; {left:,} were not examined in time" if left else ""))


def _each(
    session: Session,
    jobs: Sequence[int] | dict[int, None],
    act: Callable[[int], Any],
) -> None:
    """Calls ``act`` for each job, and prints its answers: whether it succeeded, and a text."""
    answers = []
    for job in jobs:
        done, given = read_as(tuple[bool, str], act(job), f"job {job}")
        text = printable(given)
        answers.append({"id": job, "done": done, "text": text})
        if session.out.json:
            continue
        if done:
            session.out.line(text)
        else:
            session.out.note(f"gnt-luxi: {text}")
    if session.out.json:
        session.out.document(answers)
    if not all(answer["done"] for answer in answers):
        raise click.exceptions.Exit(1)
