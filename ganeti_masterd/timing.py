"""The one wrapper of the reactor's clock.

Every delayed call and every repeated task goes through :class:`Timers`, so
that stopping cancels all of them and none is left behind in a test. Code that
needs time takes a :class:`Timers` in its constructor; a lint rule forbids the
raw ``callLater`` and ``LoopingCall``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

log = Logger()


def steady(reactor: Any, clock: Callable[[], float] = time.monotonic) -> None:
    """Makes a reactor's timers follow a clock that nobody sets.

    Twisted's reactors follow the wall clock: if it were set back by an hour, all timers
    would be held up for that hour, those of systemd's watchdog among them; if it were set
    forward, every call to a node would time out at once. Call this before anything is
    scheduled: the timers of delayed calls made earlier would never be due.
    """
    reactor.seconds = clock


class Timer:
    """A delayed call that may be cancelled at any time, even after it has run."""

    __slots__ = ("_call", "_owner")

    def __init__(self, owner: Timers) -> None:
        self._owner = owner
        self._call: IDelayedCall | None = None

    def cancel(self) -> None:
        """Makes sure that the call does not run (again)."""
        call, self._call = self._call, None
        self._owner._pending.discard(self)
        if call is not None and call.active():
            call.cancel()

    @property
    def active(self) -> bool:
        """Whether the call is still pending."""
        return self._call is not None


class Timers:
    """All delayed calls of one service.

    ``now()`` is seconds since the epoch by the wall clock given, for time
    stamps; intervals run on the reactor's own clock.
    """

    def __init__(self, clock: IReactorTime, wall: Callable[[], float] | None = None) -> None:
        self._clock = clock
        self._pending: set[Timer] = set()
        self.now: Callable[[], float] = wall if wall is not None else clock.seconds
        self.seconds: Callable[[], float] = clock.seconds

    def later(self, delay: float, function: Callable[..., object], *args: Any) -> Timer:
        """Runs ``function(*args)`` once after ``delay`` seconds; logs if it raises."""
        timer = Timer(self)
        timer._call = self._clock.callLater(
            delay if delay > 0.0 else 0.0, self._run, timer, function, args
        )
        self._pending.add(timer)
        return timer

    def sleep(self, seconds: float) -> Deferred[None]:
        """Returns a Deferred that fires after a while, in another turn of the reactor at least."""
        done: Deferred[None] = Deferred(lambda _: timer.cancel())
        timer = self.later(seconds, done.callback, None)
        return done

    def every(self, interval: float, function: Callable[..., object], *args: Any) -> Timer:
        """Runs ``function(*args)`` every ``interval`` seconds, the first time after one interval.

        If it raises, that is logged and it is run again all the same.
        """
        timer = Timer(self)
        self._repeat(timer, max(0.0, interval), function, args)
        return timer

    def cancel_all(self) -> None:
        """Cancels all pending calls."""
        for timer in list(self._pending):
            timer.cancel()

    def __len__(self) -> int:
        return len(self._pending)

    def _run(self, timer: Timer, function: Callable[..., object], args: tuple[Any, ...]) -> None:
        timer._call = None
        self._pending.discard(timer)
        try:
            function(*args)
        except Exception:
            _failed(function)

    def _repeat(
        self, timer: Timer, interval: float, function: Callable[..., object], args: tuple[Any, ...]
    ) -> None:
        timer._call = self._clock.callLater(
            interval, self._run_again, timer, interval, function, args
        )
        self._pending.add(timer)

    def _run_again(
        self, timer: Timer, interval: float, function: Callable[..., object], args: tuple[Any, ...]
    ) -> None:
        self._repeat(timer, interval, function, args)
        try:
            function(*args)
        except Exception:
            _failed(function)


def _failed(function: Callable[..., object]) -> None:
    log.failure("A delayed call failed: {function}", function=function)
