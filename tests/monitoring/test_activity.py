"""Tests of counters of events other than jobs', and of the reactor's latency."""

from __future__ import annotations

from ganeti_masterd.events import Committed, LockWaited, NodeCalled, RequestAnswered
from tests.monitoring.scene import MonitoringScene

EVENTS = [Committed, LockWaited, NodeCalled, RequestAnswered]


class ActivityTests(MonitoringScene):
    """Each metric changes when its event happens."""

    def setUp(self) -> None:
        super().setUp()
        self.begin()

    def test_node_calls(self) -> None:
        """Calls are counted by procedure and outcome, failed ones also by node."""
        self.events.publish(NodeCalled("node_info", "node1", None, 0.3))
        self.events.publish(NodeCalled("node_info", "node2", None, 0.1))
        self.events.publish(NodeCalled("version", "node2", "Connection refused", 0.002))
        found = self.metrics()
        calls = "ganeti_node_calls_total"
        self.assertEqual(found[calls, (("outcome", "ok"), ("procedure", "node_info"))], 2)
        self.assertEqual(found[calls, (("outcome", "error"), ("procedure", "version"))], 1)
        self.assertEqual(found["ganeti_node_errors_total", (("node", "node2"),)], 1)
        self.assertNotIn(("ganeti_node_errors_total", (("node", "node1"),)), found)
        sums = "ganeti_node_call_seconds_sum"
        self.assertAlmostEqual(found[sums, (("procedure", "node_info"),)], 0.4)

    def test_requests(self) -> None:
        """Requests are counted by method and outcome, refused ones also by the error's class."""
        self.events.publish(RequestAnswered("QueryJobs", None, 0.001))
        self.events.publish(RequestAnswered("SubmitJob", "OpPrereqError", 0.002))
        self.events.publish(RequestAnswered("WaitForJobChange", "CancelledError", 60.0))
        found = self.metrics()
        name = "ganeti_luxi_requests_total"
        self.assertEqual(found[name, (("method", "QueryJobs"), ("outcome", "ok"))], 1)
        self.assertEqual(found[name, (("method", "SubmitJob"), ("outcome", "error"))], 1)
        self.assertEqual(found[name, (("method", "WaitForJobChange"), ("outcome", "gone"))], 1)
        errors = [labels for key, labels in found if key == "ganeti_luxi_errors_total"]
        self.assertEqual(errors, [(("error", "OpPrereqError"),)])
        sums = "ganeti_luxi_request_seconds_sum"
        self.assertAlmostEqual(found[sums, (("method", "SubmitJob"),)], 0.002)

    def test_locks(self) -> None:
        """Waits for locks are recorded by level, including those that took no time."""
        self.events.publish(LockWaited(5, "node", 0.0))
        self.events.publish(LockWaited(6, "node", 12.0))
        level = ("level", "node")
        found = self.metrics()
        self.assertEqual(found["ganeti_lock_wait_seconds_count", (level,)], 2)
        below = "ganeti_lock_wait_seconds_bucket"
        self.assertEqual(found[below, (("le", "0.005"), level)], 1)

    def test_commits(self) -> None:
        """Transactions are timed, and their rows are counted."""
        self.events.publish(Committed(7, 0.004))
        self.events.publish(Committed(1, 0.002))
        found = self.metrics()
        self.assertEqual(found["ganeti_journal_rows_total", ()], 8)
        self.assertEqual(found["ganeti_journal_commit_seconds_count", ()], 2)
        self.assertAlmostEqual(found["ganeti_journal_commit_seconds_sum", ()], 0.006)

    def test_only_while_it_runs(self) -> None:
        """Events are observed only from start to close."""
        self.assertTrue(all(map(self.events.observed, EVENTS)))
        self.successResultOf(self.monitoring.close())
        self.assertFalse(any(map(self.events.observed, EVENTS)))

    def test_no_state_is_shared(self) -> None:
        """Two daemons in one process count independently."""
        self.events.publish(Committed(7, 0.004))
        self.monitoring = self.make_monitoring()
        self.begin()
        self.assertEqual(self.value("ganeti_journal_rows_total"), 0)


class LatencyTests(MonitoringScene):
    """The reactor's latency."""

    def setUp(self) -> None:
        super().setUp()
        self.begin()

    def test_in_time(self) -> None:
        """An idle reactor has no latency, and is measured each second."""
        self.clock.pump([0.5] * 10)
        found = self.metrics()
        self.assertEqual(found["ganeti_reactor_latency_seconds_count", ()], 5)
        self.assertEqual(found["ganeti_reactor_latency_seconds_sum", ()], 0)

    def test_late(self) -> None:
        """A reactor that was busy for 3 s is late once, by the time beyond the interval."""
        self.stall(3)
        self.clock.advance(0)
        self.assertAlmostEqual(self.value("ganeti_reactor_latency_seconds_sum") or 0, 2.0)
        self.assertEqual(self.value("ganeti_reactor_latency_seconds_bucket", le="1.0"), 0)
        self.assertIn(b'"reactor_latency": 2.0', self.ask("/status").body)
        self.clock.advance(1)
        self.assertAlmostEqual(self.value("ganeti_reactor_latency_seconds_sum") or 0, 2.0)

    def test_close(self) -> None:
        """No delayed call is left."""
        self.successResultOf(self.monitoring.close())
        self.assertEqual(len(self.timers), 0)
        self.successResultOf(self.monitoring.close())
