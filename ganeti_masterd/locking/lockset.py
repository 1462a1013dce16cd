"""The locks of one level: its members, and which requests may have which locks.

A request by name wants some locks; a whole-level request wants the level's own
lock, which covers every member. So a request by name must also be admitted by
the level's own lock, and a whole-level request must not conflict with holders by name,
or with requests by name that wait before it. Locks exist only while held or waited for.

Operations that free something append to ``woken`` the requests that this may unblock; the
caller then grants, in the order of places, those that :meth:`LockSet.admits`.
Granting a request never unblocks another, so one pass is enough. Pure.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import groupby

from ganeti_masterd.locking.decisions import LockState
from ganeti_masterd.locking.levels import Level, LockMode
from ganeti_masterd.locking.line import PLACE, Lock, LockRequest, PlaceInLine, enter, leave


class _Group:
    """Waiting requests of one priority to share the same locks: later ones join the first's place.

    ``arrival`` is the first one's; ``size`` is how many are waiting.
    """

    __slots__ = ("arrival", "size")

    def __init__(self, arrival: int) -> None:
        self.arrival = arrival
        self.size = 0


class LockSet:
    """The locks of one level. It relies on its caller to free only what an owner holds."""

    def __init__(self) -> None:
        self.members: set[str] = set()
        self.locks: dict[str, Lock] = {}
        self.whole = Lock()
        self._arrivals = 0
        self._groups: dict[tuple[int, frozenset[str] | None], _Group] = {}
        self._named_alone: list[LockRequest] = []
        self._held = 0
        self._held_alone = 0
        self._names: frozenset[str] | None = frozenset()

    # Members

    def add(self, names: Iterable[str]) -> None:
        """Makes names members."""
        self.members.update(names)
        self._names = None

    def discard(self, name: str) -> None:
        """Makes a name no longer a member."""
        self.members.discard(name)
        self._names = None

    def names(self) -> frozenset[str]:
        """Returns all members; cached until they change."""
        if self._names is None:
            self._names = frozenset(self.members)
        return self._names

    # Waiting

    def next_place(self, priority: int, names: frozenset[str] | None, alone: bool) -> PlaceInLine:
        """Returns the place of a new request: last of its priority, or with its group."""
        self._arrivals += 1
        arrival = self._arrivals
        if not alone and self._groups:
            group = self._groups.get((priority, names))
            if group is not None:
                return (priority, group.arrival, arrival)
        return (priority, arrival, arrival)

    def admits(self, request: LockRequest) -> bool:
        """Whether a request, in line or not, may have everything that it wants now."""
        place, alone = request.place, request.alone
        if not self.whole.admits(place, alone):
            return False
        if request.names is not None:
            locks = self.locks
            for name in request.names:
                lock = locks.get(name)
                if lock is not None and not lock.admits(place, alone):
                    return False
            return True
        if alone:
            return not self._held  # if nothing is held by name, no request waits before it either
        line = self._named_alone
        return not self._held_alone and not (line and line[0].place < place)

    def admitted_names(self, names: Iterable[str], place: PlaceInLine, alone: bool) -> list[str]:
        """Returns those of ``names`` that a new request may have, each considered by itself."""
        if not self.whole.admits(place, alone):
            return []
        found = []
        for name in names:
            lock = self.locks.get(name)
            if lock is None or lock.admits(place, alone):
                found.append(name)
        return found

    def enqueue(self, request: LockRequest) -> None:
        """Puts a request in line for each lock that it wants."""
        alone = request.alone
        if request.names is None:
            enter(self.whole.line(alone), request)
        else:
            if alone:
                enter(self._named_alone, request)
            for name in request.names:
                enter(self._lock(name).line(alone), request)
        if not alone:
            key = (request.place[0], request.names)
            group = self._groups.get(key)
            if group is None:
                group = self._groups[key] = _Group(request.place[1])
            group.size += 1

    def dequeue(self, request: LockRequest) -> None:
        """Removes a request from every line, because it is granted or about to be moved."""
        alone = request.alone
        if request.names is None:
            leave(self.whole.line(alone), request)
        else:
            if alone:
                leave(self._named_alone, request)
            for name in request.names:
                leave(self.locks[name].line(alone), request)
        if not alone:
            key = (request.place[0], request.names)
            group = self._groups[key]
            group.size -= 1
            if not group.size:
                del self._groups[key]

    def abandon(self, request: LockRequest, woken: list[LockRequest]) -> None:
        """Removes a request from every line, and wakes the requests that it blocked."""
        self.dequeue(request)
        if request.names is None:
            if self.whole.admits(request.place, not request.alone):
                woken += self.whole.after(request)
                self._wake_named(request.alone, woken)
            return
        for name in request.names:
            lock = self.locks[name]
            woken += lock.after(request)
            self._forget_idle(name, lock)
        self._wake_whole(woken)

    # Holding

    def hold(self, owner: int, names: Iterable[str] | None, alone: bool) -> None:
        """Gives locks (None: the level's own) to an owner, to whom they must be admitted."""
        if names is None:
            self.whole.take(owner, alone)
            return
        for name in names:
            lock = self._lock(name)
            if alone:
                self._held += 1
                self._held_alone += 1
            elif not lock.sharers:
                self._held += 1
            lock.take(owner, alone)

    def free(self, owner: int, names: Iterable[str], woken: list[LockRequest]) -> None:
        """Frees locks that an owner holds by name."""
        for name in names:
            lock = self.locks[name]
            if lock.holder == owner:
                lock.holder = None
                self._held -= 1
                self._held_alone -= 1
                woken += lock.front()
            else:
                lock.sharers.remove(owner)
                if not lock.sharers:
                    self._held -= 1
                    woken += lock.head()
            self._forget_idle(name, lock)
        self._wake_whole(woken)

    def free_whole(self, owner: int, woken: list[LockRequest]) -> None:
        """Frees the level's own lock, which the owner must hold."""
        whole = self.whole
        if whole.holder == owner:
            whole.holder = None
            woken += whole.front()
            self._wake_named(True, woken)
        else:
            whole.sharers.remove(owner)
            if not whole.sharers:
                woken += whole.head()
                self._wake_named(False, woken)

    def downgrade(self, owner: int, names: Iterable[str], woken: list[LockRequest]) -> None:
        """Makes locks that an owner holds alone by name shared."""
        for name in names:
            lock = self.locks[name]
            lock.holder = None
            lock.sharers.add(owner)
            self._held_alone -= 1
            woken += lock.front()
        self._wake_whole(woken)

    def downgrade_whole(self, owner: int, woken: list[LockRequest]) -> None:
        """Makes the level's own lock, which an owner holds alone, shared."""
        self.whole.holder = None
        self.whole.sharers.add(owner)
        woken += self.whole.front()
        self._wake_named(True, woken)

    def waiting_for(self, name: str) -> list[LockRequest]:
        """Returns the requests that wait for a lock by name, in order."""
        lock = self.locks.get(name)
        return lock.waiting() if lock is not None else []

    def holds(self, name: str) -> bool:
        """Whether anyone holds a lock by name."""
        lock = self.locks.get(name)
        return lock is not None and lock.mode is not None

    def states(self, level: Level) -> Iterator[LockState]:
        """Returns the locks that are held or waited for, by name.

        The level's own lock comes last; it is included while any lock is held by name.
        """
        for name, lock in sorted(self.locks.items()):
            yield _state(level, name, lock)
        if self._held or not self.whole.idle:
            yield _state(level, None, self.whole)

    def _lock(self, name: str) -> Lock:
        lock = self.locks.get(name)
        if lock is None:
            lock = self.locks[name] = Lock()
        return lock

    def _forget_idle(self, name: str, lock: Lock) -> None:
        if lock.idle:
            del self.locks[name]

    def _wake_whole(self, woken: list[LockRequest]) -> None:
        if self._held_alone or not (self.whole.alone_line or self.whole.shared_line):
            return
        front = self.whole.front()
        if self._named_alone:
            front = front[: bisect_left(front, self._named_alone[0].place, key=PLACE)]
        woken += front

    def _wake_named(self, sharers_too: bool, woken: list[LockRequest]) -> None:
        for lock in self.locks.values():
            woken += lock.front() if sharers_too else lock.head()


def _state(level: Level, name: str | None, lock: Lock) -> LockState:
    pending: list[tuple[LockMode, tuple[int, ...]]] = []
    for mode, group in groupby(lock.waiting(), key=lambda request: request.mode):
        owners = tuple(request.owner for request in group)
        pending += (
            [(mode, owners)] if mode is LockMode.SHARED else [(mode, (one,)) for one in owners]
        )
    return LockState(level, name, lock.mode, tuple(sorted(lock.owners)), tuple(pending))
