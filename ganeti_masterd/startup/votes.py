"""Decides by the other nodes' votes whether this node is the master. Pure.

See protocol/startup.rst, The vote.

This node isn't asked. Each other node has one vote, for the name that it answers; no answer, or one
that isn't a name, is a vote for nobody.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any

from msgspec import Struct

#: How many times all nodes are asked while most votes are for nobody, so that a cold start of the
#: whole cluster succeeds.
TRIES = 6
#: Seconds between an undecided round and the next.
PAUSE = 10.0

#: A node's vote: a name, or None for nobody.
Vote = str | None

#: The longest name that a host can have.
_NAME_MAX = 255


class VoteOutcome(Enum):
    """The outcome of one round of votes."""

    AGREED = "the nodes agree that this node is master"
    AGAIN = "nobody is ahead: the nodes are to be asked again"
    LOST = "this node must not act as master"


class VoteVerdict(Struct, frozen=True):
    """An outcome, and a text that explains it to the operator."""

    outcome: VoteOutcome
    reason: str


class Tally(Struct, frozen=True):
    """Counted votes: ``ranks`` has pairs ``(name, count)`` from the most votes to the fewest."""

    ranks: tuple[tuple[Vote, int], ...]

    @property
    def total(self) -> int:
        """The number of votes."""
        return sum(count for _, count in self.ranks)


def vote_of(answer: Any) -> Vote:
    """Returns the vote in a node's answer; anything except a name is a vote for nobody."""
    if isinstance(answer, str) and 0 < len(answer) <= _NAME_MAX and answer.isprintable():
        return answer if answer == "".join(answer.split()) else None
    return None


def tally(votes: Iterable[Vote]) -> Tally:
    """Counts votes. With equal votes the greater name goes first, and nobody after every name."""
    counted = Counter(votes).items()
    ranks = sorted(counted, key=lambda item: (item[1], item[0] is not None, item[0] or ""))
    return Tally(tuple(reversed(ranks)))


def decide(own: str, votes: Sequence[Vote], tries_left: int) -> VoteVerdict:
    """Judges one round; ``tries_left`` is how many more rounds are allowed.

    This node needs at least as many votes as all other names and nobody together: of 3 nodes one of
    the 2 others is enough, of 4 nodes 2 of 3, and in a cluster of two the other node is needed.
    """
    counted = tally(votes)
    if not counted.total:
        return VoteVerdict(VoteOutcome.AGREED, "there is no other node")
    top, most = counted.ranks[0]
    if top is None:
        if tries_left > 0:
            return VoteVerdict(VoteOutcome.AGAIN, f"most of the other nodes don't answer ({most})")
        return VoteVerdict(
            VoteOutcome.LOST,
            f"most of the other nodes don't answer ({most} of {counted.total}); if this node is"
            " the master for certain, and no other can be, start it with --no-voting",
        )
    if top != own:
        return VoteVerdict(
            VoteOutcome.LOST,
            f"{top} is the master by {most} of {counted.total} votes, not this node ({own})",
        )
    if most < counted.total - most:
        return VoteVerdict(
            VoteOutcome.LOST,
            f"only {most} of {counted.total} other nodes take this node ({own}) for the master",
        )
    return VoteVerdict(VoteOutcome.AGREED, f"{most} of {counted.total} other nodes agree")
