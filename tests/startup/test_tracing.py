"""What --debug logs, and that it logs no secrets."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.errors import OpPrereqError
from ganeti_masterd.events import Events, JobChanged, NodeCalled
from ganeti_masterd.luxi.messages import LuxiRequest
from ganeti_masterd.luxi.peers import Peer
from ganeti_masterd.startup.tracing import trace, traced

REQUEST = LuxiRequest("SubmitJob", [["secret"]])


class TracingTests(SynchronousTestCase):
    """Requests, jobs, calls."""

    def setUp(self) -> None:
        self.lines: list[str] = []
        self.clock = Clock()

        def observe(event: LogEvent) -> None:
            self.lines.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    def ask(self, answer: Any) -> Any:
        """Sends a request that ``answer`` answers."""
        return traced(lambda request, peer: answer(), self.clock.seconds)(
            REQUEST, Peer(7, uid=12, pid=34)
        )

    def told(self, how: str) -> None:
        """Checks what was logged about the only request."""
        (line,) = self.lines
        self.assertEqual(line, f"Request SubmitJob on connection 7 (uid 12, pid 34): {how}")
        self.lines.clear()

    def raises(self) -> Any:
        """Refuses a request."""
        raise OpPrereqError("secret", "wrong_input")

    def test_at_once(self) -> None:
        """An immediate answer passes through."""
        self.assertEqual(self.ask(lambda: 5), 5)
        self.told("answered after 0.0000 s")
        self.assertRaises(OpPrereqError, self.ask, self.raises)
        self.told("OpPrereqError after 0.0000 s")

    def test_later(self) -> None:
        """A later answer is logged with the time it took."""
        done: Deferred[int] = Deferred()
        result = self.ask(lambda: done)
        self.assertEqual(self.lines, [])
        self.clock.advance(2)
        done.callback(6)
        self.assertEqual(self.successResultOf(result), 6)
        self.told("answered after 2.0000 s")
        result = self.ask(lambda: succeed(None).addCallback(lambda _: self.raises()))
        self.failureResultOf(result, OpPrereqError)
        self.told("OpPrereqError after 0.0000 s")

    def test_client_goes_away(self) -> None:
        """A cancelled request is logged."""
        result = self.ask(Deferred)
        result.cancel()
        self.failureResultOf(result)
        self.told("the client went away after 0.0000 s")

    def test_events(self) -> None:
        """Status changes of jobs and calls to nodes are logged."""
        events = Events()
        trace(events)
        events.publish(JobChanged(3, None, "queued"))
        events.publish(JobChanged(3, "queued", "running"))
        events.publish(NodeCalled("version", "node2", "no answer", 0.5))
        self.assertEqual(
            self.lines,
            [
                "Job 3: new -> queued",
                "Job 3: queued -> running",
                "Call version to node2 took 0.5000 s: no answer",
            ],
        )
