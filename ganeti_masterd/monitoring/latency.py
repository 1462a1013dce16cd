"""How late the reactor is: the time by which a timer of its own runs after it was due."""

from __future__ import annotations

from collections.abc import Callable

from ganeti_masterd.timing import Timer, Timers

#: How often to measure, seconds.
INTERVAL = 1.0


class ReactorLatency:
    """Measures each second and tells ``observe``, in seconds; ``last`` is the latest figure."""

    def __init__(self, timers: Timers, observe: Callable[[float], object]) -> None:
        self._timers = timers
        self._observe = observe
        self._timer: Timer | None = None
        self.last = 0.0

    def begin(self) -> None:
        """Measures from now on."""
        due = self._timers.seconds() + INTERVAL
        self._timer = self._timers.later(INTERVAL, self._measure, due)

    def end(self) -> None:
        """Measures no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _measure(self, due: float) -> None:
        self.last = max(0.0, self._timers.seconds() - due)
        self.begin()
        self._observe(self.last)
