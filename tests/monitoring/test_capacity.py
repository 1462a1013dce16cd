"""Tests of the metrics for which nodes are asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail

from tests.monitoring.scene import MonitoringScene

NODES = [["node1", 8, 1000, 400, 5000, 3000], ["node2", 4, None, None, 600, 500]]
INSTANCES = [
    ["web1", True, 128, 2, "node1", ["node2"]],
    ["web2", False, None, None, "node1", []],
    ["web3", None, None, None, "node2", []],
]
NODE1 = {"cluster": "cluster.example", "node": "node1"}
NODE2 = {"cluster": "cluster.example", "node": "node2"}


class CapacityTests(MonitoringScene):
    """``--monitoring-nodes``."""

    def setUp(self) -> None:
        super().setUp()
        self.called: list[str] = []
        self.answers: dict[str, Any] = {"node": NODES, "instance": INSTANCES}
        self.monitoring = self.make_monitoring(nodes_interval=60.0)

    def measure(self, resource: str, names: Sequence[str], fields: Sequence[str]) -> Any:
        self.called.append(resource)
        for row in self.answers[resource] if isinstance(self.answers[resource], list) else []:
            self.assertEqual(len(row), len(fields))
        return self.answers[resource]

    def test_values(self) -> None:
        """Each metric has what nodes say; what they don't say is left out."""
        self.begin()
        self.assertEqual(self.value("ganeti_node_ctotal", **NODE1), 8)
        self.assertEqual(self.value("ganeti_node_mfree", **NODE1), 400)
        self.assertIsNone(self.value("ganeti_node_mfree", **NODE2))
        self.assertEqual(self.value("ganeti_node_dfree", **NODE2), 500)
        self.assertEqual(self.value("ganeti_node_p_oper_vcpus", **NODE1), 2)
        self.assertEqual(self.value("ganeti_node_s_oper_vcpus", **NODE2), 2)
        # web3 runs there with nobody knows how many.
        self.assertIsNone(self.value("ganeti_node_p_oper_vcpus", **NODE2))
        for name, memory in (("web1", 128), ("web2", 0), ("web3", None)):
            labels = {"cluster": "cluster.example", "instance": name}
            self.assertEqual(self.value("ganeti_instance_oper_ram", **labels), memory)
        self.assertEqual(self.value("ganeti_nodes_asked_timestamp_seconds"), 1000.0)

    def test_never_by_a_scrape(self) -> None:
        """Nodes are asked at the interval, and by no scrape."""
        self.begin()
        for _ in range(5):
            self.metrics()
        self.assertEqual(self.called, ["node", "instance"])
        self.clock.advance(60)
        self.assertEqual(self.called, ["node", "instance"] * 2)

    def test_not_asked_for(self) -> None:
        """Without the option there are no such metrics, and no call."""
        self.monitoring = self.make_monitoring()
        self.begin()
        self.assertIsNone(self.value("ganeti_node_ctotal", **NODE1))
        self.assertEqual(self.called, [])

    def test_slow_nodes(self) -> None:
        """While nodes haven't answered they aren't asked again; what they said before is shown."""
        self.begin()
        waiting: Deferred[Any] = Deferred()
        self.answers["node"] = waiting
        self.clock.advance(60)
        self.clock.advance(60)
        self.assertEqual(self.called, ["node", "instance", "node"])
        self.assertEqual(self.value("ganeti_node_ctotal", **NODE1), 8)
        waiting.callback(NODES[:1])
        self.assertIsNone(self.value("ganeti_node_dfree", **NODE2))
        self.assertEqual(self.value("ganeti_nodes_asked_timestamp_seconds"), 1060.0)

    def test_failure(self) -> None:
        """A round that fails is logged and shows nothing; the next one does."""
        self.answers["instance"] = fail(RuntimeError("no"))
        self.begin()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertIsNone(self.value("ganeti_node_ctotal", **NODE1))
        self.answers["instance"] = INSTANCES
        self.clock.advance(60)
        self.assertEqual(self.value("ganeti_node_ctotal", **NODE1), 8)

    def test_close(self) -> None:
        """A close gives up what was asked and asks no more."""
        waiting: Deferred[Any] = Deferred()
        self.answers["node"] = waiting
        self.begin()
        self.successResultOf(self.monitoring.close())
        self.clock.advance(120)
        self.assertEqual(self.called, ["node"])
        self.assertEqual(len(self.timers), 0)
