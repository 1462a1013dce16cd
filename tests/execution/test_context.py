"""What an opcode's context asks the reactor for; without threads."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.execution.context import OpcodeContext
from ganeti_masterd.execution.killing import KillSwitch
from ganeti_masterd.logical_units.context import JobKilled


class ContextTests(SynchronousTestCase):
    """One opcode's context, whose hops are plain calls."""

    def setUp(self) -> None:
        self.naps: list[tuple[float, bool]] = []
        self.kills = KillSwitch(7, lambda text: None)
        self.hopped: list[Any] = []
        self.reserved: list[tuple[Any, ...]] = []
        self.run_: Any = SimpleNamespace(
            job_id=7,
            kills=self.kills,
            nap=self.nap,
        )
        services: Any = SimpleNamespace(
            root="",
            hops=SimpleNamespace(wait=self.hop),
            store=SimpleNamespace(snapshot="published", tip="pending"),
            reservations=SimpleNamespace(reserve=lambda *given: self.reserved.append(given)),
        )
        self.ctx = OpcodeContext(services, self.run_, 0)

    def nap(self, seconds: float) -> None:
        """Notes how long is slept, and whether the hop went by the kill switch."""
        self.naps.append((seconds, self.hopped[-1] == self.kills.wait))

    def hop(self, function: Any, *args: Any) -> Any:
        """Runs a hop at once."""
        self.hopped.append(function)
        return function(*args)

    def test_reserves_beside_what_is_pending(self) -> None:
        """A reservation is weighed against changes that aren't durable yet, too."""
        self.ctx.reserve("instance", "web1")
        self.assertEqual(self.reserved, [(7, "instance", "web1", "pending")])

    def test_shielded_sleep(self) -> None:
        """Only a wait without a shield can be cut short; a shield ends with its stretch."""
        self.ctx.sleep(1.0)
        with self.ctx.shielded():
            self.ctx.sleep(2.0)
            self.kills.kill()
            with self.ctx.shielded():
                self.ctx.sleep(3.0)
            self.ctx.checkpoint()
        self.assertEqual(self.naps, [(1.0, True), (2.0, False), (3.0, False)])
        self.assertRaises(JobKilled, self.ctx.checkpoint)
        self.assertRaises(JobKilled, self.ctx.sleep, 4.0)
        self.assertRaises(JobKilled, self.ctx.reserve, "instance", "web2")
        self.assertEqual((len(self.naps), self.reserved), (3, []))
