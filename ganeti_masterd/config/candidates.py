"""The pool of master candidates: how large it is, and who should join or leave it. Pure.

There should be ``candidate_pool_size`` candidates, or all nodes that can be one if these
are fewer: nodes that are master capable and neither offline nor drained (real
master daemon 3.0.2). The real daemon promotes in random order; here it is the
natural order of names, so that the same cluster always gives the same answer.
"""

from __future__ import annotations

from collections.abc import Collection

from msgspec import Struct

from ganeti_masterd.config.objects import Node
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.ssconf import natural_key


class CandidatePool(Struct, frozen=True):
    """How many candidates there are, how many there should be, and how many there could be."""

    now: int
    wanted: int
    possible: int

    @property
    def missing(self) -> int:
        """How many more are needed; 0 if there are enough."""
        return max(0, self.wanted - self.now)

    @property
    def surplus(self) -> int:
        """How many more there are than there should be; 0 if there are no more."""
        return max(0, self.now - self.wanted)


def may_be_candidate(node: Node) -> bool:
    """Whether a node can be a master candidate."""
    return node.master_capable and not node.offline and not node.drained


def pool(
    snapshot: Snapshot, *, size: int | None = None, without: Collection[str] = ()
) -> CandidatePool:
    """Returns the state of the pool.

    ``size`` is a pool size other than the cluster's, such as one about to be set. Nodes in
    ``without`` (uuids) are left out of every count, as if they didn't exist.
    """
    counted = [node for node in snapshot.nodes.values() if node.uuid not in without]
    possible = sum(map(may_be_candidate, counted))
    limit = snapshot.cluster.candidate_pool_size if size is None else size
    now = sum(node.master_candidate for node in counted)
    return CandidatePool(now, min(limit, possible), possible)


def has_room(snapshot: Snapshot, *, without: Collection[str] = ()) -> bool:
    """Whether a node that has just become eligible should be made a candidate.

    ``without`` are nodes (uuids) not to be counted, such as that node if it already is one.
    """
    found = pool(snapshot, without=without)
    return found.now < min(found.possible + 1, snapshot.cluster.candidate_pool_size)


def promotions(
    snapshot: Snapshot,
    *,
    size: int | None = None,
    without: Collection[str] = (),
    unfit: Collection[str] = (),
) -> tuple[Node, ...]:
    """Returns the nodes to promote to fill the pool, fewer if not enough are eligible.

    ``size`` and ``without`` as for :func:`pool`; nodes in ``unfit`` (uuids) are counted
    but not promoted.
    """
    missing = pool(snapshot, size=size, without=without).missing
    chosen = [
        node
        for node in snapshot.nodes.values()
        if may_be_candidate(node)
        and not node.master_candidate
        and node.uuid not in without
        and node.uuid not in unfit
    ]
    return tuple(sorted(chosen, key=_by_name)[:missing])


def demotions(
    snapshot: Snapshot, *, size: int | None = None, among: Collection[str] | None = None
) -> tuple[Node, ...]:
    """Returns the candidates to demote so that no more are left than there should be.

    Never the master; the nodes whose names sort last are demoted first. ``size`` as for
    :func:`pool`. If ``among`` (uuids) is given, only these may be demoted, so that too
    many may be left.
    """
    surplus = pool(snapshot, size=size).surplus
    master = snapshot.cluster.master_node
    chosen = [
        node
        for node in snapshot.candidates()
        if node.uuid != master and (among is None or node.uuid in among)
    ]
    return tuple(sorted(chosen, key=_by_name, reverse=True)[:surplus])


def _by_name(node: Node) -> list[tuple[int, int, str]]:
    return natural_key(node.name)
