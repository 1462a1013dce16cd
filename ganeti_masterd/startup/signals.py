"""The daemon's own signal handlers.

The reactor's handlers ignore a second SIGTERM, and the reactor installs them when it begins to run.
So the daemon's are installed twice: before, for signals that come during the start, and again once
the reactor runs.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

#: Signals that ask the daemon to stop, and the one that asks it to reopen its log files.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
REOPEN_SIGNAL = signal.SIGHUP


class Signals:
    """Turns signals into calls in the reactor thread."""

    def __init__(
        self,
        reactor: Any,
        stop: Callable[[signal.Signals], object],
        reopen: Callable[[], object],
    ) -> None:
        self._reactor = reactor
        self._stop = stop
        self._reopen = reopen

    def install(self) -> None:
        """Installs the handlers, now and again when the reactor runs. Main thread only."""
        self._set()
        self._reactor.callWhenRunning(self._set)

    def _set(self) -> None:
        for number in (*STOP_SIGNALS, REOPEN_SIGNAL):
            signal.signal(number, self.received)

    def received(self, number: int, frame: FrameType | None) -> None:
        """Handles a signal: only passes it to the reactor thread, as it may interrupt any code."""
        if number == REOPEN_SIGNAL:
            self._reactor.callFromThread(self._reopen)
        else:
            self._reactor.callFromThread(self._stop, signal.Signals(number))
