"""twistd's entry point: makes the service from the options of ``twistd gnt-masterd``."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from twisted.application.service import IService

from ganeti_masterd.errors import GenericError
from ganeti_masterd.options import Options

if TYPE_CHECKING:
    from ganeti_masterd.monitoring.access import Access
    from ganeti_masterd.startup.agreement import VoteReport
    from ganeti_masterd.startup.checks import Passed
    from ganeti_masterd.startup.launch import Launch
    from ganeti_masterd.startup.logs import Logs
    from ganeti_masterd.startup.notify import Notifier
    from ganeti_masterd.startup.paths import Paths

#: The exit code by which shells report a program that was ended by SIGINT.
_EXIT_INTERRUPTED = 130


def make_service(options: Options) -> IService:
    """Checks what must hold before the process detaches; returns the service.

    Raises ``SystemExit`` with the exit code that the caller is to see, after a
    message (protocol/startup.rst, Checks before the start).
    """
    # Imported late, because it takes a while, and --help doesn't need it.
    from ganeti_masterd.startup.checks import StartRefused
    from ganeti_masterd.startup.launch import leave
    from ganeti_masterd.startup.notify import notifier

    systemd = notifier(os.environ)
    try:
        return _checked_service(options, systemd)
    except StartRefused as refused:
        leave(refused, systemd)
    except (GenericError, OSError) as error:
        leave(StartRefused(str(error)), systemd)
    except KeyboardInterrupt:
        leave(StartRefused("Interrupted", _EXIT_INTERRUPTED), systemd)


def _checked_service(options: Options, systemd: Notifier) -> IService:
    from ganeti_masterd.assembly import Settings
    from ganeti_masterd.replication.acknowledgement import Ack
    from ganeti_masterd.service import MasterService
    from ganeti_masterd.startup.checks import Machine
    from ganeti_masterd.startup.ending import Ending
    from ganeti_masterd.startup.launch import Launch
    from ganeti_masterd.startup.preflight import (
        clear_config_start,
        clear_start,
        rehearse_start,
    )
    from ganeti_masterd.startup.surroundings import ProcessSurroundings

    reactor = _reactor()
    access = _monitoring_access(options)
    if options["check-only"]:
        rehearse_start(options, reactor)
    only_wconfd = bool(options["only-wconfd"])
    cleared = (clear_config_start if only_wconfd else clear_start)(options, reactor)
    launch = Launch(options.parent)
    logs = _logs(options, launch, cleared.paths, cleared.passed)
    _log_lines(cleared.report)
    simulated = options["simulate"] is not None
    settings = Settings(
        paths=cleared.paths,
        simulate_log=options["simulate-log"] if simulated else None,
        description=cleared.description,
        account=cleared.passed.account,
        max_connections=options["max-connections"],
        max_connections_per_user=options["max-connections-per-user"],
        max_message_size=options["max-message-size"],
        max_buffered=options["max-buffered"],
        socket_mode=options["socket-mode"],
        monitor_socket=options["monitor-socket"],
        monitor_socket_mode=options["monitor-socket-mode"],
        monitoring=options["monitoring"],
        monitoring_hosts=options["monitoring-hosts"] or (),
        monitoring_access=access,
        monitoring_nodes=options["monitoring-nodes"],
        stop_timeout=options["stop-timeout"],
        ack=Ack(options["ack"]),
        debug=bool(options["debug"]),
    )
    surroundings = ProcessSurroundings(launch, logs, Ending(launch.pid_file), systemd)
    if only_wconfd:
        # Here, as the master daemon has no use for it.
        from ganeti_masterd.config_service import ConfigService

        return ConfigService(reactor, settings, surroundings, Machine(os.environ).host_name())
    return MasterService(reactor, settings, surroundings)


def _monitoring_access(options: Options) -> Access | None:
    """Returns who may look at the pages, None without any; read now, with the rights of now."""
    from ganeti_masterd.startup.checks import StartRefused

    endpoint = options["monitoring"]
    if endpoint is None:
        return None
    from ganeti_masterd.monitoring.access import read_access
    from ganeti_masterd.monitoring.endpoints import local

    try:
        local(endpoint)
    except ValueError as error:
        raise StartRefused(f"--monitoring {endpoint} is no endpoint: {error}") from None
    files = (options[f"monitoring-{each}"] for each in ("certificate", "client-ca", "users"))
    try:
        return read_access(endpoint, *files)
    except ValueError as error:
        raise StartRefused(str(error)) from None


def _logs(options: Options, launch: Launch, paths: Paths, passed: Passed) -> Logs:
    from ganeti_masterd.startup.accounts import OWN_GROUP, group_id
    from ganeti_masterd.startup.checks import StartRefused
    from ganeti_masterd.startup.logs import SYSLOG_NAME, Logs

    twistd = options.parent if options.parent is not None else {}
    path = twistd.get("logfile") or (paths.log if launch.detaches else "-")
    if path == "-" and launch.detaches:
        raise StartRefused("A daemon that detaches can't log to standard output")
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


def _log_lines(report: VoteReport) -> None:
    from twisted.logger import Logger, LogLevel

    log = Logger()
    for line in report.lines:
        log.emit(LogLevel.lookupByName(line.level), "{text}", text=line.text)


def _reactor() -> Any:
    # Imported only here: by now twistd has installed the reactor that it was asked for.
    from twisted.internet import reactor  # noqa: TID251

    from ganeti_masterd.timing import steady

    steady(reactor)
    return reactor


makeService = make_service

__all__ = ["Options", "makeService", "make_service"]
