"""How opcodes have an allocator find nodes, and the opcode that tries one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec.structs import replace

from ganeti_masterd.allocation.requests import Allocate, EvacuationRequest
from ganeti_masterd.errors import (
    OpExecError,
    OpPrereqError,
    ResultValidationError,
)
from ganeti_masterd.locking.levels import BGL, Level, shared
from ganeti_masterd.logical_units.steps.allocating import find_nodes
from ganeti_masterd.testing.nodes import Failed
from tests.logical_units.cluster import with_instance
from tests.logical_units.scene import UnitScene

ROOM = {
    "memory_total": 8000,
    "memory_free": 6000,
    "memory_dom0": 500,
    "cpu_total": 8,
    "cpu_dom0": 1,
}

NEW = Allocate(
    name="new",
    memory=512,
    vcpus=1,
    disk_template="diskless",
    disks=(),
    os="noop",
    hypervisor="fake",
)

MISSING = Failed("iallocator module 'hail' not found in the search path")


def says(**answer: Any) -> Callable[..., str]:
    """Returns an allocator that says this."""
    text = msgspec.json.encode({"success": True, "info": "fine", "result": [], **answer})
    return lambda target, arguments: text.decode()


class AllocatingScene(UnitScene):
    """Three nodes, node2 the emptiest, and an allocator that says node3."""

    def setUp(self) -> None:
        super().setUp()
        self.nodes.answers.update(
            {
                "node_info": ["boot", [], [ROOM]],
                ("node2", "node_info"): ["boot", [], [{**ROOM, "memory_free": 7000}]],
                "all_instances_info": {},
                "iallocator_runner": says(result=["node3"]),
            }
        )

    def set_cluster(self, **about: Any) -> None:
        self.ctx.change(self.ctx.snapshot().cluster.uuid, lambda now: replace(now, **about))

    def asked_of_script(self) -> list[Any]:
        """Returns the arguments of each script that was run: name, document, options."""
        runs = [asked for asked in self.nodes.asked if asked.procedure == "iallocator_runner"]
        self.assertEqual({run.node for run in runs} - {"node1"}, set())
        return [run.arguments for run in runs]


class FindTests(AllocatingScene):
    """Choosing, asking and reading."""

    def test_script(self) -> None:
        """A script that is named runs on the master, with the document and the options."""
        self.set_cluster(default_iallocator_params={"verbose": None})
        self.assertEqual(find_nodes(self.ctx, NEW, "hail"), ["node3"])
        ((name, text, options),) = self.asked_of_script()
        self.assertEqual((name, options), ("hail", {"verbose": None}))
        told = msgspec.json.decode(text)
        self.assertEqual(told["request"]["name"], "new")
        self.assertEqual(told["nodes"]["node2"]["free_memory"], 7000)

    def test_options_of_the_request(self) -> None:
        """What a request lets the script ignore is an option of that run."""
        self.renew(with_instance(self.ctx.snapshot(), "db", ["node1"]))
        self.nodes.answers["iallocator_runner"] = says(result=[[], [], []])
        request = EvacuationRequest(instances=["db"], evac_mode="all", ignore_soft_errors=True)
        self.assertEqual(find_nodes(self.ctx, request, "hail").moved, [])
        self.assertEqual(self.asked_of_script()[0][2], {"ignore-soft-errors": None})

    def test_default(self) -> None:
        """The cluster's default decides where none is named."""
        self.set_cluster(default_iallocator="hail")
        self.assertEqual(find_nodes(self.ctx, NEW), ["node3"])
        self.assertEqual([run[0] for run in self.asked_of_script()], ["hail"])

    def test_built_in(self) -> None:
        """The built-in one decides without a default, and by its name; no script is run."""
        self.set_cluster(default_iallocator="")
        self.assertEqual(find_nodes(self.ctx, NEW), ["node2"])
        self.assertEqual(find_nodes(self.ctx, NEW, "builtin"), ["node2"])
        self.assertEqual(self.asked_of_script(), [])

    def test_default_that_is_not_installed(self) -> None:
        """Where the default isn't installed the built-in one decides, and the log says so."""
        self.set_cluster(default_iallocator="hail")
        self.nodes.answers["iallocator_runner"] = MISSING
        self.assertEqual(find_nodes(self.ctx, NEW), ["node2"])
        self.assertEqual(
            self.ctx.lines,
            [
                " - WARNING: The iallocator 'hail' is not installed on node node1, the built-in"
                " one decides"
            ],
        )

    def test_named_that_is_not_installed(self) -> None:
        """One that was asked for by name is an error if it isn't installed."""
        self.nodes.answers["iallocator_runner"] = MISSING
        error = self.assertRaises(OpExecError, find_nodes, self.ctx, NEW, "hail")
        self.assertIn("is not installed", str(error))

    def test_script_that_fails(self) -> None:
        """A script that fails is an error, also as the default: it isn't passed over."""
        self.set_cluster(default_iallocator="hail")
        self.nodes.answers["iallocator_runner"] = Failed("exited with exit code 1")
        error = self.assertRaises(OpExecError, find_nodes, self.ctx, NEW)
        self.assertIn("Failure while running the iallocator script", str(error))

    def test_no_place(self) -> None:
        """An allocator that finds nothing is a refusal for want of resources, with its words."""
        self.nodes.answers["iallocator_runner"] = says(success=False, info="all full")
        error = self.assertRaises(OpPrereqError, find_nodes, self.ctx, NEW, "hail")
        self.assertEqual(
            error.args,
            ("Can't compute nodes using iallocator 'hail': all full", "insufficient_resources"),
        )
        large = replace(NEW, memory=9999)
        error = self.assertRaises(OpPrereqError, find_nodes, self.ctx, large, "builtin")
        self.assertIn("iallocator 'builtin': No place found: group default", error.args[0])

    def test_answers_that_make_no_sense(self) -> None:
        """An answer that isn't one of the request's is refused."""
        self.nodes.answers["iallocator_runner"] = says(result=["a", "b"])
        self.assertRaises(ResultValidationError, find_nodes, self.ctx, NEW, "hail")
        self.nodes.answers["iallocator_runner"] = "rubbish"
        self.assertRaises(OpExecError, find_nodes, self.ctx, NEW, "hail")

    def test_node_that_says_nothing(self) -> None:
        """A node that doesn't tell its room is an error that names it."""
        self.nodes.answers["node2", "node_info"] = Failed("no route")
        error = self.assertRaises(OpExecError, find_nodes, self.ctx, NEW, "builtin")
        self.assertIn("node2", str(error))


