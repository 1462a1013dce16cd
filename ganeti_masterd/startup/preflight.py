"""Everything before the process detaches: options in, a cleared start or a refusal out.

The order is that of protocol/startup.rst, Checks before the start. :func:`rehearse_start` makes the
same checks for ``--check-only`` and changes nothing.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Mapping
from typing import IO, Any, NoReturn

from msgspec import Struct
from twisted.internet.defer import Deferred, ensureDeferred

from ganeti_masterd import safely
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import ConfigurationError
from ganeti_masterd.simulation.calllog import CallLogMode
from ganeti_masterd.simulation.description import Description, read
from ganeti_masterd.simulation.tables import DescriptionError
from ganeti_masterd.startup import simulated_root
from ganeti_masterd.startup.accounts import GROUP, USER, acting_as
from ganeti_masterd.startup.agreement import StartWishes, VoteReport, ask_nodes
from ganeti_masterd.startup.checks import (
    IMachine,
    Machine,
    Passed,
    SimulatedMachine,
    StartRefused,
    WantedStart,
    check,
    refuse_jobs_of_luxid,
    refuse_others,
    wanted_account,
)
from ganeti_masterd.startup.child import ChildFailed, in_child
from ganeti_masterd.startup.doors import open_door
from ganeti_masterd.startup.installation import check_readable, parts
from ganeti_masterd.startup.launch import say
from ganeti_masterd.startup.ownership import set_right
from ganeti_masterd.startup.paths import Paths, default_root
from ganeti_masterd.startup.rehearsal import copied_simulation, rehearse
from ganeti_masterd.timing import Timers

#: What the operator is asked before a start without a vote.
NO_VOTING = """\
The other nodes are not asked whether this node is the master (--no-voting). If another
one is, both will change the cluster, and instances and their data may be lost.
Type YES, in capital letters, to go on: """


class Cleared(Struct, frozen=True):
    """A start that may go on: paths, configuration, and what the other nodes answered."""

    paths: Paths
    description: Description | None
    passed: Passed
    report: VoteReport


def clear_start(options: Mapping[str, Any], reactor: Any) -> Cleared:
    """Checks what must hold, sets owners, holds the vote, brings up the master's address.

    ``reactor`` is run in a child process only, not in this one. Raises ``StartRefused``,
    ``GenericError`` or ``OSError`` where the daemon must not start.
    """
    wanted, machine = _wanted(options)
    description = described(options)
    if wanted.simulated:
        _prepare(wanted, machine, description or options["simulate"])
    passed = check(wanted, machine, None if wanted.simulated else set_right)
    if passed.account is not None:
        check_readable(passed.account, parts())
    wishes = StartWishes(
        vote=not options["no-voting"], require_master_ip=bool(options["require-master-ip"])
    )
    if not wishes.vote and not options["yes-do-it"]:
        confirm(sys.stdin, sys.stdout)
    with acting_as(passed.account):
        report = _ask_nodes(
            reactor,
            wanted.paths,
            passed.snapshot,
            wishes,
            simulated=wanted.simulated,
            description=description,
        )
    return Cleared(wanted.paths, description, passed, report)


def clear_config_start(options: Mapping[str, Any], reactor: Any) -> Cleared:
    """Checks what must hold before a daemon for wconfd's socket alone; see :func:`clear_start`.

    With ``--force-node`` this node need not be the master, and the nodes are not asked.
    """
    wanted, machine = _wanted(options)
    passed = check(wanted, machine, set_right, anywhere=bool(options["force-node"]))
    if passed.account is not None:
        check_readable(passed.account, parts())
    wishes = StartWishes(vote=not options["no-voting"], master_ip=False)
    if not wishes.vote and not options["yes-do-it"]:
        confirm(sys.stdin, sys.stdout)
    with acting_as(passed.account):
        refuse_jobs_of_luxid(wanted.paths)
        report = _ask_nodes(
            reactor, wanted.paths, passed.snapshot, wishes, simulated=False, description=None
        )
    return Cleared(wanted.paths, None, passed, report)


def _prepare(wanted: WantedStart, machine: IMachine, simulated: int | Description) -> None:
    """Makes the simulated root ready, as the account that the daemon will run as."""
    account = wanted_account(wanted, machine)
    if account is not None and os.geteuid() == 0:
        refuse_others(wanted.paths, simulated=True)
        safely.give_tree(wanted.paths.root, account.uid, account.gid)
    with acting_as(account):
        simulated_root.prepare(wanted.paths, simulated)


def rehearse_start(options: Mapping[str, Any], reactor: Any) -> NoReturn:
    """Prints whether a start would succeed and exits; raises like :func:`clear_start`."""
    wanted, machine = _wanted(options)
    paths, simulated = wanted.paths, wanted.simulated
    description = described(options)
    if simulated and not os.path.exists(paths.config):
        cluster = f"of {options['simulate']} nodes"
        if description is not None:
            cluster = f"described by {options['simulate']}"
        say(f"{paths.root} has no cluster: one {cluster} would be made")
    else:
        rehearsed = rehearse(wanted, machine)
        passed = rehearsed.passed
        if passed.account is not None:
            check_readable(passed.account, parts())
        for note in rehearsed.notes:
            say(note)
        wishes = StartWishes(vote=not options["no-voting"], master_ip=False)
        if simulated and rehearsed.own:
            say("The simulated nodes belong to the daemon that runs: they are not asked")
        else:
            reach = copied_simulation(paths) if simulated else contextlib.nullcontext(paths)
            with reach as nodes:
                report = _ask_nodes(
                    reactor,
                    nodes,
                    passed.snapshot,
                    wishes,
                    simulated=simulated,
                    description=description,
                )
            for line in report.lines:
                say(line.text)
    say("All checks passed; nothing was changed")
    raise SystemExit(0)


def described(options: Mapping[str, Any]) -> Description | None:
    """Returns the simulated cluster described in a file; None if the options name no file.

    Raises ``ConfigurationError`` that names what is wrong in the file.
    """
    path = options["simulate"]
    if not isinstance(path, str):
        return None
    try:
        return read(path)
    except DescriptionError as error:
        raise ConfigurationError(str(error)) from None


def confirm(answers: IO[str], terminal: IO[str]) -> None:
    """Asks whether to start without a vote; raises ``StartRefused`` for anything but YES."""
    terminal.write(NO_VOTING)
    terminal.flush()
    if answers.readline().strip() != "YES":
        raise StartRefused("Aborted: the daemon is not started")


def _wanted(options: Mapping[str, Any]) -> tuple[WantedStart, IMachine]:
    simulated = options["simulate"] is not None
    paths = Paths(options["root"] or default_root(os.environ, simulate=simulated))
    paths.socket  # noqa: B018 - a root that is too long is refused before anything else
    user, group = options["user"], options["group"]
    if not simulated:
        user, group = user or USER, group or GROUP
    machine = SimulatedMachine(os.environ, paths) if simulated else Machine(os.environ)
    return WantedStart(paths, simulated, user, group), machine


def _ask_nodes(
    reactor: Any,
    paths: Paths,
    snapshot: Snapshot,
    wishes: StartWishes,
    *,
    simulated: bool,
    description: Description | None,
) -> VoteReport:
    """Runs :func:`ask_nodes <.agreement.ask_nodes>` in a child process."""

    def work() -> Deferred[VoteReport]:
        timers = Timers(reactor, time.time)
        log: CallLogMode | None = "buffered" if simulated else None
        door = open_door(
            reactor, timers, paths, snapshot.master.name, simulate_log=log, description=description
        )

        async def errand() -> VoteReport:
            await door.start()
            try:
                return await ask_nodes(door.nodes, timers, snapshot, wishes, say)
            finally:
                await door.close()

        return ensureDeferred(errand())

    try:
        report = in_child(reactor, work, VoteReport)
    except ChildFailed as error:
        raise StartRefused(f"The other nodes can't be asked: {error}") from None
    if report.refusal is not None:
        raise StartRefused(report.refusal)
    return report
