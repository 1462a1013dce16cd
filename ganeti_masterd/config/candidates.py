"""The pool of master candidates: how large it is, and who should join or leave it. Pure.

There should be as many candidates as ``candidate_pool_size`` says, or as many as
could be: nodes that are master capable, neither offline nor drained (real
master daemon 3.0.2). The real one promotes in random order; here it is the
natural order of names, so that the same cluster always gives the same answer.
"""

from __future__ import annotations

from collections.abc import Collection

from msgspec import Struct

from ganeti_masterd.config.objects import Node
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.ssconf import natural_key


class CandidatePool(Struct, frozen=True):
    """How many candidates there are, there should be, and there could be."""

    now: int
    wanted: int
    possible: int

    @property
    def missing(self) -> int:
        """How many have to be promoted; 0 if there are enough."""
        return max(0, self.wanted - self.now)

    @property
    def surplus(self) -> int:
        """How many more there are than there should be."""
        return max(0, self.now - self.wanted)


def may_be_candidate(node: Node) -> bool:
    """Whether a node can be a master candidate."""
    return node.master_capable and not node.offline and not node.drained


def pool(
    snapshot: Snapshot, *, size: int | None = None, without: Collection[str] = ()
) -> CandidatePool:
    """Returns the state of the pool.

    ``size`` is a pool size to come, null for the cluster's. Nodes in ``without``
    (uuids) are left out of every count, as if they weren't there.
    """
    counted = [node for node in snapshot.nodes.values() if node.uuid not in without]
    possible = sum(map(may_be_candidate, counted))
    limit = snapshot.cluster.candidate_pool_size if size is None else size
    now = sum(node.master_candidate for node in counted)
    return CandidatePool(now, min(limit, possible), possible)


def has_room(snapshot: Snapshot, *, without: Collection[str] = ()) -> bool:
    """Whether a node that could not be a candidate so far should become one now.

    ``without`` are nodes not to be counted, such as the node itself where it is one by now.
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
    """Returns the nodes to be promoted so that the pool is full, or as many as there are.

    ``size`` and ``without`` as for :func:`pool`; those in ``unfit`` (uuids) count
    but are not promoted.
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
    """Returns the candidates to be demoted so that no more are left than there should be.

    Never the master; those whose names come last go first. ``size`` as for
    :func:`pool`. With ``among`` (uuids) only these may go, so that too many may
    be left.
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
