"""The daemon's own signal handlers.

The reactor's make a second SIGTERM useless, and it sets them as it begins to
run: so these are set before, for signals that come during the start, and
again then.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

#: What asks the daemon to stop, and what asks it to open its log files again.
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
        """Takes the signals over, now and once more when the reactor runs. Main thread only."""
        self._set()
        self._reactor.callWhenRunning(self._set)

    def _set(self) -> None:
        for number in (*STOP_SIGNALS, REOPEN_SIGNAL):
            signal.signal(number, self.received)

    def received(self, number: int, frame: FrameType | None) -> None:
        """Handles a signal: only passes it on, as anything may be under way."""
        if number == REOPEN_SIGNAL:
            self._reactor.callFromThread(self._reopen)
        else:
            self._reactor.callFromThread(self._stop, signal.Signals(number))
