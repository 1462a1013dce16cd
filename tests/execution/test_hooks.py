"""Hooks: where they run, what they are told, what they decide."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.newcluster import new_cluster
from ganeti_masterd.errors import HooksAbort, OpExecError
from ganeti_masterd.execution.unit import run_unit
from ganeti_masterd.logical_units.base import HookNodes, LogicalUnit
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.opcodes import decode_opcode
from ganeti_masterd.rpc.interfaces import Target
from ganeti_masterd.testing.context import SynchronousContext
from ganeti_masterd.testing.nodes import Failed, ScriptedNodes


class HookedContext(SynchronousContext):
    """With what only the executor uses of a context."""

    wrote_config = False

    def change(self, *args: Any, **kwargs: Any) -> Any:
        self.wrote_config = True
        return super().change(*args, **kwargs)


class Rename(LogicalUnit[Any]):
    """Stands for an opcode that has hooks and changes something."""

    fails = False

    def hook_nodes(self, snapshot: Any) -> HookNodes:
        uuids = tuple(sorted(snapshot.nodes, key=lambda uuid: snapshot.nodes[uuid].name))
        return HookNodes(uuids[:2], uuids)

    def hook_environment(self, snapshot: Any) -> dict[str, object]:
        return {"GROUP_NAME": snapshot.groups[next(iter(snapshot.groups))].name, "FLAG": True}

    def exec(self, ctx: Context) -> str:
        group = next(iter(ctx.snapshot().groups.values()))
        ctx.change(group.uuid, lambda value: value.with_tags(["x"]))
        if self.fails:
            raise OpExecError("no")
        return "default"


class HookTests(SynchronousTestCase):
    """The order of the steps, and the environment.

    See protocol/queue.rst, Running an opcode and protocol/rpc.rst, Hooks.
    """

    def setUp(self) -> None:
        self.nodes = ScriptedNodes({"hooks_runner": []})
        self.ctx = HookedContext(new_cluster("cluster", 3, 1.0), self.nodes)
        op = {"OP_ID": "OP_GROUP_RENAME", "group_name": "default", "new_name": "other"}
        self.unit = Rename(decode_opcode(op))

    def run_unit(self) -> Any:
        return run_unit(self.unit, self.ctx, "/data")

    def phases(self) -> list[tuple[str, str, str]]:
        return [
            (asked.node, asked.arguments[0], asked.arguments[1])
            for asked in self.nodes.asked
            if asked.procedure == "hooks_runner"
        ]

    def test_order(self) -> None:
        """Before on its nodes, after on its nodes, and config-update on the master."""
        self.run_unit()
        self.assertEqual(
            self.phases(),
            [
                ("node1", "group-rename", "pre"),
                ("node2", "group-rename", "pre"),
                ("node1", "group-rename", "post"),
                ("node2", "group-rename", "post"),
                ("node3", "group-rename", "post"),
                ("node1", "config-update", "post"),
            ],
        )

    def test_environment(self) -> None:
        """All variables are strings; after the opcode those of before are there too."""
        self.run_unit()
        before = self.nodes.asked[0].arguments[2]
        self.assertEqual(
            before,
            {
                "PATH": "/sbin:/bin:/usr/sbin:/usr/bin",
                "GANETI_HOOKS_VERSION": "2",
                "GANETI_OP_CODE": "OP_GROUP_RENAME",
                "GANETI_DATA_DIR": "/data",
                "GANETI_HOOKS_PHASE": "pre",
                "GANETI_HOOKS_PATH": "group-rename",
                "GANETI_OBJECT_TYPE": "GROUP",
                "GANETI_CLUSTER": "cluster",
                "GANETI_MASTER": "node1",
                "GANETI_GROUP_NAME": "default",
                "GANETI_FLAG": "True",
            },
        )
        after = self.nodes.asked[-2].arguments[2]
        self.assertEqual(after["GANETI_POST_GROUP_NAME"], "default")
        self.assertEqual(after["GANETI_GROUP_NAME"], "default")
        update = self.nodes.asked[-1].arguments[2]
        self.assertEqual(update["GANETI_HOOKS_PATH"], "config-update")

    def test_abort(self) -> None:
        """Every script that fails before is in the error; nothing is done."""
        self.nodes.answers["hooks_runner"] = [
            ["group-rename-pre.d/10good", 2, "fine"],
            ["group-rename-pre.d/20bad", 1, "not today"],
        ]
        error = self.assertRaises(HooksAbort, self.run_unit)
        script = "group-rename-pre.d/20bad"
        self.assertEqual(
            error.args[0], [["node1", script, "not today"], ["node2", script, "not today"]]
        )
        self.assertEqual(self.ctx.journal.rows, [])

    def test_unreachable_before(self) -> None:
        """A node whose hooks can't be run doesn't stop the opcode."""
        self.nodes.answers[("node2", "hooks_runner")] = Failed("no route")
        self.assertEqual(self.run_unit(), "default")
        self.assertTrue(any("node2: no route" in line for line in self.ctx.lines))

    def test_malformed(self) -> None:
        """A node whose answer is malformed counts as one whose hooks can't be run."""
        self.nodes.answers[("node2", "hooks_runner")] = [["s", "failed", "no"]]
        self.assertEqual(self.run_unit(), "default")
        said = "Hooks could not be run on node node2: RPC hooks_runner: malformed result"
        self.assertEqual([said in line for line in self.ctx.lines], [True, True])

    def test_failure_after(self) -> None:
        """What fails afterwards is a warning in the job's log."""

        def scripts(target: Any, arguments: Any) -> Any:
            return [["s", 1, "late"]] if arguments[1] == "post" else []

        self.nodes.answers["hooks_runner"] = scripts
        self.assertEqual(self.run_unit(), "default")
        self.assertEqual(sum("script s failed: late" in line for line in self.ctx.lines), 4)

    def test_config_update_after_failure(self) -> None:
        """An opcode that wrote the configuration and then failed is followed by it too."""
        self.unit.fails = True
        self.assertRaises(OpExecError, self.run_unit)
        self.assertEqual(self.phases()[-1], ("node1", "config-update", "post"))

    def test_dry_run(self) -> None:
        """A dry run runs the hooks that come before, and no more."""
        op = {"OP_ID": "OP_GROUP_RENAME", "group_name": "default", "new_name": "o"}
        self.unit = Rename(decode_opcode({**op, "dry_run": True}))
        self.assertIsNone(self.run_unit())
        self.assertEqual({phase for _, _, phase in self.phases()}, {"pre"})

    def test_early(self) -> None:
        """A node that leaves gets the hooks after the opcode before it is gone, by its name."""
        leaving = Target("gone", "node9", "192.0.2.9")
        original = self.unit.exec

        def leave(ctx: Any) -> Any:
            ctx.hooks_early(leaving)
            return original(ctx)

        self.unit.exec = leave  # type: ignore[method-assign]
        self.nodes.answers["node9", "hooks_runner"] = [["s", 1, "late"]]
        self.assertEqual(self.run_unit(), "default")
        place = self.phases().index(("node9", "group-rename", "post"))
        self.assertEqual(self.phases()[place + 1], ("node1", "group-rename", "post"))
        self.assertIn("GANETI_POST_GROUP_NAME", self.nodes.asked[place].arguments[2])
        self.assertIn(" - WARNING: On node node9 script s failed: late", self.ctx.lines)

    def test_nonsense(self) -> None:
        """A node that answers nonsense is one whose hooks could not be run."""
        self.nodes.answers["node2", "hooks_runner"] = [["s"]]
        self.assertEqual(self.run_unit(), "default")
        self.assertIn("Hooks could not be run on node node2", self.ctx.lines[0])
