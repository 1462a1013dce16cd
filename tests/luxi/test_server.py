"""The server's end of a connection, on transports in memory."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from ganeti_masterd.errors import GenericError, JobLost, OpPrereqError, ProgrammerError
from ganeti_masterd.luxi.documents import ProtocolError
from ganeti_masterd.luxi.messages import Encoded, decode_request
from ganeti_masterd.luxi.peers import Peer
from ganeti_masterd.luxi.server import LINGER
from tests.luxi.doubles import HalfClosing, Line, examples, replies, request, results
from tests.work import calls_of

GONE = Failure(ConnectionDone())

#: Requests that real tools sent.
RECORDED = Path(__file__).parents[1] / "data" / "luxi_requests.json"


class Waiting:
    """Answers that the test gives: one Deferred for each request, in ``answers``."""

    def __init__(self) -> None:
        self.answers: list[Deferred[Any]] = []
        self.cancelled = 0

    def __call__(self, request: Any, peer: Any) -> Deferred[Any]:
        self.answers.append(Deferred(self._cancel))
        return self.answers[-1]

    def _cancel(self, _: Deferred[Any]) -> None:
        self.cancelled += 1


class AnswerTests(SynchronousTestCase):
    """What a client gets for what it sends."""

    def test_interfaces(self) -> None:
        """The server is what the transport takes it for."""
        server = Line().server
        verifyObject(IHalfCloseableProtocol, server)
        verifyObject(IPushProducer, server)
        self.assertEqual(server.delimiter, b"\x03")

    def test_plain(self) -> None:
        """A request gets its reply; values, encoded values and Deferreds alike."""
        for answer in ([1], Encoded(b"[1]"), succeed([1]), succeed(Encoded(b"[1]"))):
            line = Line(lambda *_, answer=answer: answer)
            self.assertEqual(line.send(request()), [{"success": True, "result": [1]}])
            self.assertEqual(line.factory.requests, 1)

    def test_arguments_of_answer(self) -> None:
        """The answer is asked with the request and the peer."""
        seen = []
        line = Line(lambda *args: seen.append(args))
        line.send(request("Query", "node", version=2050000))
        [(asked, peer)] = seen
        self.assertEqual((asked.method, asked.args, asked.classic), ("Query", ["node"], True))
        self.assertEqual(peer, Peer(1))

    def test_pipeline(self) -> None:
        """Several requests in one write are answered in order."""
        line = Line()
        self.assertEqual(
            [reply["result"] for reply in line.send(request("A", 1) + request("A", 2))], [[1], [2]]
        )

    def test_long_pipeline(self) -> None:
        """Many thousand requests at once don't recurse, whether or not by Deferred."""
        for answer in (lambda *_: 1, lambda *_: succeed(1)):
            line = Line(answer)
            self.assertEqual(len(line.send(request() * 5000)), 5000)

    def test_byte_by_byte(self) -> None:
        """Where chunks end doesn't matter."""
        line = Line()
        for byte in request("A", "é") + request("A", 2):
            line.server.dataReceived(bytes([byte]))
        self.assertEqual(results(line.transport.value()), [["é"], [2]])

    def test_large_message_is_quick(self) -> None:
        """20 MiB in chunks take one call for each argument, and a few for each chunk."""
        data = request("A", *[["x" * 450, {"a:b": n}] for n in range(49_000)])
        self.assertGreater(len(data), 20 << 20)
        line = Line(lambda request, _: len(request.args), max_message_size=1 << 25)
        chunks = [data[at : at + 65536] for at in range(0, len(data), 65536)]
        _, calls = calls_of(lambda: [line.server.dataReceived(chunk) for chunk in chunks])
        self.assertLess(calls, 2 * 49_000)
        self.assertEqual(results(line.transport.value()), [49_000])

    def test_large_reply(self) -> None:
        """A large reply is sent whole."""
        line = Line(lambda *_: Encoded(b'"' + b"x" * 100_000 + b'"'))
        self.assertEqual(line.send(request())[0]["result"], "x" * 100_000)


