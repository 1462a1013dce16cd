"""One call to one real node: a connection, a request, and an answer or a failure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

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
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, HTTPConnectionPool, ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IBodyProducer, IResponse
from zope.interface import implementer

from ganeti_masterd.errors import ConfigurationError
from ganeti_masterd.rpc import refusals, results
from ganeti_masterd.rpc.certificates import Certificates
from ganeti_masterd.rpc.declarations import Call
from ganeti_masterd.rpc.interfaces import NodeResult, Target
from ganeti_masterd.rpc.turns import Rank, rank_of
from ganeti_masterd.rpc.wire import VirtualPaths, decode
from ganeti_masterd.timing import Timer, Timers

log = Logger()

#: The largest size of an answer, in bytes; no node daemon sends a larger one.
MAX_ANSWER = 256 * 1024 * 1024

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
    ) -> None:
        """``patience`` is the seconds that a connection may take, including TLS."""
        self.reactor = reactor
        self.timers = timers
        self.certificates = certificates
        self.paths = paths
        self.port = port
        self.patience = patience
        self.max_answer = max_answer
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
        self._connection: Any = None

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
        endpoint = wrapClientTLS(creator, self._tcp(), clock=self._line.reactor)

        def connected(protocol: Any) -> Any:
            self._connection = protocol
            return protocol

        return endpoint.connect(protocolFactory).addCallback(connected)

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

    def _answering(self, response: IResponse) -> Deferred[tuple[int, bytes]]:
        done: Deferred[tuple[int, bytes]] = Deferred()
        answer = _Answer(response.code, self._line.max_answer, done)
        response.deliverBody(answer)
        return done

    def _answered(self, answer: tuple[int, bytes]) -> None:
        code, body = answer
        name = self.target.name
        if code != 200:
            fault = f"Node {name} answered with HTTP status {code}"
            self._end(NodeResult(name, self.call.name, None, fault))
            return
        try:
            result = results.read_answer(self.target, self.call.name, decode(body))
        except ValueError as error:
            self._end(NodeResult(name, self.call.name, None, f"RPC layer error: {error}"))
            return
        if result.error is None and self._line.paths.root:
            payload = self._line.paths.payload(self.call, result.payload)
            result = NodeResult(name, self.call.name, payload)
        self._end(result)

    def _failed(self, failure: Failure) -> None:
        name = self.call.name
        if failure.check(ConfigurationError):
            fault = f"No TLS: {failure.getErrorMessage()}"
            self._end(NodeResult(self.target.name, name, None, fault))
        elif failure.check(_TooLong):
            fault = f"The answer is longer than {self._line.max_answer} bytes"
            self._end(NodeResult(self.target.name, name, None, fault))
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
        fault = f"RPC layer error: {type(failure.value).__name__}"
        self._end(NodeResult(self.target.name, self.call.name, None, fault))

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
        for timer in (self._timer, self._connecting):
            if timer is not None:
                timer.cancel()
        gone: Deferred[None] = succeed(None)
        if self._connection is not None:
            gone = cast("Deferred[None]", self._connection.abort())
            # A silent peer would never take part in an orderly shutdown of TLS.
            if self._connection.transport is not None:
                self._connection.transport.abortConnection()
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


class _TooLong(Exception):
    """An answer is longer than the limit."""


class _Answer(Protocol):
    """Collects an answer's body."""

    def __init__(self, code: int, limit: int, done: Deferred[tuple[int, bytes]]) -> None:
        self._code = code
        self._room = limit
        self._parts: list[bytes] = []
        self._done: Deferred[tuple[int, bytes]] | None = done

    def dataReceived(self, data: bytes) -> None:
        """Adds a part of the body."""
        self._room -= len(data)
        self._parts.append(data)
        if self._room < 0:
            self._finish(_TooLong())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fires with the body if it is complete, or fails if the connection broke."""
        if reason.check(ResponseDone):
            self._finish((self._code, b"".join(self._parts)))
        else:
            self._finish(reason)

    def _finish(self, outcome: Any) -> None:
        done, self._done = self._done, None
        self._parts = []
        if done is None:
            return
        if isinstance(outcome, tuple):
            done.callback(outcome)
        else:
            done.errback(outcome)
