"""The server's end of a LUXI connection.

One request at a time: the next is looked at when the one before is answered and the
client reads its answers. What arrives meanwhile stays in the kernel, but for the first
chunk of it: the connection keeps listening until then, as only so it learns at once
that the client has gone.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any

from msgspec import Struct
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ganeti_masterd.constants import LUXI_EOM
from ganeti_masterd.errors import GenericError, LuxiError, ProgrammerError
from ganeti_masterd.luxi.aside import LARGE_REQUEST, LargeRequests
from ganeti_masterd.luxi.budget import READ_COST, Budget
from ganeti_masterd.luxi.documents import ProtocolError
from ganeti_masterd.luxi.framing import Framer, MessageTooLarge
from ganeti_masterd.luxi.messages import (
    LuxiRequest,
    SizeBound,
    decode_request,
    encode_error,
    encode_reply,
)
from ganeti_masterd.luxi.peers import Peer, hung_up, peer_of
from ganeti_masterd.luxi.serverstates import AWAITING, LIVE, ReadingState, ServerState, step

log = Logger()

#: How long a refused client may take to read the error, seconds.
LINGER = 2.0
#: How often to look whether a client is still there that can't be listened to, seconds.
PEER_CHECK = 5.0

_NEVER = float("inf")
#: From here on a reply is not copied to get its end byte, and a request is counted.
_LARGE = 16384
#: An answer that is longer goes to the transport in slices of so many bytes, as the client reads.
SLICE = 1 << 16

# A member is looked up here once: from its Enum that is slow, for each request.
_LISTENING, _SERVING = ServerState.LISTENING, ServerState.SERVING
_PENDING, _CHOKED = ServerState.PENDING, ServerState.CHOKED
_PENDING_CHOKED, _REFUSED = ServerState.PENDING_CHOKED, ServerState.REFUSED
_CLOSING, _CUT_OFF, _LOST = ServerState.CLOSING, ServerState.CUT_OFF, ServerState.LOST
_OPEN = ReadingState.OPEN

# The steps that every request takes: made where the state before is known, so that the
# table is asked for them here and not each time.
_BEGIN_SERVING = step(_LISTENING, _SERVING)
_GO_ON_SERVING = step(_PENDING, _SERVING)
_AWAIT_ANSWER = step(_SERVING, _PENDING)
_LISTEN_AGAIN = step(_SERVING, _LISTENING)


class Connections(typing.Protocol):
    """All connections of one socket, as far as each of them needs the others."""

    max_message_size: int
    #: How large the requests of each method may be.
    largest: SizeBound
    #: Reads large requests in a thread; None: they are read as the others are.
    aside: LargeRequests | None
    #: What may be held for clients, of all sockets.
    budget: Budget
    #: Seconds, infinity for never.
    idle_timeout: float
    #: How many messages came in.
    requests: int

    @property
    def answer(self) -> Callable[[LuxiRequest, Peer], Any]:
        """What is called for every request; its result, or a Deferred of it, is the answer."""

    @property
    def seconds(self) -> Callable[[], float]:
        """The clock of deadlines."""

    def expect(self, at: float, /) -> None:
        """Calls :meth:`LuxiServer.overdue` of connections whose deadline has passed by then."""

    def connection_made(self, connection: LuxiServer, /) -> None:
        """Registers a connection, or refuses it."""

    def connection_refused(self, connection: LuxiServer, /) -> None:
        """Notes that a connection only waits for its client to read the error.

        May cut off another that waits so.
        """

    def connection_lost(self, connection: LuxiServer, /) -> None:
        """Forgets a connection."""


class _Unreadable(Struct, frozen=True):
    """What a large request is answered with that can't be understood."""

    error: ProtocolError


