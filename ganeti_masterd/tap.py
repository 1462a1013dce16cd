"""What twistd calls: the options of ``twistd gnt-masterd`` and the service they make."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
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
    from ganeti_masterd.startup.agreement import Report
    from ganeti_masterd.startup.checks import Passed
    from ganeti_masterd.startup.launch import Launch
    from ganeti_masterd.startup.logs import Logs
    from ganeti_masterd.startup.notify import Notifier
    from ganeti_masterd.startup.paths import Paths

#: twistd's own PID file where it was given none; it is not locked, so ours does better.
_TWISTD_PID_FILE = "twistd.pid"

#: A file mode as people write it, without special bits.
_OCTAL_MODE = re.compile("(?:0|0o)?[0-7]{3}")

#: As shells have it for a program that ends by SIGINT.
_EXIT_INTERRUPTED = 130

_NO_VOTING = """\
The other nodes are not asked whether this node is the master (--no-voting). If another
one is, both will change the cluster, and instances and their data may be lost.
Type YES, in capital letters, to go on: """


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text)):
        raise ValueError("must be a whole number, 1 or more")
    return int(text)


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise ValueError("must be a number of seconds, 0 or more")
    return number


def _socket_mode(text: str) -> int:
    """Returns the file mode that an octal number such as 660 or 0660 stands for."""
    if not _OCTAL_MODE.fullmatch(text):
        raise ValueError("must be an octal file mode such as 0660")
    mode = int(text.removeprefix("0o"), 8)
    if mode & 0o600 != 0o600:
        raise ValueError("would keep out even the user whom the daemon runs as")
    if mode & 0o002:
        raise ValueError("would let every user of this host connect")
    return mode


def _one_of(*words: str) -> Callable[[str], str]:
    def word(text: str) -> str:
        if text not in words:
            raise ValueError(f"must be {', '.join(words[:-1])} or {words[-1]}")
        return text

    return word


def _parameter(
    name: str, default: str | None, doc: str, value_of: Callable[[str], object] = str
) -> list[Any]:
    """Returns an entry of ``optParameters``.

    ``default`` is the text that somebody would type, as help shows it; ``value_of`` turns
    such a text into the value, or raises ``ValueError``, which is reported with the option.
    """

    def value(text: str) -> object:
        try:
            return value_of(text)
        except ValueError as error:
            raise usage.UsageError(f"--{name} {text}: {error}") from None

    return [name, None, default, doc, value]


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
        _parameter(
            "root",
            None,
            "Folder below which all of Ganeti's paths lie. Default: GANETI_ROOTDIR; with "
            "--simulate else a folder of the user's own.",
        ),
        _parameter(
            "simulate",
            None,
            "Run on simulated nodes. A root without a cluster gets one of that many.",
            _positive,
        ),
        _parameter(
            "simulate-log",
            "buffered",
            "How simulated nodes log calls: off, buffered, or synced (durable before the answer).",
            _one_of("off", "buffered", "synced"),
        ),
        _parameter(
            "user",
            None,
            "Run as this user. Default: gnt-masterd; with --simulate whoever starts it.",
        ),
        _parameter(
            "group",
            None,
            "Run as this group, which may connect. Default: gnt-daemons; with --simulate that "
            "of the user.",
        ),
        _parameter(
            "syslog",
            "no",
            "Log to syslog: no, yes (besides the file), only (no file).",
            _one_of("no", "yes", "only"),
        ),
        _parameter(
            "max-connections", str(MAX_CONNECTIONS), "The most clients at a time.", _positive
        ),
        _parameter(
            "max-message-size",
            str(MAX_MESSAGE_SIZE),
            "The most bytes that one request may have.",
            _positive,
        ),
        _parameter("socket-mode", "0660", "File mode of the master socket, octal.", _socket_mode),
        _parameter(
            "monitor-socket",
            None,
            "Path of a second socket, on which clients can ask but not change anything.",
        ),
        _parameter(
            "monitor-socket-mode", "0660", "File mode of the second socket, octal.", _socket_mode
        ),
        _parameter(
            "monitoring",
            None,
            "Serve metrics and status on this Twisted endpoint, such as "
            "tcp:19100 (local, unless it names an interface) or unix:PATH.",
        ),
        _parameter(
            "ack",
            "candidates",
            "When a change counts as done: local (durable here), candidates (every master "
            "candidate that can be reached has it too) or majority (most of all have it).",
            _one_of("local", "candidates", "majority"),
        ),
        _parameter(
            "stop-timeout",
            None,
            "Seconds after which a stop no longer waits for running jobs. Default: no bound.",
            _seconds,
        ),
    ]

    def __init__(self) -> None:
        super().__init__()
        # Help shows the texts; what nobody typed is the value that such a text stands for.
        for name, _, default, _, value in self.optParameters:
            if default is not None:
                self[name] = value(default)

    def opt_version(self) -> None:
        """Display the daemon's version and exit."""
        sys.stdout.write(f"gnt-masterd {version('ganeti-masterd')}\n")
        raise SystemExit(0)

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
        """Has twistd write no PID file unless it was given one."""
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

    simulate: int | None = options["simulate"]
    simulated = simulate is not None
    paths = Paths(options["root"] or default_root(os.environ, simulate=simulated))
    paths.socket  # noqa: B018 - a root that is too long is refused before anything else
    if simulate is not None:
        simulated_root.prepare(paths, simulate)
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
        door = open_door(reactor, timers, paths, snapshot.master.name, simulate_log=log)

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
