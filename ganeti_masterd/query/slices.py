"""Long computations split into slices, so that the reactor can do other work in between.

All long work waits in one queue, and one slice runs in each turn of the reactor:
however many long queries run at once, a small one waits for at most one slice.
If a client disconnects, its answer is cancelled and its work leaves the queue.
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

#: The most work in a slice; computing one cell of an answer counts as 1.
WEIGHT = 3000
#: How many bytes of finished parts may wait for the rest of their answers. Past it the work that
#: has most goes on alone until it is done, so that a crowd of long answers isn't made all at once.
MOST_KEPT = 64 * 1024 * 1024
#: What a part that isn't bytes is taken for, by its weight.
CELL = 64
#: A slice ends after this many seconds in any case, because some cells are costly.
SECONDS = 0.002


class _Work(Generic[T, R]):
    """A piece of long work, with its results so far."""

    __slots__ = (
        "batch",
        "batches",
        "done",
        "function",
        "given_up",
        "items",
        "kept",
        "next",
        "results",
        "weight",
    )

    def __init__(
        self,
        items: Sequence[T],
        batch: int,
        batches: int,
        weight: int,
        function: Callable[[Sequence[T]], R],
        cancelled: Callable[[Deferred[Any]], None],
    ) -> None:
        self.items = items
        self.batch = batch
        self.batches = batches
        self.weight = weight
        self.function = function
        self.next = 0
        self.results: list[R] = []
        #: About how many bytes the results take.
        self.kept = 0
        #: Whether ``done`` was cancelled or failed, so that the rest must not run.
        self.given_up = False
        self.done: Deferred[list[R]] = Deferred(cancelled)

    def step(self, seconds: Callable[[], float]) -> bool:
        """Runs one slice; returns whether it was the last."""
        until = seconds() + SECONDS
        for _ in range(self.batches):
            if self.given_up:
                break
            end = self.next + self.batch
            part = self.function(self.items[self.next : end])
            self.results.append(part)
            self.kept += len(part) if isinstance(part, bytes) else CELL * self.weight
            self.next = end
            if end >= len(self.items):
                return True
            if seconds() >= until:
                break
        return False


class Slices:
    """The queue of all long work of one daemon; reactor thread only."""

    def __init__(self, timers: Timers, weight: int = WEIGHT) -> None:
        self._timers = timers
        self._weight = weight
        self._line: deque[_Work[Any, Any]] = deque()
        self._ticking = False
        self._closed = False

    def run(
        self, items: Sequence[T], each: int, function: Callable[[Sequence[T]], R]
    ) -> list[R] | Deferred[list[R]]:
        """Calls ``function`` with consecutive parts of ``items``; returns its results in order.

        ``each`` is the weight of one item. Work that fits into one slice is done at
        once, and its results are returned directly. If ``function`` raises, the Deferred
        fails, or the exception is raised. If the Deferred is cancelled, no more slices are
        run, and the items and results are released.
        """
        if len(items) * each <= self._weight:
            return [function(items)]
        if self._closed:
            return fail(_stopping())
        batch = max(1, self._weight // (8 * each))
        batches = max(1, self._weight // (batch * each))
        work: _Work[T, R] = _Work(
            items, batch, batches, batch * each, function, lambda _: self._give_up(work)
        )
        self._line.append(work)
        self._tick()
        return work.done

    def turn(self) -> Deferred[None]:
        """Fires in another turn of the reactor."""
        return self._timers.sleep(0)

    def close(self) -> None:
        """Fails all long work, queued now or later, with ``DaemonStopping``."""
        self._closed = True
        while self._line:
            work = self._line.popleft()
            work.given_up = True
            work.done.errback(_stopping())

    def _give_up(self, work: _Work[Any, Any]) -> None:
        work.given_up = True
        if work in self._line:  # otherwise its slice is running now
            self._line.remove(work)

    def _tick(self) -> None:
        if self._line and not self._ticking:
            self._ticking = True
            self._timers.later(0, self._turn)

    def _next(self) -> _Work[Any, Any]:
        """Takes the work whose turn it is out of the line."""
        if sum(work.kept for work in self._line) <= MOST_KEPT:
            return self._line.popleft()
        most = max(self._line, key=lambda work: work.kept)
        self._line.remove(most)
        return most

    def _turn(self) -> None:
        self._ticking = False
        if not self._line:
            return
        work = self._next()
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
    """Applies ``function`` to a value: at once, or as a callback if the value is a Deferred."""
    if isinstance(value, Deferred):
        return value.addCallback(function)
    return function(value)
