"""Hops: what opcodes' threads wait for, as the daemon stops."""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from ganeti_masterd.execution.hops import GivenUp, Hops

#: Seconds after which a thread is given up.
PATIENCE = 20


@implementer(IReactorFromThreads)
class Inbox:
    """A reactor whose thread is the test's: it runs what came when it is told."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], object]] = SimpleQueue()

    def callFromThread(self, function: Callable[..., object], *args: Any) -> None:
        """Keeps the call."""
        self._calls.put(lambda: function(*args))

    def run_next(self) -> None:
        """Waits for a call and runs it."""
        self._calls.get(timeout=PATIENCE)()


class CloseTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = Inbox()
        self.hops = Hops(self.reactor)
        self.outcomes: list[Any] = []
        self.threads: list[Thread] = []

    def wait(self, deferred: Deferred[Any]) -> None:
        """Lets a thread wait for a Deferred."""

        def work() -> None:
            try:
                self.outcomes.append(self.hops.wait(lambda: deferred))
            except (GivenUp, ZeroDivisionError) as error:
                self.outcomes.append(error)

        thread = Thread(target=work, daemon=True)
        self.threads.append(thread)
        thread.start()
        self.reactor.run_next()

    def check_all_given_up(self) -> None:
        """Every thread has gone on, with the stop as its outcome."""
        for thread in self.threads:
            thread.join(PATIENCE)
        self.assertEqual([type(each) for each in self.outcomes], [GivenUp] * len(self.threads))
        self.assertEqual(len(self.hops), 0)

    def test_canceller_that_raises(self) -> None:
        """What can't be cancelled keeps no other thread waiting."""

        def canceller(_: Deferred[Any]) -> None:
            raise ZeroDivisionError

        for _ in range(3):
            self.wait(Deferred(canceller))
        self.hops.close()
        self.check_all_given_up()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 3)

    def test_one_ends_others(self) -> None:
        """What is cancelled may cancel what others wait for, or close it all once more."""
        waiting: list[Deferred[Any]] = []

        def canceller(_: Deferred[Any]) -> None:
            for each in waiting:
                each.errback(ZeroDivisionError()) if not each.called else None
            self.hops.close()

        waiting.extend(Deferred(canceller) for _ in range(3))
        for each in waiting:
            self.wait(each)
        self.hops.close()
        for each in waiting:
            each.addErrback(lambda _: None)
        # The first was given up by the stop; the others may have heard of the error before.
        for thread in self.threads:
            thread.join(PATIENCE)
        self.assertEqual((len(self.outcomes), len(self.hops)), (3, 0))
