"""Rows that don't come from the configuration, and the cluster."""

from __future__ import annotations

import json
from typing import Any

from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.objects import FilterRule
from ganeti_masterd.locking.listing import LockRow
from ganeti_masterd.query.fields import View
from ganeti_masterd.query.listings import FILTER_FIELDS
from ganeti_masterd.testing.nodes import ScriptedNodes
from tests.query.scene import Scene, big_snapshot


class ListingTests(SynchronousTestCase):
    """Rows that don't come from the configuration."""

    def test_predicates(self) -> None:
        """A rule's expressions have one spelling; what makes no sense is shown as it is."""
        cell = FILTER_FIELDS["predicates"].bound(View(big_snapshot(1, 1)))
        good = ["jobid", ["&", ["=", "id", 1], ["!", ["=~", "id", "="]]]]
        for predicate, shown in (
            (good, ["jobid", ["&", ["==", "id", 1], ["!", ["=~", "id", "="]]]]),
            (("opcode", ("=[]", "nodes", "n")), ["opcode", ["=[]", "nodes", "n"]]),
            (["jobid", ["=", "id"]], ["jobid", ["=", "id"]]),
            (["jobid", "=", None], ["jobid", "=", None]),
            (["jobid"], ["jobid"]),
            ([], []),
            (5, 5),
            ("jobid", "jobid"),
        ):
            rule = FilterRule(uuid="u", watermark=1, priority=2, predicates=(predicate,))
            self.assertEqual(cell(rule), [shown])

    def test_locks(self) -> None:
        """Lock rows show holders, waiting jobs and the mode, which may be None."""
        rows = [
            LockRow("cluster/BGL", "shared", ["222", "223"], []),
            LockRow("node/[lockset]", None, [], []),
            LockRow("node/u", "exclusive", ["222"], [("exclusive", ["223"])]),
        ]
        scene = Scene(locks=rows)
        fields = ["name", "mode", "owner", "pending"]
        self.assertEqual(
            scene.query(self, "lock", fields),
            [
                [[0, "cluster/BGL"], [0, "shared"], [0, ["222", "223"]], [0, []]],
                [[0, "node/[lockset]"], [0, None], [0, []], [0, []]],
                [[0, "node/u"], [0, "exclusive"], [0, ["222"]], [0, [["exclusive", ["223"]]]]],
            ],
        )
        found = scene.query(self, "lock", ["name"], ["=[]", "owner", "223"])
        self.assertEqual(found, [[[0, "cluster/BGL"]]])
        found = scene.query(self, "lock", ["name"], ["=", "mode", "exclusive"])
        self.assertEqual(found, [[[0, "node/u"]]])

    def test_operating_systems(self) -> None:
        """An OS has what it has on all nodes that answered."""

        def row(name: str, valid: bool, variants: list[str], params: list[Any]) -> list[Any]:
            return [name, f"/os/{name}", valid, "", variants, params, [20, 15], True]

        both = row("debian", True, ["full", "minimal"], [["a10", "x"], ["a2", "y"]])
        less = row("debian", True, ["minimal", "odd"], [["a2", "y"], ["a10", "x"]])
        nodes = ScriptedNodes(
            {
                "os_diagnose": [both, row("broken", False, [], []), row("noop", True, [], [])],
                ("node2", "os_diagnose"): [less, less, row("broken", True, [], [])],
                ("node3", "os_diagnose"): "nonsense",
            }
        )
        scene = Scene(nodes=nodes)
        snapshot = scene.snapshot
        cluster = replace(snapshot.cluster, hidden_os=("noop",), blacklisted_os=("broken",))
        scene.snapshot = snapshot.with_object("cluster", cluster)
        fields = ["name", "valid", "hidden", "blacklisted", "variants", "parameters", "osparams"]
        self.assertEqual(
            [[cell[1] for cell in row] for row in scene.query(self, "os", fields)],
            [
                ["broken", False, False, True, [], [], {}],
                [
                    "debian",
                    True,
                    False,
                    False,
                    ["minimal"],
                    [["a2", "y"], ["a10", "x"]],
                    {"debian+minimal": {"suite": "s1"}},
                ],
                ["noop", False, True, False, [], [], {}],
            ],
        )
        asked = [node for node, _ in nodes.procedures()]
        self.assertNotIn("node4.example.com", asked)  # offline
        self.assertNotIn("node10.example.com", asked)  # may run no instance
        ((status,),) = scene.query(self, "os", ["node_status"], ["=", "name", "noop"])
        uuid = snapshot.node("node2").uuid
        self.assertEqual(status[1][uuid], [])
        self.assertNotIn(snapshot.node("node3").uuid, status[1])
        named = ["|", ["=", "name", "noop"], ["=", "name", "nosuch"], ["=", "name", "debian"]]
        self.assertEqual(scene.query(self, "os", ["name"], named), [[[0, "noop"]], [[0, "debian"]]])
        self.assertEqual(scene.query(self, "os", ["name"], ["?", "valid"]), [[[0, "debian"]]])

    def test_storage_providers(self) -> None:
        """A provider is valid in a group if it is valid on all its nodes that answered."""
        good = ["prov", "/es/prov", True, "", [["size", "MiB"]]]
        nodes = ScriptedNodes(
            {
                "extstorage_diagnose": [good],
                ("node11.example.com", "extstorage_diagnose"): [],
            }
        )
        scene = Scene(nodes=nodes)
        ((groups, parameters),) = scene.query(
            self, "extstorage", ["nodegroup_status", "parameters"]
        )
        self.assertEqual(groups[1], {"default": True, "rack10": False, "rack9": True})
        self.assertEqual(parameters[1], [])
        del nodes.answers["node11.example.com", "extstorage_diagnose"]
        ((_, parameters),) = scene.query(self, "extstorage", ["name", "parameters"])
        self.assertEqual(parameters[1], [["size", "MiB"]])

    def test_cluster(self) -> None:
        """The cluster is one row, including state that isn't in the configuration."""
        scene = Scene()
        fields = ["name", "master_node", "drain_flag", "watcher_pause", "tags", "config_version"]
        self.assertEqual(
            scene.query(self, "cluster", fields),
            [
                [
                    [0, "cluster"],
                    [0, "node1"],
                    [0, False],
                    [3, None],
                    [0, ["b", "env:test"]],
                    [0, 3000000],
                ]
            ],
        )
        scene.state.watcher_pause = 1795490000
        scene.state.drained = True
        self.assertEqual(
            scene.query(self, "cluster", ["watcher_pause"], ["?", "drain_flag"]),
            [[[0, 1795490000]]],
        )
        self.assertEqual(
            scene.engine.config_values(["watcher_pause", "drain_flag", "volume_group_name"]),
            [1795490000, True, "xenvg"],
        )

    def test_cluster_info_is_kept(self) -> None:
        """The cluster's description is encoded once for a configuration."""
        scene = Scene()
        first = scene.engine.cluster_info()
        self.assertIs(scene.engine.cluster_info(), first)
        cluster = replace(scene.snapshot.cluster, mac_prefix="aa:bb:cc")
        scene.snapshot = scene.snapshot.with_object("cluster", cluster)
        self.assertEqual(json.loads(scene.engine.cluster_info().data)["mac_prefix"], "aa:bb:cc")

    def test_kept_answers(self) -> None:
        """A short answer is cached until the configuration changes."""
        scene = Scene()
        first = scene.engine.answer("node", ["name", "role"])
        self.assertIs(scene.engine.answer("node", ["name", "role"]), first)
        self.assertIsNot(scene.engine.answer("node", ["role", "name"]), first)
        for count in range(200):
            scene.engine.answer("node", ["name"] * (count + 2))
        scene.snapshot = big_snapshot(1, 0)
        changed = scene.result(self, scene.engine.answer("node", ["name", "role"]))
        self.assertEqual(changed["data"], [[[0, "node0.example.com"], [0, "M"]]])
