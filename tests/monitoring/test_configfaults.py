"""Tests of the count of the configuration's faults."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.newcluster import new_cluster
from ganeti_masterd.monitoring.configfaults import PAUSE, ConfigFaults
from ganeti_masterd.timing import Timers


class ConfigFaultsTests(SynchronousTestCase):
    """:class:`ConfigFaults`, with a thread that the test runs."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.snapshot = new_cluster("cluster.example", 3, 1000.0)
        self.work: list[tuple[Callable[[], Any], Deferred[Any]]] = []
        self.faults = ConfigFaults(lambda: self.snapshot, Timers(self.clock), self.in_thread)

    def in_thread(self, function: Callable[[], Any]) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        self.work.append((function, done))
        return done

    def run_thread(self) -> None:
        function, done = self.work.pop()
        done.callback(function())

    def break_it(self) -> None:
        node = next(iter(self.snapshot.nodes.values()))
        broken = msgspec.structs.replace(node, serial_no=0)
        self.snapshot = self.snapshot.with_object("nodes", broken)

    def test_counts(self) -> None:
        """The count follows the configuration, at most once a minute and only if it changed."""
        self.assertIsNone(self.faults())
        self.assertIsNone(self.faults())
        self.run_thread()
        self.assertEqual(self.faults(), 0)
        self.clock.advance(PAUSE)
        self.assertEqual((self.faults(), self.work), (0, []))
        self.break_it()
        self.assertEqual(self.faults(), 0)
        self.run_thread()
        self.assertEqual(self.faults(), 1)
        self.break_it()
        self.assertEqual((self.faults(), self.work), (1, []))
        self.clock.advance(PAUSE)
        self.assertEqual((self.faults(), len(self.work)), (1, 1))

    def test_check_fails(self) -> None:
        """A check that fails is logged, shows no count, and is tried again."""
        self.faults()
        self.work.pop()[1].errback(Failure(RuntimeError("no")))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertIsNone(self.faults())
        self.clock.advance(PAUSE)
        self.faults()
        self.run_thread()
        self.assertEqual(self.faults(), 0)
