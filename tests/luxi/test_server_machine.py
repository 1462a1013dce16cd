"""A server's connection, driven at random over a transport that behaves as Twisted's do."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.errors import OpPrereqError
from ganeti_masterd.luxi import server as server_module
from ganeti_masterd.luxi.factory import LuxiFactory
from ganeti_masterd.luxi.server import LINGER, PEER_CHECK
from ganeti_masterd.luxi.serverstates import AWAITING, LIVE, ReadingState, ServerState
from ganeti_masterd.timing import Timers
from tests.luxi.doubles import examples, record_server_states, request

IDLE_TIME = 60.0
#: The longest message, and how much may be unread before the transport stops its producer.
MAX_MESSAGE = 200
BUFFER = 150

INFINITY = float("inf")

#: What ends a connection with an error.
NONSENSE = {"nonsense": b"nonsense\x03", "long": b"x" * (MAX_MESSAGE + 50)}


class Wire:
    """A transport in memory, as Twisted's socket behaves: nothing calls back at once.

    ``unsent`` is what the client has not read yet, ``coming`` what the server has not.
    """

    def __init__(self) -> None:
        self.coming = bytearray()
        self.unsent = bytearray()
        self.read = bytearray()
        self.protocol: Any = None
        self.producer: Any = None
        self.producer_paused = False
        self.reading = True
        self.read_ended = False  # the server was told that the client sends no more
        self.sending_over = False  # the client sends no more
        self.gone = False  # the client is closed
        self.writing = False  # the reactor looks whether the client takes more
        self.disconnecting = self.half_closing = self.half_closed = False
        self.aborted = self.lost = False

    # What the server calls

    def write(self, data: bytes) -> None:
        assert not self.disconnecting, "something was sent after the end"
        assert not self.half_closing, "something was sent after the last word"
        assert not self.lost, "something was sent to nobody"
        self.unsent += data
        self.writing = True
        if self.producer is not None and len(self.unsent) > BUFFER:
            self.producer_paused = True
            self.producer.pauseProducing()

    def writeSequence(self, parts: Any) -> None:
        self.write(b"".join(parts))

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming
        assert self.producer is None
        self.producer = producer

    def unregisterProducer(self) -> None:
        assert self.producer is not None, "there is no producer to unregister"
        self.producer = None
        self.writing = self.writing or self.disconnecting

    def pauseProducing(self) -> None:
        assert not self.disconnecting
        self.reading = False

    def resumeProducing(self) -> None:
        assert not self.disconnecting
        self.reading = True

    def loseWriteConnection(self) -> None:
        self.half_closing = self.writing = True

    def loseConnection(self) -> None:
        self.writing = self.writing or not self.disconnecting
        self.disconnecting = True
        self.reading = False

    def abortConnection(self) -> None:
        self.loseConnection()
        self.aborted = True

    # What the reactor does

    def turn(self, room: int) -> None:
        """One turn of the reactor, in which the client reads so many bytes."""
        if self.lost:
            return
        over = self.aborted or (self.disconnecting and self.half_closed)
        if over or (self.gone and (self.reading or self.unsent)):
            self.lose()
            return
        self.read += self.unsent[:room]
        del self.unsent[:room]
        if not self.writing or self.unsent:
            return
        self.writing = False
        if self.producer is not None and self.producer_paused:
            self.producer_paused = False
            self.producer.resumeProducing()
        elif self.disconnecting:
            self.lose()
        elif self.half_closing:
            self.half_closed = True

    def choke(self) -> None:
        """Stops its producer, as a transport may for reasons of its own."""
        if self.producer is not None and not self.lost:
            self.producer_paused = self.writing = True
            self.producer.pauseProducing()

    def deliver(self, size: int) -> None:
        """Brings the server so many bytes, or the end of the client's sending."""
        if self.lost or not self.reading or self.read_ended:
            return
        if self.coming:
            data = bytes(self.coming[:size])
            del self.coming[:size]
            self.protocol.dataReceived(data)
        elif self.sending_over:
            self.read_ended = True
            self.protocol.readConnectionLost()

    def lose(self) -> None:
        self.lost = True
        if self.producer is not None:
            self.producer.stopProducing()
        self.protocol.connectionLost(Failure(ConnectionDone()))


