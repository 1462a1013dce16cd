"""The reactor's latency: how late a timer runs after it was due."""

from __future__ import annotations

from collections.abc import Callable

from ganeti_masterd.timing import Timer, Timers

#: Seconds between measurements.
INTERVAL = 1.0


class ReactorLatency:
    """Measures each second and calls ``observe`` with the latency; ``last`` is the last value."""

    def __init__(self, timers: Timers, observe: Callable[[float], object]) -> None:
        self._timers = timers
        self._observe = observe
        self._timer: Timer | None = None
        self.last = 0.0

    def begin(self) -> None:
        """Starts measuring."""
        due = self._timers.seconds() + INTERVAL
        self._timer = self._timers.later(INTERVAL, self._measure, due)

    def end(self) -> None:
        """Stops measuring."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _measure(self, due: float) -> None:
        self.last = max(0.0, self._timers.seconds() - due)
        self.begin()
        self._observe(self.last)
