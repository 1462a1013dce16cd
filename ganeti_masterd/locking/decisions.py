"""What the lock table decides, as values: the answer to a request, what came of others."""

from __future__ import annotations

from msgspec import Struct

from ganeti_masterd.errors import LockError
from ganeti_masterd.locking.levels import Level, LockMode


class Granted(Struct, frozen=True):
    """The owner has these locks now (for a whole level: its members of this moment)."""

    owner: int
    level: Level
    names: frozenset[str]


class Waiting(Struct, frozen=True):
    """The owner stands in line; a later operation grants or fails the request."""

    owner: int
    level: Level


class NotEnough(Struct, frozen=True):
    """Too few locks are free for an opportunistic request; nothing is held or awaited."""

    owner: int
    level: Level
    free: int


class LockFailed(Struct, frozen=True):
    """The owner's request ended without its locks."""

    owner: int
    level: Level
    error: LockError


class Aged(Struct, frozen=True):
    """The owner's request waited so long that its priority is now this."""

    owner: int
    priority: int


class LockState(Struct, frozen=True):
    """A lock that is held or awaited; ``name`` null is the level's own lock.

    ``pending`` is in the order of the lines, those who share and stand together
    in one entry.
    """

    level: Level
    name: str | None
    mode: LockMode | None
    owners: tuple[int, ...]
    pending: tuple[tuple[LockMode, tuple[int, ...]], ...]


LockDecision = Granted | Waiting | NotEnough
LockOutcome = Granted | LockFailed
