"""Tests of what is told of requests."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.errors import DaemonStopping, OpPrereqError
from ganeti_masterd.events import Events, RequestAnswered
from ganeti_masterd.luxi.messages import LuxiRequest
from ganeti_masterd.luxi.peers import Peer
from ganeti_masterd.requests.observed import ObservedAnswers
from ganeti_masterd.requests.registry import METHODS


class ObservedAnswersTests(SynchronousTestCase):
    """Answers pass through unchanged; what became of them is told."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.events = Events()
        self.told: list[RequestAnswered] = []
        self.subscriptions = [self.events.subscribe(RequestAnswered, self.told.append)]
        self.result: Any = None
        self.answers = ObservedAnswers(self.answer, METHODS, self.events, self.clock.seconds)

    def unsubscribe_all(self) -> None:
        """Nobody observes any more."""
        while self.subscriptions:
            self.subscriptions.pop()()

    def answer(self, request: LuxiRequest, peer: Peer) -> Any:
        """Answers what the test says, after half a second."""
        self.asked = request, peer
        self.clock.advance(0.5)
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def ask(self, method: str = "QueryTags") -> Any:
        """Asks, and checks that the question arrives as it was."""
        asked = LuxiRequest(method, ["cluster", ""]), Peer(1)
        try:
            return self.answers(*asked)
        finally:
            self.assertEqual(self.asked, asked)

    def test_at_once(self) -> None:
        """An answer from memory."""
        self.result = ["a"]
        self.assertIs(self.ask(), self.result)
        self.assertEqual(self.told, [RequestAnswered("QueryTags", None, 0.5)])

    def test_error(self) -> None:
        """An error goes on to the client and is told by its class."""
        self.result = OpPrereqError("no", "wrong_input")
        self.assertIs(self.assertRaises(OpPrereqError, self.ask), self.result)
        self.assertEqual(self.told, [RequestAnswered("QueryTags", "OpPrereqError", 0.5)])

    def test_fault(self) -> None:
        """So does one that isn't Ganeti's."""
        self.result = ZeroDivisionError("oops")
        self.assertRaises(ZeroDivisionError, self.ask)
        self.assertEqual(self.told, [RequestAnswered("QueryTags", "ZeroDivisionError", 0.5)])

    def test_later(self) -> None:
        """An answer that takes time is told when it comes, and is the same Deferred."""
        self.result = Deferred()
        answer = self.ask("WaitForJobChange")
        self.assertIs(answer, self.result)
        self.assertEqual(self.told, [])
        self.clock.advance(2)
        answer.callback(7)
        self.assertEqual(self.successResultOf(answer), 7)
        self.assertEqual(self.told, [RequestAnswered("WaitForJobChange", None, 2.5)])

    def test_error_later(self) -> None:
        """A Deferred's error is told and stays."""
        self.result = Deferred()
        answer = self.ask()
        answer.errback(DaemonStopping("it stops"))
        self.failureResultOf(answer, DaemonStopping)
        self.assertEqual([each.error for each in self.told], ["DaemonStopping"])

    def test_client_gone(self) -> None:
        """A client that goes away before its answer cancels it."""
        cancelled: list[Deferred[None]] = []
        self.result = Deferred(cancelled.append)
        answer = self.ask()
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.assertEqual(cancelled, [self.result])
        self.assertEqual([each.error for each in self.told], ["CancelledError"])

    def test_unknown_method(self) -> None:
        """What a client sends as a method's name never becomes one."""
        self.result = OpPrereqError("Unknown LUXI method", "wrong_input")
        self.assertRaises(OpPrereqError, self.ask, "x" * 1000)
        self.assertEqual([each.method for each in self.told], ["unknown"])

    def test_nobody_observes(self) -> None:
        """Without an observer answers pass untouched, Deferreds too."""
        self.unsubscribe_all()
        self.result = Deferred()
        self.assertIs(self.ask(), self.result)
        self.subscriptions.append(self.events.subscribe(RequestAnswered, self.told.append))
        self.result.callback(1)  # nothing was hung on it
        self.assertEqual(self.told, [])
        self.unsubscribe_all()
        self.result = OpPrereqError("no", "wrong_input")
        self.assertRaises(OpPrereqError, self.ask)
        self.assertEqual(self.told, [])
