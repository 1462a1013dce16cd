"""Calls through the door return typed payloads, or failures that name the node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.errors import ProgrammerError
from ganeti_masterd.rpc.calls import (
    BLOCKDEV_GETDIMENSIONS,
    HOOKS_RUNNER,
    INSTANCE_LIST,
    NODE_INFO,
    UPLOAD_FILE_SINGLE,
    VERSION,
    VG_LIST,
)
from ganeti_masterd.rpc.declarations import Call
from ganeti_masterd.rpc.door import ask_one, call_nodes
from ganeti_masterd.rpc.interfaces import Arguments, CallAbandoned, NodeResult, Target
from ganeti_masterd.rpc.results import Dimensions, HookResult, NodeInfo, StorageSpace
from ganeti_masterd.testing.nodes import Asked, Failed, ScriptedNodes

P = TypeVar("P")

ONE = Target("u1", "node1", "192.0.2.1")
TWO = Target("u2", "node2", "192.0.2.2")
GONE = Target("u3", "node3", "192.0.2.3", offline=True)
SPACE = {"type": "file", "name": "/srv", "storage_size": 10, "storage_free": 5}


class CallNodesTests(SynchronousTestCase):
    """Calls to several nodes."""

    def setUp(self) -> None:
        self.nodes = ScriptedNodes()

    def called(
        self, call: Call[P], arguments: Sequence[Any] = (), *targets: Target
    ) -> list[NodeResult[P]]:
        """Calls the targets, or node1 and node2; returns their results in order."""
        done = call_nodes(self.nodes, targets or (ONE, TWO), call, arguments)
        return list(self.successResultOf(done).values())

    def malformed(self, call: Call[Any], payload: Any, arguments: Sequence[Any]) -> None:
        """Checks that only the node that answers with this payload has failed."""
        self.nodes.answers["node1", call.name] = payload
        wrong, right = self.called(call, arguments)
        self.assertEqual((wrong.node, wrong.payload, wrong.offline), ("node1", None, False))
        self.assertIn(f"RPC {call.name}: malformed result: ", wrong.error or "")
        self.assertFalse(right.failed, right.error)

    def test_types(self) -> None:
        """Payloads are values of the type that the call declares."""
        self.nodes.answers.update(
            node_info=["boot", [SPACE], []],
            hooks_runner=[["S10", 2, ""]],
            blockdev_getdimensions=[[1024, None], None],
            version=3000000,
        )
        space = StorageSpace("file", "/srv", 10, 5)
        self.assertEqual(
            [answer.payload for answer in self.called(NODE_INFO, [[], []])],
            [NodeInfo("boot", [space], [])] * 2,
        )
        hooks = self.called(HOOKS_RUNNER, ["x", "pre", {}], ONE)
        self.assertEqual(hooks[0].payload, [HookResult("S10", 2, "")])
        sizes = self.called(BLOCKDEV_GETDIMENSIONS, [[]], ONE)
        self.assertEqual(sizes[0].payload, [Dimensions(1024, None), None])
        self.assertEqual(self.called(VERSION, (), ONE)[0].payload, 3000000)

    def test_keys(self) -> None:
        """There is one result for each target by its key, in the order given."""
        answers = self.successResultOf(call_nodes(self.nodes, [TWO, GONE, ONE], VG_LIST))
        self.assertEqual(list(answers), ["u2", "u3", "u1"])

    def test_malformed(self) -> None:
        """A node whose payload has the wrong type counts as failed."""
        self.malformed(NODE_INFO, ["boot", [{}], []], [[], []])
        self.malformed(HOOKS_RUNNER, [["S10", "2", ""]], ["x", "pre", {}])
        self.malformed(BLOCKDEV_GETDIMENSIONS, [5], [[]])
        self.malformed(INSTANCE_LIST, {"a": 1}, [[], {}])
        self.malformed(VERSION, None, ())
        self.malformed(VG_LIST, {"xenvg": "many"}, ())

    def test_failures(self) -> None:
        """Failed results are not changed."""
        self.nodes.answers["node1", "vg_list"] = Failed("no route")
        failed, right, offline = self.called(VG_LIST, (), ONE, TWO, GONE)
        self.assertEqual(failed, NodeResult("node1", "vg_list", None, "no route"))
        self.assertEqual(right.payload, {})
        self.assertTrue(offline.offline)
        self.assertEqual(offline.error, "Node is marked offline")

    def test_undeclared(self) -> None:
        """A payload without a declared type is returned as the node sent it."""
        self.assertIsNone(UPLOAD_FILE_SINGLE.result)
        for payload in (None, "text", {"any": ["thing"]}):
            self.nodes.answers["upload_file_single"] = payload
            (answer,) = self.called(UPLOAD_FILE_SINGLE, [None] * 7, ONE)
            self.assertEqual(answer, NodeResult("node1", "upload_file_single", payload))

    def test_timeout(self) -> None:
        """The caller's time-out is passed on."""
        call_nodes(self.nodes, [ONE], VERSION, timeout=5.0)
        call_nodes(self.nodes, [ONE], VERSION)
        self.assertEqual(
            self.nodes.asked,
            [Asked("node1", "version", [], 5.0), Asked("node1", "version", [])],
        )

    def test_arguments(self) -> None:
        """A wrong number of arguments raises at once."""
        self.assertRaises(ProgrammerError, call_nodes, self.nodes, [ONE], VERSION, [1])

    def test_abandoned(self) -> None:
        """Cancelling abandons the call."""
        self.nodes.held = True
        done: Deferred[Any] = call_nodes(self.nodes, [ONE], VERSION)
        done.cancel()
        self.assertEqual(self.failureResultOf(done, CallAbandoned).value.nodes, ("node1",))
        self.assertEqual(self.nodes.pending, 0)


class AskOneTests(SynchronousTestCase):
    """Calls to one node for callers that need a result for each."""

    def setUp(self) -> None:
        self.nodes = ScriptedNodes()

    def asked(self, call: Call[P], arguments: Arguments = ()) -> NodeResult[P]:
        return self.successResultOf(ask_one(self.nodes, ONE, call, arguments))

    def test_types(self) -> None:
        """The payload has its declared type; malformed payloads and failures are results."""
        self.nodes.answers["hooks_runner"] = [["S10", 2, ""]]
        given = ["x", "pre", {}]
        self.assertEqual(self.asked(HOOKS_RUNNER, given).payload, [HookResult("S10", 2, "")])
        self.nodes.answers["hooks_runner"] = "garbage"
        self.assertIn("malformed result", self.asked(HOOKS_RUNNER, given).error or "")
        self.nodes.answers["hooks_runner"] = Failed("no")
        self.assertEqual(self.asked(HOOKS_RUNNER, given).error, "no")

    def test_faults_on_this_side(self) -> None:
        """Wrong arguments, or ones that can't be built, are logged and fail only this call."""

        def broken(target: Target) -> list[Any]:
            raise KeyError(target.name)

        for arguments, kind in ((broken, KeyError), ([1], ProgrammerError)):
            result = self.asked(VERSION, arguments)
            self.assertIn(f"{kind.__name__} on this side: ", result.error or "")
            self.assertEqual((result.node, result.procedure), ("node1", "version"))
            self.assertEqual(len(self.flushLoggedErrors(kind)), 1)

    def test_cancelled(self) -> None:
        """A cancelled call has a result, too, and nothing is logged."""
        self.nodes.held = True
        done = ask_one(self.nodes, ONE, VERSION)
        done.cancel()
        self.assertEqual(self.successResultOf(done).error, "The call was cancelled")
