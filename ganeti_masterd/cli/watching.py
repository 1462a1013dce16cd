"""``gnt-luxi watch`` and ``gnt-luxi wait``: wait until jobs have ended."""

from __future__ import annotations

import click

from ganeti_masterd.cli.command import Command, job_ids
from ganeti_masterd.cli.displays import Nothing, display, ending, follow, without_log
from ganeti_masterd.cli.following import LogFollower
from ganeti_masterd.cli.session import Session, pass_session
from ganeti_masterd.cli.words import STYLES


@click.command("watch", cls=Command)
@job_ids
@pass_session
def watch(session: Session, jobs: tuple[int, ...]) -> None:
    """Show the progress and messages of jobs, until they have ended.

    With --json, prints a JSON object for each event, one per line. Ctrl-C leaves the jobs alone.
    The exit code is 1 if a job failed or was cancelled.
    """
    follower = LogFollower(session.client, jobs, timeout=session.timeout)
    outcomes = follow(follower.events(), display(session.out, jobs))
    if any(outcome.failed for outcome in outcomes.values()):
        raise click.exceptions.Exit(1)


@click.command("wait", cls=Command)
@job_ids
@pass_session
def wait(session: Session, jobs: tuple[int, ...]) -> None:
    """Wait until jobs have ended, then show how they ended.

    The exit code is 1 if a job failed or was cancelled.
    """
    follower = LogFollower(session.client, jobs, timeout=session.timeout)
    outcomes = follow(follower.events(), Nothing())
    if session.out.json:
        session.out.document([without_log(outcomes[job]) for job in jobs])
    else:
        for job in jobs:
            style = STYLES.get(outcomes[job].status)
            session.out.line(f"job {job}: {ending(outcomes[job])}", style)
    if any(outcome.failed for outcome in outcomes.values()):
        raise click.exceptions.Exit(1)