@implementer(IHalfCloseableProtocol, IPushProducer)
class LuxiServer(Protocol):
    """One client's connection; made by a :class:`~ganeti_masterd.luxi.factory.LuxiFactory`.

    It has the interface of Twisted's ``LineReceiver``: ``delimiter``, ``MAX_LENGTH``,
    ``lineReceived``, ``sendLine``, ``pauseProducing`` and ``resumeProducing``.

    ``state`` is where it is in :data:`~ganeti_masterd.luxi.serverstates.TABLE`.

    ``deadline`` (seconds of the reactor's clock) is when the factory calls
    :meth:`overdue`. A connection is idle while no answer is pending, also with half a
    message: the time runs from its first bytes, and more of them don't stretch it.
    While an answer is pending there is a deadline only if reading is paused or over: then
    nothing else tells that the client has gone.

    What is held for the client is counted in the factory's budget: of a message that isn't
    whole, of a large request until it is answered, of an answer until the client reads it. A
    connection for which the budget doesn't suffice is refused.
    """

    __slots__ = (
        "_asked",
        "_counted",
        "_framer",
        "_pending",
        "_reading",
        "_unread",
        "_unsent",
        "connected",
        "deadline",
        "factory",
        "peer",
        "state",
        "transport",
    )

    delimiter = LUXI_EOM

    factory: Connections
    transport: Any
    connected: int

    def __init__(self, factory: Connections, connection: int) -> None:
        self.factory = factory
        self.transport = None
        self.connected = 0
        self.peer = Peer(connection)
        self.deadline = _NEVER
        self.state = _LISTENING
        #: What arrived and was not served yet; emptied when the connection stops serving.
        self._framer = Framer(factory.max_message_size)
        #: The answer that is awaited; None again when it is there or given up. A state that
        #: is not in ``AWAITING`` has none, but for ``SERVING`` while a request is answered.
        self._pending: Deferred[Any] | None = None
        #: Whether more is read from the client; opened again when ``LISTENING``.
        self._reading = ReadingState.OPEN
        #: What the budget was told: the sum of what is buffered and the three below.
        self._counted = 0
        #: What a large request that is being answered takes; 0 once it is answered.
        self._asked = 0
        #: The size of an answer that choked the transport; 0 once the client has read it.
        self._unread = 0
        #: The rest of an answer that is sent in slices, and its end byte; None without any.
        self._unsent: memoryview | None = None

    @property
    def MAX_LENGTH(self) -> int:
        """The most bytes that a message may have."""
        return self._framer.limit

    def connectionMade(self) -> None:
        """Registers with the factory, which may refuse."""
        self.peer = peer_of(self.transport, self.peer.connection)
        self.transport.registerProducer(self, True)
        self._restart_idle_time()
        self.factory.connection_made(self)

    def dataReceived(self, data: bytes) -> None:
        """Serves the requests that are complete with ``data``."""
        state = self.state
        if state is _LISTENING:
            framer = self._framer
            framer.feed(data)
            self.state = _BEGIN_SERVING
            if not self._serve() and framer.buffered == len(data):  # a message's beginning
                self._restart_idle_time()
            if framer.buffered or self._counted:
                self._count()
        elif state in LIVE:
            self._framer.feed(data)
            self._pause_reading()
            self._count()

    def lineReceived(self, line: bytes) -> None:
        """Answers one message, now or, if the answer is a Deferred, later."""
        factory = self.factory
        factory.requests += 1
        if len(line) > _LARGE:
            self._asked = READ_COST * len(line)
            if not self._count():
                return
            if len(line) > LARGE_REQUEST and factory.aside is not None:
                reading = factory.aside(line)
                self._await(reading.addCallbacks(self._answer_read, self._unreadable))
                return
        try:
            request = decode_request(line, factory.largest)
        except ProtocolError as error:
            self.refuse(error)
            return
        except GenericError as error:
            self.sendLine(encode_error(error))
            return
        try:
            result = factory.answer(request, self.peer)
        except Exception as error:
            self._send_error(error)
            return
        if isinstance(result, Deferred):
            self._await(result)
        else:
            self._send_result(result)

    def sendLine(self, line: bytes) -> None:
        """Sends one message, given without its end byte."""
        self._asked = 0
        if len(line) < _LARGE:
            self.transport.write(line + LUXI_EOM)
        elif len(line) <= SLICE or self.state is not _SERVING:
            self.transport.writeSequence((line, LUXI_EOM))
        else:
            self._unsent = memoryview(line)
            if self._count():
                self._send_on()
            return
        if self.state is _CHOKED:
            self._unread = len(line)
            self._count()

    def refuse(self, error: LuxiError) -> None:
        """Answers ``error`` and ends the connection.

        What the client still sends is read and dropped for a while: closed at once, a
        client that is sending would see a broken pipe and never read the error.
        """
        log.info(
            "LUXI protocol error of connection {peer.connection} (pid {peer.pid}, uid {peer.uid}): "
            "{error}",
            peer=self.peer,
            error=error.logged if isinstance(error, ProtocolError) else str(error),
        )
        self._stop_serving(_REFUSED)
        self.sendLine(encode_error(error))
        transport = self.transport
        self.factory.connection_refused(self)
        half_close = getattr(transport, "loseWriteConnection", None)
        if self._reading is ReadingState.OVER or half_close is None:
            self._finish()
        else:
            self._resume_reading()
            half_close()
        self._call_overdue_in(LINGER)

    def overdue(self, now: float) -> None:
        """Called by the factory when ``deadline`` has passed: closes what is to be closed."""
        state = self.state
        if state in AWAITING and not hung_up(self.transport):
            self.deadline = now + PEER_CHECK
        elif state is _LISTENING:
            self.close()
        else:
            self.cut_off()

    def close(self) -> None:
        """Closes once what was answered is sent; a pending answer is given up.

        A client that doesn't read it in time is cut off.
        """
        if self.state in (_CUT_OFF, _LOST):
            return
        self._call_overdue_in(LINGER)
        if self.state is not _CLOSING:
            self._finish()
            self._give_up()

    def cut_off(self) -> None:
        """Ends the connection at once; what was not sent yet is dropped."""
        if self.state in (_CUT_OFF, _LOST):
            return
        self._stop_serving(_CUT_OFF)
        self.deadline = _NEVER
        self.transport.abortConnection()
        self._give_up()

    # The transport's view of this end as a producer of answers

    def pauseProducing(self) -> None:
        """Stops serving: too much is unread already. Called for each answer that is too much."""
        state = self.state
        if state is _PENDING:
            self._go(_PENDING_CHOKED)
        elif state is _SERVING or state is _LISTENING:
            self._go(_CHOKED)
            self._restart_idle_time()

    def resumeProducing(self) -> None:
        """Goes on serving. Called by the reactor, never from within a write."""
        state = self.state
        if state is _PENDING_CHOKED:
            self._go(_PENDING)
        elif state is _CHOKED:
            self._go(_SERVING)
            self._unread = 0
            if self._unsent is not None:
                self._send_on()
            if self.state is _SERVING:
                self._serve()
            if self._counted:
                self._count()

    def stopProducing(self) -> None:
        """The transport is ending, and calls :meth:`connectionLost` next."""
        self.transport.loseConnection()

    # The client is done, or gone

    def readConnectionLost(self) -> None:
        """The client sends no more: it gets the answers that it waits for, then the end."""
        self._reading = ReadingState.OVER
        state = self.state
        if state in AWAITING:
            if hung_up(self.transport):
                self.cut_off()
            else:
                self._call_overdue_in(PEER_CHECK)
        elif state is _LISTENING or state is _REFUSED:
            self._finish()

    def writeConnectionLost(self) -> None:
        """Nothing to do: the client's end decides about the rest."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Cancels the answer that is pending."""
        self._go(_LOST)
        self._drop()
        self.factory.connection_lost(self)
        self._give_up()

    # Inside

    def _go(self, state: ServerState) -> None:
        self.state = step(self.state, state)

    def _serve(self) -> bool:
        """Answers what is complete, one by one, until an answer takes time or isn't read.

        Returns whether there was anything complete.
        """
        take = self._framer.take
        served = False
        try:
            while (message := take()) is not None:
                served = True
                self.lineReceived(message)
                if self.state is not _SERVING:
                    return True
        except MessageTooLarge as error:
            self.refuse(error)
            return served
        if self._reading is not _OPEN:
            if self._reading is ReadingState.OVER:
                self._finish()
                return served
            self._resume_reading()
        self.state = _LISTEN_AGAIN
        if served:
            self._restart_idle_time()
        return served

    def _await(self, result: Deferred[Any]) -> None:
        """Answers with what the Deferred fires with, at once or later."""
        self._pending = result
        result.addBoth(self._answered)
        if self._pending is None:
            return
        if self.state is not _SERVING:  # the connection was closed within the call
            self._give_up()
            return
        self.state = _AWAIT_ANSWER
        self.deadline = _NEVER
        if self._reading is not _OPEN:
            self._call_overdue_in(PEER_CHECK)

    def _answer_read(self, request: LuxiRequest) -> Any:
        return self.factory.answer(request, self.peer)

    def _unreadable(self, failure: Failure) -> Failure | _Unreadable:
        error = failure.value
        return _Unreadable(error) if isinstance(error, ProtocolError) else failure

    def _answered(self, result: Any) -> None:
        """The answer's Deferred fired, at once (``SERVING``) or later."""
        self._pending = None
        before = self.state
        if before is _PENDING:
            self.state = _GO_ON_SERVING
        elif before is _PENDING_CHOKED:
            self._go(_CHOKED)
        elif before is not _SERVING:  # given up
            return
        if isinstance(result, Failure):
            self._send_error(result.value, result)  # type: ignore[arg-type]
        elif type(result) is _Unreadable:
            self.refuse(result.error)
            return
        else:
            self._send_result(result)
        if before is not _SERVING:
            self._restart_idle_time()
            if self.state is _SERVING:
                self._serve()
            if self._counted:
                self._count()

    def _finish(self) -> None:
        """Closes once what was answered is sent. The deadline stays as it is."""
        unsent = self._unsent
        self._stop_serving(_CLOSING)
        if unsent is not None:
            self.transport.writeSequence((bytes(unsent), LUXI_EOM))
        self.transport.loseConnection()

    def _stop_serving(self, state: ServerState) -> None:
        """Goes to a state that isn't live."""
        live = self.state in LIVE
        self._go(state)
        self._drop()
        if live:
            self.transport.unregisterProducer()

    def _send_on(self) -> None:
        """Sends slices of the answer under way until the transport has enough for now."""
        unsent = self._unsent
        while unsent is not None and self.state is _SERVING:
            piece, rest = unsent[:SLICE], unsent[SLICE:]
            self._unsent = unsent = rest if rest else None
            if unsent is not None:
                self.transport.write(bytes(piece))
            else:
                self.transport.writeSequence((bytes(piece), LUXI_EOM))
        if unsent is None and self.state is _CHOKED:
            self._unread = SLICE
        if self._counted or self._unread:
            self._count()

    def _drop(self) -> None:
        """Lets go of all that is held for the client, except what the transport has."""
        self._framer.clear()
        self._asked = self._unread = 0
        self._unsent = None
        if self._counted:
            self.factory.budget.add(self.peer.uid, -self._counted)
            self._counted = 0

    def _count(self) -> bool:
        """Tells the budget what is held; refuses the connection where that is too much.

        Returns whether it may go on. While an answer is pending nothing is refused: no more than
        a chunk comes in.
        """
        state = self.state
        if state not in LIVE:
            return False
        held = self._framer.buffered + self._asked + self._unread
        if self._unsent is not None:
            held += len(self._unsent)
        more, uid, budget = held - self._counted, self.peer.uid, self.factory.budget
        if more > 0 and state not in AWAITING:
            why = budget.refusal(uid, more)
            if why is not None:
                # What could not be counted goes first: the error is the answer to it.
                self.refuse(LuxiError(f"Too much is held for clients: {why}"))
                return False
        budget.add(uid, more)
        self._counted = held
        return True

    def _give_up(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            try:
                pending.cancel()
            except Exception:
                log.failure("An answer could not be cancelled")

    def _send_result(self, result: Any) -> None:
        try:
            reply = encode_reply(result)
        except ProgrammerError as error:
            self._send_error(error)
        else:
            self.sendLine(reply)

    def _send_error(self, error: BaseException, failure: Failure | None = None) -> None:
        """Answers an error, and logs it if it tells of a fault in the daemon.

        ``failure`` is given where ``error`` isn't the exception that is being handled.
        """
        if not isinstance(error, GenericError) or isinstance(error, ProgrammerError):
            log.failure(
                "Answering connection {connection} failed",
                failure=failure,
                connection=self.peer.connection,
            )
        self.sendLine(encode_error(error))

    def _pause_reading(self) -> None:
        if self._reading is _OPEN:
            self._reading = ReadingState.PAUSED
            self.transport.pauseProducing()
            if self.state in AWAITING:
                self._call_overdue_in(PEER_CHECK)

    def _resume_reading(self) -> None:
        if self._reading is ReadingState.PAUSED:
            self._reading = ReadingState.OPEN
            self.transport.resumeProducing()

    def _restart_idle_time(self) -> None:
        factory = self.factory
        self.deadline = factory.seconds() + factory.idle_timeout

    def _call_overdue_in(self, delay: float) -> None:
        self.deadline = self.factory.seconds() + delay
        self.factory.expect(self.deadline)
