"""Decisions of the lock table, as values: answers to requests, and what became of others."""

from __future__ import annotations

from msgspec import Struct

from ganeti_masterd.errors import LockError
from ganeti_masterd.locking.levels import Level, LockMode


class Granted(Struct, frozen=True):
    """The owner now holds these locks (for a whole level: its members at this moment)."""

    owner: int
    level: Level
    names: frozenset[str]


class Waiting(Struct, frozen=True):
    """The request has to wait; a later operation grants or fails it."""

    owner: int
    level: Level


class NotEnough(Struct, frozen=True):
    """Too few locks are free for an opportunistic request; the owner neither holds nor waits."""

    owner: int
    level: Level
    free: int


class LockFailed(Struct, frozen=True):
    """The owner's request ended without its locks."""

    owner: int
    level: Level
    error: LockError


class Aged(Struct, frozen=True):
    """The owner's request has waited so long that its priority was raised to this."""

    owner: int
    priority: int


class LockState(Struct, frozen=True):
    """A lock that is held or waited for; if ``name`` is None, the level's own lock.

    ``pending`` lists (mode, owners) in the order of waiting; adjacent sharers form one entry.
    """

    level: Level
    name: str | None
    mode: LockMode | None
    owners: tuple[int, ...]
    pending: tuple[tuple[LockMode, tuple[int, ...]], ...]


LockDecision = Granted | Waiting | NotEnough
LockOutcome = Granted | LockFailed
