"""Lists of callbacks that stay consistent whatever the callbacks do.

Every list of observers in the daemon is an :class:`Observers`, so that no observer can
keep the others from being called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, ParamSpec

from twisted.logger import Logger

log = Logger()

P = ParamSpec("P")


class Observers(Generic[P]):
    """Observers of one thing, called in the order in which they were added. One thread only.

    While they are called, an observer may add others, which are called from the next round
    on; remove itself or others, which are then no longer called; or start another round.
    If one raises, that is logged and the others are still called. ``what`` names the thing
    that they observe, for the log.
    """

    __slots__ = ("_observers", "_what")

    def __init__(self, what: str) -> None:
        self._what = what
        # Each under a unique key, because the same function may be added twice.
        self._observers: dict[object, Callable[P, object]] = {}

    def __len__(self) -> int:
        return len(self._observers)

    def add(self, observer: Callable[P, object]) -> Callable[[], None]:
        """Adds an observer; returns a function that removes it and may be called repeatedly."""
        key = object()
        self._observers[key] = observer

        def end() -> None:
            self._observers.pop(key, None)

        return end

    def call(self, *args: P.args, **named: P.kwargs) -> None:
        """Calls every observer with these arguments; never raises."""
        for key, observer in tuple(self._observers.items()):
            if key not in self._observers:
                continue  # removed by an earlier one
            try:
                observer(*args, **named)
            except Exception:
                log.failure(
                    "{observer} failed, called for {what}", observer=observer, what=self._what
                )