class ErrorTests(SynchronousTestCase):
    """Errors are answers; only what can't be understood ends the connection."""

    def test_ganeti_errors(self) -> None:
        """Ganeti's errors, raised or by Deferred, are the answer, and nothing is logged."""

        def raising(*_: Any) -> None:
            raise JobLost("Job 5 lost")

        for answer in (raising, lambda *_: fail(JobLost("Job 5 lost"))):
            line = Line(answer)
            for _ in range(2):
                [reply] = line.send(request())
                self.assertEqual(reply, {"success": False, "result": ["JobLost", ["Job 5 lost"]]})
            self.assertFalse(line.transport.disconnecting)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_other_exceptions(self) -> None:
        """A fault in the daemon is logged and answered, and the connection lives on."""

        def raising(*_: Any) -> None:
            raise ZeroDivisionError("oops")

        for answer in (raising, lambda *_: fail(ZeroDivisionError("oops"))):
            line = Line(answer)
            for _ in range(2):
                [reply] = line.send(request())
                self.assertEqual(reply["result"], ["OpExecError", ["ZeroDivisionError: oops"]])
                [logged] = self.flushLoggedErrors(ZeroDivisionError)
                self.assertIn("oops", logged.getTraceback())
            self.assertFalse(line.transport.disconnecting)

    def test_programmer_errors_are_logged(self) -> None:
        """A fault of the code is logged though it is one of Ganeti's errors."""
        line = Line(lambda *_: fail(ProgrammerError("x")))
        self.assertEqual(line.send(request())[0]["result"], ["ProgrammerError", ["x"]])
        self.assertEqual(len(self.flushLoggedErrors(ProgrammerError)), 1)

    def test_unencodable_result(self) -> None:
        """A result without a form in JSON is an error, now and later."""
        for answer in (object(), succeed(object()), succeed("\ud800")):
            line = Line(lambda *_, answer=answer: answer)
            [reply] = line.send(request())
            self.assertEqual(reply["result"][0], "ProgrammerError")
            self.assertEqual(len(self.flushLoggedErrors(ProgrammerError)), 1)
            self.assertFalse(line.transport.disconnecting)

    def test_wrong_input_stays_open(self) -> None:
        """Wrong types and versions are answered; the next request is too."""
        for bad, name in (
            (b'{"method":"A","args":{}}\x03', "OpPrereqError"),
            (b'{"method":7,"args":[]}\x03', "OpPrereqError"),
            (b'{"method":"A","args":[],"version":1}\x03', "LuxiError"),
        ):
            line = Line()
            first, second = line.send(bad + request("A", 1))
            self.assertEqual((first["success"], first["result"][0]), (False, name))
            self.assertEqual(second["result"], [1])

    def test_nonsense_ends_the_connection(self) -> None:
        """What can't be understood gets an error; then the connection is closed for writing."""
        for bad in (
            b"\x03",
            b"nonsense\x03",
            b"[]\x03",
            b'{"method":"A"}\x03',
            b"[" * 9999 + b"\x03",
        ):
            line = Line()
            [reply] = line.send(bad + request("A", 1))
            self.assertEqual(reply["success"], False)
            self.assertEqual(reply["result"][0], "LuxiError")
            self.assertTrue(line.transport.half_closed)
            self.assertEqual(line.send(request("A", 1)), [])
            self.assertEqual(line.factory.connections, 0)

    def test_nonsense_on_a_plain_transport(self) -> None:
        """A transport that can't be closed by halves is closed after the error."""
        line = Line(transport=StringTransport())
        self.assertEqual(len(line.send(b"x\x03")), 1)
        self.assertTrue(line.transport.disconnecting)

    def test_refused_client_that_stays(self) -> None:
        """A refused client that neither reads nor goes is cut off."""
        line = Line()
        line.send(b"x\x03")
        line.clock.advance(LINGER - 0.5)
        line.server.dataReceived(b"y" * 1000)
        self.assertFalse(line.transport.disconnecting)
        line.clock.advance(1)
        self.assertTrue(line.transport.disconnecting)

    def test_too_large(self) -> None:
        """A message past the limit is refused while it is being read."""
        line = Line(max_message_size=1000)
        self.assertEqual(line.server.MAX_LENGTH, 1000)
        self.assertEqual(line.send(b"x" * 999), [])
        [reply] = line.send(b"xx")
        self.assertIn("1000 bytes", reply["result"][1][0])
        self.assertEqual(line.send(b"x" * 100_000), [])
        self.assertEqual(line.server._framer.buffered, 0)
        self.assertTrue(line.transport.half_closed)