class Connection:
    """One client that sends what it likes, reads when it likes and leaves when it likes."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.factory = LuxiFactory(
            self.answer, Timers(self.clock), idle_timeout=IDLE_TIME, max_message_size=MAX_MESSAGE
        )
        self.wire = Wire()
        self.server = self.factory.buildProtocol(None)
        self.wire.protocol = self.server
        self.server.makeConnection(self.wire)
        #: What was sent, in order: its kind, and a number.
        self.sent: list[tuple[str, int]] = []
        self.asked: list[int] = []
        self.pending: dict[int, Deferred[Any]] = {}
        self.closed = False

    def answer(self, asked: Any, peer: Any) -> Any:
        assert not self.pending, "a second request before the first was answered"
        [number] = asked.args
        self.asked.append(number)
        match asked.method:
            case "later":
                self.pending[number] = Deferred(lambda _: self.pending.pop(number))
                return self.pending[number]
            case "soon":
                return succeed([number])
            case "failing":
                return fail(OpPrereqError(number))
            case "raising":
                raise OpPrereqError(number)
        return [number]

    @property
    def state(self) -> ServerState:
        return self.server.state

    # What may happen

    def send(self, kind: str) -> None:
        """The client sends a message."""
        if self.wire.sending_over or self.wire.lost:
            return
        number = len(self.sent)
        self.sent.append((kind, number))
        if kind in NONSENSE:
            self.wire.coming += NONSENSE[kind]
        elif kind == "wrong":
            self.wire.coming += b'{"method":7,"args":[%d]}\x03' % number
        else:
            self.wire.coming += request(kind, number)

    def deliver(self, size: int) -> None:
        """The server gets what was sent, or so much of it."""
        self.wire.deliver(size)

    def ask(self, kinds: list[str]) -> None:
        """The client sends messages, which arrive with what was sent before."""
        for kind in kinds:
            self.send(kind)
        self.deliver(1 << 20)

    def read(self, room: int) -> None:
        """The client reads so many bytes; 0 is a turn of the reactor in which it doesn't."""
        self.wire.turn(room)

    def choke(self, _: None) -> None:
        """The transport takes no more for now."""
        self.wire.choke()

    def fire(self, good: bool) -> None:
        """The answer that is awaited is there."""
        for number, deferred in list(self.pending.items()):
            del self.pending[number]
            if good:
                deferred.callback([number])
            else:
                deferred.errback(OpPrereqError(number))

    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.clock.advance(seconds)

    def leave(self, how: str) -> None:
        """The client is done with sending, or closed; or the daemon closes."""
        if how == "daemon":
            self.closed = True
            self.factory.close()
        else:
            self.wire.sending_over = True
            self.wire.gone = self.wire.gone or how == "closed"

    # What always holds

    def check(self) -> None:
        self.one_answer_is_awaited()
        self.deadlines()
        self.reading()
        self.nothing_whole_waits_for_nothing()
        self.replies()

    def one_answer_is_awaited(self) -> None:
        assert self.state is not ServerState.SERVING
        assert (self.state in AWAITING) == bool(self.pending)
        assert (self.server._pending is not None) == bool(self.pending)

    def deadlines(self) -> None:
        state, deadline = self.state, self.server.deadline
        reading = self.server._reading
        if state is ServerState.CUT_OFF:
            assert deadline == INFINITY
            return
        if state is ServerState.LOST:
            assert self.clock.getDelayedCalls() == []
            return
        if state in AWAITING and reading is ReadingState.OPEN:
            longest = INFINITY  # the reactor tells when the client goes
        elif state in AWAITING:
            longest = PEER_CHECK
        elif state is ServerState.REFUSED:
            longest = LINGER
        else:
            longest = IDLE_TIME
        assert deadline <= self.clock.seconds() + longest
        if deadline < INFINITY:
            [call] = self.clock.getDelayedCalls()
            assert call.getTime() <= max(deadline, self.clock.seconds() + 1.0)

    def reading(self) -> None:
        reading = self.server._reading
        if self.state is ServerState.LISTENING:
            assert reading is ReadingState.OPEN
        if self.state is ServerState.REFUSED:
            assert reading is not ReadingState.PAUSED
        if self.state in LIVE and not self.wire.gone:
            assert self.wire.reading == (reading is not ReadingState.PAUSED)
            assert self.wire.read_ended == (reading is ReadingState.OVER)

    def nothing_whole_waits_for_nothing(self) -> None:
        framer = self.server._framer
        if self.state not in LIVE:
            assert framer.buffered == 0
        elif self.state is ServerState.LISTENING:
            assert b"\x03" not in framer._buffer[framer._start :]

    def replies(self) -> None:
        """One for each message, in order, up to the first that makes no sense."""
        whole = [*self.wire.read.split(b"\x03")[:-1]]
        if not self.wire.gone:
            whole = (self.wire.read + self.wire.unsent).split(b"\x03")[:-1]
        assert self.asked == sorted(set(self.asked))
        for (kind, number), data in zip(self.sent, whole, strict=False):
            reply = json.loads(data)
            assert reply["success"] == (reply["result"] == [number])
            if kind in NONSENSE or kind == "wrong":
                assert number not in self.asked
            if kind in NONSENSE:
                assert reply["result"][0] == "LuxiError"
                assert number == len(whole) - 1, "it went on after nonsense"
                assert self.state not in LIVE
            elif kind in ("failing", "raising"):
                assert reply["result"] == ["OpPrereqError", [number]]
            elif kind in ("now", "soon"):
                assert reply["success"]
        assert len(whole) <= len(self.sent)

    def end(self) -> None:
        """A client that goes on reading gets all it asked for; one that is gone is noticed."""
        if self.wire.gone:
            for _ in range(4):
                self.clock.advance(PEER_CHECK)
                self.wire.turn(0)
            assert not self.pending, "an answer for nobody is awaited"
        on_time = self.state in LIVE
        for _ in range(20 * len(self.sent) + 20):
            self.wire.deliver(1 << 20)
            if self.pending:
                self.fire(True)
            self.wire.turn(1 << 20)
            self.replies()
        assert self.state is not ServerState.CLOSING, "all is read, and it doesn't end"
        if on_time and not self.wire.gone and not self.closed:
            kinds = [kind for kind, _ in self.sent]
            nonsense = [kinds.index(kind) for kind in NONSENSE if kind in kinds]
            expected = min(nonsense) + 1 if nonsense else len(kinds)
            assert self.wire.read.count(b"\x03") == expected
        for _ in range(200):
            self.clock.advance(1)
            self.wire.turn(0)
        assert self.state is ServerState.LOST
        assert self.clock.getDelayedCalls() == []
        assert self.factory.connections == 0


