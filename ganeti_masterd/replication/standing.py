"""The standings of a master candidate, and every step from one to the next. Pure."""

from __future__ import annotations

from enum import Enum

from ganeti_masterd.errors import ProgrammerError


class CandidateStanding(Enum):
    """The state of a candidate, as far as replication is concerned."""

    COMPARING = "comparing"
    CATCHING_UP = "catching up"
    CURRENT = "current"
    LAGGING = "lagging"
    STALE = "stale"
    GONE = "gone"


_COMPARING, _CATCHING_UP = CandidateStanding.COMPARING, CandidateStanding.CATCHING_UP
_CURRENT, _LAGGING = CandidateStanding.CURRENT, CandidateStanding.LAGGING
_STALE, _GONE = CandidateStanding.STALE, CandidateStanding.GONE

#: For each standing its meaning, and the standings that may follow.
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
        "failed a call, or an earlier call may still take effect: nothing is sent for a while",
        frozenset({_COMPARING, _GONE}),
    ),
    _GONE: ("is no longer another candidate", frozenset()),
}

#: The standings in which all publications go to the candidate's stream. A tuple with the most
#: frequent one first: it is searched for each change, and hashing an Enum member is slow.
STREAMING = (CandidateStanding.CURRENT, CandidateStanding.CATCHING_UP, CandidateStanding.LAGGING)


def step(before: CandidateStanding, after: CandidateStanding) -> CandidateStanding:
    """Returns ``after``; raises ``ProgrammerError`` unless the table allows that step."""
    if after not in TABLE[before][1]:
        raise ProgrammerError(f"A candidate that is {before.value} can't be {after.value} next")
    return after