class OneAtATimeTests(SynchronousTestCase):
    """A request waits for the answer before it, and for the client to read."""

    def test_order(self) -> None:
        """The second request isn't looked at before the first is answered."""
        waiting = Waiting()
        line = Line(waiting)
        line.send(request() * 3)
        self.assertEqual(len(waiting.answers), 1)
        waiting.answers[0].callback("a")
        self.assertEqual(len(waiting.answers), 2)
        waiting.answers[1].errback(OpPrereqError("b"))
        waiting.answers[2].callback("c")
        self.assertEqual(results(line.transport.value()), ["a", ["OpPrereqError", ["b"]], "c"])

    def test_reading_pauses(self) -> None:
        """What arrives while an answer is pending stops the reading until it is given."""
        waiting = Waiting()
        line = Line(waiting)
        line.send(request())
        line.send(request())
        self.assertEqual(line.transport.producerState, "paused")
        waiting.answers[0].callback(None)
        self.assertEqual(len(waiting.answers), 2)
        self.assertEqual(line.transport.producerState, "paused")
        waiting.answers[1].callback(None)
        self.assertEqual(line.transport.producerState, "producing")

    def test_slow_reader(self) -> None:
        """A client that doesn't read its answers gets no more until it does."""
        line = Line()
        transport = line.transport
        self.assertIs(transport.producer, line.server)
        self.assertTrue(transport.streaming)
        line.server.pauseProducing()
        self.assertEqual(line.send(request("A", 1)), [])
        self.assertEqual(transport.producerState, "paused")
        line.server.resumeProducing()
        self.assertEqual(results(transport.value()), [[1]])
        self.assertEqual(transport.producerState, "producing")

    def test_slow_reader_within_a_pipeline(self) -> None:
        """The loop over requests stops where the buffer is full, and goes on from there."""

        class Full(HalfClosing):
            def write(self, data: bytes) -> None:
                super().write(data)
                line.server.pauseProducing()

        line = Line(transport=Full())
        for expected in (1, 2, 3):
            if expected == 1:
                line.server.dataReceived(request() * 3)
            else:
                line.server.resumeProducing()
            self.assertEqual(len(replies(line.transport.value())), expected)

    def test_slow_reader_with_deferred(self) -> None:
        """An answer that comes while the client doesn't read doesn't start the next request."""
        waiting = Waiting()
        line = Line(waiting)
        line.send(request() * 2)
        line.server.pauseProducing()
        waiting.answers[0].callback(None)
        self.assertEqual(len(waiting.answers), 1)
        line.server.resumeProducing()
        self.assertEqual(len(waiting.answers), 2)

    def test_bounded(self) -> None:
        """A client that doesn't read and writes on keeps one chunk here, no answers."""
        line = Line()
        line.server.pauseProducing()
        line.send(request() * 1000)
        self.assertEqual(line.transport.producerState, "paused")
        self.assertEqual(line.factory.requests, 0)
        self.assertEqual(line.server._framer.buffered, len(request()) * 1000)


