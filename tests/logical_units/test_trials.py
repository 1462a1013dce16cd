"""OP_TEST_DELAY, OP_TEST_DUMMY, OP_TEST_JQUEUE and the cluster's queries."""

from __future__ import annotations

import socket
import threading
from typing import Any

from twisted.internet.task import Clock

from ganeti_masterd.errors import OpExecError, OpPrereqError
from ganeti_masterd.locking.levels import Level, exclusive
from ganeti_masterd.logical_units.context import JobKilled
from ganeti_masterd.logical_units.trials.notification import Notification
from ganeti_masterd.query.engine import QueryEngine
from ganeti_masterd.testing.context import SynchronousContext
from ganeti_masterd.testing.nodes import Failed
from ganeti_masterd.timing import Timers
from tests.logical_units.scene import UnitScene


class DelayTests(UnitScene):
    """OP_TEST_DELAY."""

    def asked(self) -> list[tuple[str, str]]:
        return [(asked.node, asked.procedure) for asked in self.nodes.asked]

    def test_master(self) -> None:
        """By default the master waits."""
        self.run_unit("OP_TEST_DELAY", duration=1.5)
        self.assertEqual(self.asked(), [("node1", "test_delay")])
        self.assertEqual(self.nodes.asked[0].arguments, [1.5])

    def test_nodes(self) -> None:
        """Nodes are named by name or uuid, each is called once."""
        uuid = self.ctx.snapshot().node("node3").uuid
        self.run_unit(
            "OP_TEST_DELAY",
            duration=1,
            on_master=False,
            on_nodes=["node2", "node3"],
            on_node_uuids=[uuid],
        )
        self.assertEqual([name for name, _ in self.asked()], ["node2", "node3"])

    def test_nowhere(self) -> None:
        """With neither nodes nor master the daemon itself waits."""
        self.run_unit("OP_TEST_DELAY", duration=2, on_master=False)
        self.assertEqual((self.asked(), self.ctx.slept), ([], [2.0]))

    def test_repeat(self) -> None:
        """Each repetition is logged."""
        self.run_unit("OP_TEST_DELAY", duration=1, repeat=3)
        self.assertEqual(len(self.asked()), 3)
        self.assertEqual(self.ctx.lines, [f" - INFO: Test delay iteration {n}/2" for n in range(3)])

    def test_refusals(self) -> None:
        """An invalid duration and an unknown node are refused."""
        for duration in (0, -3):
            error = self.assertRaises(OpPrereqError, self.unit, "OP_TEST_DELAY", duration=duration)
            self.assertEqual(error.args, ("Duration must be greater than zero",))
        error = self.assertRaises(
            OpPrereqError, self.unit, "OP_TEST_DELAY", duration=1, on_nodes=["nosuch"]
        )
        self.assertIn("nosuch", error.args[0])

    def test_node_fails(self) -> None:
        """A node that fails is named, with its error."""
        self.nodes.answers["test_delay"] = Failed("no time")
        error = self.assertRaises(OpExecError, self.run_unit, "OP_TEST_DELAY", duration=1)
        self.assertIn("node1", error.args[0])
        self.assertIn("no time", error.args[0])

    def test_locks(self) -> None:
        """The nodes are held exclusively, unless ``no_locks`` is set."""
        master = self.ctx.snapshot().master.uuid
        unit = self.unit("OP_TEST_DELAY", duration=1, no_locks=False)
        self.assertEqual(self.wanted(unit)[Level.NODE], exclusive(master))
        for parameters in ({"no_locks": True}, {"no_locks": False, "on_master": False}):
            unit = self.unit("OP_TEST_DELAY", duration=1, **parameters)
            self.assertNotIn(Level.NODE, self.wanted(unit))

    def meet(self, method: str, kind: str, **parameters: Any) -> Any:
        """Runs a unit that waits for a client on a socket, and acts as that client."""

        def feedback(text: str, *, kind: str = "message", value: Any = None) -> None:
            self.ctx.lines.append(text if kind == "message" else (kind, value))
            if kind != "message":
                threading.Thread(target=self.client, args=(value[0],)).start()

        self.patch(self.ctx, "feedback", feedback)
        unit = self.unit(method, **parameters)
        unit.prepare(self.ctx)
        return unit.exec(self.ctx)

    def client(self, path: str) -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(path)

    def test_interrupted(self) -> None:
        """A client that connects and disconnects ends an interruptible delay and its repeats."""
        self.meet("OP_TEST_DELAY", "delay-test", duration=30, interruptible=True, repeat=5)
        self.assertIn("Interrupted", self.ctx.lines)
        self.assertEqual(sum("iteration" in str(line) for line in self.ctx.lines), 1)

    def test_queue_test(self) -> None:
        """OP_TEST_JQUEUE stops at each agreed point and says its messages between."""
        result = self.meet(
            "OP_TEST_JQUEUE",
            "jqueue-test",
            notify_waitlock=True,
            notify_exec=True,
            log_messages=["one", "two"],
        )
        self.assertTrue(result)
        points = [line[1][1:] for line in self.ctx.lines if isinstance(line, tuple)]
        self.assertEqual(
            points,
            [["expandnames", None], ["exec", None], ["startmsg", 2], ["logmsg", 1], ["logmsg", 2]],
        )
        self.assertIn("TESTMSG=two", self.ctx.lines)

    def test_queue_test_fails(self) -> None:
        """It fails if that was asked for."""
        self.assertRaises(OpExecError, self.run_unit, "OP_TEST_JQUEUE", fail=True)

    def test_nobody_comes(self) -> None:
        """If the client doesn't connect, or doesn't confirm, the test ends."""
        for connected, text in ((None, "didn't connect in time"), (1.0, "didn't confirm in time")):
            self.patch(Notification, "wait_connected", lambda *_, left=connected: left)
            self.patch(Notification, "wait_confirmed", lambda *_: False)
            error = self.assertRaises(
                OpExecError, self.run_unit, "OP_TEST_JQUEUE", notify_exec=True
            )
            self.assertIn(text, error.args[0])
            unit = self.unit("OP_TEST_JQUEUE", notify_waitlock=True)
            refusal = self.assertRaises(OpPrereqError, unit.prepare, self.ctx)
            self.assertIn(text, refusal.args[0])
            self.assertEqual(refusal.args[1], "environment_error")
        unit = self.unit("OP_TEST_JQUEUE")
        self.assertEqual(self.wanted(unit)[Level.NODE], exclusive(self.ctx.snapshot().master.uuid))

    def test_kill_ends_a_meeting(self) -> None:
        """A kill ends the wait for a client that never comes."""
        self.ctx.kill_after = 2
        self.assertRaises(
            JobKilled, self.run_unit, "OP_TEST_DELAY", duration=30, interruptible=True
        )


