"""``gnt-luxi switch``: this node from luxid and wconfd to this daemon, or back."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import ganeti_masterd
from ganeti_masterd.cli.command import EXIT_INTERRUPTED, CommandFault, CommandGroup, Seconds
from ganeti_masterd.cli.session import Session, pass_session
from ganeti_masterd.startup.paths import Paths

if TYPE_CHECKING:
    from ganeti_masterd.switching.host import SwitchedNode
    from ganeti_masterd.switching.plan import ISwitchHost, NodeStanding
    from ganeti_masterd.switching.steps import SwitchReport, SwitchStep

#: Signals that end a switch: the step that is being done is finished, then all are undone.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_OPTIONS = (
    click.option("--dry-run", is_flag=True, help="Make the checks, and print the steps only."),
    click.option(
        "--wait",
        type=Seconds(),
        default="10m",
        show_default=True,
        metavar="DURATION",
        help="How long jobs that run may take to end.",
    ),
    click.option(
        "--programs",
        metavar="DIR",
        help="The folder of twistd and gnt-luxi. Default: where this program is.",
    ),
)


def _options(command: Any) -> Any:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.group("switch", cls=CommandGroup)
def switch() -> None:
    """Put gnt-masterd in the place of luxid and wconfd, or go back.

    Run it as root. All is checked first; if a step fails, or on Ctrl-C, all steps are undone.
    On a node that is not the master, only daemon-util and systemd are prepared for the day that
    it becomes the master.
    """


@switch.command("to")
@_options
@pass_session
def switch_to(session: Session, dry_run: bool, wait: float, programs: str | None) -> None:
    """Put gnt-masterd in the place of luxid and wconfd.

    The job queue is closed until the jobs that run have ended and gnt-masterd serves.
    """
    _switch(session, "to", dry_run=dry_run, wait=wait, programs=programs)


@switch.command("back")
@_options
@pass_session
def switch_back(session: Session, dry_run: bool, wait: float, programs: str | None) -> None:
    """Put luxid and wconfd in the place of gnt-masterd.

    The job queue is closed until the jobs that run have ended and luxid serves.
    """
    _switch(session, "back", dry_run=dry_run, wait=wait, programs=programs)


def _switch(
    session: Session, direction: str, *, dry_run: bool, wait: float, programs: str | None
) -> None:
    root = session.place.root
    if root is None:
        raise CommandFault("switch works on a node: give its --root, not a --socket")
    paths = Paths(root)
    if os.path.isdir(f"{paths.root}/simulation"):
        raise CommandFault(f"{paths.root} is a simulation: luxid can't serve it")
    if os.geteuid() != 0:
        raise CommandFault("Only root can switch a node")
    # Imported late, because no other command needs them.
    from ganeti_masterd.switching import checks, plan
    from ganeti_masterd.switching.steps import SwitchFault, carry_out

    with _Interruption(session) as interruption:
        node = make_node(session, paths, programs, wait, interruption)
        try:
            standing = node.standing()
        except SwitchFault as error:
            raise CommandFault(str(error)) from None
        wanted = {"to": plan.TO, "back": plan.BACK}[direction]
        steps = plan.planned(wanted, standing)
        found = checks.faults({"to": checks.TO, "back": checks.BACK}[direction], node, standing)
        if found:
            raise CommandFault("Nothing was changed:" + "".join(f"\n  {each}" for each in found))
        if dry_run:
            _tell_plan(session, direction, standing, steps)
            return
        report = carry_out(steps, node, session.out.note, interruption.asked)
    _tell(session, direction, standing, report)
    if report.failed is not None:
        _fail(report, interrupted=interruption.asked())


def make_node(
    session: Session,
    paths: Paths,
    programs: str | None,
    wait: float,
    interruption: _Interruption,
) -> SwitchedNode:
    """Returns the node that is to be switched."""
    from ganeti_masterd.startup.checks import Machine
    from ganeti_masterd.switching.host import SwitchedNode

    return SwitchedNode(
        paths,
        session.client,
        programs=os.path.abspath(programs) if programs else own_programs(),
        share=own_share(),
        patience=wait,
        environment=os.environ,
        machine=Machine(os.environ),
        say=session.out.note,
        interrupted=interruption.asked,
        sleep=time.sleep,
        now=time.monotonic,
    )


def own_programs() -> str:
    """Returns the folder of this program, past links such as the one in /usr/bin."""
    return os.path.dirname(os.path.realpath(sys.argv[0]))


def own_share() -> str:
    """Returns the folder of the hook and the unit: as installed, or a checkout's."""
    installed = f"{sysconfig.get_path('data')}/share/ganeti-masterd"
    if os.path.exists(f"{installed}/daemon-util.sh"):
        return installed
    return str(Path(ganeti_masterd.__file__).resolve().parents[1] / "deploy")


class _Interruption:
    """Takes signals that would end this process, and remembers that one came."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._asked = False
        self._before: dict[int, Any] = {}

    def asked(self) -> bool:
        """Whether a signal came."""
        return self._asked

    def __enter__(self) -> _Interruption:
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _take(self, number: int, _: Any) -> None:
        if not self._asked:
            self._asked = True
            # The terminal may be what went away.
            with contextlib.suppress(OSError):
                self._session.out.note(
                    f"{signal.Signals(number).name}: all steps are undone once this one has ended"
                )


def _tell_plan(
    session: Session,
    direction: str,
    standing: NodeStanding,
    steps: list[SwitchStep[ISwitchHost]],
) -> None:
    out = session.out
    if out.json:
        out.document(
            {
                "direction": direction,
                "master": standing.master,
                "steps": [
                    {"name": step.name, "does": step.does, "undoes": step.undoes or None}
                    for step in steps
                ],
            }
        )
        return
    out.line("All checks passed; nothing was changed")
    for line in _plan_lines(steps):
        out.line(line)


def _plan_lines(steps: list[SwitchStep[ISwitchHost]]) -> Iterator[str]:
    if not steps:
        yield "There is nothing to do"
    for number, step in enumerate(steps, 1):
        undo = f" (undo: {step.undoes})" if step.undoes else ""
        yield f"{number:2}. {step.does}{undo}"


def _tell(session: Session, direction: str, standing: NodeStanding, report: SwitchReport) -> None:
    out = session.out
    if out.json:
        out.document(
            {
                "direction": direction,
                "master": standing.master,
                "done": report.done,
                "failed": report.failed,
                "fault": report.fault,
                "undone": report.undone,
                "left": [{"step": name, "fault": fault} for name, fault in report.left],
            }
        )
        return
    if report.failed is not None:
        return
    name = {"to": "gnt-masterd", "back": "luxid"}[direction]
    if not report.done:
        out.line(f"There is nothing to do: this node has {name} already")
    elif standing.master:
        out.line(f"{name} serves this cluster now")
        if standing.drained:
            out.line("The job queue is closed, as it was: gnt-cluster queue undrain opens it")
        out.line("Nodes that may become master need the same command")
    else:
        out.line(f"This node will run {name} when it becomes the master")


def _fail(report: SwitchReport, *, interrupted: bool) -> None:
    if report.left:
        steps = "".join(f"\n  {name}: {fault}" for name, fault in report.left)
        raise CommandFault(
            f"{report.failed}: {report.fault}\nNot all could be undone, see to these steps:{steps}"
        )
    if interrupted:
        raise click.exceptions.Exit(EXIT_INTERRUPTED)
    raise CommandFault(f"{report.failed}: {report.fault}\nAll was undone: it is as it was before")