class LeavingTests(SynchronousTestCase):
    """Clients that go, all at once or by halves."""

    def test_cancelled(self) -> None:
        """The pending answer of a client that has gone is cancelled, once."""
        waiting = Waiting()
        line = Line(waiting)
        line.send(request() * 2)
        line.server.connectionLost(GONE)
        self.assertEqual(waiting.cancelled, 1)
        self.assertEqual(len(waiting.answers), 1)
        self.assertEqual(line.factory.connections, 0)
        self.assertEqual(line.transport.value(), b"")

    def test_answer_after_all(self) -> None:
        """An answer that takes its time to be cancelled is dropped when it comes, error or not."""
        for late in (1, Failure(OpPrereqError("x"))):
            cleaned_up: Deferred[Any] = Deferred()
            answer: Deferred[Any] = Deferred()
            answer.addErrback(self.instead, cleaned_up)
            line = Line(lambda *_, answer=answer: answer)
            line.send(request() * 2)
            line.server.connectionLost(GONE)
            cleaned_up.callback(late)
            self.assertEqual(line.transport.value(), b"")
            self.assertEqual(line.factory.requests, 1)

    @staticmethod
    def instead(_: Failure, deferred: Deferred[Any]) -> Deferred[Any]:
        """An errback that fires as another Deferred does."""
        return deferred

    def test_bad_canceller(self) -> None:
        """A canceller that raises is logged and harms nobody."""

        def canceller(_: Deferred[Any]) -> None:
            raise ZeroDivisionError

        line = Line(lambda *_: Deferred(canceller))
        line.send(request())
        line.server.connectionLost(GONE)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(line.factory.connections, 0)

    def test_half_close_when_idle(self) -> None:
        """A client that is done and waits for nothing is done; half a message counts nothing."""
        for before in (b"", request(), b"half"):
            line = Line()
            line.server.dataReceived(before)
            line.server.readConnectionLost()
            self.assertTrue(line.transport.disconnecting)

    def test_half_close_while_pending(self) -> None:
        """A client that is done with sending gets all answers, then the end."""
        waiting = Waiting()
        line = Line(waiting)
        line.server.dataReceived(request() * 2)
        line.server.readConnectionLost()
        waiting.answers[0].callback("a")
        self.assertFalse(line.transport.disconnecting)
        waiting.answers[1].callback("b")
        self.assertTrue(line.transport.disconnecting)
        self.assertEqual(results(line.transport.value()), ["a", "b"])

    def test_half_close_while_choked(self) -> None:
        """A client that is done and reads slowly still gets what it asked for."""
        line = Line()
        line.server.pauseProducing()
        line.server.dataReceived(request("A", 1))
        line.server.readConnectionLost()
        self.assertFalse(line.transport.disconnecting)
        line.server.resumeProducing()
        self.assertEqual(results(line.transport.value()), [[1]])
        self.assertTrue(line.transport.disconnecting)

    def test_half_close_then_nonsense(self) -> None:
        """Nonsense that waited behind an answer ends the connection for good."""
        waiting = Waiting()
        line = Line(waiting)
        line.server.dataReceived(request() + b"x\x03")
        line.server.readConnectionLost()
        waiting.answers[0].callback("a")
        self.assertEqual(len(replies(line.transport.value())), 2)
        self.assertTrue(line.transport.disconnecting)


