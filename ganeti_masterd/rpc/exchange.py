"""One call to one real node: a connection, a request, and an answer or a failure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, cast

import msgspec
from msgspec.structs import replace
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    wrapClientTLS,
)
from twisted.internet.interfaces import IConsumer, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, HTTPConnectionPool, ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IBodyProducer, IResponse
from zope.interface import implementer

from ganeti_masterd.decoding import decode_in_pieces
from ganeti_masterd.errors import ConfigurationError
from ganeti_masterd.mailbox import RunInThread
from ganeti_masterd.rpc import refusals, results
from ganeti_masterd.rpc.certificates import Certificates
from ganeti_masterd.rpc.declarations import Call
from ganeti_masterd.rpc.interfaces import NodeResult, Target
from ganeti_masterd.rpc.turns import Rank, rank_of
from ganeti_masterd.rpc.wire import VirtualPaths, decode
from ganeti_masterd.timing import Timer, Timers

log = Logger()

#: The largest size of an answer, in bytes, and of all that are on their way from one node at once.
#: No node daemon sends a larger one: the greatest list volumes, or hold an allocator's answer.
MAX_ANSWER = 64 * 1024 * 1024

#: The most bytes before an answer's body; node daemons send some 150.
MAX_HEAD = 16 * 1024

#: From how many bytes on an answer is read in a thread: 10 ms of work for most.
LARGE_ANSWER = 256 * 1024

#: Bytes written to a connection at once.
CHUNK = 256 * 1024

_HEADERS = {"Content-Type": ["application/json"], "User-Agent": ["ganeti_masterd"]}


class CallLine:
    """What all calls of one client share."""

    def __init__(
        self,
        reactor: Any,
        timers: Timers,
        certificates: Certificates,
        paths: VirtualPaths,
        *,
        port: int,
        patience: float,
        max_answer: int = MAX_ANSWER,
        in_thread: RunInThread | None = None,
    ) -> None:
        """``patience`` is the seconds that a connection may take, including TLS.

        ``in_thread`` runs a function in a thread; None: large answers are read like others.
        """
        self.reactor = reactor
        self.timers = timers
        self.certificates = certificates
        self.paths = paths
        self.port = port
        self.patience = patience
        self.max_answer = max_answer
        self.in_thread = in_thread
        #: Bytes received in the calls in flight, by address.
        self.held: Counter[str] = Counter()
        self.pool = _Unpooled(reactor, persistent=True)
        self.pool.retryAutomatically = False


class _Unpooled(HTTPConnectionPool):
    """A connection pool that keeps no connection, but doesn't send ``Connection: close``.

    That header costs 40 ms with noded, which closes the connection anyway (protocol/rpc.rst, HTTP).
    If a peer doesn't close it, this side does.
    """

    def _putConnection(self, key: Any, connection: Any) -> None:
        connection.transport.loseConnection()


@implementer(IAgentEndpointFactory, IStreamClientEndpoint)
class CallExchange:
    """One call to one node. ``ended`` is always called, once, with the result."""

    def __init__(
        self,
        line: CallLine,
        target: Target,
        call: Call[Any],
        body: bytes,
        seconds: float,
        ended: Callable[[CallExchange, NodeResult[Any]], None],
    ) -> None:
        self.target = target
        self.call = call
        self.rank: Rank = rank_of(call)
        self.distrust: str | None = None
        #: When the request was sent, in seconds of the reactor's clock; None before.
        self.sent: float | None = None
        self._line = line
        self._body = body
        self._seconds = seconds
        self._ended: Callable[[CallExchange, NodeResult[Any]], None] | None = ended
        self._timer: Timer | None = None
        self._connecting: Timer | None = None
        self._request: Deferred[Any] | None = None
        self._connection: _Meter | None = None
        self._received = 0
        #: Whether the body has begun.
        self._answers = False

    # For the client

    def send(self) -> None:
        """Makes the call; its time-out starts here."""
        timers = self._line.timers
        self.sent = timers.seconds()
        self._timer = timers.later(self._seconds, self._expired)
        self._connecting = timers.later(self._line.patience, self._not_connected)
        host = self.target.address or self.target.name
        netloc = f"[{host}]" if isIPv6Address(host) else host
        agent = Agent.usingEndpointFactory(self._line.reactor, self, pool=self._line.pool)
        try:
            url = f"https://{netloc}:{self._line.port}/{self.call.name}".encode("ascii")
            body, self._body = _Body(self._body), b""
            self._request = cast(
                "Deferred[Any]", agent.request(b"POST", url, Headers(_HEADERS), body)
            )
        except ValueError:
            self._end(
                results.unreachable(self.target, self.call.name, "this is no address"),
            )
            return
        except Exception:
            self._confused(Failure())
            return
        # The call may end at once, which clears the attribute.
        request = self._request
        request.addCallback(self._answering)
        request.addCallbacks(self._answered, self._failed)
        request.addErrback(self._confused)

    def give_up(self) -> Deferred[None]:
        """Ends the call because the daemon stops; fires when its connection is gone."""
        return self._end(results.given_up(self.target, self.call.name))

    def abandon(self) -> Deferred[None]:
        """Ends the call because its caller cancelled it; fires when its connection is gone."""
        return self._end(results.abandoned(self.target, self.call.name))

    @property
    def reached(self) -> bool:
        """Whether there is a connection, so that the node may have got the request."""
        return self._connection is not None

    # The connection, as Agent's endpoint factory

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """Returns the endpoint of this one call."""
        return self

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """Connects to the node over TLS; fails with ``ConfigurationError`` without certificates."""
        try:
            creator = self._line.certificates.creator(self)
        except ConfigurationError:
            return fail()
        # The factory would log two lines for each call.
        cast(Any, protocolFactory).noisy = False
        metering = WrappingFactory(protocolFactory)
        metering.noisy = False
        metering.protocol = self._metered
        endpoint = wrapClientTLS(creator, self._tcp(), clock=self._line.reactor)

        def connected(meter: Any) -> Any:
            self._connection = meter
            return meter.wrappedProtocol

        return endpoint.connect(metering).addCallback(connected)

    def _metered(self, factory: WrappingFactory[Any], protocol: Any) -> _Meter:
        return _Meter(factory, protocol, self)

    def _tcp(self) -> IStreamClientEndpoint:
        line = self._line
        host = self.target.address or self.target.name
        if isIPAddress(host):
            # HostnameEndpoint takes 300 ms to report a refused connection.
            return TCP4ClientEndpoint(line.reactor, host, line.port, line.patience)
        if isIPv6Address(host):
            return TCP6ClientEndpoint(line.reactor, host, line.port, line.patience)
        return HostnameEndpoint(line.reactor, host, line.port, line.patience)

    def handshaken(self) -> None:
        """Called when the TLS handshake is done: the node was reached."""
        if self._connecting is not None:
            self._connecting.cancel()

    # The answer

    def receiving(self, count: int) -> None:
        """Counts bytes before they are looked at; ends the call if they are too many."""
        if self._ended is None:
            return
        name, limit = self.target.name, self._line.max_answer
        held = self._line.held
        self._received += count
        held[self._address] += count
        if self._received > limit:
            self._refuse(f"The answer of node {name} is longer than {limit} bytes")
        elif held[self._address] > limit:
            self._refuse(f"Node {name} answers more than {limit} bytes at once")

    def received(self) -> None:
        """Ends the call if its answer has still not begun after all that was received."""
        if not self._answers and self._received > MAX_HEAD:
            self._refuse(
                f"Node {self.target.name} sent more than {MAX_HEAD} bytes before an answer"
            )

    @property
    def _address(self) -> str:
        return self.target.address or self.target.name

    def _refuse(self, fault: str) -> None:
        self._end(NodeResult(self.target.name, self.call.name, None, fault))

    def _answering(self, response: IResponse) -> Deferred[bytearray]:
        """Begins to collect the body; raises ``_Refused`` if there is no need for it."""
        name, limit = self.target.name, self._line.max_answer
        self._answers = True
        if response.code != 200:
            raise _Refused(f"Node {name} answered with HTTP status {response.code}")
        if isinstance(response.length, int) and response.length > limit:
            raise _Refused(f"The answer of node {name} is longer than {limit} bytes")
        done: Deferred[bytearray] = Deferred()
        response.deliverBody(_Answer(done))
        return done

    def _answered(self, body: bytearray) -> Deferred[None] | None:
        """Reads the body, and ends the call with what it says.

        The time-out goes on running while a thread reads it.
        """
        if self._ended is None:
            return None
        in_thread = self._line.in_thread
        if in_thread is None or len(body) < LARGE_ANSWER:
            self._end(self._read(body, msgspec.json.decode))
            return None

        def read() -> NodeResult[Any]:
            result = self._read(body, decode_in_pieces)
            body.clear()
            if result.error is not None:
                return result
            return replace(result, typed=results.typed_in_pieces(result, self.call))

        return in_thread(read).addCallback(self._read_ahead)

    def _read_ahead(self, result: NodeResult[Any]) -> None:
        if self._ended is not None:
            self._end(result)

    def _read(self, body: bytearray, decode_json: Callable[[Any], Any]) -> NodeResult[Any]:
        """Returns what an answer says. For any thread."""
        try:
            result = results.read_answer(self.target, self.call.name, decode(body, decode_json))
        except ValueError as error:
            fault = results.invalid(self.target, str(error))
            return NodeResult(self.target.name, self.call.name, None, fault)
        if result.error is None and self._line.paths.root:
            payload = self._line.paths.payload(self.call, result.payload)
            result = NodeResult(self.target.name, self.call.name, payload)
        return result

    def _failed(self, failure: Failure) -> None:
        name = self.call.name
        if failure.check(ConfigurationError):
            fault = f"No TLS: {failure.getErrorMessage()}"
            self._end(NodeResult(self.target.name, name, None, fault))
        elif failure.check(_Refused):
            self._refuse(failure.getErrorMessage())
        else:
            self._end(refusals.failed(self.target, name, failure, self.distrust))

    def _confused(self, failure: Failure) -> None:
        """Ends the call after an error on this side; logs no message, as it may quote a body."""
        log.error(
            "Call {call} to node {node} could not be sent, or its answer not read: {kind}",
            call=self.call.name,
            node=self.target.name,
            kind=type(failure.value).__name__,
        )
        self._refuse(results.invalid(self.target, type(failure.value).__name__))

    # The end

    def _expired(self) -> None:
        self._end(results.timed_out(self.target, self.call.name, self._seconds))

    def _not_connected(self) -> None:
        reason = f"no answer within {self._line.patience:g} seconds"
        self._end(results.unreachable(self.target, self.call.name, reason))

    def _end(self, result: NodeResult[Any]) -> Deferred[None]:
        """Reports the result, if none was reported yet, and closes everything.

        The node goes on with the call, as it isn't notified of an end on this side.
        """
        ended, self._ended = self._ended, None
        if ended is None:
            return succeed(None)
        held = self._line.held
        held[self._address] -= self._received
        if not held[self._address]:
            del held[self._address]
        for timer in (self._timer, self._connecting):
            if timer is not None:
                timer.cancel()
        gone: Deferred[None] = succeed(None)
        if self._connection is not None:
            gone = self._connection.cut()
        if self._request is not None and not self._request.called:
            self._request.cancel()
        self._request = self._connection = None
        ended(self, result)
        return gone


@implementer(IBodyProducer)
class _Body:
    """A request's body, written as fast as the connection accepts it."""

    def __init__(self, data: bytes) -> None:
        self.length = len(data)
        self._rest = memoryview(data)
        self._consumer: IConsumer | None = None
        self._done: Deferred[None] = Deferred()
        self._paused = False

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Starts to write; fires when everything is written."""
        self._consumer = consumer
        self.resumeProducing()
        return self._done

    def pauseProducing(self) -> None:
        """Pauses writing."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Resumes writing."""
        self._paused = False
        while self._rest and not self._paused and self._consumer is not None:
            chunk, self._rest = self._rest[:CHUNK], self._rest[CHUNK:]
            self._consumer.write(bytes(chunk))
        if not self._rest and self._consumer is not None:
            self._consumer = None
            self._done.callback(None)

    def stopProducing(self) -> None:
        """Stops writing for good, as the request has ended."""
        self._consumer = None
        self._rest = memoryview(b"")


