"""The scripted nodes fulfil the contract of ``INodeRPC`` and answer as scripted."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyClass, verifyObject

from ganeti_masterd.errors import ProgrammerError
from ganeti_masterd.rpc.calls import CALLS, DRBD_WAIT_SYNC
from ganeti_masterd.rpc.door import call_nodes
from ganeti_masterd.rpc.interfaces import CallAbandoned, INodeRPC, NodeResult, Target
from ganeti_masterd.rpc.results import typed
from ganeti_masterd.testing.nodes import Asked, Failed, ScriptedNodes, emptiest

ONE = Target("u1", "node1", "192.0.2.1")
TWO = Target("u2", "node2", "192.0.2.2")
#: Calls whose payload has parts that must not be empty.
TO_BE_SCRIPTED = {"instance_get_migration_status"}
GONE = Target("u3", "node3", "192.0.2.3", offline=True)


class ScriptedTests(SynchronousTestCase):
    def test_interface(self) -> None:
        """Scripted nodes implement ``INodeRPC``."""
        verifyClass(INodeRPC, ScriptedNodes)
        verifyObject(INodeRPC, ScriptedNodes())

    def test_answers(self) -> None:
        """A node's answer takes precedence over the call's; functions are called."""
        nodes = ScriptedNodes(
            {
                "version": 3000000,
                ("node2", "version"): Failed("too old"),
                "instance_list": lambda target, arguments: [target.name, *arguments[0]],
            }
        )
        found = self.successResultOf(nodes.call([ONE, TWO, GONE], "version"))
        self.assertEqual(list(found), ["u1", "u2", "u3"])
        self.assertEqual(found["u1"].payload, 3000000)
        self.assertEqual(found["u2"].error, "too old")
        self.assertFalse(found["u3"].offline)
        found = self.successResultOf(nodes.call([ONE, GONE], "instance_list", [["kvm"], {}]))
        self.assertEqual(found["u1"].payload, ["node1", "kvm"])
        self.assertTrue(found["u3"].offline)
        self.assertEqual(nodes.asked[-1], Asked("node1", "instance_list", [["kvm"], {}]))
        self.assertEqual(nodes.procedures()[0], ("node1", "version"))

    def test_arguments_of_each(self) -> None:
        """Arguments may be a function of the node."""
        nodes = ScriptedNodes()
        nodes.call([ONE, TWO], "jobqueue_set_drain_flag", lambda target: [target is ONE])
        self.assertEqual([asked.arguments for asked in nodes.asked], [[True], [False]])

    def test_held(self) -> None:
        """Held results are returned when released, oldest first."""
        nodes = ScriptedNodes({"version": 1}, held=True)
        first = nodes.call([ONE], "version")
        second = nodes.call([ONE, TWO], "version")
        self.assertEqual(nodes.pending, 3)
        nodes.release(1)
        self.successResultOf(first)
        self.assertNoResult(second)
        self.successResultOf(nodes.close())
        self.assertTrue(all(result.failed for result in self.successResultOf(second).values()))
        self.assertEqual(nodes.pending, 0)

    def test_cancelled(self) -> None:
        """Cancelling a held call removes it; the error names its nodes."""
        nodes = ScriptedNodes({"vg_list": {}}, held=True)
        first, second = (nodes.call([ONE, TWO, GONE], "vg_list") for _ in range(2))
        first.cancel()
        abandoned = self.failureResultOf(first, CallAbandoned).value
        self.assertEqual((abandoned.nodes, nodes.pending), (("node1", "node2"), 3))
        nodes.release()
        self.successResultOf(second)

    def test_unscripted(self) -> None:
        """A call without a scripted answer succeeds with a payload that callers can read."""
        found = self.successResultOf(call_nodes(ScriptedNodes(), [ONE], DRBD_WAIT_SYNC, [[]]))
        self.assertEqual(found["u1"], NodeResult("node1", "drbd_wait_sync", (False, 0.0)))

    def test_emptiest(self) -> None:
        """Every call has a default payload of its declared type, unless a test must script it."""
        scripted = set()
        for call in CALLS:
            payload = emptiest(call)
            if call.result is None:
                self.assertIsNone(payload, call.name)
            elif typed(NodeResult("node1", call.name, payload), call).failed:
                scripted.add(call.name)
        self.assertEqual(scripted, TO_BE_SCRIPTED)

    def test_wrong(self) -> None:
        """Unknown calls and wrong arguments raise at once."""
        nodes = ScriptedNodes()
        self.assertRaises(ProgrammerError, nodes.call, [ONE], "nonsense")
        self.assertRaises(ProgrammerError, nodes.call, [ONE], "test_delay", [])
