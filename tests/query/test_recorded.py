"""Answers compared with luxid 3.0.2's for the same configuration and nodes."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.document import parse
from ganeti_masterd.errors import GenericError, OpPrereqError, encode_error
from ganeti_masterd.testing.nodes import ScriptedNodes
from tests.query.scene import DATA, Jobs, Scene, recorded, recorded_job, recorded_nodes

#: Where ours differs on purpose: Query's arguments and our data (None: any).
DIFFERENT: dict[str, Any] = {
    # A uuid is a name too.
    '["node", ["name"], ["|", ["=", "name", "bbbb0000-0000-4000-8000-000000000005"]]]': [
        [[0, "node5.example.com"]]
    ],
    # None in a list doesn't end the search in it.
    '["instance", ["name"], ["=[]", "disk.names", "root"]]': [[[0, "web1.example.com"]]],
    '["instance", ["name"], ["=[]", "disk.spindles", 3]]': [[[0, "web1.example.com"]]],
    # Job ids may be given as strings.
    '["job", ["id"], ["=", "id", "308"]]': [[[0, 308]]],
    '["job", ["id"], ["=", "id", "0308"]]': [[[0, 308]]],
    '["job", ["id", "status", "ops"], ["|", ["=", "id", "308"], ["=", "id", 7]]]': None,
}


class RecordedTests(SynchronousTestCase):
    """The same queries have the same answers."""

    maxDiff = None

    def setUp(self) -> None:
        self.recorded = recorded()
        nodes = recorded_nodes(self.recorded["nodes"])
        self.scene = Scene(nodes=nodes, jobs=Jobs([recorded_job()]))

    def test_queries(self) -> None:
        """Every recorded Query has luxid's data, except where ours differs on purpose."""
        count = 0
        for method, args, success, expected in self.recorded["replies"]:
            if method != "Query":
                continue
            count += 1
            with self.subTest(args):
                self._query(args, success, expected)
        self.assertGreater(count, 90)

    def _query(self, args: list[Any], success: bool, expected: Any) -> None:
        key = json.dumps(args)
        if key in DIFFERENT:
            self.assertNotEqual((success, expected), (True, DIFFERENT[key]))
            success, expected = True, DIFFERENT[key]
        if not success:
            error = self._error(lambda: self.scene.engine.query(*args))
            self.assertEqual(_one_line(error), _one_line(expected))
            return
        found = self.scene.query(self, *args)
        if expected is None:
            return
        if args[0] == "group" and "diskparams" in args[1]:
            place = args[1].index("diskparams")
            for row in (*found, *expected):
                row.pop(place)
        self.assertEqual(found, expected)

    def test_group_disk_parameters(self) -> None:
        """A group's disk parameters override the cluster's, key by key."""
        rows = self.scene.query(self, "group", ["diskparams"], ["=", "name", "rack10"])
        merged = rows[0][0][1]
        self.assertEqual(merged["rbd"], {"access": "kernelspace", "pool": "p2"})
        self.assertEqual(merged["drbd"]["metavg"], "meta")
        self.assertEqual(merged["drbd"]["protocol"], "C")

    def test_transcript(self) -> None:
        """Queries of real tools at the end of a session have the recorded answers."""
        running: dict[str, dict[str, Any]] = {}
        info = {"memory": 256, "vcpus": 1, "state": 0, "time": 1.0}
        for name, node in (
            ("instance1", "node3"),
            ("instance2", "node3"),
            ("instance5", "node1"),
            ("instance31", "node1"),
            ("instance32", "node3"),
        ):
            running.setdefault(node, {})[name] = info
        nodes = ScriptedNodes({"all_instances_info": lambda to, args: running.get(to.name, {})})
        self.scene = Scene(parse((DATA / "config.data").read_bytes()), nodes)
        engine = self.scene.engine
        methods: dict[str, Any] = {
            "Query": engine.query,
            "QueryNodes": engine.nodes,
            "QueryGroups": engine.groups,
            "QueryConfigValues": engine.config_values,
        }
        for method, args, success, expected in json.loads(
            (DATA / "query_transcript.json").read_bytes()
        ):
            with self.subTest([method, args]):
                self.assertTrue(success)
                found = self.scene.result(self, methods[method](*args))
                self.assertEqual(found["data"] if method == "Query" else found, expected)

    def test_malformed(self) -> None:
        """Queries that luxid can't parse are refused as wrong input."""
        for args in self.recorded["malformed"]:
            with self.subTest(args):
                error = self.assertRaises(OpPrereqError, self.scene.engine.query, *args)
                self.assertEqual(error.args[1], "wrong_input")

    def test_classic_queries(self) -> None:
        """The recorded classic queries have luxid's rows and errors."""
        engine = self.scene.engine
        methods = {
            "QueryNodes": engine.nodes,
            "QueryInstances": engine.instances,
            "QueryGroups": engine.groups,
            "QueryNetworks": engine.networks,
            "QueryFilters": engine.filters,
            "QueryExports": engine.exports,
            "QueryJobs": engine.query_jobs,
            "QueryConfigValues": engine.config_values,
        }
        seen = set()
        for method, args, success, expected in self.recorded["replies"]:
            function: Any = methods.get(method)
            if function is None:
                continue
            seen.add(method)
            with self.subTest([method, args]):
                if not success:
                    self.assertEqual(self._error(lambda f=function, a=args: f(*a)), expected)
                    continue
                found = self.scene.result(self, function(*args))
                if method == "QueryExports" and args[0]:
                    # luxid repeats the exports of nodes that are named several times.
                    self.assertEqual(found, expected[: len(found)])
                    continue
                self.assertEqual(found, expected)
        self.assertEqual(seen, set(methods))

    def test_cluster_info(self) -> None:
        """The cluster's description has luxid's keys, order and values."""
        expected = next(r[3] for r in self.recorded["replies"] if r[0] == "QueryClusterInfo")
        found = self.scene.result(self, self.scene.engine.cluster_info())
        self.assertEqual(list(found), list(expected))
        expected["architecture"] = found["architecture"]
        self.assertEqual(found, expected)

    def _error(self, function: Any) -> Any:
        try:
            value = function()
        except GenericError as error:
            return encode_error(error)
        self.assertIsInstance(value, Deferred)
        while self.scene.clock.getDelayedCalls():
            self.scene.clock.advance(0)
        return encode_error(self.failureResultOf(value).value)


def _one_line(error: Any) -> Any:
    """Undoes how luxid breaks long values into lines."""
    name, args = error
    return [name, [arg.replace("\n ", " ") for arg in args]]
