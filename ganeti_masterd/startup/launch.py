"""Reports how the start went to the user who started the daemon, even once it has detached.

twistd's detaching parent waits for the start, but passes on only a hundred bytes and one of two
exit codes. So standard error is kept open until the daemon is up, and a refusal is written there in
full.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

from twisted.application.service import IProcess
from twisted.logger import ILogObserver, Logger

from ganeti_masterd.constants import EXIT_FAILURE, EXIT_NOTMASTER
from ganeti_masterd.startup.accounts import Account
from ganeti_masterd.startup.checks import StartRefused
from ganeti_masterd.startup.logs import Logs
from ganeti_masterd.startup.notify import READY, Notifier

log = Logger()

PROGRAM = "gnt-masterd"

#: What twistd's parent says in addition; the rest stands above it.
_POINTER = b"1 see the message of gnt-masterd above"


def say(text: str) -> None:
    """Prints a line on standard error, before the daemon has detached."""
    sys.stderr.write(f"{PROGRAM}: {text}\n")
    sys.stderr.flush()


def leave(refused: StartRefused, notifier: Notifier) -> NoReturn:
    """Ends a start that is refused before the daemon has detached.

    If this node isn't the master, systemd is told READY first: that is no failure, but systemd
    would report a service that exits without READY as a protocol error.
    """
    if refused.code == EXIT_NOTMASTER:
        notifier.tell(READY)
    if refused.on_stdout:
        sys.stdout.write(f"{refused.message}\n")
        sys.stdout.flush()
    else:
        say(refused.message)
    raise SystemExit(refused.code)


class Launch:
    """One start of the daemon, from before it detaches until it is up.

    ``twistd`` holds twistd's own options; None if the daemon was not started by twistd.
    """

    def __init__(self, twistd: Mapping[str, Any] | None) -> None:
        self._twistd: Mapping[str, Any] = twistd if twistd is not None else {}
        self.detaches = bool(twistd) and not (self._twistd["nodaemon"] or self._twistd["debug"])
        self.pid_file: str | None = self._twistd.get("pidfile") or None
        self._error = os.dup(2) if self.detaches else None

    def refuse(self, message: str) -> NoReturn:
        """Ends a start that fails after the daemon has detached, or would have.

        The message goes to the log, and to the standard error of whoever started the daemon.
        """
        log.critical("The daemon can't start: {message}", message=message)
        content = f"{PROGRAM}: {message}\n".encode("utf-8", "backslashreplace")
        with contextlib.suppress(OSError):
            os.write(2 if self._error is None else self._error, content)
        pipe = self._twistd.get("statusPipe")
        if pipe is not None:
            with contextlib.suppress(OSError):
                os.write(pipe, _POINTER)
        # twistd removes it after an exception, but not when the process ends in this way.
        if self.pid_file is not None:
            with contextlib.suppress(OSError):
                os.unlink(self.pid_file)
        raise SystemExit(EXIT_FAILURE)

    def succeeded(self) -> None:
        """Closes the saved standard error; called once the daemon is up."""
        if self._error is not None:
            os.close(self._error)
            self._error = None


def dress(application: Any, logs: Logs, account: Account | None) -> None:
    """Tells a Twisted application where to log, and which account to take if root started it.

    twistd's own options ``--logger``, ``--uid`` and ``--gid`` take precedence.
    """
    application.setComponent(ILogObserver, logs.observer)
    if account is not None and os.geteuid() == 0:
        process = IProcess(application)
        process.uid, process.gid = account.uid, account.gid