class StreamTests(SynchronousTestCase):
    """Any bytes at all."""

    PIECES = st.one_of(
        st.binary(max_size=20),
        st.just(b"\x03"),
        st.just(request("A", 1)),
        st.just(b'{"method":"A","args":[],"args":[]}\x03'),
        st.just(b'{"method":"A","args":1}\x03'),
        st.just(b'{"method":"fail","args":[]}\x03'),
        st.just(b'{"method":"later","args":[]}\x03'),
        st.just(b"x" * 300),
    )

    @given(
        st.lists(PIECES, max_size=12),
        st.lists(st.integers(0), max_size=8),
        st.lists(st.booleans(), max_size=8),
    )
    @examples(300)
    def test_one_reply_each(self, pieces: list[bytes], cuts: list[int], early: list[bool]) -> None:
        """Each whole message gets one reply, up to the first that ends the connection."""
        limit = 200
        stream = b"".join(pieces)
        expected, ends = self.expected(stream, limit)
        waiting: list[Deferred[Any]] = []

        def answer(request: Any, peer: Any) -> Any:
            if request.method == "later":
                waiting.append(Deferred())
                return waiting[-1]
            if request.method == "fail":
                raise GenericError("x")
            return None

        line = Line(answer, max_message_size=limit)
        marks = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
        for number, (a, b) in enumerate(itertools.pairwise(marks)):
            line.server.dataReceived(stream[a:b])
            if waiting and number < len(early) and early[number]:
                waiting.pop().callback(None)
        while waiting:
            waiting.pop().callback(None)
        got = replies(line.transport.value())
        self.assertEqual(len(got), expected)
        self.assertEqual(line.transport.half_closed, ends)
        for reply in got:
            self.assertEqual(set(reply), {"success", "result"})

    def test_split_at_every_byte(self) -> None:
        """What real tools sent is understood wherever it is split, and byte by byte."""
        line = Line()
        for recorded in json.loads(RECORDED.read_bytes()):
            data = json.dumps(recorded).encode() + b"\x03"
            splits = [[data[:cut], data[cut:]] for cut in range(1, len(data))]
            splits.append([data[at : at + 1] for at in range(len(data))])
            for pieces in splits:
                for piece in pieces:
                    line.server.dataReceived(piece)
                self.assertEqual(results(line.transport.value()), [recorded["args"]])
                line.transport.clear()

    @staticmethod
    def expected(stream: bytes, limit: int) -> tuple[int, bool]:
        """How many replies a stream gets, and whether the last of them ends it."""
        *messages, rest = stream.split(b"\x03")
        for number, message in enumerate(messages):
            try:
                if len(message) > limit:
                    raise ProtocolError
                decode_request(message)
            except ProtocolError:
                return number + 1, True
            except GenericError:
                pass
        ended = len(rest) > limit
        return len(messages) + ended, ended


