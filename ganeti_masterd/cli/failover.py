"""``gnt-luxi master-failover``: this node becomes the master.

It works with files and node daemons, not with the socket, because no master daemon is
running here.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

import click

from ganeti_masterd.cli.command import Command, CommandFault
from ganeti_masterd.cli.session import Session, pass_session
from ganeti_masterd.startup.paths import Paths

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from ganeti_masterd.failover.errand import FailOverOutcome, FailOverReport, FailOverWishes

_NO_VOTING = """\
This node becomes the master even if most other nodes are down, or consider another one
the master (--no-voting). If the old master still works, or comes back and is still considered
the master, both will change the cluster, and instances and their data may be lost.
Type YES, in capital letters, to go on: """


@click.command("master-failover", cls=Command)
@click.option("--no-voting", is_flag=True, help="Ignore the other nodes' votes.")
@click.option("--yes-do-it", is_flag=True, help="With --no-voting: don't ask.")
@click.option(
    "--keep-own",
    is_flag=True,
    help="Keep this node's files where another candidate's differ and can't be read.",
)
@click.option("--no-start", is_flag=True, help="Don't start the daemon at the end.")
@pass_session
def master_failover(
    session: Session, no_voting: bool, yes_do_it: bool, keep_own: bool, no_start: bool
) -> None:
    """Make this node the master in place of another one.

    Run it as root on the master candidate that is to become the master. The old master's daemon
    is stopped, if its node answers. The newest configuration and jobs among the candidates that
    answer are taken over, all nodes are informed, and the daemon is started here.
    """
    root = session.place.root
    if root is None:
        raise CommandFault("master-failover works on files: give the node's --root, not a --socket")
    paths = Paths(root)
    if os.path.isdir(f"{paths.root}/simulation"):
        raise CommandFault(
            f"{paths.root} is a simulation: its nodes share this one root, and none of them has"
            " files of its own with which it could take over"
        )
    if os.geteuid() != 0:
        raise CommandFault("Only root can make this node the master")
    if no_voting and not yes_do_it:
        click.echo(_NO_VOTING, err=True, nl=False)
        if sys.stdin.readline().strip() != "YES":
            raise CommandFault("Aborted: nothing was done")
    # Imported late, because no other command needs it.
    from ganeti_masterd.failover.errand import FailOverWishes

    outcome = _carry_out(
        session, paths, FailOverWishes(vote=not no_voting, keep_own=keep_own, start=not no_start)
    )
    for warning in outcome.warnings:
        session.out.note(f"Warning: {warning}")
    if outcome.report is None:
        raise CommandFault(outcome.refusal or "")
    _tell(session, outcome.report, outcome.warnings)
    if not no_start and not outcome.report.running:
        raise CommandFault(
            f"{outcome.report.own} is the master now, but its daemon isn't running: start it with"
            " daemon-util start-master"
        )


def _carry_out(session: Session, paths: Paths, wishes: FailOverWishes) -> FailOverOutcome:
    """Runs the fail-over in a child process with a reactor.

    Raises :class:`CommandFault` if the child dies.
    """
    from twisted.internet import reactor  # noqa: TID251
    from twisted.internet.defer import ensureDeferred

    from ganeti_masterd.failover.errand import FailOver, FailOverOutcome
    from ganeti_masterd.failover.fetching import OverSSH
    from ganeti_masterd.startup.checks import Machine
    from ganeti_masterd.startup.child import ChildFailed, in_child
    from ganeti_masterd.startup.doors import RealDoor
    from ganeti_masterd.timing import Timers

    def work() -> Deferred[FailOverOutcome]:
        door = RealDoor(reactor, Timers(reactor), paths)

        async def errand() -> FailOverOutcome:
            fail_over = FailOver(
                door.nodes,
                paths,
                Machine(os.environ),
                wishes,
                fetch=OverSSH(paths),
                say=session.out.note,
                now=time.time,
            )
            try:
                return await fail_over.run()
            finally:
                await door.close()

        return ensureDeferred(errand())

    try:
        return in_child(reactor, work, FailOverOutcome)  # type: ignore[arg-type]
    except ChildFailed as error:
        raise CommandFault(f"The fail-over ended early; it can be run again: {error}") from None


def _tell(session: Session, report: FailOverReport, warnings: list[str]) -> None:
    out = session.out
    if out.json:
        out.document(
            {
                "old": report.old,
                "new": report.own,
                "configuration_of": report.config_of,
                "configuration_serial": report.config_serial,
                "job_serial": report.serial,
                "jobs_taken": report.jobs,
                "journals": report.journals,
                "running": report.running,
                "warnings": warnings,
            }
        )
        return
    out.line(f"{report.own} is the master now, {report.old} was")
    out.line(
        f"Configuration: {report.config_of}'s; its serial number is {report.config_serial} now"
    )
    taken = f"; from other candidates: {', '.join(map(str, report.jobs))}" if report.jobs else ""
    out.line(f"Jobs: numbers up to {report.serial} may have been given{taken}")
    for journal in report.journals:
        out.line(f"A journal from when {report.own} was the master before is kept as {journal}")
