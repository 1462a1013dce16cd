"""How the process ends: with which exit code or by which signal, even if a thread is stuck."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from ganeti_masterd.constants import EXIT_FAILURE, EXIT_SUCCESS


class Ending:
    """Decides how this process ends; its attributes are set while the daemon stops.

    A daemon that was stopped in order ends by the ``signal`` that stopped it, as shells and systemd
    expect; a ``code`` other than 0 takes precedence. A pool thread that is ``stuck`` would keep the
    process alive, so then the process exits without Python's clean-up once the reactor has stopped.
    """

    def __init__(self, twistd_pid_file: str | None = None) -> None:
        self.code = EXIT_SUCCESS
        self.signal: signal.Signals | None = None
        self.stuck = False
        self._twistd_pid_file = twistd_pid_file

    def failed(self) -> None:
        """Sets the exit code to 1."""
        self.code = EXIT_FAILURE

    def arrange(
        self,
        reactor: Any,
        at_exit: Callable[[Callable[[], object]], object] = atexit.register,
    ) -> None:
        """Arranges how the process ends; called when all that is left is to stop the reactor."""
        if self.stuck:
            reactor.addSystemEventTrigger("after", "shutdown", self.now)
        elif self.code or self.signal is not None:
            at_exit(self._die)

    def now(self) -> None:
        """Ends the process at once, whatever its threads are doing."""
        if self._twistd_pid_file:
            with contextlib.suppress(OSError):
                os.unlink(self._twistd_pid_file)
        self._die()
        os._exit(self.code)

    def _die(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        if self.code:
            os._exit(self.code)
        if self.signal is not None:
            signal.signal(self.signal, signal.SIG_DFL)
            os.kill(os.getpid(), self.signal)