MESSAGES = st.sampled_from(["later", "now", "soon", "later", "failing", "raising", "wrong"])
SIZES = st.sampled_from([1 << 20, 1 << 20, 20, 47, 100])


def act(function: Any, arguments: Any) -> Any:
    """What happens, and one of its arguments."""
    return st.tuples(st.just(function), arguments)


ACTS = st.one_of(
    act(Connection.send, MESSAGES),
    act(Connection.deliver, SIZES),
    act(Connection.ask, st.lists(MESSAGES, min_size=1, max_size=4)),
    act(Connection.choke, st.none()),
    act(Connection.fire, st.booleans()),
    act(Connection.read, st.sampled_from([0, 10, 1 << 20])),
    act(Connection.wait, st.sampled_from([0.5, 0.5, PEER_CHECK, IDLE_TIME / 3])),
)

#: What ends the connection, at once or when all is answered.
ENDS = st.sampled_from(
    [
        (Connection.leave, "half"),
        (Connection.leave, "half"),
        (Connection.leave, "closed"),
        (Connection.leave, "daemon"),
        (Connection.wait, IDLE_TIME + 2),
        *((Connection.send, kind) for kind in NONSENSE),
    ]
)


class MachineTests(SynchronousTestCase):
    """Whatever a client does, the rules of a connection hold."""

    @given(
        st.lists(ACTS, min_size=5, max_size=40),
        st.lists(ENDS, max_size=2),
        st.lists(ACTS, min_size=5, max_size=20),
    )
    @examples(300)
    def test_connection(self, first: list[Any], ends: list[Any], last: list[Any]) -> None:
        """Any sequence of chunks, answers and departures keeps to the table and the rules."""
        record_server_states(self)
        connection = Connection()
        self.patch(server_module, "hung_up", lambda _: connection.wire.gone)
        for happens, argument in (*first, *ends, *last):
            happens(connection, argument)
            connection.check()
        connection.end()
        self.assertEqual(self.flushLoggedErrors(), [])
