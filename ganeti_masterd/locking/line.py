"""One lock: its holders, the requests waiting in line for it, and which of them is next.

A request's *place* is a tuple that orders all requests of a level; the lowest
goes first. Requests to share the lock and requests to hold it alone wait in two sorted
lists, so most questions are answered by looking at the heads of the lists. Pure.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from operator import attrgetter

from ganeti_masterd.locking.levels import Level, LockMode, WantedLocks

#: Priority, arrival of the request's group, own arrival.
PlaceInLine = tuple[int, int, int]

PLACE = attrgetter("place")


class LockRequest:
    """What one owner waits for at one level. Its place is set by the level's lock set."""

    __slots__ = (
        "aged_since",
        "alone",
        "creating",
        "level",
        "names",
        "owner",
        "place",
        "priority",
        "since",
    )

    def __init__(
        self, owner: int, level: Level, wanted: WantedLocks, priority: int, since: float
    ) -> None:
        self.owner = owner
        self.level = level
        self.names = wanted.names
        self.creating = wanted.creating
        self.alone = wanted.mode is LockMode.EXCLUSIVE
        #: The priority given, from which ageing counts the time since ``aged_since``; both are
        #: reset when the priority is changed.
        self.priority = priority
        self.since = since
        self.aged_since = since
        self.place: PlaceInLine = (priority, 0, 0)

    @property
    def mode(self) -> LockMode:
        """How the locks are wanted."""
        return LockMode.EXCLUSIVE if self.alone else LockMode.SHARED


def enter(line: list[LockRequest], request: LockRequest) -> None:
    """Puts a request at its place in a sorted line."""
    insort(line, request, key=PLACE)


def leave(line: list[LockRequest], request: LockRequest) -> None:
    """Removes a request from a sorted line, in which it must be."""
    index = bisect_left(line, request.place, key=PLACE)
    assert line[index] is request
    del line[index]


class Lock:
    """One lock: held by one owner alone, by any number of sharers, or by nobody."""

    __slots__ = ("alone_line", "holder", "shared_line", "sharers")

    def __init__(self) -> None:
        self.holder: int | None = None
        self.sharers: set[int] = set()
        self.alone_line: list[LockRequest] = []
        self.shared_line: list[LockRequest] = []

    @property
    def idle(self) -> bool:
        """Whether nobody holds it and nobody waits for it."""
        return not (self.holder is not None or self.sharers or self.alone_line or self.shared_line)

    @property
    def mode(self) -> LockMode | None:
        """How it is held; None if it isn't."""
        if self.holder is not None:
            return LockMode.EXCLUSIVE
        return LockMode.SHARED if self.sharers else None

    @property
    def owners(self) -> set[int]:
        """The owners that hold it."""
        return self.sharers if self.holder is None else {self.holder}

    def admits(self, place: PlaceInLine, alone: bool) -> bool:
        """Whether a request may have the lock now.

        It may if it conflicts neither with a holder nor with a request that is before
        it in line, so no waiting request is ever overtaken by one that it conflicts with.
        """
        if self.holder is not None:
            return False
        line = self.alone_line
        if line and line[0].place < place:
            return False
        if not alone:
            return True
        line = self.shared_line
        return not self.sharers and not (line and line[0].place < place)

    def take(self, owner: int, alone: bool) -> None:
        """Makes the owner a holder; the caller must have checked :meth:`admits`."""
        if alone:
            self.holder = owner
        else:
            self.sharers.add(owner)

    def line(self, alone: bool) -> list[LockRequest]:
        """Returns the line in which a request of this kind waits."""
        return self.alone_line if alone else self.shared_line

    def head(self) -> list[LockRequest]:
        """Returns the first request to hold the lock alone, if it is admitted now."""
        line = self.alone_line
        return line[:1] if line and self.admits(line[0].place, True) else []

    def front(self) -> list[LockRequest]:
        """Returns all requests that this lock admits now."""
        if self.holder is not None:
            return []
        if not self.alone_line:
            return self.shared_line[:]
        first = self.alone_line[0].place
        return self.head() or self.shared_line[: bisect_left(self.shared_line, first, key=PLACE)]

    def after(self, request: LockRequest) -> list[LockRequest]:
        """Returns the requests that may be admitted because this one has just left its line.

        There are none if a request of the other kind would still not be admitted in
        its place, because whatever blocks that one blocks all behind it as well.
        """
        place = request.place
        if not self.admits(place, not request.alone):
            return []
        if not request.alone:
            return self.alone_line[:1]
        return self.head() or self.front()[bisect_left(self.shared_line, place, key=PLACE) :]

    def waiting(self) -> list[LockRequest]:
        """Returns all waiting requests, in order."""
        return sorted(self.alone_line + self.shared_line, key=PLACE)
