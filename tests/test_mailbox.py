"""Calls from other threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReactorFromThreads
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from ganeti_masterd.mailbox import Mailbox


@implementer(IReactorFromThreads)
class Turns:
    """A reactor that records wake-ups, and is stepped turn by turn."""

    def __init__(self) -> None:
        self.woken: list[Callable[[], object]] = []

    def callFromThread(self, function: Callable[[], object], *args: Any) -> None:
        """Notes that it was called."""
        self.woken.append(function)

    def turn(self) -> None:
        """Runs the calls handed in so far."""
        called, self.woken = self.woken, []
        for function in called:
            function()


class MailboxTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = Turns()
        self.mailbox = Mailbox(self.reactor)
        self.seen: list[object] = []

    def test_one_call_for_many(self) -> None:
        """Many letters cause one call of the reactor, and keep their order."""
        verifyObject(IReactorFromThreads, self.mailbox)
        for number in range(5):
            self.mailbox.callFromThread(self.seen.append, number)
        self.assertEqual(len(self.reactor.woken), 1)
        self.reactor.turn()
        self.assertEqual(self.seen, [0, 1, 2, 3, 4])
        self.assertEqual(self.reactor.woken, [])

    def test_letters_meanwhile(self) -> None:
        """A letter that arrives while others are processed waits for the next turn."""

        def again() -> None:
            self.seen.append("first")
            self.mailbox.callFromThread(self.seen.append, "second")

        self.mailbox.callFromThread(again)
        self.reactor.turn()
        self.assertEqual(self.seen, ["first"])
        self.reactor.turn()
        self.assertEqual(self.seen, ["first", "second"])

    def test_failure(self) -> None:
        """An exception is logged, and the next letter is still processed."""
        self.mailbox.callFromThread(int, "x")
        self.mailbox.callFromThread(self.seen.append, 1)
        self.reactor.turn()
        self.assertEqual(self.seen, [1])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_threads(self) -> None:
        """No letter from many threads is lost or left over, whenever the reactor runs."""
        seen: list[list[int]] = [[] for _ in range(4)]

        def write(name: int) -> None:
            for number in range(500):
                self.mailbox.callFromThread(seen[name].append, number)

        threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            self.reactor.turn()
        self.reactor.turn()
        self.assertEqual(seen, [list(range(500))] * 4)
