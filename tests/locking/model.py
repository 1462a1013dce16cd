"""A lock table that is slow but obviously right, to compare the real one with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ganeti_masterd.constants import OP_PRIO_HIGHEST
from ganeti_masterd.locking.levels import BGL, Level


class Refused(Exception):
    """The rules forbid the operation."""


@dataclass
class Held:
    """What one owner holds at one level."""

    named: dict[str, bool] = field(default_factory=dict)
    whole: bool | None = None
    covered: set[str] = field(default_factory=set)

    def names(self) -> set[str]:
        return set(self.named) | self.covered

    def alone(self) -> set[str]:
        return {n for n, alone in self.named.items() if alone} | (
            self.covered if self.whole else set()
        )


@dataclass
class Wish:
    """A request that waits."""

    owner: int
    level: Level
    names: frozenset[str] | None
    creating: frozenset[str]
    alone: bool
    priority: int
    aged_since: float
    place: tuple[int, int] = (0, 0)


class Model:
    """The model: answers each question by looking at everything."""

    def __init__(self) -> None:
        self.members: dict[Level, set[str]] = {level: set() for level in Level}
        self.members[Level.CLUSTER] = {BGL}
        self.held: dict[tuple[int, Level], Held] = {}
        self.waiting: list[Wish] = []
        self.arrivals = 0

    def holds(self, owner: int, level: Level) -> Held | None:
        return self.held.get((owner, level))

    def wish_of(self, owner: int) -> Wish | None:
        return next((wish for wish in self.waiting if wish.owner == owner), None)

    # The rules

    def clashes(self, wish: Wish, held: Held) -> bool:
        """Whether a wish conflicts with a holder at its level."""
        if held.whole is not None and (wish.alone or held.whole):
            return True
        return any(
            wish.alone or alone
            for name, alone in held.named.items()
            if wish.names is None or name in wish.names
        )

    def rivals(self, one: Wish, other: Wish) -> bool:
        """Whether two wishes conflict."""
        if one.level != other.level or not (one.alone or other.alone):
            return False
        return one.names is None or other.names is None or bool(one.names & other.names)

    def grantable(self, wish: Wish) -> bool:
        """Whether a wish conflicts with no holder and with no wish before it."""
        held = any(self.clashes(wish, it) for (_, at), it in self.held.items() if at == wish.level)
        before = [it for it in self.waiting if it is not wish and it.place < wish.place]
        return not held and not any(self.rivals(wish, other) for other in before)

    def put(self, wish: Wish, priority: int) -> None:
        """Gives a wish its place and makes it wait."""
        self.arrivals += 1
        wish.place = (priority, self.arrivals)
        if not wish.alone:
            same = [
                other.place
                for other in self.waiting
                if not other.alone
                and (other.level, other.names) == (wish.level, wish.names)
                and other.place[0] == priority
            ]
            wish.place = min([wish.place, *same])
        self.waiting.append(wish)

    def settle(self) -> list[Any]:
        """Grants whatever can be granted, until nothing can."""
        outcomes = []
        while ready := [wish for wish in self.waiting if self.grantable(wish)]:
            wish = min(ready, key=lambda wish: wish.place)
            self.waiting.remove(wish)
            held = self.held[wish.owner, wish.level] = Held()
            if wish.names is None:
                held.whole, held.covered = wish.alone, set(self.members[wish.level])
            else:
                held.named = dict.fromkeys(wish.names, wish.alone)
            outcomes.append((wish.owner, frozenset(held.names())))
        return outcomes

    # The operations

    def request(
        self, wish: Wish, minimum: int | None = None
    ) -> tuple[frozenset[str] | int | None, list[Any]]:
        """Returns the names granted, None if it waits, or how many are free if too few."""
        owner, level = wish.owner, wish.level
        if self.wish_of(owner) or any(self.holds(owner, at) for at in Level if at >= level):
            raise Refused
        if level is not Level.CLUSTER and not self.holds(owner, Level.CLUSTER):
            raise Refused
        if minimum is not None:
            return self.take_free(wish, minimum), []
        if wish.names is None and level is Level.CLUSTER:
            raise Refused
        if wish.names is not None:
            if wish.names - self.members[level] - wish.creating:
                raise Refused
            if level is Level.CLUSTER and wish.names - {BGL}:
                raise Refused
            if not wish.names:
                return frozenset(), []
        self.put(wish, wish.priority)
        outcomes = self.settle()
        mine = next((names for who, names in outcomes if who == owner), None)
        return mine, [each for each in outcomes if each[0] != owner]

    def take_free(self, wish: Wish, minimum: int) -> frozenset[str] | int:
        names = self.members[wish.level] if wish.names is None else wish.names
        self.arrivals += 1
        free = []
        for name in names & self.members[wish.level]:
            one = Wish(wish.owner, wish.level, frozenset({name}), frozenset(), wish.alone, 0, 0)
            one.place = (wish.priority, self.arrivals)
            if self.grantable(one):
                free.append(name)
        if len(free) < minimum:
            return len(free)
        self.held[wish.owner, wish.level] = Held(dict.fromkeys(free, wish.alone))
        return frozenset(free)

    def cancel(self, owner: int) -> list[Any]:
        self.waiting = [wish for wish in self.waiting if wish.owner != owner]
        return self.settle()

    def set_priority(self, owner: int, priority: int, now: float) -> list[Any]:
        wish = self.wish_of(owner)
        if wish is not None:
            wish.priority, wish.aged_since = priority, now
            self.waiting.remove(wish)
            self.put(wish, priority)
        return self.settle()

    def age(self, now: float) -> tuple[set[tuple[int, int]], list[Any]]:
        changes = set()
        for wish in sorted(self.waiting, key=lambda wish: wish.place):
            steps = int((now - wish.aged_since) / 1800)
            priority = max(OP_PRIO_HIGHEST, wish.priority - steps)
            if priority != wish.place[0]:
                changes.add((wish.owner, priority))
                self.waiting.remove(wish)
                self.put(wish, priority)
        return changes, self.settle()

    def release(self, owner: int, level: Level, keep: frozenset[str]) -> list[Any]:
        held = self.holds(owner, level)
        if held is None:
            return []
        kept = held.names() & keep
        busy = self.wish_of(owner) or any(self.holds(owner, at) for at in Level if at > level)
        if level is Level.CLUSTER and not kept and busy:
            raise Refused
        if held.whole is not None and not (held.covered and held.covered <= kept):
            for name in held.covered & kept:
                held.named.setdefault(name, held.whole)
            held.whole, held.covered = None, set()
        held.named = {name: alone for name, alone in held.named.items() if name in kept}
        if held.whole is None and not held.named:
            del self.held[owner, level]
        return self.settle()

    def release_all(self, owner: int) -> list[Any]:
        self.waiting = [wish for wish in self.waiting if wish.owner != owner]
        self.held = {key: held for key, held in self.held.items() if key[0] != owner}
        return self.settle()

    def downgrade(self, owner: int, level: Level, names: frozenset[str] | None) -> list[Any]:
        held = self.holds(owner, level) or Held()
        chosen = held.names() if names is None else names
        if chosen - held.names():
            raise Refused
        if held.whole:
            if held.covered <= chosen:
                held.whole = False
            elif chosen - set(held.named):
                raise Refused
        held.named = {n: alone and n not in chosen for n, alone in held.named.items()}
        return self.settle()

    def add(self, level: Level, name: str, owner: int | None) -> None:
        if level is Level.CLUSTER or name in self.members[level]:
            raise Refused
        if owner is not None:
            if not self.holds(owner, Level.CLUSTER) or self.wish_of(owner):
                raise Refused
            for (who, at), held in self.held.items():
                if at == level and name in held.named and who != owner:
                    raise Refused
            self.held.setdefault((owner, level), Held()).named.setdefault(name, True)
        self.members[level].add(name)

    def remove(self, owner: int, level: Level, name: str) -> tuple[set[int], list[Any]]:
        held = self.holds(owner, level)
        if level is Level.CLUSTER or name not in self.members[level]:
            raise Refused
        if held is None or name not in held.alone():
            raise Refused
        failed = {
            wish.owner
            for wish in self.waiting
            if wish.level == level and name in (wish.names or ()) and name not in wish.creating
        }
        self.waiting = [wish for wish in self.waiting if wish.owner not in failed]
        self.members[level].discard(name)
        held.covered.discard(name)
        held.named.pop(name, None)
        if held.whole is None and not held.named:
            del self.held[owner, level]
        return failed, self.settle()
