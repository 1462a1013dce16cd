"""Where a master candidate stands, and every step from one standing to the next. Pure."""

from __future__ import annotations

from enum import Enum

from ganeti_masterd.errors import ProgrammerError


class CandidateStanding(Enum):
    """Where a candidate stands."""

    COMPARING = "comparing"
    CATCHING_UP = "catching up"
    CURRENT = "current"
    LAGGING = "lagging"
    STALE = "stale"
    GONE = "gone"


_COMPARING, _CATCHING_UP = CandidateStanding.COMPARING, CandidateStanding.CATCHING_UP
_CURRENT, _LAGGING = CandidateStanding.CURRENT, CandidateStanding.LAGGING
_STALE, _GONE = CandidateStanding.STALE, CandidateStanding.GONE

#: From each standing what it means, and those that may follow.
TABLE: dict[CandidateStanding, tuple[str, frozenset[CandidateStanding]]] = {
    _COMPARING: ("is asked which files it holds", frozenset({_CATCHING_UP, _STALE, _GONE})),
    _CATCHING_UP: (
        "gets what it lacks, and what is published meanwhile",
        frozenset({_CURRENT, _STALE, _GONE}),
    ),
    _CURRENT: ("is waited for: what it lacks is on its way", frozenset({_LAGGING, _STALE, _GONE})),
    _LAGGING: (
        "was too slow: it gets everything, but nobody waits for it",
        frozenset({_CURRENT, _STALE, _GONE}),
    ),
    _STALE: (
        "failed a call, or a call of before may still be done: nothing is sent for a while",
        frozenset({_COMPARING, _GONE}),
    ),
    _GONE: ("is no other candidate any more", frozenset()),
}

#: In which everything that is published goes to the candidate's stream. The most usual is
#: first: this is asked for each change, and the hash of an Enum's member is slow.
STREAMING = (CandidateStanding.CURRENT, CandidateStanding.CATCHING_UP, CandidateStanding.LAGGING)


def step(before: CandidateStanding, after: CandidateStanding) -> CandidateStanding:
    """Returns the standing after a step; raises ``ProgrammerError`` for one that isn't there."""
    if after not in TABLE[before][1]:
        raise ProgrammerError(f"A candidate that is {before.value} can't be {after.value} next")
    return after
