"""Where a job under way stands, and every step from one phase to the next. Pure."""

from __future__ import annotations

from enum import Enum

from ganeti_masterd.errors import ProgrammerError


class Phase(Enum):
    """Where a job's current opcode stands."""

    IDLE = "idle"
    PREPARING = "preparing"
    BLOCKED = "blocked"
    RESUMING = "resuming"
    GRANTED = "granted"
    STARTING = "starting"
    RUNNING = "running"
    OFF_SLOT = "off slot"
    RECLAIMING = "reclaiming"
    ENDED = "ended"

    # There is one of each, and they are equal if they are the same. Enum's own hash is that of
    # the name, by a Python function, which each look into :data:`TABLE` would call.
    __hash__ = object.__hash__


_IDLE, _PREPARING, _BLOCKED, _RESUMING = (
    Phase.IDLE,
    Phase.PREPARING,
    Phase.BLOCKED,
    Phase.RESUMING,
)
_GRANTED, _STARTING, _RUNNING, _ENDED = Phase.GRANTED, Phase.STARTING, Phase.RUNNING, Phase.ENDED
_OFF_SLOT, _RECLAIMING = Phase.OFF_SLOT, Phase.RECLAIMING

#: From each phase what the job's current opcode does in it, and the phases that may follow.
TABLE: dict[Phase, tuple[str, frozenset[Phase]]] = {
    _IDLE: ("is about to be expanded", frozenset({_PREPARING, _BLOCKED, _STARTING, _ENDED})),
    _PREPARING: (
        "does in a thread what must come before its locks",
        frozenset({_BLOCKED, _STARTING, _ENDED}),
    ),
    _BLOCKED: (
        "waits for a lock or for resources; the slot is another job's",
        frozenset({_GRANTED, _RESUMING, _ENDED}),
    ),
    _RESUMING: ("has waited for resources and waits for a slot", frozenset({_IDLE, _ENDED})),
    _GRANTED: (
        "has its lock and waits for a slot",
        frozenset({_BLOCKED, _STARTING, _ENDED}),
    ),
    _STARTING: (
        "has all locks; ``running`` is being committed",
        frozenset({_RUNNING, _ENDED}),
    ),
    _RUNNING: (
        "is in its thread, or its result is being committed",
        frozenset({_IDLE, _BLOCKED, _OFF_SLOT, _ENDED}),
    ),
    _OFF_SLOT: (
        "waits in its thread for something that takes long; the slot is another job's",
        frozenset({_RECLAIMING, _ENDED}),
    ),
    _RECLAIMING: (
        "has waited in its thread and waits for a slot",
        frozenset({_RUNNING, _ENDED}),
    ),
    _ENDED: ("is over, or the daemon stops: no locks, no reservations", frozenset()),
}

#: Where a job waits without a thread of its own: it may be cancelled, or left for a stop.
WAITING = frozenset({_BLOCKED, _RESUMING, _GRANTED})
#: Where a job has a thread, or is about to get one: a kill ends it.
KILLABLE = frozenset({_PREPARING, _STARTING, _RUNNING, _OFF_SLOT, _RECLAIMING})
#: Where a job has a thread, but no slot.
WITHOUT_SLOT = frozenset({_OFF_SLOT, _RECLAIMING})


def step(before: Phase, after: Phase) -> Phase:
    """Returns the phase after a step; raises ``ProgrammerError`` for one that isn't there."""
    if after not in TABLE[before][1]:
        raise ProgrammerError(f"A job that is {before.value} can't be {after.value} next")
    return after
