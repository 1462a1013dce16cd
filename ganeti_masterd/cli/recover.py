"""``gnt-luxi recover``: puts the queue's files in order while no master daemon is running.

It works on files, not with the socket. systemd runs it after the daemon
(``ExecStopPost``), so that luxid can go on with the queue; and with it the
operator decides about a journal that was set aside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import click

from ganeti_masterd.cli.command import Command, CommandFault
from ganeti_masterd.cli.session import Session, pass_session
from ganeti_masterd.cli.words import counted
from ganeti_masterd.errors import PidFileLockError
from ganeti_masterd.startup.paths import Paths

if TYPE_CHECKING:
    from ganeti_masterd.cli.recovery import PutInOrder
    from ganeti_masterd.journal.faults import JournalSetAside


@click.command("recover", cls=Command)
@click.option(
    "--keep",
    type=click.Choice(["files", "journal"]),
    help="Which to keep if a journal that was set aside and the files contradict each other.",
)
@pass_session
def recover(session: Session, keep: Literal["files", "journal"] | None) -> None:
    """Put the queue in order while no master daemon is running.

    Writes what the journal still holds into Ganeti's own files, and leaves only queued and
    finished jobs there: waiting ones are queued again, running ones end in error. Any master
    daemon can go on from there. A queue that is in order is not changed.

    A journal that contradicts the files, or is damaged, was set aside when a daemon tried to
    start; none of its jobs runs until --keep says which to keep. With --keep files the journal
    stays beside the files, under another name; so does a damaged one with --keep journal.
    """
    root = session.place.root
    if root is None:
        raise CommandFault("recover works on files: give the cluster's --root, not a --socket")
    # Imported late, because no other command needs the journal.
    from ganeti_masterd.cli.recovery import put_in_order
    from ganeti_masterd.journal.faults import JournalSetAside

    paths = Paths(root)
    try:
        done = put_in_order(paths, keep)
    except JournalSetAside as error:
        raise CommandFault(_undecided(error)) from error
    except PidFileLockError as error:
        raise CommandFault(f"{error}; stop the master daemon first") from error
    except OSError as error:
        raise CommandFault(f"{error.filename or paths.queue}: {error.strerror or error}") from error
    _tell(session, done)


def _undecided(error: JournalSetAside) -> str:
    jobs = ", ".join(f"{job_id} ({status})" for job_id, status in error.jobs) or "none"
    said = f"The journal {error.path} was set aside: {error.reason}. "
    if not error.losses:
        return (
            f"{said}Jobs in it: {jobs}. "
            "Choose which to keep: --keep files discards these changes, --keep journal writes "
            "them over what the files hold now."
        )
    saved = ", ".join(f"{count} {kind}" for kind, count in error.saved.items() if count)
    return (
        f"{said}Rows that can be read: {saved or 'none'}. Jobs among them: {jobs}. "
        "Choose which to keep: --keep files discards these changes, --keep journal writes those "
        "that can be read over what the files hold now. Both keep the damaged journal under "
        "another name." + "".join(f"\n  lost: {loss}" for loss in error.losses)
    )


def _tell(session: Session, result: PutInOrder) -> None:
    out, done = session.out, result.jobs
    replayed, dropped = result.replayed, result.dropped
    if out.json:
        out.document(
            {
                "replayed": replayed,
                "dropped": dropped,
                "lost": result.lost,
                "jobs": [
                    {"id": job_id, "before": before, "now": now}
                    for job_id, before, now in done.changed
                ],
                "corrupt": done.corrupt,
                "living": [one.job_id for one in done.living],
            }
        )
    else:
        if replayed:
            out.line(f"{counted(replayed, 'change')} of the journal written to the files")
        for loss in result.lost:
            out.line(f"Lost with the damaged journal: {loss}")
        if dropped is not None:
            out.line(f"The discarded journal is kept as {dropped}")
        for job_id, before, now in done.changed:
            out.line(f"Job {job_id} was {before}, is {now}")
        for job_id in done.corrupt:
            out.line(f"The file of job {job_id} can't be understood; it is in the archive")
        if not replayed and dropped is None and not done.changed and not done.corrupt:
            out.line("The queue is in order")
    for one in done.living:
        out.note(f"A process of luxid is still running {one}; it was left alone")
