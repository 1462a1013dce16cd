"""Faults on demand hit the calls that their rules say, set in code or in the file."""

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
        """Returns a mark, hit or passed, for each of ``count`` calls."""
        return "".join(
            "x" if faults.disturb(node, call, 0.0) is not None else "." for _ in range(count)
        )

    def test_count_and_after(self) -> None:
        """A rule lets some calls pass, hits some, and is then used up."""
        faults = Faults()
        faults.add(SimulatedFault(kind="error", after=2, count=3))
        self.assertEqual(self.hits(faults, 8), "..xxx...")

    def test_which(self) -> None:
        """A rule applies only to its node and call."""
        faults = Faults()
        faults.add(SimulatedFault(kind="error", node="a", call="version"))
        self.assertEqual(self.hits(faults, 1, "b"), ".")
        self.assertEqual(self.hits(faults, 1, "a", "node_info"), ".")
        self.assertEqual(self.hits(faults, 1), "x")

    def test_remove(self) -> None:
        """A rule can be removed, even twice; ``clear`` removes all."""
        faults = Faults()
        remove = faults.add(SimulatedFault(kind="silent"))
        remove()
        remove()
        self.assertEqual(self.hits(faults, 1), ".")
        faults.add(SimulatedFault(kind="silent"))
        faults.clear()
        self.assertEqual(self.hits(faults, 1), ".")

    def test_delays_add(self) -> None:
        """Delays add up, and other rules still apply."""
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
        """In any number of calls, a rule never exceeds ``count`` and lets ``after`` pass."""
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
        """Returns the text of the fault that hits a call made after that time."""
        self.now += wait
        found = self.faults.disturb("a", "version", self.now)
        return None if found is None or found.fault is None else found.fault.text

    def test_changes(self) -> None:
        """The file's rules apply from its creation or change until its removal."""
        self.assertIsNone(self.hit())
        self.write([{"kind": "error", "text": "one"}])
        self.assertEqual(self.hit(), "one")
        self.write([{"kind": "error", "text": "another"}])
        self.assertEqual(self.hit(self.faults.LOOK_EVERY / 2), "one")
        self.assertEqual(self.hit(), "another")
        os.unlink(self.path)
        self.assertIsNone(self.hit())

    def test_counting_goes_on(self) -> None:
        """An unchanged file doesn't reset a used-up rule."""
        self.write([{"kind": "error", "count": 1}])
        self.assertIsNotNone(self.hit())
        self.assertIsNone(self.hit())

    def test_nonsense(self) -> None:
        """An invalid file leaves the rules unchanged."""
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
        """The call fails with the error, and isn't run."""
        self.hurt(kind="error", text="no such luck")
        result = self.successResultOf(self.start())["uuid-a"]
        self.assertEqual(result.error, "no such luck")
        self.assertFalse(self.running())

    def test_unreachable(self) -> None:
        """An unreachable node is a failure that doesn't count as offline."""
        self.hurt(kind="unreachable")
        result = self.successResultOf(self.start())["uuid-a"]
        self.assertEqual(result.error, "Can't connect to 192.0.2.1: Connection refused")
        self.assertFalse(result.offline)
        self.assertFalse(self.running())

    def test_garbage(self) -> None:
        """The call runs, and the payload is garbage."""
        self.hurt(kind="garbage", payload={"not": "null"})
        result = self.successResultOf(self.start())["uuid-a"]
        self.assertEqual((result.payload, result.error), ({"not": "null"}, None))
        self.assertTrue(self.running())

    def test_silent(self) -> None:
        """The call isn't run, and times out."""
        self.hurt(kind="silent")
        done = self.start()
        self.clock.advance(899)
        self.assertNoResult(done)
        self.clock.advance(1)
        self.assertEqual(
            self.successResultOf(done)["uuid-a"].error,
            "Node a gave no answer within 900 seconds",
        )
        self.assertFalse(self.running())

    def test_lost(self) -> None:
        """The call runs, and times out."""
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
        """A node's failure doesn't affect the others."""
        self.hurt(kind="unreachable", node="b")
        targets = [target("a"), target("b"), target("c")]
        found = self.successResultOf(self.nodes.call(targets, "version"))
        self.assertEqual([result.failed for result in found.values()], [False, True, False])
