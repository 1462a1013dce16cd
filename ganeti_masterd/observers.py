"""Functions that are called when something happens, whatever they do meanwhile.

The one place where observers are kept: whoever has some calls them through an
:class:`Observers`, so that none of them can break the round for the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, ParamSpec

from twisted.logger import Logger

log = Logger()

P = ParamSpec("P")


class Observers(Generic[P]):
    """Observers of one thing, called in the order in which they were added. One thread only.

    While they are called, each may add others, which are called from the next round on;
    take itself or others away, which are then not called any more; or start another round.
    One that raises is logged, and the others are called all the same. ``what`` is the thing
    that they observe, for the log.
    """

    __slots__ = ("_observers", "_what")

    def __init__(self, what: str) -> None:
        self._what = what
        # By a key of its own each, as the same function may be added twice.
        self._observers: dict[object, Callable[P, object]] = {}

    def __len__(self) -> int:
        return len(self._observers)

    def add(self, observer: Callable[P, object]) -> Callable[[], None]:
        """Adds an observer; returns the function that takes it away, once or more often."""
        key = object()
        self._observers[key] = observer

        def end() -> None:
            self._observers.pop(key, None)

        return end

    def call(self, *args: P.args, **named: P.kwargs) -> None:
        """Calls every observer."""
        for key, observer in tuple(self._observers.items()):
            if key not in self._observers:
                continue  # taken away by one before it
            try:
                observer(*args, **named)
            except Exception:
                log.failure("{observer} failed, told of {what}", observer=observer, what=self._what)
