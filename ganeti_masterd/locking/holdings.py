"""What one owner of locks holds at each level, and what it waits for. Pure."""

from __future__ import annotations

from typing import Final

from ganeti_masterd.locking.levels import Level
from ganeti_masterd.locking.line import LockRequest

NO_NAMES: Final[frozenset[str]] = frozenset()


class Holding:
    """What an owner holds at one level: by name, and through the level's own lock."""

    __slots__ = ("covered", "named", "whole")

    def __init__(self) -> None:
        #: The locks held by name, and whether each is held alone.
        self.named: dict[str, bool] = {}
        #: How the level's own lock is held: True alone, False shared, None not at all.
        self.whole: bool | None = None
        self.covered = NO_NAMES

    def names(self) -> frozenset[str]:
        """Returns all names held, either way."""
        return self.covered.union(self.named) if self.named else self.covered

    def alone(self, name: str) -> bool:
        """Whether a name is held alone, either way."""
        return self.named.get(name, False) or (self.whole is True and name in self.covered)

    @property
    def empty(self) -> bool:
        """Whether nothing is held, not even the level's own lock."""
        return self.whole is None and not self.named


_LEVELS = len(Level)


class Owner:
    """What an owner holds at each level (None for nothing), and the request it waits for."""

    __slots__ = ("held", "request")

    def __init__(self) -> None:
        self.held: list[Holding | None] = [None] * _LEVELS
        self.request: LockRequest | None = None

    @property
    def idle(self) -> bool:
        """Whether it holds nothing and waits for nothing."""
        return self.request is None and not any(self.held)

    @property
    def needs_cluster_lock(self) -> bool:
        """Whether it holds or waits for anything for which it must hold the cluster lock."""
        return self.request is not None or any(self.held[1:])
