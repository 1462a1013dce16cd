"""Faults on demand hit what their rules say, from code and from the file."""

from __future__ import annotations

import os
import random
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.simulation.faults import Faults, SimulatedFault
from tests.simulation.nodes import SimulationCase, instance, target
from tests.test_decoding import NONSENSE


class RuleTests(SynchronousTestCase):
    def hits(self, faults: Faults, count: int, node: str = "a", call: str = "version") -> str:
        """Returns a mark for each of so many calls: hit or passed."""
        return "".join(
            "x" if faults.disturb(node, call, 0.0) is not None else "." for _ in range(count)
        )

    def test_count_and_after(self) -> None:
        """A rule lets some pass, hits some, and is over."""
        faults = Faults()
        faults.add(SimulatedFault(kind="error", after=2, count=3))
        self.assertEqual(self.hits(faults, 8), "..xxx...")

    def test_which(self) -> None:
        """A rule meets only its node and call."""
        faults = Faults()
        faults.add(SimulatedFault(kind="error", node="a", call="version"))
        self.assertEqual(self.hits(faults, 1, "b"), ".")
        self.assertEqual(self.hits(faults, 1, "a", "node_info"), ".")
        self.assertEqual(self.hits(faults, 1), "x")

    def test_remove(self) -> None:
        """A rule can be taken back, twice too; clear takes all."""
        faults = Faults()
        remove = faults.add(SimulatedFault(kind="silent"))
        remove()
        remove()
        self.assertEqual(self.hits(faults, 1), ".")
        faults.add(SimulatedFault(kind="silent"))
        faults.clear()
        self.assertEqual(self.hits(faults, 1), ".")

    def test_delays_add(self) -> None:
        """Delays add up and let other rules act."""
        faults = Faults()
        faults.add(SimulatedFault(kind="delay", seconds=1.0))
        faults.add(SimulatedFault(kind="delay", seconds=2.0))
        found = faults.disturb("a", "version", 0.0)
        assert found is not None
        self.assertEqual((found.seconds, found.fault), (3.0, None))
        faults.add(SimulatedFault(kind="error"))
        found = faults.disturb("a", "version", 0.0)
        assert found is not None
        assert found.fault is not None
        self.assertEqual((found.seconds, found.fault.kind), (3.0, "error"))

    @settings(deadline=None, max_examples=50)
    @given(st.floats(0, 1), st.none() | st.integers(0, 5), st.integers(0, 5), st.integers(0, 30))
    def test_bounds(self, chance: float, count: int | None, after: int, calls: int) -> None:
        """However often it is met, a rule keeps to its count, and to what it lets pass."""
        faults = Faults(chance=random.Random(1).random)
        faults.add(SimulatedFault(kind="error", probability=chance, count=count, after=after))
        marks = self.hits(faults, calls)
        self.assertNotIn("x", marks[:after])
        if count is not None:
            self.assertLessEqual(marks.count("x"), count)
        if chance == 1.0:
            self.assertEqual(
                marks.count("x"), min(max(0, calls - after), 99 if count is None else count)
            )


class FileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = os.path.join(self.mktemp(), "faults.json")
        os.makedirs(os.path.dirname(self.path))
        self.faults = Faults(self.path)
        self.now = 0.0

    def write(self, value: Any) -> None:
        with open(self.path, "wb") as file:
            file.write(value if isinstance(value, bytes) else msgspec.json.encode(value))

    def hit(self, wait: float = 1.0) -> str | None:
        """Returns the text of the fault of a call made after that time."""
        self.now += wait
        found = self.faults.disturb("a", "version", self.now)
        return None if found is None or found.fault is None else found.fault.text

    def test_changes(self) -> None:
        """The file counts from when it comes, when it changes, until it goes."""
        self.assertIsNone(self.hit())
        self.write([{"kind": "error", "text": "one"}])
        self.assertEqual(self.hit(), "one")
        self.write([{"kind": "error", "text": "another"}])
        self.assertEqual(self.hit(self.faults.LOOK_EVERY / 2), "one")
        self.assertEqual(self.hit(), "another")
        os.unlink(self.path)
        self.assertIsNone(self.hit())

    def test_counting_goes_on(self) -> None:
        """An unchanged file does not make a spent rule new."""
        self.write([{"kind": "error", "count": 1}])
        self.assertIsNotNone(self.hit())
        self.assertIsNone(self.hit())

    def test_nonsense(self) -> None:
        """A file that makes no sense leaves the rules as they were."""
        self.write([{"kind": "error", "text": "one"}])
        self.assertEqual(self.hit(), "one")
        wrong = (b"[{", b'[{"kind": "nonsense"}]', b'[{"kind": "error", "nodes": 1}]', b"{}")
        for text in (*wrong, *NONSENSE):
            self.write(text)
            self.assertEqual(self.hit(), "one")


class EffectTests(SimulationCase):
    def hurt(self, **fields: Any) -> None:
        self.nodes.faults.add(SimulatedFault(**fields))

    def running(self) -> bool:
        return "web" in self.nodes.node("a").state.instances

    def start(self, **options: Any) -> Any:
        return self.nodes.call([target("a")], "instance_start", [instance(), False, []], **options)

    def test_error(self) -> None:
        """An error comes back, and nothing is done."""
        self.hurt(kind="error", text="no such luck")
        result = self.successResultOf(self.start())["uuid-a"]
        self.assertEqual(result.error, "no such luck")
        self.assertFalse(self.running())

    def test_unreachable(self) -> None:
        """No connection: a failure that is not offline."""
        self.hurt(kind="unreachable")
        result = self.successResultOf(self.start())["uuid-a"]
        self.assertEqual(result.error, "Can't connect to 192.0.2.1: Connection refused")
        self.assertFalse(result.offline)
        self.assertFalse(self.running())

    def test_garbage(self) -> None:
        """The call is done, the payload is nonsense."""
        self.hurt(kind="garbage", payload={"not": "null"})
        result = self.successResultOf(self.start())["uuid-a"]
        self.assertEqual((result.payload, result.error), ({"not": "null"}, None))
        self.assertTrue(self.running())

    def test_silent(self) -> None:
        """Nothing is done and nothing answers until the call's time is over."""
        self.hurt(kind="silent")
        done = self.start()
        self.clock.advance(899)
        self.assertNoResult(done)
        self.clock.advance(1)
        self.assertEqual(self.successResultOf(done)["uuid-a"].error, "No answer within 900 seconds")
        self.assertFalse(self.running())

    def test_lost(self) -> None:
        """The call is done, but its answer never comes."""
        self.hurt(kind="lost")
        done = self.start(timeout=5.0)
        self.assertTrue(self.running())
        self.clock.advance(5)
        self.assertTrue(self.successResultOf(done)["uuid-a"].failed)

    def test_delay(self) -> None:
        """The call begins later."""
        self.hurt(kind="delay", seconds=3.0)
        done = self.start()
        self.clock.advance(2.9)
        self.assertFalse(self.running())
        self.clock.advance(0.1)
        self.successResultOf(done)
        self.assertTrue(self.running())

    def test_one_of_many(self) -> None:
        """A node that fails takes nothing from the others."""
        self.hurt(kind="unreachable", node="b")
        targets = [target("a"), target("b"), target("c")]
        found = self.successResultOf(self.nodes.call(targets, "version"))
        self.assertEqual([result.failed for result in found.values()], [False, True, False])
