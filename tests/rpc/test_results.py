"""Payloads become typed values; malformed ones become failures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.errors import OpExecError, OpPrereqError, ResultValidationError
from ganeti_masterd.rpc import results
from ganeti_masterd.rpc.calls import CALLS
from ganeti_masterd.rpc.interfaces import NodeResult, Target
from ganeti_masterd.rpc.results import (
    HypervisorSpace,
    InstanceInfo,
    NodeInfo,
    OSRow,
    StorageSpace,
    parse,
    read_answer,
    typed,
    typed_in_pieces,
)
from tests.examples import examples

RECORDED = json.loads((Path(__file__).parent.parent / "data" / "noded_rpc.json").read_text())
NODE = Target("u1", "node1", "192.0.2.1")

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


VOLUME = {"size": "10.0", "inactive": False, "online": True}


class ParseTests(SynchronousTestCase):
    def test_node_info(self) -> None:
        """Boot id, storage and hypervisors are read by name."""
        payload = [
            "96a309d8",
            [{"type": "file", "name": "/srv", "storage_size": 10, "storage_free": None}],
            [
                {
                    "memory_total": 24105,
                    "memory_dom0": 358,
                    "memory_free": 23203,
                    "cpu_total": 2,
                    "cpu_dom0": 2,
                    "cpu_nodes": 1,
                    "cpu_sockets": 1,
                }
            ],
        ]
        info = parse(payload, NodeInfo)
        self.assertEqual(info.storage, [StorageSpace("file", "/srv", 10, None)])
        self.assertEqual(info.hypervisors, [HypervisorSpace(24105, 23203, 358, 2, cpu_dom0=2)])
        self.assertEqual(parse(["id", None, None], NodeInfo).hypervisors, None)

    def test_os(self) -> None:
        """A row of eight is an operating system."""
        row = ["noop", "/os/noop", True, "", [], [["a", "help"]], [5, 10], True]
        found = parse([row], list[OSRow])[0]
        self.assertEqual((found.name, found.parameters), ("noop", [("a", "help")]))
        self.assertRaises(ResultValidationError, parse, [row[:7]], list[OSRow])

    def test_instance(self) -> None:
        """An empty dict is an instance that does not run; a part of the fields is malformed."""
        self.assertFalse(parse({}, InstanceInfo).known)
        payload = {"memory": 128, "vcpus": 1, "state": 0, "time": 0}
        running = parse(payload, InstanceInfo)
        self.assertTrue(running.known)
        self.assertEqual(running, InstanceInfo(128, 1, 0, 0))
        for name in payload:
            rest = {key: value for key, value in payload.items() if key != name}
            self.assertRaises(ResultValidationError, parse, rest, InstanceInfo)

    def test_mirrors(self) -> None:
        """Each disk has a status or an error text; a row of one is malformed."""
        shape = CALLS["blockdev_getmirrorstatus_multi"].result
        payload = [[True, {"dev_path": "/x"}], [False, "no device"]]
        self.assertEqual(parse(payload, shape), [(True, {"dev_path": "/x"}), (False, "no device")])
        self.assertRaises(ResultValidationError, parse, [[True]], shape)
        self.assertRaises(ResultValidationError, parse, [["yes", {}]], shape)

    def test_recorded(self) -> None:
        """Every recorded payload is of its call's declared type."""
        read = set()
        for _, name, _, (good, payload) in RECORDED:
            kind = CALLS[name].result
            if good and kind is not None:
                parse(payload, kind, name)
                read.add(name)
        declared = {name for _, name, _, (good, _) in RECORDED if good and CALLS[name].result}
        self.assertTrue(read)
        self.assertEqual(read, declared)

    @settings(deadline=None, max_examples=100)
    @given(JSON)
    def test_typed(self, payload: Any) -> None:
        """Whatever a node sends, reading it gives a result and never raises."""
        result = typed(NodeResult("node1", "node_info", payload), CALLS["node_info"])
        if result.failed:
            self.assertIsNone(result.payload)
            self.assertIn("malformed result", result.error or "")
        else:
            self.assertIsInstance(result.payload, NodeInfo)

    @settings(deadline=None, max_examples=examples(100, 2000))
    @given(
        JSON
        | st.dictionaries(st.text(max_size=3), st.sampled_from([VOLUME, {**VOLUME, "size": 5}]))
        | st.lists(st.sampled_from(["a", "b", 5]))
    )
    def test_typed_in_pieces(self, payload: Any) -> None:
        """Entry by entry, a payload is what it is as a whole: the same values, the same errors."""
        for name in ("lv_list", "instance_list", "all_instances_info", "node_info", "version"):
            result = NodeResult("node1", name, payload)
            found = typed_in_pieces(result, CALLS[name])
            self.assertEqual(found, typed(result, CALLS[name]))

    def test_typed_failed(self) -> None:
        """A failed result is not changed."""
        failed: NodeResult[Any] = NodeResult("node1", "version", None, "no")
        self.assertIs(typed(failed, CALLS["version"]), failed)


class AnswerTests(SynchronousTestCase):
    def read(self, answer: Any) -> NodeResult:
        return read_answer(NODE, "version", answer)

    def test_good(self) -> None:
        """A success has the payload."""
        self.assertEqual(self.read([True, 3]), NodeResult("node1", "version", 3))

    def test_failure(self) -> None:
        """A failure has its message, or one that says that there is none."""
        self.assertEqual(self.read([False, "broken"]).error, "broken")
        self.assertEqual(self.read([False, ""]).error, "No error information")
        self.assertEqual(self.read([False, None]).error, "No error information")

    def test_nonsense(self) -> None:
        """An answer that isn't a pair is an RPC layer error."""
        for answer in (None, {}, "text", 5, [], [True], [True, 1, 2]):
            result = self.read(answer)
            self.assertTrue(result.failed)
            self.assertTrue((result.error or "").startswith("RPC layer error: "))

    def test_without_answer(self) -> None:
        """Results of calls without an answer have a message that says why."""
        self.assertEqual(results.offline(NODE, "version").error, "Node is marked offline")
        self.assertTrue(results.offline(NODE, "version").offline)
        late = results.timed_out(NODE, "version", 60.0)
        self.assertEqual(
            (late.error, late.offline), ("Node node1 gave no answer within 60 seconds", False)
        )
        self.assertIn("192.0.2.1: refused", str(results.unreachable(NODE, "x", "refused").error))
        self.assertTrue(results.given_up(NODE, "version").failed)

    def test_require(self) -> None:
        """``require`` returns the payload or raises."""
        self.assertEqual(self.read([True, 3]).require("asking"), 3)
        failed = self.read([False, "broken"])
        self.assertRaises(OpExecError, failed.require, "asking")
        self.assertRaises(OpPrereqError, failed.require, "asking", prereq=True)
