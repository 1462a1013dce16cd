"""Tests of the client's side of the stream of events."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred, fail
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.luxi.documents import ProtocolError
from ganeti_masterd.luxi.eventlines import EventLines, event_request
from ganeti_masterd.luxi.eventreader import FEW, MOST, EventReader
from ganeti_masterd.luxi.failures import ConnectionLost, DaemonUnreachable

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n"


def line(seq: int) -> bytes:
    """Returns a message."""
    return b'{"event":"log","seq":%d}\n' % seq


class LinesTests(SynchronousTestCase):
    """Bytes become messages."""

    def test_any_cuts(self) -> None:
        """It makes no difference where the bytes are cut; empty lines are signs of life."""
        data = HEAD + line(1) + b"\n\r\n" + line(2)
        for size in (1, 2, 7, len(data)):
            lines = EventLines()
            parts = (data[at : at + size] for at in range(0, len(data), size))
            found = [message["seq"] for part in parts for message in lines.feed(part)]
            self.assertEqual(found, [1, 2], size)

    def test_refused(self) -> None:
        """The text of a refusal is what is said once the connection ends."""
        lines = EventLines()
        refusal = b"HTTP/1.1 503 Service Unavailable\r\n\r\nAs many look already\n"
        self.assertEqual(lines.feed(refusal), [])
        self.assertEqual(lines.ended(), "503 Service Unavailable: As many look already")

    def test_nonsense(self) -> None:
        """What is no HTTP, no stream, no JSON or no event is an error."""
        for data in (
            b"SSH-2.0-x\r\n\r\n",
            b"x" * 70_000,
            b"HTTP/1.1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n",
            HEAD + b"{\n",
            HEAD + b"[" * 100_000 + b"\n",
            HEAD + b"5\n",
            HEAD + b'{"event":5,"seq":1}\n',
            HEAD + b'{"event":"x"}\n',
            HEAD + b'{"event":"x","seq":true}\n',
            HEAD + b'{"event":"\xff","seq":1}\n',
        ):
            with self.assertRaises(ProtocolError, msg=data[:80]):
                EventLines().feed(data)


class FakeStream:
    """An endpoint to which tests connect by hand; ``error`` makes it fail."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.wires: list[tuple[Any, StringTransport]] = []

    def connect(self, factory: Any) -> Deferred[Any]:
        if self.error is not None:
            return fail(self.error)
        protocol, transport = factory.buildProtocol(None), StringTransport()
        protocol.makeConnection(transport)
        self.wires.append((protocol, transport))
        done: Deferred[Any] = Deferred()
        done.callback(protocol)
        return done


class ReaderTests(SynchronousTestCase):
    """The iterator."""

    def setUp(self) -> None:
        self.stream = FakeStream()
        self.reader = EventReader(self.stream)  # type: ignore[arg-type]

    def ask(self) -> Deferred[dict[str, Any]]:
        """Asks for the next event."""
        return ensureDeferred(self.reader.__anext__())

    def feed(self, data: bytes) -> None:
        """Has the newest connection bring bytes."""
        self.stream.wires[-1][0].dataReceived(data)

    def test_events(self) -> None:
        """It connects when asked, waits for what isn't there yet, and keeps the order."""
        self.assertEqual(self.stream.wires, [])
        first = self.ask()
        self.assertNoResult(first)
        self.assertEqual(self.stream.wires[0][1].value(), event_request())
        self.feed(HEAD + line(5) + line(6))
        self.assertEqual(self.successResultOf(first)["seq"], 5)
        self.assertEqual(self.successResultOf(self.ask())["seq"], 6)
        self.assertNoResult(self.ask())
        self.assertEqual((self.reader.seq, len(self.stream.wires)), (6, 1))

    def test_goes_on(self) -> None:
        """After a loss it raises, and asked again goes on after the last event."""
        self.ask()
        self.feed(HEAD + line(5))
        waiting = self.ask()
        self.stream.wires[-1][0].connectionLost(Failure(ConnectionDone()))
        self.failureResultOf(waiting, ConnectionLost)
        again = self.ask()
        self.assertEqual(self.stream.wires[1][1].value(), event_request(5))
        self.feed(HEAD + line(6))
        self.assertEqual(self.successResultOf(again)["seq"], 6)

    def test_unreachable(self) -> None:
        """A connection that can't be made is an error, and the next try another one."""
        self.stream.error = ConnectionRefusedError()
        self.failureResultOf(self.ask(), DaemonUnreachable)
        self.stream.error = None
        self.assertNoResult(self.ask())

    def test_nonsense(self) -> None:
        """What is no event ends the connection; those before it are still given."""
        first = self.ask()
        self.feed(HEAD + line(1))
        self.successResultOf(first)
        waiting = self.ask()
        self.feed(b"nonsense\n")
        self.failureResultOf(waiting, ProtocolError)
        self.assertTrue(self.stream.wires[0][1].disconnecting)

    def test_back_pressure(self) -> None:
        """While nobody takes events it stops reading, and reads on when they are taken."""
        self.ask()
        transport = self.stream.wires[0][1]
        self.feed(HEAD + b"".join(map(line, range(MOST + 2))))
        self.assertEqual(transport.producerState, "paused")
        for _ in range(MOST + 1 - FEW):
            self.successResultOf(self.ask())
        self.assertEqual(transport.producerState, "producing")

    def test_close(self) -> None:
        """Closed, it ends the iteration and the connection, whether anyone waits or not."""
        waiting = self.ask()
        self.reader.close()
        self.failureResultOf(waiting, StopAsyncIteration)
        self.assertTrue(self.stream.wires[0][1].disconnecting)
        self.failureResultOf(self.ask(), StopAsyncIteration)
