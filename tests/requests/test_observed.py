"""The events about requests."""

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
    """Answers pass through unchanged, and their results are published."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.events = Events()
        self.told: list[RequestAnswered] = []
        self.subscriptions = [self.events.subscribe(RequestAnswered, self.told.append)]
        self.result: Any = None
        self.answers = ObservedAnswers(self.answer, METHODS, self.events, self.clock.seconds)

    def unsubscribe_all(self) -> None:
        """Removes all observers."""
        while self.subscriptions:
            self.subscriptions.pop()()

    def answer(self, request: LuxiRequest, peer: Peer) -> Any:
        """Returns the answer that the test sets, after half a second."""
        self.asked = request, peer
        self.clock.advance(0.5)
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def ask(self, method: str = "QueryTags") -> Any:
        """Sends a request, and checks that it arrives unchanged."""
        asked = LuxiRequest(method, ["cluster", ""]), Peer(1)
        try:
            return self.answers(*asked)
        finally:
            self.assertEqual(self.asked, asked)

    def test_at_once(self) -> None:
        """An immediate answer is published."""
        self.result = ["a"]
        self.assertIs(self.ask(), self.result)
        self.assertEqual(self.told, [RequestAnswered("QueryTags", None, 0.5)])

    def test_error(self) -> None:
        """An error is passed on to the client, and published with its class."""
        self.result = OpPrereqError("no", "wrong_input")
        self.assertIs(self.assertRaises(OpPrereqError, self.ask), self.result)
        self.assertEqual(self.told, [RequestAnswered("QueryTags", "OpPrereqError", 0.5)])

    def test_fault(self) -> None:
        """An error that isn't Ganeti's is treated in the same way."""
        self.result = ZeroDivisionError("oops")
        self.assertRaises(ZeroDivisionError, self.ask)
        self.assertEqual(self.told, [RequestAnswered("QueryTags", "ZeroDivisionError", 0.5)])

    def test_later(self) -> None:
        """A later answer is published when it comes; the Deferred is passed through."""
        self.result = Deferred()
        answer = self.ask("WaitForJobChange")
        self.assertIs(answer, self.result)
        self.assertEqual(self.told, [])
        self.clock.advance(2)
        answer.callback(7)
        self.assertEqual(self.successResultOf(answer), 7)
        self.assertEqual(self.told, [RequestAnswered("WaitForJobChange", None, 2.5)])

    def test_error_later(self) -> None:
        """A Deferred's error is published and passed on."""
        self.result = Deferred()
        answer = self.ask()
        answer.errback(DaemonStopping("it stops"))
        self.failureResultOf(answer, DaemonStopping)
        self.assertEqual([each.error for each in self.told], ["DaemonStopping"])

    def test_client_gone(self) -> None:
        """Cancelling a request, as when its client disconnects, is published."""
        cancelled: list[Deferred[None]] = []
        self.result = Deferred(cancelled.append)
        answer = self.ask()
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.assertEqual(cancelled, [self.result])
        self.assertEqual([each.error for each in self.told], ["CancelledError"])

    def test_unknown_method(self) -> None:
        """An unknown method's name is not in the event."""
        self.result = OpPrereqError("Unknown LUXI method", "wrong_input")
        self.assertRaises(OpPrereqError, self.ask, "x" * 1000)
        self.assertEqual([each.method for each in self.told], ["unknown"])

    def test_nobody_observes(self) -> None:
        """Without an observer answers pass through, and no callback is added to Deferreds."""
        self.unsubscribe_all()
        self.result = Deferred()
        self.assertIs(self.ask(), self.result)
        self.subscriptions.append(self.events.subscribe(RequestAnswered, self.told.append))
        self.result.callback(1)  # no callback was added
        self.assertEqual(self.told, [])
        self.unsubscribe_all()
        self.result = OpPrereqError("no", "wrong_input")
        self.assertRaises(OpPrereqError, self.ask)
        self.assertEqual(self.told, [])