class LimitTests(SynchronousTestCase):
    """The number of connections, and how long they may be idle."""

    def test_too_many(self) -> None:
        """A client past the limit is told so; one that goes makes room."""
        line = Line(max_connections=2)
        second, _ = line.connect()
        _, third = line.connect()
        [reply] = replies(third.value())
        self.assertEqual(reply["result"][0], "LuxiError")
        self.assertIn("2 connections", reply["result"][1][0])
        self.assertTrue(third.half_closed)
        self.assertEqual(line.factory.connections, 2)
        second.connectionLost(GONE)
        fourth, transport = line.connect()
        fourth.dataReceived(request("A", 1))
        self.assertEqual(results(transport.value()), [[1]])

    def test_too_many_too_often(self) -> None:
        """Refused clients that don't go are cut off, the oldest first."""
        line = Line(max_connections=1)
        refused = [line.connect()[1] for _ in range(300)]
        cut = [transport.disconnecting for transport in refused]
        self.assertEqual(cut, [True] * 44 + [False] * 256)

    def test_idle(self) -> None:
        """An idle connection is closed after its time, one that is used is not."""
        line = Line(idle_timeout=180)
        idle, idle_transport = line.connect()
        line.clock.advance(100)
        line.send(request())
        line.clock.advance(80)
        self.assertTrue(idle_transport.disconnecting)
        idle.connectionLost(GONE)
        self.assertFalse(line.transport.disconnecting)
        line.clock.advance(98)
        self.assertFalse(line.transport.disconnecting)
        line.clock.advance(4)
        self.assertTrue(line.transport.disconnecting)
        line.server.connectionLost(GONE)
        self.assertEqual(line.clock.getDelayedCalls(), [])

    def test_pending_is_not_idle(self) -> None:
        """A client that waits for its answer isn't idle; afterwards it is again."""
        waiting = Waiting()
        line = Line(waiting, idle_timeout=10)
        line.send(request())
        for _ in range(100):
            line.clock.advance(10)
        self.assertFalse(line.transport.disconnecting)
        waiting.answers[0].callback(None)
        line.clock.pump([1] * 9)
        self.assertFalse(line.transport.disconnecting)
        line.clock.pump([1] * 3)
        self.assertTrue(line.transport.disconnecting)

    def test_half_a_message_is_idle(self) -> None:
        """A message must be whole within the idle time; dripping doesn't stretch it."""
        line = Line(idle_timeout=10)
        line.clock.advance(6)
        for _ in range(9):
            line.server.dataReceived(b"x")
            line.clock.advance(1)
        self.assertFalse(line.transport.disconnecting)
        line.clock.pump([1] * 3)
        self.assertTrue(line.transport.disconnecting)

    def test_unread_answers_are_idle(self) -> None:
        """A client that doesn't read its answer for that long is cut off."""
        line = Line(idle_timeout=10)
        line.send(request())
        line.server.pauseProducing()
        line.clock.pump([1] * 12)
        self.assertTrue(line.transport.disconnecting)

    def test_unread_answers_have_the_whole_time(self) -> None:
        """That time runs from when the client was found not to read."""
        line = Line(idle_timeout=10)
        line.send(request())
        line.clock.advance(8)
        line.server.pauseProducing()
        line.clock.pump([1] * 8)
        self.assertFalse(line.transport.disconnecting)
        line.clock.pump([1] * 4)
        self.assertTrue(line.transport.disconnecting)

    def test_no_idle_time(self) -> None:
        """Without an idle time nothing is closed, but the refused are."""
        line = Line(idle_timeout=None)
        line.clock.advance(10**7)
        self.assertFalse(line.transport.disconnecting)
        line.send(b"x\x03")
        line.clock.advance(LINGER)
        self.assertTrue(line.transport.disconnecting)

    def test_close(self) -> None:
        """Closing ends all connections, cancels what is pending, and tells when it is done."""
        waiting = Waiting()
        line = Line(waiting)
        line.send(request())
        other, other_transport = line.connect()
        done = line.factory.close()
        self.assertTrue(line.transport.disconnecting)
        self.assertTrue(other_transport.disconnecting)
        self.assertEqual(waiting.cancelled, 1)
        self.assertNoResult(done)
        line.server.connectionLost(GONE)
        other.connectionLost(GONE)
        self.successResultOf(done)
        self.assertEqual(line.clock.getDelayedCalls(), [])

    def test_close_one_by_another(self) -> None:
        """One that is closed may end others, or raise: the rest is closed, and that is told."""
        line = Line(lambda *_: Deferred(lambda _: end_the_second()))

        class Raising(HalfClosing):
            def loseConnection(self) -> None:
                super().loseConnection()
                raise ZeroDivisionError

        others = [line.connect(transport) for transport in (None, Raising(), None, None)]

        def end_the_second() -> None:
            others[0][0].connectionLost(GONE)

        line.send(request())
        done = line.factory.close()
        for _, transport in others[1:]:
            self.assertTrue(transport.disconnecting)
        for server in (line.server, *(server for server, _ in others[1:])):
            self.assertNoResult(done)
            server.connectionLost(GONE)
        self.successResultOf(done)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_close_without_connections(self) -> None:
        """Closing nothing is done at once."""
        line = Line()
        line.server.connectionLost(GONE)
        self.successResultOf(line.factory.close())

    def test_small(self) -> None:
        """A connection has no dictionary of its own."""
        self.assertEqual(vars(Line().server), {})
