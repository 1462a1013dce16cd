"""Queries in a job: the same answers as LUXI's methods, and of the declared shape."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace
from twisted.internet.task import Clock

from ganeti_masterd.errors import OpPrereqError, ParameterError
from ganeti_masterd.locking.levels import BGL, Level, all_shared, shared
from ganeti_masterd.opcodes import decode_opcode
from ganeti_masterd.opcodes.results import FieldsResult, QueryResult
from ganeti_masterd.query.engine import QueryEngine
from ganeti_masterd.query.resources import RESOURCES
from ganeti_masterd.testing.nodes import Failed, ScriptedNodes
from ganeti_masterd.timing import Timers
from tests.logical_units.scene import UnitScene
from tests.query.scene import Jobs, State


class QueryTests(UnitScene):
    """Both opcodes with an engine of their own."""

    def setUp(self) -> None:
        super().setUp()
        failed = ("node_info", "all_instances_info", "export_list", "instance_console_info")
        self.systems: list[Any] = []
        self.providers: list[Any] = []
        nodes = ScriptedNodes(
            {name: lambda target, arguments: Failed("no answer") for name in failed}
            | {
                "os_diagnose": lambda target, arguments: self.systems,
                "extstorage_diagnose": lambda target, arguments: self.providers,
            }
        )
        self.ctx.engine = QueryEngine(
            Timers(Clock()), self.ctx.snapshot, nodes, Jobs(), lambda: [], State()
        )

    def query(self, what: str, fields: list[str], qfilter: Any = None) -> Any:
        return self.run_unit("OP_QUERY", what=what, fields=fields, qfilter=qfilter)

    def test_every_resource(self) -> None:
        """Each resource is served, with all fields, in plain values of the declared shape."""
        for what, resource in RESOURCES.items():
            fields = self.run_unit("OP_QUERY_FIELDS", what=what)
            self.assertEqual([one["name"] for one in fields["fields"]], list(resource.fields))
            msgspec.convert(fields, FieldsResult)
            answer = self.query(what, list(resource.fields))
            self.assertEqual(answer["fields"], fields["fields"])
            msgspec.convert(answer, QueryResult)
            self.assertEqual(msgspec.json.decode(msgspec.json.encode(answer)), answer)

    def test_what_the_real_daemon_serves_in_jobs_alone(self) -> None:
        """The cluster, which LUXI's Query of the real daemon doesn't know, is one row."""
        answer = self.query("cluster", ["cluster_name", "master_node"])
        self.assertEqual(answer["data"], [[[0, "cluster"], [0, "node1"]]])
        self.assertEqual(self.query("os", ["name"])["data"], [])

    def test_filter(self) -> None:
        """A filter selects rows, and an invalid one is refused."""
        answer = self.query("node", ["name"], ["|", ["=", "name", "node3"], ["=", "name", "node1"]])
        self.assertEqual(answer["data"], [[[0, "node3"]], [[0, "node1"]]])
        answer = self.query("node", ["name", "nosuch"], ["!", ["?", "master"]])
        self.assertEqual(answer["data"], [[[0, "node2"], [1, None]], [[0, "node3"], [1, None]]])
        self.assertEqual(answer["fields"][1]["kind"], "unknown")
        for bad in ([], ["="], ["=*", "name", "x"]):
            self.assertRaises(OpPrereqError, self.query, "node", ["name"], bad)
        self.assertRaises(ParameterError, self.query, "node", ["name"], ["?", "nosuch"])
        error = self.assertRaises(
            OpPrereqError, self.query, "node", ["name"], ["|", ["=", "name", "nosuch"]]
        )
        self.assertEqual(error.args[1], "unknown_entity")

    def test_live_data(self) -> None:
        """A node that gives no answer is a status, not an error."""
        self.assertEqual(self.query("node", ["mfree"])["data"], [[[2, None]]] * 3)

    def test_named_fields(self) -> None:
        """Fields are in the order of the request; a missing one is answered as unknown."""
        answer = self.run_unit("OP_QUERY_FIELDS", what="group", fields=["uuid", "nosuch", "name"])
        kinds = [(one["name"], one["kind"]) for one in answer["fields"]]
        self.assertEqual(kinds, [("uuid", "text"), ("nosuch", "unknown"), ("name", "text")])

    def test_unknown_resource(self) -> None:
        """A resource that doesn't exist is refused when the job is submitted."""
        for op_id in ("OP_QUERY", "OP_QUERY_FIELDS"):
            opcode = {"OP_ID": op_id, "what": "nosuch", "fields": ["name"]}
            self.assertRaises(OpPrereqError, decode_opcode, opcode)

    def test_locks(self) -> None:
        """A query waits for jobs that hold the objects' locks only with ``use_locking``."""
        cluster = {Level.CLUSTER: shared(BGL)}
        for what in RESOURCES:
            unit = self.unit("OP_QUERY", what=what, fields=["name"])
            self.assertEqual(self.wanted(unit), cluster)
        expected = {
            "node": Level.NODE,
            "os": Level.NODE,
            "export": Level.NODE,
            "instance": Level.INSTANCE,
            "group": Level.NODEGROUP,
            "network": Level.NETWORK,
        }
        for what, level in expected.items():
            unit = self.unit("OP_QUERY", what=what, fields=["name"], use_locking=True)
            self.assertEqual(self.wanted(unit), {**cluster, level: all_shared})
        for what in ("cluster", "job", "lock", "filter"):
            unit = self.unit("OP_QUERY", what=what, fields=["name"], use_locking=True)
            self.assertEqual(self.wanted(unit), cluster)

    def test_systems(self) -> None:
        """Operating systems are listed in the classic form, without hidden ones."""
        self.systems = [
            [name, f"/os/{name}", name != "bad", "", ["v1"], [], [10, 20], True]
            for name in ("deb10", "bad", "deb9", "hidden", "black")
        ]
        cluster = self.ctx.snapshot().cluster
        self.ctx.change(
            cluster.uuid,
            lambda obj: replace(obj, hidden_os=("hidden",), blacklisted_os=("black",)),
        )

        def told(*fields: str, names: tuple[str, ...] = ()) -> Any:
            return self.run_unit("OP_OS_DIAGNOSE", output_fields=fields, names=names)

        self.assertEqual(told("name", "variants"), [["deb9", ["v1"]], ["deb10", ["v1"]]])
        self.assertEqual(
            told("name", "hidden"), [["deb9", False], ["deb10", False], ["hidden", True]]
        )
        self.assertEqual(
            [name for name, *_ in told("name", "valid", "hidden", "blacklisted")],
            ["bad", "black", "deb9", "deb10", "hidden"],
        )
        self.assertEqual(told("name", names=("deb10", "nosuch")), [["deb10"]])
        self.assertEqual(told("name", names=("nosuch",)), [])

    def test_providers(self) -> None:
        """Storage providers are listed in the classic form."""
        self.providers = [["pool", "/ext/pool", True, "", [["size", "How large"]]]]
        rows = self.run_unit("OP_EXT_STORAGE_DIAGNOSE", output_fields=["name", "parameters"])
        self.assertEqual(rows, [["pool", [["size", "How large"]]]])
        rows = self.run_unit("OP_EXT_STORAGE_DIAGNOSE", output_fields=["name"], names=["x"])
        self.assertEqual(rows, [])

    def test_unknown_fields_of_the_classic_form(self) -> None:
        """A field that doesn't exist is refused by name before any node is asked."""
        for op_id in ("OP_OS_DIAGNOSE", "OP_EXT_STORAGE_DIAGNOSE"):
            error = self.assertRaises(
                OpPrereqError, self.unit, op_id, output_fields=["name", "nosuch"]
            )
            self.assertEqual(error.args[0], "Unknown output fields selected: nosuch")