class DummyTests(UnitScene):
    """OP_TEST_DUMMY."""

    def dummy(self, **parameters: Any) -> Any:
        nothing = dict.fromkeys(("result", "messages", "fail", "submit_jobs"))
        return self.run_unit("OP_TEST_DUMMY", **{**nothing, **parameters})

    def test_result(self) -> None:
        """It returns the given result."""
        self.assertEqual(self.dummy(result=[1]), [1])

    def test_messages(self) -> None:
        """It logs one message or several."""
        self.dummy(messages="one")
        self.dummy(messages=["two", 3])
        self.assertEqual(self.ctx.lines, ["one", "two", "3"])

    def test_fails(self) -> None:
        """It fails with its own message or the caller's."""
        self.assertRaises(OpExecError, self.dummy, fail=True)
        self.assertEqual(self.assertRaises(OpExecError, self.dummy, fail="x").args, ("x",))

    def test_submits(self) -> None:
        """It submits jobs and returns their ids."""
        self.dummy(submit_jobs=[[{"OP_ID": "OP_TEST_DELAY", "duration": 1}]])
        self.assertEqual(self.ctx.submitted[0][0].op_id, "OP_TEST_DELAY")
        self.assertEqual(self.ctx.lines, ["Submitted jobs 2"])

    def test_submits_nonsense(self) -> None:
        """An invalid job is refused."""
        self.assertRaises(OpPrereqError, self.dummy, submit_jobs=[[{"OP_ID": "OP_NO"}]])


class ClusterQueryTests(UnitScene):
    """OP_CLUSTER_QUERY and OP_CLUSTER_CONFIG_QUERY."""

    def setUp(self) -> None:
        super().setUp()

        class State:
            drained = True
            watcher_pause = None

        class Jobs:
            def live(self) -> dict[int, Any]:
                return {}

            def archived(self, job_ids: Any) -> Any:
                raise NotImplementedError

        engine = QueryEngine(Timers(Clock()), self.ctx.snapshot, self.nodes, Jobs(), list, State())
        self.ctx = SynchronousContext(self.ctx.snapshot(), self.nodes, engine=engine)

    def test_cluster(self) -> None:
        """The cluster's parameters are what QueryClusterInfo answers."""
        info = self.run_unit("OP_CLUSTER_QUERY")
        self.assertEqual((info["name"], info["master"]), ("cluster", "node1"))

    def test_config(self) -> None:
        """Single values are returned, None for an unknown one."""
        self.assertEqual(
            self.run_unit(
                "OP_CLUSTER_CONFIG_QUERY", output_fields=["cluster_name", "drain_flag", "nosuch"]
            ),
            ["cluster", True, None],
        )
