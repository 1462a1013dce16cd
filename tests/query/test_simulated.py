"""Live queries over simulated nodes: slow, silent and offline ones."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from ganeti_masterd.config.newcluster import new_cluster
from ganeti_masterd.query.collectors import PATIENCE
from ganeti_masterd.query.engine import QueryEngine
from ganeti_masterd.rpc.interfaces import INodeRPC
from ganeti_masterd.simulation.cluster import SimulatedNodes
from ganeti_masterd.timing import Timers
from tests.query.scene import Jobs, State


class SimulatedTests(SynchronousTestCase):
    """An engine over a simulated cluster."""

    def build(self, count: int, latency: Any = 0.0) -> QueryEngine:
        """Makes a cluster with so many nodes, of which node2 is offline."""
        self.clock = Clock()
        timers = Timers(self.clock)
        snapshot = new_cluster("test", count, 1000.0)
        offline = replace(snapshot.node("node2"), offline=True, master_candidate=False)
        self.snapshot = snapshot.with_object("nodes", offline)
        self.nodes = SimulatedNodes(timers, latency=latency)
        self.successResultOf(self.nodes.start())
        verifyObject(INodeRPC, self.nodes)
        return QueryEngine(timers, lambda: self.snapshot, self.nodes, Jobs(), lambda: [], State())

    def wait(self, answer: Any, seconds: float) -> Any:
        """Returns the answer, which must arrive after exactly so many seconds."""
        assert isinstance(answer, Deferred)
        if seconds:
            self.assertNoResult(answer)
            self.clock.advance(seconds - 0.001)
            self.assertNoResult(answer)
        self.clock.advance(0.001)
        self.clock.pump([0.0] * 50)
        return self.successResultOf(answer)

    def test_nodes(self) -> None:
        """Nodes report their resources; the offline one is marked as such."""
        engine = self.build(3)
        fields = ["name", "mtotal", "mfree", "ctotal", "dtotal", "dfree", "bootid"]
        rows = self.wait(engine.query("node", fields), 0)["data"]
        self.assertEqual([row[0][1] for row in rows], ["node1", "node2", "node3"])
        for row in (rows[0], rows[2]):
            for status, value in row:
                self.assertEqual(status, 0)
                self.assertTrue(value)
        self.assertEqual({cell.status for cell in rows[1][1:]}, {4})

    def test_slow_ones_answer_together(self) -> None:
        """With a hundred nodes that take 20 ms each, the answer takes 20 ms."""
        engine = self.build(100, latency=0.02)
        rows = self.wait(engine.query("node", ["name", "mfree"]), 0.02)["data"]
        self.assertEqual(len(rows), 100)
        self.assertEqual([row[0][1] for row in rows[:3]], ["node1", "node2", "node3"])

    def test_silent_one(self) -> None:
        """A node that never answers delays the answer for no longer than the limit."""
        engine = self.build(4, latency={"node3": 10_000.0})
        rows = self.wait(engine.nodes([], ["name", "mfree"]), PATIENCE)
        self.assertEqual([name for name, free in rows if free is None], ["node2", "node3"])

    def test_operating_systems(self) -> None:
        """The OS that simulated nodes have is valid."""
        engine = self.build(3)
        rows = self.wait(engine.query("os", ["name", "valid", "api_versions"]), 0)["data"]
        self.assertEqual(rows, [[(0, "noop"), (0, True), (0, [5, 10])]])

    def test_exports(self) -> None:
        """A node without exports has no row, or in QueryExports one without an export."""
        engine = self.build(3)
        for node, export in self.wait(engine.exports([]), 0):
            self.assertIn(node, ("node1", "node2", "node3"))
            self.assertIsNone(export)
