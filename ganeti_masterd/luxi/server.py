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

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ganeti_masterd.constants import LUXI_EOM
from ganeti_masterd.errors import GenericError, LuxiError, ProgrammerError
from ganeti_masterd.luxi.documents import ProtocolError
from ganeti_masterd.luxi.framing import Framer, MessageTooLarge
from ganeti_masterd.luxi.messages import LuxiRequest, decode_request, encode_error, encode_reply
from ganeti_masterd.luxi.peers import Peer, hung_up, peer_of

log = Logger()

#: How long a refused client may take to read the error, seconds.
LINGER = 2.0
#: How often to look whether a client is still there that can't be listened to, seconds.
PEER_CHECK = 5.0

_NEVER = float("inf")
#: From here on a reply is not copied to get its end byte.
_LARGE = 16384


class Connections(typing.Protocol):
    """All connections of one socket, as far as each of them needs the others."""

    max_message_size: int
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
        """Notes that a connection only waits for its client to read the error."""

    def connection_lost(self, connection: LuxiServer, /) -> None:
        """Forgets a connection."""


@implementer(IHalfCloseableProtocol, IPushProducer)
class LuxiServer(Protocol):
    """One client's connection; made by a :class:`~ganeti_masterd.luxi.factory.LuxiFactory`.

    It has the interface of Twisted's ``LineReceiver``: ``delimiter``, ``MAX_LENGTH``,
    ``lineReceived``, ``sendLine``, ``pauseProducing`` and ``resumeProducing``.

    ``deadline`` (seconds of the reactor's clock) is when the factory calls
    :meth:`overdue`. A connection is idle while no answer is pending, also with half a
    message: the time runs from its first bytes, and more of them don't stretch it.
    """

    __slots__ = (
        "_choked",
        "_eof",
        "_framer",
        "_pending",
        "_reading_paused",
        "_refused",
        "_serving",
        "connected",
        "deadline",
        "factory",
        "peer",
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
        self._framer = Framer(factory.max_message_size)
        self._pending: Deferred[Any] | None = None  # the answer that is awaited
        self._serving = False  # inside the loop over requests
        self._choked = False  # the client doesn't read its answers
        self._reading_paused = False
        self._eof = False  # the client is done with sending
        self._refused = False  # only waits for the client to read the error

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
        if self._refused:
            return
        framer = self._framer
        framer.feed(data)
        if self._pending is not None or self._choked:
            self._pause_reading()
            return
        self._serve()
        if framer.buffered == len(data):  # the beginning of a message, and no end
            self._restart_idle_time()

    def lineReceived(self, line: bytes) -> None:
        """Answers one message, now or, if the answer is a Deferred, later."""
        factory = self.factory
        factory.requests += 1
        try:
            request = decode_request(line)
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
            self._pending = result
            self.deadline = _NEVER
            result.addBoth(self._answered)
        else:
            self._send_result(result)

    def sendLine(self, line: bytes) -> None:
        """Sends one message, given without its end byte."""
        if len(line) < _LARGE:
            self.transport.write(line + LUXI_EOM)
        else:
            self.transport.writeSequence((line, LUXI_EOM))

    def refuse(self, error: LuxiError) -> None:
        """Answers ``error`` and ends the connection.

        What the client still sends is read and dropped for a while: closed at once, a
        client that is sending would see a broken pipe and never read the error.
        """
        log.info(
            "LUXI protocol error of connection {peer.connection} (pid {peer.pid}, uid {peer.uid}): "
            "{error}",
            peer=self.peer,
            error=str(error),
        )
        self._refused = True
        self._framer.clear()
        self.sendLine(encode_error(error))
        transport = self.transport
        transport.unregisterProducer()
        self.factory.connection_refused(self)
        half_close = getattr(transport, "loseWriteConnection", None)
        if self._eof or half_close is None:
            transport.loseConnection()
        else:
            self._resume_reading()
            half_close()
        self._call_overdue_in(LINGER)

    def overdue(self, now: float) -> None:
        """Called by the factory when ``deadline`` has passed: closes what is to be closed."""
        if self._pending is not None:
            if hung_up(self.transport):
                self.transport.abortConnection()
            else:
                self.deadline = now + PEER_CHECK
        elif self._refused or self._choked:
            self.deadline = _NEVER
            self.transport.abortConnection()
        else:
            self.close()

    def close(self) -> None:
        """Closes once what was answered is sent; a pending answer is given up.

        A client that doesn't read it in time is cut off.
        """
        self._refused = True
        self._framer.clear()
        self.transport.unregisterProducer()
        self.transport.loseConnection()
        self._call_overdue_in(LINGER)
        self._give_up()

    # The transport's view of this end as a producer of answers

    def pauseProducing(self) -> None:
        """Stops serving: too much is unread already."""
        self._choked = True
        self._restart_idle_time()

    def resumeProducing(self) -> None:
        """Goes on serving."""
        self._choked = False
        if self._pending is None and not self._serving and not self._refused:
            self._serve()

    def stopProducing(self) -> None:
        """Ends the connection."""
        self.transport.loseConnection()

    # The client is done, or gone

    def readConnectionLost(self) -> None:
        """The client sends no more: it gets the answers that it waits for, then the end."""
        self._eof = True
        if self._pending is not None:
            if hung_up(self.transport):
                self.transport.abortConnection()
            else:
                self._call_overdue_in(PEER_CHECK)
        elif not self._choked or self._refused:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Nothing to do: the client's end decides about the rest."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Cancels the answer that is pending."""
        self._refused = True
        self._framer.clear()
        self.factory.connection_lost(self)
        self._give_up()

    # Inside

    def _serve(self) -> None:
        """Answers what is complete, one by one, until an answer takes time or isn't read."""
        framer = self._framer
        served = False
        self._serving = True
        try:
            while not self._choked:
                message = framer.take()
                if message is None:
                    break
                served = True
                self.lineReceived(message)
                if self._pending is not None or self._refused:
                    return
            else:
                return
        except MessageTooLarge as error:
            self.refuse(error)
            return
        finally:
            self._serving = False
        if self._eof:
            self.transport.loseConnection()
            return
        if self._reading_paused:
            self._resume_reading()
        if served:
            self._restart_idle_time()

    def _answered(self, result: Any) -> None:
        """The answer's Deferred fired."""
        if self._pending is None:  # given up
            return
        self._pending = None
        if isinstance(result, Failure):
            self._send_error(result.value, result)  # type: ignore[arg-type]
        else:
            self._send_result(result)
        self._restart_idle_time()
        if not self._serving:
            self._serve()

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
        if not self._reading_paused:
            self._reading_paused = True
            self.transport.pauseProducing()
            if self._pending is not None:
                self._call_overdue_in(PEER_CHECK)

    def _resume_reading(self) -> None:
        if self._reading_paused:
            self._reading_paused = False
            if not self._eof:
                self.transport.resumeProducing()

    def _restart_idle_time(self) -> None:
        factory = self.factory
        self.deadline = factory.seconds() + factory.idle_timeout

    def _call_overdue_in(self, delay: float) -> None:
        self.deadline = self.factory.seconds() + delay
        self.factory.expect(self.deadline)
