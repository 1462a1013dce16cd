"""The options of ``twistd gnt-masterd``; see ``docs/configure.rst``."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

from twisted.python import usage

from ganeti_masterd.constants import EXIT_FAILURE
from ganeti_masterd.luxi.budget import MAX_BUFFERED
from ganeti_masterd.luxi.factory import MAX_CONNECTIONS
from ganeti_masterd.luxi.framing import MAX_MESSAGE_SIZE

#: twistd's default PID file. It is replaced by none, because the daemon locks one of its own.
_TWISTD_PID_FILE = "twistd.pid"

#: A file mode as people write it, without special bits.
_OCTAL_MODE = re.compile("(?:0|0o)?[0-7]{3}")


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text)):
        raise ValueError("must be a whole number, 1 or more")
    return int(text)


def _cluster(text: str) -> int | str:
    """Returns a number of nodes, or the path of a file that describes them."""
    if not text:
        raise ValueError("must be a whole number, 1 or more, or a file")
    return _positive(text) if text.lstrip("+-").isdecimal() else text


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise ValueError("must be a number of seconds, 0 or more")
    return number


def _interval(text: str) -> float:
    number = _seconds(text)
    if 0 < number < 10:
        raise ValueError("must be 10 seconds or more, or 0 for never")
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


def _host_names(text: str) -> tuple[str, ...]:
    from ganeti_masterd.monitoring.hosts import host_names

    return host_names(text)


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

    ``default`` is text as a user would type it, and as the help shows it; ``value_of`` turns
    such text into the value, or raises ``ValueError``, which is reported with the option.
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
        ["debug", "d", "Log every request and its outcome, jobs' steps and calls to nodes."],
        ["no-voting", None, "Don't ask the other nodes whether this one is the master."],
        ["yes-do-it", None, "With --no-voting: don't ask on the terminal either."],
        ["require-master-ip", None, "Don't start if the master's address can't be brought up."],
        ["check-only", None, "Check whether it would start, change nothing, and exit."],
        ["json-log", None, "Log one JSON object a line."],
        [
            "only-wconfd",
            None,
            "Answer on wconfd's socket only: no other clients, no jobs. daemon-util starts it so "
            "for gnt-cluster renew-crypto and gnt-cluster master-failover.",
        ],
        [
            "force-node",
            None,
            "With --only-wconfd and --no-voting: start on a node that is not the master.",
        ],
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
            "Run on simulated nodes. A root without a cluster gets one of that many, or the one "
            "that a file describes.",
            _cluster,
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
            "max-connections-per-user",
            None,
            "The most of them for each user but root and the daemon's own. Default: half.",
            _positive,
        ),
        _parameter(
            "max-buffered",
            str(MAX_BUFFERED),
            "The most bytes held of requests half sent and answers not read, for all clients.",
            _positive,
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
            "Serve the live page, metrics and status on this Twisted endpoint, such as "
            "tcp:19100 (local, unless it names an interface) or unix:PATH.",
        ),
        _parameter(
            "monitoring-hosts",
            None,
            "Further names by which --monitoring may be asked for, separated by commas.",
            _host_names,
        ),
        _parameter(
            "monitoring-certificate",
            None,
            "Serve --monitoring over TLS, with the certificate and key in this file (PEM).",
        ),
        _parameter(
            "monitoring-client-ca",
            None,
            "Serve only clients that have a certificate of one of the authorities in this file.",
        ),
        _parameter(
            "monitoring-users",
            None,
            "Ask for a name and password of this file; gnt-luxi monitoring-password makes its "
            "lines.",
        ),
        _parameter(
            "monitoring-nodes",
            "0",
            "Seconds between two calls to all nodes for the metrics of their memory, disks and "
            "processors; 10 or more, or 0 for none.",
            _interval,
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
        # The help shows the default's text; an option not given gets the value of that text.
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
        """Refuses options that don't fit; has twistd write no PID file unless it was given one."""
        for name in ("hosts", "certificate", "client-ca", "users"):
            if self[f"monitoring-{name}"] is not None and self["monitoring"] is None:
                raise usage.UsageError(f"--monitoring-{name} needs --monitoring")
        if self["only-wconfd"]:
            for name in ("simulate", "check-only"):
                if self[name]:
                    raise usage.UsageError(f"--only-wconfd can't be combined with --{name}")
        if self["force-node"] and not (self["only-wconfd"] and self["no-voting"]):
            raise usage.UsageError("--force-node needs --only-wconfd and --no-voting")
        if self["max-buffered"] < 4 * self["max-message-size"]:
            raise usage.UsageError(
                f"--max-buffered {self['max-buffered']}: must be four times --max-message-size "
                f"({self['max-message-size']}) or more, as half of it is one user's"
            )
        if self["monitoring-nodes"] and self["monitoring"] is None:
            raise usage.UsageError("--monitoring-nodes is of no use without --monitoring")
        if self.parent is not None and self.parent.get("pidfile") == _TWISTD_PID_FILE:
            self.parent["pidfile"] = ""
