"""The pool of master candidates: counts, promotions and demotions."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.candidates import (
    CandidatePool,
    demotions,
    has_room,
    may_be_candidate,
    pool,
    promotions,
)
from ganeti_masterd.config.newcluster import new_cluster
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.verify import candidate_counts, verify
from tests.config.sample import EXAMPLES

#: Letters for nodes: master candidate, regular, drained, offline, not capable.
KINDS = "CRDOX"


def cluster(kinds: str, size: int) -> Snapshot:
    """Returns a cluster with a master, and other nodes of the kinds given by letters."""
    snapshot = new_cluster("cluster", len(kinds) + 1, 1000.0, candidate_pool_size=1)
    snapshot = snapshot.with_object("cluster", replace(snapshot.cluster, candidate_pool_size=size))
    for number, kind in enumerate(kinds, 2):
        node = replace(
            snapshot.node(f"node{number}"),
            master_candidate=kind == "C",
            drained=kind == "D",
            offline=kind == "O",
            master_capable=kind != "X",
        )
        snapshot = snapshot.with_object("nodes", node)
    return snapshot


def names(nodes: tuple[object, ...]) -> list[str]:
    return [node.name for node in nodes]  # type: ignore[attr-defined]


class PoolTests(SynchronousTestCase):
    """Counts, promotions, demotions."""

    def test_counts(self) -> None:
        """Offline, drained and incapable nodes can't be candidates."""
        self.assertEqual(pool(cluster("CRDOX", 10)), CandidatePool(2, 3, 3))
        self.assertEqual(pool(cluster("CRDOX", 2)), CandidatePool(2, 2, 3))
        self.assertEqual(pool(cluster("CRDOX", 2), size=5), CandidatePool(2, 3, 3))

    def test_without(self) -> None:
        """A node in ``without`` isn't counted anywhere."""
        snapshot = cluster("CR", 10)
        leaving = {snapshot.node("node2").uuid}
        self.assertEqual(pool(snapshot, without=leaving), CandidatePool(1, 2, 2))
        self.assertEqual(names(promotions(snapshot, without=leaving)), ["node3"])

    def test_natural_order(self) -> None:
        """Nodes are promoted in natural order of names, and demoted in reverse order."""
        snapshot = cluster("R" * 10, 3)
        self.assertEqual(names(promotions(snapshot)), ["node2", "node3"])
        snapshot = cluster("C" * 10, 3)
        self.assertEqual(names(demotions(snapshot, size=8)), ["node11", "node10", "node9"])

    def test_among(self) -> None:
        """Only nodes in ``among`` are demoted, even if too many candidates are left."""
        snapshot = cluster("CCC", 2)
        some = {snapshot.node(name).uuid for name in ("node1", "node2", "node3")}
        self.assertEqual(names(demotions(snapshot, among=some)), ["node3", "node2"])
        self.assertEqual(names(demotions(snapshot, size=1, among=some)), ["node3", "node2"])
        self.assertEqual(names(demotions(snapshot, among=())), [])

    def test_unfit(self) -> None:
        """A node in ``unfit`` is counted, but the next one is promoted instead."""
        snapshot = cluster("RR", 2)
        unfit = {snapshot.node("node2").uuid}
        self.assertEqual(names(promotions(snapshot, unfit=unfit)), ["node3"])

    def test_room(self) -> None:
        """A returning node becomes a candidate if the pool is smaller than it should be."""
        self.assertTrue(has_room(cluster("D", 2)))
        self.assertFalse(has_room(cluster("CD", 2)))
        snapshot = cluster("C", 2)
        self.assertTrue(has_room(snapshot, without={snapshot.node("node2").uuid}))

    def test_master_stays(self) -> None:
        """The master is never demoted, however small the pool."""
        self.assertEqual(names(demotions(cluster("", 1), size=1)), [])
        self.assertEqual(names(demotions(cluster("C", 1), size=1)), ["node2"])

    @settings(deadline=None, max_examples=EXAMPLES)
    @given(st.text(KINDS, max_size=8), st.integers(1, 10), st.integers(1, 10))
    def test_any_cluster(self, kinds: str, size: int, new_size: int) -> None:
        """After promotions and demotions the pool is as large as it should be."""
        snapshot = cluster(kinds, size)
        found = pool(snapshot)
        self.assertEqual((found.now, found.wanted), candidate_counts(snapshot))
        chosen = promotions(snapshot, size=new_size)
        self.assertTrue(all(may_be_candidate(node) for node in chosen))
        for node in chosen:
            snapshot = snapshot.with_object("nodes", replace(node, master_candidate=True))
        leaving = demotions(snapshot, size=new_size)
        self.assertFalse(chosen and leaving)
        for node in leaving:
            snapshot = snapshot.with_object("nodes", replace(node, master_candidate=False))
        changed = replace(snapshot.cluster, candidate_pool_size=new_size)
        snapshot = snapshot.with_object("cluster", changed)
        found = pool(snapshot)
        self.assertEqual((found.missing, found.surplus), (0, 0))
        self.assertEqual(verify(snapshot), [])
