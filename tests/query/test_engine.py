"""The engine: which nodes are asked, long answers, and names."""

from __future__ import annotations

import gc
import json
from typing import Any

from msgspec.structs import replace
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.errors import DaemonStopping, OpPrereqError
from ganeti_masterd.query.collectors import PATIENCE
from ganeti_masterd.query.resources import RESOURCES
from ganeti_masterd.testing.nodes import ScriptedNodes
from tests.query.scene import Scene, big_snapshot, recorded, recorded_nodes
from tests.query.test_slices import Turns


class AskingTests(SynchronousTestCase):
    """Which nodes are asked, and for what."""

    def setUp(self) -> None:
        self.scene = Scene()
        self.nodes: ScriptedNodes = self.scene.nodes

    def asked(self, resource: str, fields: list[str], filter_: Any = None) -> list[Any]:
        """Returns the calls made for a query: (node, procedure) in order."""
        self.nodes.asked.clear()
        self.scene.result(self, self.scene.engine.query(resource, fields, filter_))
        return self.nodes.procedures()

    def test_nothing(self) -> None:
        """A query of the configuration asks no node and is answered at once."""
        for resource in ("node", "instance", "group", "network", "job", "lock", "filter"):
            fields = [f.name for f in RESOURCES[resource].fields.values() if f.needs is None]
            fields = [name for name in fields if name != "archived"]
            answer = self.scene.engine.query(resource, fields)
            if resource != "instance":  # has so many fields that it takes several turns
                self.assertNotIsInstance(answer, Deferred)
            self.scene.result(self, answer)
        self.assertEqual(self.nodes.asked, [])

    def test_only_what_is_needed(self) -> None:
        """Only the calls that the fields need are made, and only to online nodes."""
        calls = self.asked("node", ["name", "mfree"])
        self.assertEqual({procedure for _, procedure in calls}, {"node_info"})
        self.assertEqual(len(calls), 6)
        self.assertEqual(self.nodes.asked[0].arguments[0], [])
        self.assertEqual(self.nodes.asked[0].timeout, PATIENCE)
        self.asked("node", ["dfree"], ["=", "name", "node10"])
        (call,) = self.nodes.asked
        self.assertEqual(
            call.arguments[0],
            [
                ["file", "/srv/ganeti/file-storage", []],
                ["lvm-vg", "xenvg", [True]],
                ["lvm-pv", "xenvg", [True]],
            ],
        )
        self.assertEqual([spec[0] for spec in call.arguments[1]], ["kvm"])

    def test_only_who_matters(self) -> None:
        """Nodes that a filter excludes by the configuration alone aren't asked."""
        calls = self.asked(
            "instance", ["name"], ["&", ["=", "pnode", "node1"], ["=", "status", "running"]]
        )
        self.assertEqual(calls, [("node1", "all_instances_info")])
        self.assertEqual(self.asked("instance", ["status"], ["=", "pnode", "nosuch"]), [])
        self.assertEqual(
            self.asked("instance", ["console"], ["=", "name", "web3"]),
            [("node11.example.com", "instance_console_info")],
        )
        self.assertEqual(self.asked("instance", ["status"], ["=", "name", "web2"]), [])

    def test_either_by_configuration_or_live(self) -> None:
        """An "or" of configuration and live data is evaluated once the nodes have answered."""
        scene = Scene(nodes=recorded_nodes(recorded()["nodes"]))
        either = ["|", ["=", "pnode", "node1"], ["=", "status", "running"]]
        expected = ["instance5", "instance8", "instance31", "instance32", "web3.example.com"]
        rows = scene.query(self, "instance", ["name"], either)
        self.assertEqual([name for ((_, name),) in rows], expected)
        rows = scene.query(self, "instance", ["name"], ["&", ["!", either], ["=~", "name", "^web"]])
        self.assertEqual(
            [name for ((_, name),) in rows],
            ["web1.example.com", "web2.example.com", "web10.example.com"],
        )

    def test_late_answers_are_not_kept(self) -> None:
        """An answer computed while the configuration changes isn't cached."""
        scene = self.scene
        slices = scene.engine.slices
        run, making = slices.run, Deferred()
        self.patch(slices, "run", lambda *given: making.addCallback(lambda _: run(*given)))
        late = scene.engine.answer("group", ["name"])
        self.patch(slices, "run", run)
        before = scene.snapshot
        group = min(before.groups.values(), key=lambda each: each.name)
        scene.snapshot = before.with_object("nodegroups", replace(group, name="renamed"))
        names = scene.query(self, "group", ["name"])
        making.callback(None)
        self.assertIn([[0, group.name]], scene.result(self, late)["data"])
        self.assertEqual(scene.query(self, "group", ["name"]), names)
        self.assertIn([[0, "renamed"]], names)

    def test_hypervisors(self) -> None:
        """Nodes are asked about the hypervisors of the instances in question."""
        self.asked("instance", ["status"], ["=", "name", "web3"])
        names, params = self.nodes.asked[0].arguments
        self.assertEqual((names, list(params)), (["kvm"], ["kvm"]))

    def test_at_once(self) -> None:
        """All nodes are asked for all kinds of data in parallel."""
        self.nodes.held = True
        answer = self.scene.engine.query("instance", ["status", "console"], ["=~", "name", "^web"])
        calls = {procedure for _, procedure in self.nodes.procedures()}
        self.assertEqual(calls, {"all_instances_info", "instance_console_info"})
        assert isinstance(answer, Deferred)
        self.assertNoResult(answer)
        self.nodes.release()
        self.assertEqual(len(self.successResultOf(answer)["data"]), 4)

    def test_one_snapshot(self) -> None:
        """An answer is made from the configuration at the time of the query."""
        self.nodes.held = True
        answer = self.scene.engine.query("node", ["name", "mfree"], None)
        self.scene.snapshot = big_snapshot(1, 0)
        self.nodes.release()
        rows = self.scene.result(self, answer)["data"]
        self.assertEqual(rows[0][0], [0, "node1"])
        self.assertEqual(len(rows), 7)

    def test_nonsense(self) -> None:
        """A node with a malformed answer is shown as one without data."""
        payloads: tuple[Any, ...] = (
            None,
            5,
            [],
            ["boot"],
            ["boot", None, [{}]],
            {"x": {"memory": "much"}},
        )
        for payload in payloads:
            self.nodes.answers = {"node_info": payload, "all_instances_info": payload}
            (row,) = self.scene.query(self, "node", ["mfree"], ["=", "name", "node1"])
            self.assertEqual(row, [[2, None]])
            if payload != []:
                rows = self.scene.query(self, "instance", ["status"], ["=", "name", "instance5"])
                self.assertEqual(rows, [[[0, "ERROR_nodedown"]]])

    def test_no_storage_said(self) -> None:
        """What a node leaves out is shown as missing; the rest is shown."""
        self.nodes.answers = {"node_info": ["boot", None, None]}
        fields = ["bootid", "mfree", "dfree", "sptotal"]
        (row,) = self.scene.query(self, "node", fields, ["=", "name", "node1"])
        self.assertEqual(row, [[0, "boot"], [2, None], [2, None], [2, None]])


