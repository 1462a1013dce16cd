"""Calls recorded from real node daemons get answers of the same shape from simulated nodes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ganeti_masterd.simulation.cluster import BUILT
from ganeti_masterd.testing.shapes import differences, shape
from tests.simulation.nodes import SimulationCase, target

RECORDED = json.loads((Path(__file__).parent.parent / "data" / "noded_rpc.json").read_text())

#: Places in answers with text that depends on the recorded machine.
KEYS_OF_THE_MACHINE = {"filelist"}


class ReplayTests(SimulationCase):
    def test_all(self) -> None:
        """Replayed in order, every implemented call ends as recorded."""
        self.maxDiff = None
        for node in ("node1", "node2", "node3"):
            self.take_in(node)
        faults: list[str] = []
        for place, (node, name, arguments, (good, expected)) in enumerate(RECORDED):
            self.assertIn(name, BUILT)
            result = self.replay(node, name, arguments)
            if name == "node_leave_cluster":
                self.take_in(node)
            if result.failed == good:
                faults.append(f"{place} {name}: {result.error or result.payload}, not {expected}")
            elif not good:
                if result.error != expected:
                    faults.append(f"{place} {name}: {result.error!r}, not {expected!r}")
            else:
                self.without(expected)
                self.without(result.payload)
                faults += [
                    f"{place} {name}: {text}" for text in differences(expected, result.payload)
                ]
        self.assertEqual(faults, [])

    def take_in(self, node: str) -> None:
        """Makes the calls that were made when the node was added to the recorded cluster."""
        self.ask(node, "write_ssconf_files", {"master_node": ["node1"]})

    def replay(self, node: str, name: str, arguments: list[Any]) -> Any:
        done = self.nodes.call([target(node)], name, arguments)
        if name == "test_delay":
            self.clock.advance(arguments[0])
        return self.successResultOf(done)[f"uuid-{node}"]

    def without(self, payload: Any) -> None:
        """Removes values that depend on the recorded machine."""
        if isinstance(payload, dict):
            for key in KEYS_OF_THE_MACHINE & set(payload):
                payload[key] = {}


class ShapeTests(SimulationCase):
    def test_shape(self) -> None:
        """A skeleton keeps types and keys, and each kind of item once."""
        self.assertEqual(
            shape({"a": [1, 2.5, "x", None], "b": True}),
            {"a": ["number", "text", "null"], "b": "boolean"},
        )
        self.assertEqual(shape({"web": 1, "mail": 2}, keys=False), {"*": ["number"]})

    def test_differences(self) -> None:
        """Differences name their place; an empty list matches any list."""
        self.assertEqual(differences([1, "x"], ["y"]), [])
        self.assertEqual(differences([], [1]), [])
        self.assertEqual(
            differences({"a": 1}, {"b": 1}), ["payload.a is missing", "payload.b is too much"]
        )
        self.assertEqual(
            differences([{"a": 1}], [{"a": "x"}]), ["payload[0].a is text, expected number"]
        )
        self.assertEqual(differences(None, []), ["payload is [], expected null"])