class _Meter(ProtocolWrapper):
    """Counts what a node sends, in whatever form, before it is parsed."""

    def __init__(self, factory: WrappingFactory[Any], protocol: Any, call: CallExchange) -> None:
        super().__init__(factory, protocol)
        self._call = call
        self._gone: Deferred[None] = Deferred()

    def cut(self) -> Deferred[None]:
        """Closes the connection at once; fires when it is gone.

        Not by ``HTTP11ClientProtocol.abort``, which logs a traceback for an answer without length.
        """
        gone: Deferred[None] = Deferred()
        self._gone.chainDeferred(gone)
        if not self._gone.called:
            self.loseConnection()
        return gone

    def dataReceived(self, data: bytes) -> None:
        """Hands bytes on, unless the call ends with them."""
        self._call.receiving(len(data))
        if self.wrappedProtocol is not None and not self.disconnecting:
            super().dataReceived(data)
            self._call.received()

    def loseConnection(self) -> None:
        """Closes at once: a node may never take part in an orderly end of TLS."""
        self.disconnecting = 1
        self.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tells those who wait for the end."""
        super().connectionLost(reason)
        self._gone.callback(None)


class _Refused(Exception):
    """An answer is refused by its header."""


class _Answer(Protocol):
    """Collects an answer's body, in one piece: small parts would cost far more than their bytes."""

    def __init__(self, done: Deferred[bytearray]) -> None:
        self._body = bytearray()
        self._done: Deferred[bytearray] | None = done

    def dataReceived(self, data: bytes) -> None:
        """Adds a part of the body."""
        self._body += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fires with the body if it is complete, or fails if the connection broke."""
        if reason.check(ResponseDone):
            self._finish(self._body)
        else:
            self._finish(reason)

    def _finish(self, outcome: Any) -> None:
        done, self._done = self._done, None
        self._body = bytearray()
        if done is None:
            return
        if isinstance(outcome, bytearray):
            done.callback(outcome)
        else:
            done.errback(outcome)
