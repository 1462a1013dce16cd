"""Long work cut into slices, so that the reactor serves others in between.

All work waits in one line, and one slice runs in each turn of the reactor:
however many long queries run at once, a small one waits for a slice at most.
Whoever wanted an answer and went away cancels it: its work leaves the line.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from ganeti_masterd.errors import DaemonStopping
from ganeti_masterd.timing import Timers

T = TypeVar("T")
R = TypeVar("R")

#: How much work a slice is at most; a cell of an answer counts as one.
WEIGHT = 3000
#: A slice ends after this many seconds in any case, as some cells are costly.
SECONDS = 0.002


class _Work(Generic[T, R]):
    """What is left of one piece of long work."""

    __slots__ = ("batch", "batches", "done", "function", "given_up", "items", "next", "results")

    def __init__(
        self,
        items: Sequence[T],
        batch: int,
        batches: int,
        function: Callable[[Sequence[T]], R],
        cancelled: Callable[[Deferred[Any]], None],
    ) -> None:
        self.items = items
        self.batch = batch
        self.batches = batches
        self.function = function
        self.next = 0
        self.results: list[R] = []
        #: Whether ``done`` has fired before its time: nothing more is done then.
        self.given_up = False
        self.done: Deferred[list[R]] = Deferred(cancelled)

    def step(self, seconds: Callable[[], float]) -> bool:
        """Does one slice; tells whether it was the last."""
        until = seconds() + SECONDS
        for _ in range(self.batches):
            if self.given_up:
                break
            end = self.next + self.batch
            self.results.append(self.function(self.items[self.next : end]))
            self.next = end
            if end >= len(self.items):
                return True
            if seconds() >= until:
                break
        return False


class Slices:
    """The line of all long work of one daemon; reactor thread only."""

    def __init__(self, timers: Timers, weight: int = WEIGHT) -> None:
        self._timers = timers
        self._weight = weight
        self._line: deque[_Work[Any, Any]] = deque()
        self._ticking = False
        self._closed = False

    def run(
        self, items: Sequence[T], each: int, function: Callable[[Sequence[T]], R]
    ) -> list[R] | Deferred[list[R]]:
        """Calls ``function`` with parts of ``items`` until all were taken, in order.

        ``each`` is the weight of one item. Work that fits one slice is done at
        once, and its results are returned as they are. An exception of
        ``function`` fails the Deferred, or is raised. Cancelled, the work ends:
        no slice of it runs any more, and its items and results are let go.
        """
        if len(items) * each <= self._weight:
            return [function(items)]
        if self._closed:
            return fail(_stopping())
        batch = max(1, self._weight // (8 * each))
        batches = max(1, self._weight // (batch * each))
        work: _Work[T, R] = _Work(items, batch, batches, function, lambda _: self._give_up(work))
        self._line.append(work)
        self._tick()
        return work.done

    def close(self) -> None:
        """Gives up all long work, now and from now on: it fails with ``DaemonStopping``."""
        self._closed = True
        while self._line:
            work = self._line.popleft()
            work.given_up = True
            work.done.errback(_stopping())

    def _give_up(self, work: _Work[Any, Any]) -> None:
        work.given_up = True
        if work in self._line:  # else it is having its turn
            self._line.remove(work)

    def _tick(self) -> None:
        if self._line and not self._ticking:
            self._ticking = True
            self._timers.later(0, self._turn)

    def _turn(self) -> None:
        self._ticking = False
        if not self._line:
            return
        work = self._line.popleft()
        try:
            finished = work.step(self._timers.seconds)
        except Exception:
            self._tick()
            if not work.given_up:
                work.done.errback(Failure())
            return
        if work.given_up:
            self._tick()
            return
        if not finished:
            self._line.append(work)
        self._tick()
        if finished:
            work.done.callback(work.results)


def _stopping() -> DaemonStopping:
    return DaemonStopping("The daemon is stopping")


def then(value: T | Deferred[T], function: Callable[[T], R | Deferred[R]]) -> R | Deferred[R]:
    """Goes on with ``function`` once a value is there: at once if it is no Deferred."""
    if isinstance(value, Deferred):
        return value.addCallback(function)
    return function(value)
