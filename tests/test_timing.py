"""Timers follow a clock that nobody sets."""

from __future__ import annotations

from twisted.internet.selectreactor import SelectReactor
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.timing import Timers, steady


class SteadyTests(SynchronousTestCase):
    """A real reactor, which is never run, with the test's clock."""

    def setUp(self) -> None:
        self.time = 100.0
        self.reactor = SelectReactor()
        self.addCleanup(self.reactor.removeAll)
        steady(self.reactor, lambda: self.time)
        self.ran: list[str] = []

    def run_at(self, time: float) -> list[str]:
        """Makes the reactor run the calls due at that time; returns all that have run."""
        self.time = time
        self.reactor.runUntilCurrent()
        return self.ran

    def test_calls(self) -> None:
        """Calls are due by the given clock, whatever the wall clock shows."""
        timers = Timers(self.reactor, lambda: 0.0)
        timers.later(5, self.ran.append, "five")
        timers.every(2, self.ran.append, "two")
        self.assertEqual(self.reactor.timeout(), 2.0)
        self.assertEqual(self.run_at(101.9), [])
        self.assertEqual(self.run_at(102), ["two"])
        self.assertEqual(self.run_at(104.5), ["two", "two"])
        self.assertEqual(self.run_at(105), ["two", "two", "five"])
        self.assertEqual(timers.seconds(), 105.0)
        self.assertEqual(timers.now(), 0.0)
        timers.cancel_all()
        self.assertEqual(self.run_at(1000), ["two", "two", "five"])

    def test_default(self) -> None:
        """The default is the machine's monotonic clock."""
        reactor = SelectReactor()
        self.addCleanup(reactor.removeAll)
        steady(reactor)
        call = reactor.callLater(3600, self.ran.append, "late")
        left = call.getTime() - reactor.seconds()
        self.assertTrue(3590 < left <= 3600, left)
        call.cancel()
