"""What twistd calls: the options of ``twistd gnt-masterd`` and the service they make."""

from __future__ import annotations

import os
import sys
from typing import Any

from twisted.application.service import IService
from twisted.python import usage

from ganeti_masterd.constants import EXIT_FAILURE
from ganeti_masterd.errors import GenericError
from ganeti_masterd.luxi.factory import MAX_CONNECTIONS
from ganeti_masterd.luxi.framing import MAX_MESSAGE_SIZE
from ganeti_masterd.startup import simulated_root
from ganeti_masterd.startup.checks import check
from ganeti_masterd.startup.paths import Paths, default_root


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError("must be at least 1")
    return number


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
        ["debug", "d", "Log every request and what becomes of it."],
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
            "Run on simulated nodes. A root without a cluster gets one of that many.",
            _positive,
        ],
        [
            "simulate-log",
            None,
            "buffered",
            "How simulated nodes log calls: off, buffered, or synced (durable before the answer).",
        ],
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
            "stop-timeout",
            None,
            None,
            "Seconds after which a stop no longer waits for running jobs. Default: no bound.",
            _seconds,
        ],
    ]

    def parseArgs(self, *args: str) -> None:
        """Refuses positional arguments."""
        if args:
            raise usage.UsageError(f"This program takes no arguments, but got: {' '.join(args)}")

    def postOptions(self) -> None:
        """Checks what can't be checked one by one."""
        if self["simulate-log"] not in ("off", "buffered", "synced"):
            raise usage.UsageError("--simulate-log takes off, buffered or synced")


def make_service(options: Options) -> IService:
    """Checks what must hold before the process detaches; returns the service.

    Raises ``SystemExit`` with the exit code that the caller is to see, after a
    message on standard error.
    """
    # Late, as importing the service takes a while that --help need not take.
    from ganeti_masterd.service import MasterService, Settings

    simulate: int | None = options["simulate"]
    root = options["root"] or default_root(os.environ, simulate=simulate is not None)
    paths = Paths(root)
    try:
        if simulate is None:
            raise GenericError(
                "Real nodes can't be called by this version yet: start it with --simulate N"
            )
        simulated_root.prepare(paths, simulate)
        check(paths)
    except GenericError as error:
        sys.stderr.write(f"gnt-masterd: {error}\n")
        raise SystemExit(EXIT_FAILURE)
    settings = Settings(
        paths=paths,
        max_connections=options["max-connections"],
        max_message_size=options["max-message-size"],
        socket_mode=options["socket-mode"],
        simulate_log=options["simulate-log"],
        stop_timeout=options["stop-timeout"],
    )
    return MasterService(_reactor(), settings)


def _reactor() -> Any:
    # Here, where twistd has installed the one that it was told to.
    from twisted.internet import reactor  # noqa: TID251

    return reactor


makeService = make_service
