"""Decides whether the other nodes let this one become the master. Pure.

Unlike the vote before the daemon starts (:mod:`ganeti_masterd.startup.votes`) this
one is about who the master *was*: a node whose ssconf is out of date, or that sees
only a minority, must not make itself the master.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from ganeti_masterd.startup.votes import Vote


def refusal(old: str, own: str, votes: Mapping[str, Vote]) -> str | None:
    """Returns why ``own`` may not take over from ``old``, or None if it may.

    ``votes`` has the name that each *other* node gives for the master, None for no name; this node
    itself votes for ``old``. More than half of all nodes must give a name, and any third node must
    have fewer votes than ``old`` and ``own`` together (votes for ``own`` are from a fail-over that
    was cut short), as for ``gnt-cluster master-failover`` 3.0.2.
    """
    total = len(votes) + 1
    silent = sorted(node for node, vote in votes.items() if vote is None)
    answers = total - len(silent)
    if 2 * answers <= total:
        return (
            f"only {answers} of {total} nodes answer, this one included (not: {', '.join(silent)})"
        )
    counted = Counter(vote for vote in votes.values() if vote is not None)
    ours = 1 + counted.pop(old, 0) + counted.pop(own, 0)
    ranks = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    if ranks and ranks[0][1] >= ours:
        name, most = ranks[0]
        return (
            f"{most} of {total} nodes take {name} for the master, not {old} ({ours}), which this"
            " node takes for it: its ssconf is out of date"
        )
    return None