class LongTests(SynchronousTestCase):
    """Answers that take several turns of the reactor."""

    def setUp(self) -> None:
        self.reactor = Turns()
        self.scene = Scene(big_snapshot(3, 4000), clock=self.reactor)

    def test_others_go_first(self) -> None:
        """While a long answer is being made, short ones are returned at once."""
        answer = self.scene.engine.answer("instance", ["name", "admin_state"])
        assert isinstance(answer, Deferred)
        for _ in range(3):
            self.assertNoResult(answer)
            self.assertNotIsInstance(self.scene.engine.answer("node", ["name"]), Deferred)
            self.reactor.turn()
        while self.reactor.calls:
            self.reactor.turn()
        rows = json.loads(self.successResultOf(answer).data)["data"]
        self.assertEqual(len(rows), 4000)
        self.assertEqual(rows[3999], [[0, "inst3999.example.com"], [0, "up"]])

    def test_filtered(self) -> None:
        """A filter over many rows is evaluated in slices as well."""
        answer = self.scene.engine.query("instance", ["name"], ["=~", "name", "99"])
        assert isinstance(answer, Deferred)
        self.assertNoResult(answer)
        while self.reactor.calls:
            self.reactor.turn()
        self.assertEqual(len(self.successResultOf(answer)["data"]), 76)

    def test_stop(self) -> None:
        """Answers that are unfinished when the daemon stops fail."""
        answer = self.scene.engine.instances([], ["name", "pnode"])
        assert isinstance(answer, Deferred)
        self.scene.engine.close()
        self.failureResultOf(answer, DaemonStopping)

    def test_memory(self) -> None:
        """Many live answers don't leak memory."""
        scene = Scene(big_snapshot(10, 200), ScriptedNodes({"all_instances_info": {}}))

        def ask(times: int) -> int:
            for _ in range(times):
                scene.result(self, scene.engine.answer("instance", ["name", "status", "hvparams"]))
                scene.nodes.asked.clear()
            gc.collect()
            return len(gc.get_objects())

        before = ask(3)
        self.assertLess(ask(10) - before, 200)


class NamedTests(SynchronousTestCase):
    """Rows that are asked for by name."""

    def test_unknown(self) -> None:
        """A name that doesn't exist is an error, in luxid's words."""
        scene = Scene()
        for resource, key, words in (
            ("node", "name", "Node name x not found"),
            ("instance", "name", "Instance name x not found"),
            ("group", "name", "NodeGroup name x not found"),
            ("network", "name", "Network name x not found"),
            ("export", "node", "Node name x not found"),
        ):
            error = self.assertRaises(
                OpPrereqError, scene.engine.query, resource, [key], ["=", key, "x"]
            )
            self.assertEqual(error.args, (words, "unknown_entity"))

    def test_classic_order(self) -> None:
        """Few names or many, in whatever order they are given: rows are in natural order."""
        scene = Scene(big_snapshot(10, 200))
        [*everything] = scene.result(self, scene.engine.instances([], ["name"]))
        names = [name for (name,) in everything]
        self.assertEqual(len(names), 200)
        for given in (names[1::-1], names[150:3:-1] * 2, ["nosuch", *reversed(names)]):
            rows = scene.result(self, scene.engine.instances(given, ["name"]))
            self.assertEqual([name for (name,) in rows], [n for n in names if n in given])

    def test_classic_leaves_out(self) -> None:
        """Classic queries leave out unknown names, and return each object once."""
        scene = Scene()
        rows = scene.engine.nodes(["node4", "nosuch", "node1", "node1"], ["name", "mtotal"])
        self.assertEqual(scene.result(self, rows), [["node1", None], ["node4.example.com", None]])
        rows = scene.engine.instances(["nosuch"], ["name"])
        self.assertEqual(scene.result(self, rows), [])
