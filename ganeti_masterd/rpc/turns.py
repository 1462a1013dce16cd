"""Chooses the next call to a node: a limit on the calls in flight, urgent ones first.

A node daemon serves 21 calls at once and lets further ones wait before reading them
(protocol/rpc.rst, Parallel calls, Parallelism). So calls wait here, where an urgent one can
overtake others. Part of the limit is reserved: neither calls that may last for hours nor many
ordinary ones can use it up, so job files and live queries always get through. Pure, without I/O and
clock.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum
from typing import Any, Generic, TypeVar

from ganeti_masterd.rpc.declarations import SLOW, URGENT, Call

T = TypeVar("T")

#: Most calls in flight to one node, and most long ones among them.
IN_FLIGHT = 16
LONG_IN_FLIGHT = 12

#: Number of calls in flight that is reserved for urgent ones.
URGENT_ROOM = 2


class Rank(IntEnum):
    """A call's priority; the lowest rank goes first."""

    URGENT = 0
    ORDINARY = 1
    LONG = 2


def rank_of(call: Call[Any]) -> Rank:
    """Returns the rank of a call, by its time-out class.

    A call without a class (test_delay) lasts as long as its caller wants, so it counts as long.
    """
    if call.timeout is None or call.timeout >= SLOW:
        return Rank.LONG
    return Rank.URGENT if call.timeout <= URGENT else Rank.ORDINARY


class Turns(Generic[T]):
    """The calls to one node: those that wait, and the number in flight."""

    __slots__ = ("_flying", "_limit", "_long_limit", "_others_limit", "_waiting")

    def __init__(self, limit: int = IN_FLIGHT, long_limit: int = LONG_IN_FLIGHT) -> None:
        """``limit`` bounds all calls in flight, ``long_limit`` the long ones among them."""
        self._limit = limit
        self._others_limit = max(1, limit - URGENT_ROOM)
        self._long_limit = long_limit
        self._flying = dict.fromkeys(Rank, 0)
        self._waiting: tuple[deque[T], ...] = tuple(deque() for _ in Rank)

    @property
    def idle(self) -> bool:
        """Whether nothing is in flight and nothing waits."""
        return not any(self._flying.values()) and not any(self._waiting)

    def add(self, rank: Rank, item: T) -> None:
        """Queues a call behind those of its rank."""
        self._waiting[rank].append(item)

    def discard(self, rank: Rank, item: T) -> None:
        """Removes a waiting call."""
        self._waiting[rank].remove(item)

    def take(self) -> T | None:
        """Returns the next call and counts it as in flight; None if none may be sent now.

        Urgent ones go first; within a rank they go in order of arrival.
        """
        for rank in Rank:
            if self._waiting[rank] and self._has_room(rank):
                self._flying[rank] += 1
                return self._waiting[rank].popleft()
        return None

    def _has_room(self, rank: Rank) -> bool:
        flying = self._flying
        long = flying[Rank.LONG]
        others = flying[Rank.ORDINARY] + long
        if flying[Rank.URGENT] + others >= self._limit:
            return False
        if rank is Rank.URGENT:
            return True
        return others < self._others_limit and (rank is not Rank.LONG or long < self._long_limit)

    def ended(self, rank: Rank) -> None:
        """Records that a call in flight has ended."""
        self._flying[rank] -= 1

    def drop(self) -> list[T]:
        """Removes and returns all waiting calls, in no particular order."""
        dropped = [item for waiting in self._waiting for item in waiting]
        for waiting in self._waiting:
            waiting.clear()
        return dropped
