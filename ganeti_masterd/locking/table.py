"""The lock table: which owner may take, keep and release which locks. Pure.

Owners are job ids; an owner waits for one request at a time. The rules:

* The cluster lock is taken first and released last. Levels are taken downwards: never
  at or above a level where the owner already holds something, so nothing is taken twice.
* A request is granted as a whole; while it waits, it holds none of its locks. It waits
  while it conflicts with a holder or with a request that is before it in line; requests
  are ordered by priority, then by arrival. So there are no deadlocks, and no request is
  overtaken by one that it conflicts with.
* Sharers are grouped: a new request joins the place of requests with the same
  priority that already wait to share exactly the same locks.
* A lock is a member of its level, or is being created (``WantedLocks.creating``).
  The owner of a whole level holds those that were members when it was granted, and
  prevents others from taking conflicting locks of the level.

Every operation that frees something returns what this did to other requests: a list
of :class:`Granted` and :class:`LockFailed`, in the order of waiting. Misuse
raises ``LockError`` and changes nothing. Times are seconds on any monotonic clock.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from ganeti_masterd.errors import LockError
from ganeti_masterd.locking.ageing import aged
from ganeti_masterd.locking.decisions import (
    Aged,
    Granted,
    LockDecision,
    LockFailed,
    LockOutcome,
    LockState,
    NotEnough,
    Waiting,
)
from ganeti_masterd.locking.holdings import NO_NAMES, Holding, Owner
from ganeti_masterd.locking.levels import BGL, Level, LockMode, WantedLocks, lock_name
from ganeti_masterd.locking.line import PLACE, LockRequest
from ganeti_masterd.locking.lockset import LockSet

#: The order in which levels are released.
_LAST_FIRST = tuple(reversed(Level))


class LockTable:
    """All locks of the cluster. See the module's docstring for the rules."""

    def __init__(self) -> None:
        self._levels = [LockSet() for _ in Level]
        self._levels[Level.CLUSTER].add([BGL])
        self._owners: dict[int, Owner] = {}
        self._requests: dict[int, LockRequest] = {}

    # Asking

    def request(
        self, owner: int, level: Level, wanted: WantedLocks, priority: int = 0, since: float = 0.0
    ) -> LockDecision:
        """Asks for locks at one level.

        ``since`` is when the owner began to wait, from which ageing counts. An
        opportunistic request takes the free ones of the members named, and never waits.
        Raises ``LockError`` for a name that isn't a member, and for a request that breaks
        the rules on order.
        """
        record = self._may_ask(owner, level)
        lockset = self._levels[level]
        if wanted.minimum is not None:
            return self._take_free(owner, level, wanted, wanted.minimum, priority)
        names = wanted.names
        if names is None:
            if level is Level.CLUSTER:
                raise LockError(f"The only lock of the cluster level is {BGL}")
        elif not names:
            return Granted(owner, level, NO_NAMES)
        elif not lockset.members.issuperset(names):
            unknown = names - lockset.members - wanted.creating
            if unknown:
                raise LockError(f"There is no lock {lock_name(level, min(unknown))}")
            if level is Level.CLUSTER:
                raise LockError("No lock can be created at the cluster level")
        request = LockRequest(owner, level, wanted, priority, since)
        request.place = lockset.next_place(priority, names, request.alone)
        if record is None:
            record = self._owners[owner] = Owner()
        if lockset.admits(request):
            return self._grant(record, lockset, request)
        lockset.enqueue(request)
        record.request = self._requests[owner] = request
        return Waiting(owner, level)

    def cancel(self, owner: int) -> list[LockOutcome]:
        """Withdraws the owner's waiting request, if any."""
        record = self._owners.get(owner)
        if record is None or record.request is None:
            return []
        woken: list[LockRequest] = []
        request = record.request
        self._withdraw(record, request, woken)
        return self._wake(self._levels[request.level], woken)

    def set_priority(self, owner: int, priority: int, now: float = 0.0) -> list[LockOutcome]:
        """Moves the owner's waiting request, if any, to the end of the line of a priority.

        Its ageing restarts at ``now``.
        """
        request = self._requests.get(owner)
        if request is None:
            return []
        request.priority = priority
        request.aged_since = now
        woken: list[LockRequest] = []
        self._move(request, priority, woken)
        return self._wake(self._levels[request.level], woken)

    def age(self, now: float) -> tuple[list[Aged], list[LockOutcome]]:
        """Makes requests that have waited long more urgent.

        Returns the new priorities, and what they did to requests.
        """
        due = [
            (request, priority)
            for request in self._requests.values()
            if (priority := aged(request.priority, now - request.aged_since)) != request.place[0]
        ]
        woken: list[list[LockRequest]] = [[] for _ in Level]
        for request, priority in sorted(due, key=lambda change: change[0].place):
            self._move(request, priority, woken[request.level])
        outcomes: list[LockOutcome] = []
        for level in Level:
            outcomes += self._wake(self._levels[level], woken[level])
        return [Aged(request.owner, priority) for request, priority in due], outcomes

    # Giving back

    def release(self, owner: int, level: Level, keep: Collection[str] = ()) -> list[LockOutcome]:
        """Frees what the owner holds at a level, except the names in ``keep``.

        An owner of a whole level keeps it if ``keep`` has every member that was granted
        with it; else it holds the names kept, by name, from then on. Raises
        ``LockError`` if it would release the cluster lock while it holds others.
        """
        record, holding = self._holding(owner, level)
        if record is None or holding is None:
            return []
        kept = holding.names().intersection(keep)
        if level is Level.CLUSTER and not kept and record.needs_cluster_lock:
            raise LockError(f"Job {owner} can't release the cluster lock before all others")
        if not kept:
            outcomes = self._free(owner, record, level, holding)
            self._forget_idle(owner, record)
            return outcomes
        lockset = self._levels[level]
        woken: list[LockRequest] = []
        if holding.whole is not None and not (holding.covered and kept >= holding.covered):
            by_name = holding.covered & kept
            lockset.free_whole(owner, woken)
            lockset.hold(owner, by_name, holding.whole)
            holding.named.update(dict.fromkeys(by_name, holding.whole))
            holding.whole, holding.covered = None, NO_NAMES
        gone = [name for name in holding.named if name not in kept]
        for name in gone:
            del holding.named[name]
        lockset.free(owner, gone, woken)
        return self._wake(lockset, woken) if woken else []

    def release_all(self, owner: int) -> list[LockOutcome]:
        """Withdraws the owner's request and frees everything it holds, last taken first."""
        record = self._owners.get(owner)
        if record is None:
            return []
        outcomes = self.cancel(owner) if record.request is not None else []
        for level in _LAST_FIRST:
            holding = record.held[level]
            if holding is not None:
                outcomes += self._free(owner, record, level, holding)
        self._forget_idle(owner, record)
        return outcomes

    def _free(self, owner: int, record: Owner, level: Level, holding: Holding) -> list[LockOutcome]:
        """Frees everything that the owner holds at a level."""
        lockset = self._levels[level]
        woken: list[LockRequest] = []
        if holding.whole is not None:
            lockset.free_whole(owner, woken)
        lockset.free(owner, holding.named, woken)
        record.held[level] = None
        return self._wake(lockset, woken) if woken else []

    def downgrade(
        self, owner: int, level: Level, names: Iterable[str] | None = None
    ) -> list[LockOutcome]:
        """Makes locks that the owner holds alone at a level shared; all if ``names`` is None.

        Raises ``LockError`` for a name that isn't held. A whole level is
        downgraded as a whole.
        """
        holding = self._holding(owner, level)[1] or Holding()
        owned = holding.names()
        chosen = owned if names is None else frozenset(names)
        if not chosen <= owned:
            raise self._not_held(owner, level, min(chosen - owned))
        whole = holding.whole is True and chosen >= holding.covered
        if holding.whole is True and not whole and not chosen <= holding.named.keys():
            raise LockError(f"Job {owner} holds the whole level {level.label}, not single locks")
        lockset = self._levels[level]
        woken: list[LockRequest] = []
        changed = [name for name, alone in holding.named.items() if alone and name in chosen]
        lockset.downgrade(owner, changed, woken)
        holding.named.update(dict.fromkeys(changed, False))
        if whole:
            lockset.downgrade_whole(owner, woken)
            holding.whole = False
        return self._wake(lockset, woken)

    # Members

    def add(self, level: Level, names: Iterable[str], owner: int | None = None) -> None:
        """Adds new members to a level, held alone by ``owner`` if that is given.

        If the owner already holds a name, because it asked to create it, it keeps
        it. This never waits, because owners of the whole level don't hold
        members added later. Raises ``LockError`` for a name that is already a member or that
        another owner holds, and for an owner without the cluster lock.
        """
        new = frozenset(names)
        lockset = self._levels[level]
        if level is Level.CLUSTER:
            raise LockError("No lock can be created at the cluster level")
        if new & lockset.members:
            name = min(new & lockset.members)
            raise LockError(f"The lock {lock_name(level, name)} already exists")
        if owner is not None:
            record, holding = self._holding(owner, level)
            if record is None or record.held[Level.CLUSTER] is None:
                raise LockError(f"Job {owner} doesn't hold the cluster lock")
            if record.request is not None:
                raise LockError(f"Job {owner} can't create locks while it is waiting for some")
            taken = {name for name in new if lockset.holds(name)}
            foreign = taken.difference(holding.named if holding is not None else ())
            if foreign:
                raise LockError(f"Another job holds {lock_name(level, min(foreign))}")
            fresh = new - taken
            if fresh:
                if holding is None:
                    holding = record.held[level] = Holding()
                lockset.hold(owner, fresh, True)
                holding.named.update(dict.fromkeys(fresh, True))
        lockset.add(new)

    def remove(self, owner: int, level: Level, name: str) -> list[LockOutcome]:
        """Removes a member from its level; the owner must hold it alone, and loses it.

        Requests that name it fail with a ``LockError`` that says so, except
        those that are to create it.
        """
        record, holding = self._holding(owner, level)
        lockset = self._levels[level]
        if level is Level.CLUSTER:
            raise LockError("The cluster lock can't be removed")
        if name not in lockset.members:
            raise LockError(f"There is no lock {lock_name(level, name)}")
        if record is None or holding is None or not holding.alone(name):
            raise self._not_held(owner, level, name)
        outcomes: list[LockOutcome] = []
        woken: list[LockRequest] = []
        for request in lockset.waiting_for(name):
            if name not in request.creating:
                self._withdraw(self._owners[request.owner], request, woken)
                error = LockError(f"The lock {lock_name(level, name)} was removed")
                outcomes.append(LockFailed(request.owner, level, error))
        lockset.discard(name)
        holding.covered -= {name}
        if holding.named.pop(name, None) is not None:
            lockset.free(owner, [name], woken)
        if holding.empty:
            record.held[level] = None
        return outcomes + self._wake(lockset, woken)

    # Looking

    def members(self, level: Level) -> frozenset[str]:
        """Returns the names of a level's members."""
        return self._levels[level].names()

    def owned(self, owner: int, level: Level) -> frozenset[str]:
        """Returns the names of the locks that an owner holds at a level."""
        holding = self._holding(owner, level)[1]
        return holding.names() if holding is not None else NO_NAMES

    def owned_alone(self, owner: int, level: Level) -> frozenset[str]:
        """Returns the names of the locks that an owner holds alone at a level."""
        holding = self._holding(owner, level)[1]
        if holding is None:
            return NO_NAMES
        return frozenset(name for name in holding.names() if holding.alone(name))

    def waits(self, owner: int) -> Level | None:
        """Returns the level at which an owner waits; None if it doesn't."""
        request = self._requests.get(owner)
        return request.level if request is not None else None

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._requests)

    def states(self) -> Iterator[LockState]:
        """Returns each lock that is held or waited for, by level.

        A level's own lock is included while any lock of the level is held by name.
        """
        for level in Level:
            yield from self._levels[level].states(level)

    # Within

    def _may_ask(self, owner: int, level: Level) -> Owner | None:
        record = self._owners.get(owner)
        if record is None:
            if level is not Level.CLUSTER:
                raise LockError(f"Job {owner} asks for {level.label} before the cluster lock")
            return None
        if record.request is not None:
            raise LockError(f"Job {owner} is already waiting for locks")
        held = record.held
        if held[Level.CLUSTER] is None and level is not Level.CLUSTER:
            raise LockError(f"Job {owner} asks for {level.label} before the cluster lock")
        for taken in held[level:]:
            if taken is not None:
                last = Level(max(i for i in Level if held[i] is not None))
                raise LockError(f"Job {owner} asks for {level.label} while it holds {last.label}")
        return record

    def _take_free(
        self, owner: int, level: Level, wanted: WantedLocks, minimum: int, priority: int
    ) -> LockDecision:
        lockset = self._levels[level]
        alone = wanted.mode is LockMode.EXCLUSIVE
        wished = lockset.names() if wanted.names is None else wanted.names & lockset.members
        place = lockset.next_place(priority, NO_NAMES, True)
        free = lockset.admitted_names(wished, place, alone)
        if len(free) < minimum:
            return NotEnough(owner, level, len(free))
        record = self._owners.get(owner)
        if record is None:
            record = self._owners[owner] = Owner()
        holding = record.held[level] = Holding()
        holding.named = dict.fromkeys(free, alone)
        lockset.hold(owner, free, alone)
        return Granted(owner, level, frozenset(free))

    def _grant(self, record: Owner, lockset: LockSet, request: LockRequest) -> Granted:
        level, names, alone = request.level, request.names, request.alone
        lockset.hold(request.owner, names, alone)
        holding = record.held[level] = Holding()
        if names is None:
            holding.whole = alone
            names = holding.covered = lockset.names()
        else:
            holding.named = dict.fromkeys(names, alone)
        return Granted(request.owner, level, names)

    def _withdraw(self, record: Owner, request: LockRequest, woken: list[LockRequest]) -> None:
        self._levels[request.level].abandon(request, woken)
        record.request = None
        del self._requests[request.owner]
        self._forget_idle(request.owner, record)

    def _move(self, request: LockRequest, priority: int, woken: list[LockRequest]) -> None:
        lockset = self._levels[request.level]
        lockset.abandon(request, woken)
        request.place = lockset.next_place(priority, request.names, request.alone)
        lockset.enqueue(request)
        woken.append(request)

    def _wake(self, lockset: LockSet, woken: list[LockRequest]) -> list[LockOutcome]:
        outcomes: list[LockOutcome] = []
        for request in sorted(set(woken), key=PLACE):
            if self._requests.get(request.owner) is request and lockset.admits(request):
                lockset.dequeue(request)
                record = self._owners[request.owner]
                record.request = None
                del self._requests[request.owner]
                outcomes.append(self._grant(record, lockset, request))
        return outcomes

    def _holding(self, owner: int, level: Level) -> tuple[Owner | None, Holding | None]:
        record = self._owners.get(owner)
        return (record, None) if record is None else (record, record.held[level])

    def _forget_idle(self, owner: int, record: Owner) -> None:
        if record.idle:
            self._owners.pop(owner, None)

    @staticmethod
    def _not_held(owner: int, level: Level, name: str) -> LockError:
        return LockError(f"Job {owner} doesn't hold {lock_name(level, name)} as required")
