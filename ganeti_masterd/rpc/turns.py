"""Who may be called next at one node: the bound on calls in flight, urgent ones first.

A node daemon serves 21 calls at once and lets others wait before it has even
looked at them (spec rpc 1, Parallelism). So calls wait here, where an urgent
one can overtake, and calls that may last for hours never take all the room.
Plain Python; knows no node, no clock.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum
from typing import Generic, TypeVar

from ganeti_masterd.rpc.declarations import SLOW, URGENT, Call

T = TypeVar("T")

#: Calls in flight to one node, and how many of these may be long ones.
IN_FLIGHT = 16
LONG_IN_FLIGHT = 12


class Rank(IntEnum):
    """How soon a call gets its turn: the lower, the sooner."""

    URGENT = 0
    ORDINARY = 1
    LONG = 2


def rank_of(call: Call) -> Rank:
    """Returns the rank of a call, by its own time-out class.

    One without a class (test_delay) lasts as long as its caller likes: it is long.
    """
    if call.timeout is None or call.timeout >= SLOW:
        return Rank.LONG
    return Rank.URGENT if call.timeout <= URGENT else Rank.ORDINARY


class Turns(Generic[T]):
    """The calls to one node: those that wait and how many are in flight."""

    __slots__ = ("_in_flight", "_limit", "_long", "_long_limit", "_waiting")

    def __init__(self, limit: int = IN_FLIGHT, long_limit: int = LONG_IN_FLIGHT) -> None:
        self._limit = limit
        self._long_limit = long_limit
        self._in_flight = 0
        self._long = 0
        self._waiting: tuple[deque[T], ...] = tuple(deque() for _ in Rank)

    @property
    def idle(self) -> bool:
        """Whether nothing is in flight and nothing waits."""
        return not self._in_flight and not any(self._waiting)

    def add(self, rank: Rank, item: T) -> None:
        """Puts a call behind those of its rank."""
        self._waiting[rank].append(item)

    def take(self) -> T | None:
        """Returns the call whose turn it is and counts it as in flight; null if none may go.

        Urgent ones go first; within a rank, whoever came first.
        """
        if self._in_flight >= self._limit:
            return None
        for rank in Rank:
            if rank is Rank.LONG and self._long >= self._long_limit:
                continue
            if self._waiting[rank]:
                self._in_flight += 1
                self._long += rank is Rank.LONG
                return self._waiting[rank].popleft()
        return None

    def ended(self, rank: Rank) -> None:
        """Gives back the room of a call that was in flight."""
        self._in_flight -= 1
        self._long -= rank is Rank.LONG

    def drop(self) -> list[T]:
        """Returns all that wait, in no order of meaning, and forgets them."""
        dropped = [item for waiting in self._waiting for item in waiting]
        for waiting in self._waiting:
            waiting.clear()
        return dropped
