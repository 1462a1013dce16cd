"""The levels of locks, and how a logical unit declares what it wants at each.

Locks are taken level by level, downwards, which makes deadlocks
impossible. The cluster level has a single lock, :data:`BGL`; instances are
locked by name, everything else by uuid (protocol/luxi.rst, Filters).

A logical unit declares a :class:`WantedLocks` for each level, made by
:func:`exclusive`, :func:`shared`, :func:`opportunistic`, or one of the values
:data:`nothing`, :data:`all_shared` and :data:`all_exclusive`.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, IntEnum
from typing import Final

from msgspec import Struct

from ganeti_masterd.errors import ProgrammerError

#: The one lock of the cluster level: shared by every opcode, or held alone.
BGL: Final = "BGL"

#: The name under which lists of locks show a whole level's own lock.
LOCKSET: Final = "[lockset]"


class Level(IntEnum):
    """The levels, in the order in which locks are taken."""

    CLUSTER = 0
    INSTANCE = 1
    NODEGROUP = 2
    NODE = 3
    NODE_RES = 4
    NETWORK = 5

    @property
    def label(self) -> str:
        """Ganeti's name of the level."""
        return self.name.lower().replace("_", "-")


class LockMode(Enum):
    """How a lock is held; the lock query shows these values."""

    SHARED = "shared"
    EXCLUSIVE = "exclusive"


def lock_name(level: Level, name: str) -> str:
    """Returns a lock's full name, such as ``node-res/UUID``."""
    return f"{level.label}/{name}"


class WantedLocks(Struct, frozen=True):
    """The locks that an opcode wants at one level.

    If ``names`` is None, the whole level is wanted: its own lock and every member.
    ``creating`` (a subset of ``names``) need not be members yet, because an object's name
    is locked before the object is created. If ``minimum`` isn't None, the request is
    opportunistic: it takes those of ``names`` that are free, if they are at least that
    many. Raises ``ProgrammerError`` for a combination that makes no sense.
    """

    mode: LockMode
    names: frozenset[str] | None
    creating: frozenset[str] = frozenset()
    minimum: int | None = None

    def __post_init__(self) -> None:
        if self.creating:
            if self.names is None or not self.creating <= self.names:
                raise ProgrammerError("A lock to be created must be among those named")
            if self.mode is not LockMode.EXCLUSIVE or self.minimum is not None:
                raise ProgrammerError("A lock to be created can't be shared or opportunistic")
        if self.minimum is not None and self.minimum < 1:
            raise ProgrammerError(f"An opportunistic minimum of {self.minimum} makes no sense")

    @property
    def empty(self) -> bool:
        """Whether nothing is wanted."""
        return self.names is not None and not self.names

    def for_certain(self) -> WantedLocks:
        """Returns a request for all of the same locks that isn't opportunistic."""
        return WantedLocks(self.mode, self.names)


LockNames = str | Iterable[str]


def _names(names: LockNames) -> frozenset[str]:
    return frozenset((names,)) if isinstance(names, str) else frozenset(names)


def exclusive(names: LockNames, *, creating: LockNames = ()) -> WantedLocks:
    """Wants one or several locks alone, and those in ``creating``, which need not exist yet."""
    new = _names(creating)
    return WantedLocks(LockMode.EXCLUSIVE, _names(names) | new, new)


def shared(names: LockNames) -> WantedLocks:
    """Wants one or several locks, shared with others."""
    return WantedLocks(LockMode.SHARED, _names(names))


def opportunistic(
    names: LockNames | None, minimum: int = 1, *, mode: LockMode = LockMode.EXCLUSIVE
) -> WantedLocks:
    """Wants those of ``names`` (None: of all members) that are free, at least ``minimum``."""
    return WantedLocks(mode, None if names is None else _names(names), minimum=minimum)


#: Wants no lock at this level.
nothing: Final = WantedLocks(LockMode.SHARED, frozenset())

#: Wants the whole level, shared with others.
all_shared: Final = WantedLocks(LockMode.SHARED, None)

#: Wants the whole level, alone.
all_exclusive: Final = WantedLocks(LockMode.EXCLUSIVE, None)
