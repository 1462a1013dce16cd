"""When a commit is acknowledged: the modes of ``--ack``, and the queue of waiters."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum

from msgspec import Struct
from twisted.internet.defer import Deferred, succeed

from ganeti_masterd.timing import Timer, Timers


class Ack(Enum):
    """What must have happened before a commit is acknowledged."""

    #: The commit is durable on this node.
    LOCAL = "local"
    #: Additionally, every candidate that can be reached has it.
    CANDIDATES = "candidates"
    #: Additionally, a majority of all candidates, this node included, have it.
    MAJORITY = "majority"


class Mark(Struct, frozen=True):
    """How far a candidate is: it holds all publications up to ``watermark``.

    A ``watermark`` of None means that its files are incomplete and count for nothing. ``awaited``
    is whether ``Ack.CANDIDATES`` waits for it: it can be reached, and is not a newcomer that still
    catches up.
    """

    watermark: int | None
    awaited: bool

    def holds(self, number: int) -> bool:
        """Returns whether the candidate has a publication."""
        return self.watermark is not None and self.watermark >= number


def acknowledged(ack: Ack, number: int, marks: Iterable[Mark]) -> bool:
    """Returns whether a publication is acknowledged, given the other candidates' marks. Pure."""
    match ack:
        case Ack.LOCAL:
            return True
        case Ack.CANDIDATES:
            return all(mark.holds(number) for mark in marks if mark.awaited)
        case Ack.MAJORITY:
            others = list(marks)
            return 2 * (1 + sum(mark.holds(number) for mark in others)) > 1 + len(others)


class _Waiter(Struct):
    number: int
    deadline: float
    done: Deferred[None]
    overdue: bool = False


class Acknowledgements:
    """The Deferreds that wait for publications to be acknowledged, oldest first.

    ``reached(number)`` returns whether a publication is acknowledged. ``overdue(number)`` is called
    with the newest of those that were not acknowledged within ``patience`` seconds, once for each
    that becomes late.
    """

    def __init__(
        self,
        timers: Timers,
        patience: float,
        reached: Callable[[int], bool],
        overdue: Callable[[int], object],
    ) -> None:
        self._timers = timers
        self._patience = patience
        self._reached = reached
        self._overdue = overdue
        self._waiters: deque[_Waiter] = deque()
        self._timer: Timer | None = None

    def __len__(self) -> int:
        return len(self._waiters)

    def wait(self, number: int) -> Deferred[None]:
        """Fires when the publication is acknowledged; call it with ascending numbers."""
        if not self._waiters and self._reached(number):
            return succeed(None)
        done: Deferred[None] = Deferred()
        deadline = self._timers.seconds() + self._patience
        self._waiters.append(_Waiter(number, deadline, done))
        self._watch()
        return done

    def moved(self) -> None:
        """Fires the Deferreds whose publication is acknowledged by now."""
        # A callback may call ``release`` or ``wait``.
        while self._waiters and self._reached(self._waiters[0].number):
            self._waiters.popleft().done.callback(None)
        if not self._waiters and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def release(self) -> None:
        """Fires all Deferreds, acknowledged or not; called when the daemon stops."""
        waiters, self._waiters = self._waiters, deque()
        for waiter in waiters:
            waiter.done.callback(None)
        self.moved()

    def _watch(self) -> None:
        if self._timer is None:
            first = next((waiter for waiter in self._waiters if not waiter.overdue), None)
            if first is not None:
                delay = first.deadline - self._timers.seconds()
                self._timer = self._timers.later(delay, self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._timers.seconds()
        late = [w for w in self._waiters if not w.overdue and w.deadline <= now]
        for waiter in late:
            waiter.overdue = True
        try:
            if late:
                self._overdue(late[-1].number)
        finally:
            self._watch()
