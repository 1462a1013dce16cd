"""What twistd calls: the service that the options of ``twistd gnt-masterd`` make."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import IO, TYPE_CHECKING, Any, NoReturn

from twisted.application.service import IService
from twisted.internet.defer import Deferred, ensureDeferred

from ganeti_masterd.errors import GenericError
from ganeti_masterd.options import Options

if TYPE_CHECKING:
    from ganeti_masterd.config.snapshot import Snapshot
    from ganeti_masterd.simulation.calllog import Mode
    from ganeti_masterd.simulation.description import Description
    from ganeti_masterd.startup.agreement import Report, Wishes
    from ganeti_masterd.startup.checks import IMachine, Passed, Wanted
    from ganeti_masterd.startup.launch import Launch
    from ganeti_masterd.startup.logs import Logs
    from ganeti_masterd.startup.notify import Notifier
    from ganeti_masterd.startup.paths import Paths

#: As shells have it for a program that ends by SIGINT.
_EXIT_INTERRUPTED = 130

_NO_VOTING = """\
The other nodes are not asked whether this node is the master (--no-voting). If another
one is, both will change the cluster, and instances and their data may be lost.
Type YES, in capital letters, to go on: """


def make_service(options: Options) -> IService:
    """Checks what must hold before the process detaches; returns the service.

    Raises ``SystemExit`` with the exit code that the caller is to see, after a
    message (spec masterd 3).
    """
    # Late, as importing the service takes a while that --help need not take.
    from ganeti_masterd.startup.checks import Refused
    from ganeti_masterd.startup.launch import leave
    from ganeti_masterd.startup.notify import notifier

    systemd = notifier(os.environ)
    try:
        return _checked_service(options, systemd)
    except Refused as refused:
        leave(refused, systemd)
    except (GenericError, OSError) as error:
        leave(Refused(str(error)), systemd)
    except KeyboardInterrupt:
        leave(Refused("Interrupted", _EXIT_INTERRUPTED), systemd)


def _checked_service(options: Options, systemd: Notifier) -> IService:
    from ganeti_masterd.assembly import Settings
    from ganeti_masterd.replication.acknowledgement import Ack
    from ganeti_masterd.service import MasterService, Surroundings
    from ganeti_masterd.startup import simulated_root
    from ganeti_masterd.startup.agreement import Wishes
    from ganeti_masterd.startup.checks import Machine, SimulatedMachine, Wanted, check
    from ganeti_masterd.startup.ending import Ending
    from ganeti_masterd.startup.installation import check_readable, parts
    from ganeti_masterd.startup.launch import Launch
    from ganeti_masterd.startup.paths import Paths, default_root

    simulated = options["simulate"] is not None
    paths = Paths(options["root"] or default_root(os.environ, simulate=simulated))
    paths.socket  # noqa: B018 - a root that is too long is refused before anything else
    user, group = _wanted_account(options, simulated)
    wanted = Wanted(paths, simulated, user, group)
    machine = SimulatedMachine(os.environ, paths) if simulated else Machine(os.environ)
    if options["check-only"]:
        _check_only(options, wanted, machine)
    description = _described(options)
    if simulated:
        simulated_root.prepare(paths, description or options["simulate"])
    passed = check(wanted, machine)
    if passed.account is not None:
        check_readable(passed.account, parts())
    reactor = _reactor()
    _check_endpoint(options["monitoring"])
    wishes = Wishes(
        vote=not options["no-voting"], require_master_ip=bool(options["require-master-ip"])
    )
    if not wishes.vote and not options["yes-do-it"]:
        _confirm(sys.stdin, sys.stdout)
    report = _ask_nodes(
        reactor, paths, passed.snapshot, wishes, simulated=simulated, description=description
    )
    _set_ownership(paths, passed, simulated)
    launch = Launch(options.parent)
    logs = _logs(options, launch, paths, passed)
    _log_lines(report)
    settings = Settings(
        paths=paths,
        simulate_log=options["simulate-log"] if simulated else None,
        description=description,
        account=passed.account,
        max_connections=options["max-connections"],
        max_message_size=options["max-message-size"],
        socket_mode=options["socket-mode"],
        monitor_socket=options["monitor-socket"],
        monitor_socket_mode=options["monitor-socket-mode"],
        monitoring=options["monitoring"],
        stop_timeout=options["stop-timeout"],
        ack=Ack(options["ack"]),
        debug=bool(options["debug"]),
    )
    surroundings = Surroundings(launch, logs, Ending(launch.pid_file), systemd)
    return MasterService(reactor, settings, surroundings)


def _described(options: Options) -> Description | None:
    """Returns the simulated cluster that a file describes; None where there is no file."""
    from ganeti_masterd.errors import ConfigurationError
    from ganeti_masterd.simulation.description import read
    from ganeti_masterd.simulation.tables import DescriptionError

    path = options["simulate"]
    if not isinstance(path, str):
        return None
    try:
        return read(path)
    except DescriptionError as error:
        raise ConfigurationError(str(error)) from None


def _wanted_account(options: Options, simulated: bool) -> tuple[str | None, str | None]:
    from ganeti_masterd.startup.accounts import GROUP, USER

    user, group = options["user"], options["group"]
    if simulated:
        return user, group
    return user or USER, group or GROUP


def _check_endpoint(endpoint: str | None) -> None:
    from ganeti_masterd.startup.checks import Refused

    if endpoint is not None:
        from ganeti_masterd.monitoring.endpoints import local

        try:
            local(endpoint)
        except ValueError as error:
            raise Refused(f"--monitoring {endpoint} is no endpoint: {error}") from None


def _check_only(options: Options, wanted: Wanted, machine: IMachine) -> NoReturn:
    """Says whether a start would succeed and ends the process; raises ``Refused`` if not."""
    from ganeti_masterd.startup.agreement import Wishes
    from ganeti_masterd.startup.installation import check_readable, parts
    from ganeti_masterd.startup.launch import say
    from ganeti_masterd.startup.rehearsal import copied_simulation, rehearse

    paths, simulated = wanted.paths, wanted.simulated
    description = _described(options)
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
        _check_endpoint(options["monitoring"])
        for note in rehearsed.notes:
            say(note)
        wishes = Wishes(vote=not options["no-voting"], master_ip=False)
        if simulated and rehearsed.own:
            say("The simulated nodes belong to the daemon that runs: they are not asked")
        else:
            reach = copied_simulation(paths) if simulated else contextlib.nullcontext(paths)
            with reach as nodes:
                report = _ask_nodes(
                    _reactor(),
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


def _ask_nodes(
    reactor: Any,
    paths: Paths,
    snapshot: Snapshot,
    wishes: Wishes,
    *,
    simulated: bool,
    description: Description | None,
) -> Report:
    """Holds the vote and brings up the master's address, as wished, in a child process."""
    from ganeti_masterd.startup.agreement import Report, ask_nodes
    from ganeti_masterd.startup.checks import Refused
    from ganeti_masterd.startup.child import ChildFailed, in_child
    from ganeti_masterd.startup.doors import open_door
    from ganeti_masterd.startup.launch import say
    from ganeti_masterd.timing import Timers

    def work() -> Deferred[Report]:
        timers = Timers(reactor, time.time)
        log: Mode | None = "buffered" if simulated else None
        door = open_door(
            reactor, timers, paths, snapshot.master.name, simulate_log=log, description=description
        )

        async def errand() -> Report:
            await door.start()
            try:
                return await ask_nodes(door.nodes, timers, snapshot, wishes, say)
            finally:
                await door.close()

        return ensureDeferred(errand())

    try:
        report = in_child(reactor, work, Report)
    except ChildFailed as error:
        raise Refused(f"The other nodes can't be asked: {error}") from None
    if report.refusal is not None:
        raise Refused(report.refusal)
    return report


