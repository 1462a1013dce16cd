"""What twistd calls: the options of ``twistd gnt-masterd`` and the service they make."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any

from twisted.application.service import IService
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.python import usage

from ganeti_masterd.constants import EXIT_FAILURE
from ganeti_masterd.errors import GenericError
from ganeti_masterd.luxi.factory import MAX_CONNECTIONS
from ganeti_masterd.luxi.framing import MAX_MESSAGE_SIZE

if TYPE_CHECKING:
    from ganeti_masterd.config.snapshot import Snapshot
    from ganeti_masterd.simulation.calllog import Mode
    from ganeti_masterd.simulation.description import Description
    from ganeti_masterd.startup.agreement import Report
    from ganeti_masterd.startup.checks import Passed
    from ganeti_masterd.startup.launch import Launch
    from ganeti_masterd.startup.logs import Logs
    from ganeti_masterd.startup.notify import Notifier
    from ganeti_masterd.startup.paths import Paths

#: twistd's own PID file where it was given none; it is not locked, so ours does better.
_TWISTD_PID_FILE = "twistd.pid"

#: As shells have it for a program that ends by SIGINT.
_EXIT_INTERRUPTED = 130

_NO_VOTING = """\
The other nodes are not asked whether this node is the master (--no-voting). If another
one is, both will change the cluster, and instances and their data may be lost.
Type YES, in capital letters, to go on: """


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError("must be at least 1")
    return number


def _cluster(text: str) -> int | str:
    """Takes a number of nodes, or the path of a file that describes them."""
    if not text:
        raise ValueError("must not be empty")
    return _positive(text) if text.lstrip("+-").isdecimal() else text


_cluster.coerceDoc = "Must be a whole number, 1 or more, or a file."  # type: ignore[attr-defined]

_positive.coerceDoc = "Must be a whole number, 1 or more."  # type: ignore[attr-defined]


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 <= number < float("inf"):
        raise ValueError("must be 0 or more")
    return number


_seconds.coerceDoc = "Must be a number of seconds, 0 or more."  # type: ignore[attr-defined]


def _mode(text: str) -> int:
    mode = int(text, 8)
    if not 0 <= mode <= 0o777:
        raise ValueError("must be from 0 to 777")
    return mode


_mode.coerceDoc = "Must be an octal file mode such as 660."  # type: ignore[attr-defined]


class Options(usage.Options):
    """The command line after ``gnt-masterd``; see ``docs/reference.rst``."""

    synopsis = "[options]"
    longdesc = (
        "The master daemon of a Ganeti cluster. With --simulate it runs on simulated nodes, "
        "needs no rights and no cluster."
    )
    optFlags = [
        ["debug", "d", "Log every request and what becomes of it, jobs' steps, calls to nodes."],
        ["no-voting", None, "Don't ask the other nodes whether this one is the master."],
        ["yes-do-it", None, "With --no-voting: don't ask on the terminal either."],
        ["require-master-ip", None, "Don't start if the master's address can't be brought up."],
        ["json-log", None, "Log one JSON object a line."],
    ]
    optParameters = [
        [
            "root",
            None,
            None,
            "Folder below which all of Ganeti's paths lie. Default: GANETI_ROOTDIR; with "
            "--simulate else a folder of the user's own.",
        ],
        [
            "simulate",
            None,
            None,
            "Run on simulated nodes. A root without a cluster gets one of that many, or the one "
            "that a file describes.",
            _cluster,
        ],
        [
            "simulate-log",
            None,
            "buffered",
            "How simulated nodes log calls: off, buffered, or synced (durable before the answer).",
        ],
        [
            "user",
            None,
            None,
            "Run as this user. Default: gnt-masterd; with --simulate whoever starts it.",
        ],
        [
            "group",
            None,
            None,
            "Run as this group, which may connect. Default: gnt-daemons; with --simulate that "
            "of the user.",
        ],
        ["syslog", None, "no", "Log to syslog: no, yes (besides the file), only (no file)."],
        ["max-connections", None, MAX_CONNECTIONS, "The most clients at a time.", _positive],
        [
            "max-message-size",
            None,
            MAX_MESSAGE_SIZE,
            "The most bytes that one request may have.",
            _positive,
        ],
        ["socket-mode", None, 0o660, "File mode of the master socket, octal.", _mode],
        [
            "monitor-socket",
            None,
            None,
            "Path of a second socket, on which clients can ask but not change anything.",
        ],
        ["monitor-socket-mode", None, 0o660, "File mode of the second socket, octal.", _mode],
        [
            "monitoring",
            None,
            None,
            "Serve metrics and status on this Twisted endpoint, such as "
            "tcp:19100 (local, unless it names an interface) or unix:PATH.",
        ],
        [
            "ack",
            None,
            "candidates",
            "When a change counts as done: local (durable here), candidates (every master "
            "candidate that can be reached has it too) or majority (most of all have it).",
        ],
        [
            "stop-timeout",
            None,
            None,
            "Seconds after which a stop no longer waits for running jobs. Default: no bound.",
            _seconds,
        ],
    ]

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Reads the command line; a wrong one ends the process: usage on stderr, exit code 1."""
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            sys.stderr.write(f"{self}\ngnt-masterd: {error}\n")
            raise SystemExit(EXIT_FAILURE)

    def parseArgs(self, *args: str) -> None:
        """Refuses positional arguments."""
        if args:
            raise usage.UsageError(f"This program takes no arguments, but got: {' '.join(args)}")

    def postOptions(self) -> None:
        """Checks what can't be checked one by one."""
        if self["simulate-log"] not in ("off", "buffered", "synced"):
            raise usage.UsageError("--simulate-log takes off, buffered or synced")
        if self["ack"] not in ("local", "candidates", "majority"):
            raise usage.UsageError("--ack takes local, candidates or majority")
        if self["syslog"] not in ("no", "yes", "only"):
            raise usage.UsageError("--syslog takes no, yes or only")
        if self.parent is not None and self.parent.get("pidfile") == _TWISTD_PID_FILE:
            self.parent["pidfile"] = ""


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
    from ganeti_masterd.startup.checks import Machine, SimulatedMachine, Wanted, check
    from ganeti_masterd.startup.ending import Ending
    from ganeti_masterd.startup.installation import check_readable, parts
    from ganeti_masterd.startup.launch import Launch
    from ganeti_masterd.startup.paths import Paths, default_root

    simulated = options["simulate"] is not None
    paths = Paths(options["root"] or default_root(os.environ, simulate=simulated))
    paths.socket  # noqa: B018 - a root that is too long is refused before anything else
    if simulated:
        simulated_root.prepare(paths, _described(options) or options["simulate"])
    user, group = _wanted_account(options, simulated)
    wanted = Wanted(paths, simulated, user, group)
    machine = SimulatedMachine(os.environ, paths) if simulated else Machine(os.environ)
    passed = check(wanted, machine)
    if passed.account is not None:
        check_readable(passed.account, parts())
    reactor = _reactor()
    _check_endpoint(options["monitoring"])
    report = _ask_nodes(options, reactor, paths, passed.snapshot)
    _set_ownership(paths, passed, simulated)
    launch = Launch(options.parent)
    logs = _logs(options, launch, paths, passed)
    _log_lines(report)
    settings = Settings(
        paths=paths,
        simulate_log=options["simulate-log"] if simulated else None,
        description=_described(options),
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


def _ask_nodes(options: Options, reactor: Any, paths: Paths, snapshot: Snapshot) -> Report:
    """Holds the vote and brings up the master's address, in a child process."""
    from ganeti_masterd.startup.agreement import Report, Wishes, ask_nodes
    from ganeti_masterd.startup.checks import Refused
    from ganeti_masterd.startup.child import ChildFailed, in_child
    from ganeti_masterd.startup.doors import open_door
    from ganeti_masterd.startup.launch import say
    from ganeti_masterd.timing import Timers

    wishes = Wishes(
        vote=not options["no-voting"], require_master_ip=bool(options["require-master-ip"])
    )
    if not wishes.vote and not options["yes-do-it"]:
        _confirm(sys.stdin, sys.stdout)

    def work() -> Deferred[Report]:
        timers = Timers(reactor, time.time)
        log: Mode | None = "buffered" if options["simulate"] is not None else None
        described = _described(options)
        door = open_door(
            reactor, timers, paths, snapshot.master.name, simulate_log=log, description=described
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
