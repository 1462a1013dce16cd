"""The last steps of a stop: all run, in order, even if some fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.errors import JobQueueError
from ganeti_masterd.startup.teardown import TearDownStep, end_in_order


class TeardownTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.ended: list[str] = []

    def part(self, name: str, end: Callable[[], Any] = lambda: None) -> TearDownStep:
        """A part that records when it is asked to end, and then does what the test sets."""

        def noted() -> Any:
            self.ended.append(name)
            return end()

        return name, noted

    def test_order(self) -> None:
        """Each part is ended once the one before has ended; results are ignored."""
        waiting: Deferred[None] = Deferred()
        done = end_in_order(
            [
                self.part("a"),
                self.part("b", lambda: succeed(7)),
                self.part("c", lambda: waiting),
                self.part("d", lambda: "x"),
            ]
        )
        self.assertNoResult(done)
        self.assertEqual(self.ended, ["a", "b", "c"])
        waiting.callback(None)
        self.assertEqual(self.successResultOf(done), [])
        self.assertEqual(self.ended, ["a", "b", "c", "d"])

    def test_failures(self) -> None:
        """If a part raises, fails or is cancelled, the others are still ended."""
        cancelled: Deferred[None] = Deferred()

        def broken() -> None:
            raise ValueError("broken")

        done = end_in_order(
            [
                self.part("a", broken),
                self.part("b", lambda: fail(KeyError("lost"))),
                self.part("c", lambda: fail(JobQueueError("the files are behind"))),
                self.part("d", lambda: cancelled),
                self.part("e"),
            ]
        )
        cancelled.cancel()
        self.assertEqual(self.successResultOf(done), ["a", "b", "c", "d"])
        self.assertEqual(self.ended, ["a", "b", "c", "d", "e"])
        logged = self.flushLoggedErrors(ValueError, KeyError, CancelledError)
        self.assertEqual(len(logged), 3)