class TryTests(AllocatingScene):
    """OP_TEST_ALLOCATOR."""

    def attempt(self, mode: str = "allocate", direction: str = "out", **more: Any) -> Any:
        asked = {
            "name": "new",
            "iallocator": "builtin",
            "memory": 512,
            "vcpus": 1,
            "os": "noop",
            "disk_template": "diskless",
            "disks": [{"size": 10, "mode": "rw"}],
            "nics": [{"mac": None}],
            **more,
        }
        return self.run_unit("OP_TEST_ALLOCATOR", mode=mode, direction=direction, **asked)

    def told(self, mode: str, **more: Any) -> Any:
        """Returns the request that an allocator would be told."""
        return msgspec.json.decode(self.attempt(mode, "in", **more))["request"]

    def refused(self, **more: Any) -> tuple[Any, ...]:
        return self.assertRaises(OpPrereqError, self.attempt, **more).args

    def test_out(self) -> None:
        """The answer is the allocator's own text, found or not."""
        self.assertEqual(msgspec.json.decode(self.attempt())["result"], ["node2"])
        self.nodes.answers["iallocator_runner"] = "rubbish"
        self.assertEqual(self.attempt(iallocator="hail"), "rubbish")

    def test_in(self) -> None:
        """What would be told is shown; nothing is run for that."""
        told = self.told("allocate", iallocator=None)
        self.assertEqual(
            (told["type"], told["name"], told["hypervisor"]), ("allocate", "new", "fake")
        )
        self.assertEqual(self.asked_of_script(), [])

    def test_each_mode(self) -> None:
        """Each mode is told as it must be, names resolved."""
        snapshot = self.ctx.snapshot()
        snapshot = with_instance(snapshot, "db.example.com", ["node1", "node2"], template="drbd")
        cluster = replace(snapshot.cluster, volume_group_name="vg0")
        self.renew(snapshot.with_object("cluster", cluster))
        unit = {"type": "lvm-vg", "name": "vg0", "storage_size": 10, "storage_free": 5}
        for key in ("node_info", ("node2", "node_info")):
            self.nodes.answers[key] = ["boot", [unit], [ROOM]]
        several = self.told("multi-allocate", count=2)
        self.assertEqual([one["name"] for one in several["instances"]], ["new0", "new1"])
        self.assertEqual(self.told("relocate", name="db")["relocate_from"], ["node2"])
        self.assertEqual(
            self.told("allocate-secondary", name="db"),
            {"type": "allocate-secondary", "name": "db.example.com"},
        )
        moved = {"instances": ["db"], "evac_mode": "primary-only"}
        self.assertEqual(
            self.told("node-evacuate", **moved),
            {
                "type": "node-evacuate",
                "instances": ["db.example.com"],
                "evac_mode": "primary-only",
            },
        )
        group = self.ctx.snapshot().group("default").uuid
        self.assertEqual(
            self.told("change-group", instances=["db"], target_groups=["default"])["target_groups"],
            [group],
        )

    def test_refusals(self) -> None:
        """What makes no request is refused, each with its own words."""
        for more, words, code in (
            (
                {"name": "web"},
                "Instance 'web.example.com' already in the cluster",
                "already_exists",
            ),
            (
                {"disks": [{"size": "1"}]},
                "Invalid contents of the 'disks' parameter",
                "wrong_input",
            ),
            ({"disks": [1]}, "Invalid contents of the 'disks' parameter", "wrong_input"),
            (
                {"disks": [{"size": 1, "mode": "x"}]},
                "Invalid contents of the 'disks' parameter",
                "wrong_input",
            ),
            (
                {"memory": None, "os": None},
                "A new instance needs the parameters memory, os",
                "wrong_input",
            ),
            ({"iallocator": None}, "Missing allocator name", "wrong_input"),
            ({"mode": "node-evacuate"}, "Missing instances", "wrong_input"),
            ({"mode": "change-group", "instances": []}, "Missing instances", "wrong_input"),
            (
                {"mode": "node-evacuate", "instances": ["web"]},
                "Missing evacuation mode",
                "wrong_input",
            ),
            ({"mode": "relocate"}, "Instance 'new' not known", "unknown_entity"),
            ({"mode": "allocate-secondary"}, "Instance 'new' not known", "unknown_entity"),
            (
                {"mode": "change-group", "instances": ["nosuch"]},
                "Instance 'nosuch' not known",
                "unknown_entity",
            ),
            (
                {"mode": "change-group", "instances": ["web"], "target_groups": ["x"]},
                "Node group 'x' not found",
                "unknown_entity",
            ),
        ):
            self.assertEqual(self.refused(**more), (words, code))

    def test_locks(self) -> None:
        """It holds nothing."""
        unit = self.unit(
            "OP_TEST_ALLOCATOR", mode="relocate", direction="in", name="web", iallocator="hail"
        )
        self.assertEqual(self.wanted(unit), {Level.CLUSTER: shared(BGL)})


class SecretTests(UnitScene):
    """OP_TEST_OS_PARAMS."""

    def test_shown(self) -> None:
        """Secret parameters that arrived are said; without any the opcode fails."""
        self.run_unit("OP_TEST_OS_PARAMS", osparams_secret={"key": "hidden"})
        self.assertEqual(self.ctx.lines, ["Secret OS parameters: {'key': 'hidden'}"])
        for nothing in (None, {}):
            error = self.assertRaises(
                OpExecError, self.run_unit, "OP_TEST_OS_PARAMS", osparams_secret=nothing
            )
            self.assertEqual(str(error), "Opcode needs secret parameters")