def _confirm(answers: IO[str], terminal: IO[str]) -> None:
    """Asks whether to start without a vote; anything but an uppercase YES refuses."""
    from ganeti_masterd.startup.checks import Refused

    terminal.write(_NO_VOTING)
    terminal.flush()
    if answers.readline().strip() != "YES":
        raise Refused("Aborted: the daemon is not started")


def _set_ownership(paths: Paths, passed: Passed, simulated: bool) -> None:
    from ganeti_masterd.startup.ownership import give_tree, set_right

    if passed.account is not None and os.geteuid() == 0:
        if simulated:
            give_tree(paths.root, passed.account)
        else:
            set_right(paths, passed.account)


def _logs(options: Options, launch: Launch, paths: Paths, passed: Passed) -> Logs:
    from ganeti_masterd.startup.accounts import OWN_GROUP, group_id
    from ganeti_masterd.startup.checks import Refused
    from ganeti_masterd.startup.logs import SYSLOG_NAME, Logs

    twistd = options.parent if options.parent is not None else {}
    path = twistd.get("logfile") or (paths.log if launch.detaches else "-")
    if path == "-" and launch.detaches:
        raise Refused("A daemon that detaches can't log to standard output")
    if twistd.get("logger"):
        path = "-"
    made = Logs(
        path=None if path == "-" else os.path.abspath(path),
        stream=None if launch.detaches else sys.stdout,
        to_syslog="only" if twistd.get("syslog") else options["syslog"],
        syslog_name=twistd["prefix"] if twistd.get("syslog") else SYSLOG_NAME,
        json=bool(options["json-log"]),
        debug=bool(options["debug"]),
    )
    account = passed.account
    if made.file is not None and account is not None and os.geteuid() == 0:
        own = group_id(OWN_GROUP) if options["simulate"] is None else account.gid
        made.file.give_to(account.uid, account.gid if own is None else own)
    return made


def _log_lines(report: Report) -> None:
    from twisted.logger import Logger, LogLevel

    log = Logger()
    for line in report.lines:
        log.emit(LogLevel.lookupByName(line.level), "{text}", text=line.text)


def _reactor() -> Any:
    # Here, where twistd has installed the one that it was told to.
    from twisted.internet import reactor  # noqa: TID251

    from ganeti_masterd.timing import steady

    steady(reactor)
    return reactor


makeService = make_service

__all__ = ["Options", "makeService", "make_service"]
