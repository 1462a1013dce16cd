"""Answers of allocators: what is accepted, and what is refused."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.allocation import results
from ganeti_masterd.allocation.scripts import (
    AllocatorAnswer,
    AllocatorMissing,
    arguments,
    output,
    read_answer,
)
from ganeti_masterd.errors import OpExecError, ResultValidationError, encode_error
from ganeti_masterd.rpc.interfaces import NodeResult
from tests.test_decoding import NONSENSE


class AnswerTests(SynchronousTestCase):
    """The output of a script."""

    def test_read(self) -> None:
        """Success, info and result are read; old scripts call the result "nodes"."""
        for key in ("result", "nodes"):
            text = f'{{"success": true, "info": "fine", "{key}": ["node1"], "more": 1}}\n'
            self.assertEqual(read_answer(text), AllocatorAnswer(True, "fine", ["node1"]))

    def test_nonsense(self) -> None:
        """Output that isn't an answer is an error that says why."""
        nonsense = [body.decode("utf-8", "surrogateescape") for body in NONSENSE]
        wrong = ("no JSON", "[]", "{}", '{"success": 1, "info": "", "result": []}')
        for text in (*nonsense, *wrong):
            error = self.assertRaises(OpExecError, read_answer, text)
            self.assertTrue(str(error).startswith("Can't parse iallocator results: "), str(error))

    def test_output(self) -> None:
        """A script's output is returned; a script that fails or doesn't exist is an error."""
        fine = NodeResult("node1", "iallocator_runner", "{}")
        self.assertEqual(output("hail", fine), "{}")
        failed = NodeResult("node1", "iallocator_runner", None, "exited with exit code 1")
        error = self.assertRaises(OpExecError, output, "hail", failed)
        self.assertIn("Failure while running the iallocator script", str(error))
        words = "iallocator module 'hail' not found in the search path"
        missing = NodeResult("node1", "iallocator_runner", None, words)
        error = self.assertRaises(AllocatorMissing, output, "hail", missing)
        self.assertEqual(
            encode_error(error),
            ["OpExecError", ["The iallocator 'hail' is not installed on node node1"]],
        )

    def test_arguments(self) -> None:
        """A request's own options take precedence over the cluster's."""
        name, text, options = arguments("hail", {"a": 1}, {"x": "1", "y": "2"}, {"x": None})
        self.assertEqual((name, text, options), ("hail", '{"a":1}', {"x": None, "y": "2"}))


class ResultTests(SynchronousTestCase):
    """The result in an answer."""

    def refused(self, read: Any, *args: Any) -> str:
        return str(self.assertRaises(ResultValidationError, read, *args))

    def test_nodes(self) -> None:
        """Nodes must be names, exactly as many as required."""
        self.assertEqual(results.nodes(["a", "b"], 2), ["a", "b"])
        self.assertEqual(results.node("a"), "a")
        for wrong in ("a", [1], [""], None, {}):
            self.refused(results.nodes, wrong)
        self.assertEqual(
            self.refused(results.nodes, ["a"], 2),
            "iallocator returned invalid number of nodes (1), required 2",
        )
        self.refused(results.node, ["a"])

    def test_placements(self) -> None:
        """Placed instances with their nodes, and those without a place."""
        found = results.placements([[["x", ["a"]]], ["y"]])
        self.assertEqual((found.placed, found.failed), ([("x", ["a"])], ["y"]))
        for wrong in ([], [[["x"]], []], [[], [1]], "x"):
            self.refused(results.placements, wrong)

    def test_moves(self) -> None:
        """Moves are read with their jobs, which must be opcodes that move instances."""
        job = [{"OP_ID": "OP_INSTANCE_FAILOVER", "instance_name": "x"}]
        found = results.moves([[["x", "g", ["a", "b"]]], [["y", None], ["z", "why"]], [job]])
        self.assertEqual(found.moved, [results.MovedInstance("x", "g", ["a", "b"])])
        self.assertEqual(found.failed, [results.Stuck("y", None), results.Stuck("z", "why")])
        self.assertEqual([op.op_id for op in found.jobs[0]], ["OP_INSTANCE_FAILOVER"])
        for wrong in (
            [],
            [[], []],
            [[["x", "g"]], [], []],
            [[], [["y"]], []],
            [[], [], [[{"OP_ID": "OP_CLUSTER_DESTROY"}]]],
            [[], [], [[{"OP_ID": "OP_INSTANCE_MIGRATE", "nosuch": 1}]]],
            [[], [], [[{}]]],
        ):
            self.refused(results.moves, wrong)

    def test_groups(self) -> None:
        """Nodes of other groups are refused by the groups' names; unknown nodes are ignored."""
        document = {
            "nodes": {"a": {"group": "1"}, "b": {"group": "2"}, "c": {"group": "gone"}},
            "nodegroups": {"1": {"name": "first"}, "2": {"name": "second"}},
        }
        results.check_groups(document, ["a", "nosuch"], ["a", "b"])
        self.assertEqual(
            self.refused(results.check_groups, document, ["b", "c"], ["a"]),
            "Groups of nodes returned by iallocator (gone, second) differ from original groups"
            " (first)",
        )
