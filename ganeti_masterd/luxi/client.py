"""A LUXI client on Deferreds.

For example::

    master = LuxiClient.at("/run/ganeti/socket/ganeti-master", reactor)
    info = await master.cluster_info()
"""

from __future__ import annotations

from collections import deque
from typing import Any, Self

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from ganeti_masterd.constants import LUXI_DEF_RWTO, LUXI_EOM, LUXI_VERSION
from ganeti_masterd.luxi.calls import Calls
from ganeti_masterd.luxi.documents import ProtocolError
from ganeti_masterd.luxi.failures import (
    HOPELESS,
    CallTimeout,
    ClientClosed,
    ConnectionLost,
    unreachable,
)
from ganeti_masterd.luxi.framing import Framer, MessageTooLarge
from ganeti_masterd.luxi.messages import decode_reply, encode_request
from ganeti_masterd.luxi.peers import hung_up
from ganeti_masterd.timing import Timer, Timers

#: The wait before the second try to connect, and the longest between two, seconds.
FIRST_WAIT = 0.05
LONGEST_WAIT = 2.0
#: The longest reply that is taken, bytes.
MAX_REPLY_SIZE = 1 << 30


class _Call:
    """A call that is not answered yet."""

    __slots__ = ("deferred", "message", "method", "timer")

    def __init__(self, method: str, message: bytes, deferred: Deferred[Any]) -> None:
        self.method = method
        self.message = message
        self.deferred = deferred
        self.timer: Timer | None = None

    def answer(self, result: Any) -> None:
        """Ends the call with a result, or with an exception as its error."""
        if self.timer is not None:
            self.timer.cancel()
        if not self.deferred.called:
            if isinstance(result, Exception):
                self.deferred.errback(Failure(result))
            else:
                self.deferred.callback(result)


class _Wire(Protocol):
    """The bytes of one connection, for its client."""

    def __init__(self, client: LuxiClient) -> None:
        self._client = client
        self._framer = Framer(MAX_REPLY_SIZE)
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        self._framer.feed(data)
        try:
            while (message := self._framer.take()) is not None:
                self._client._replied(self, message)
        except MessageTooLarge as error:
            self._client._broken(self, error)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._framer.clear()
        self.lost = True
        self._client._lost(self, reason.getErrorMessage())


class LuxiClient(Calls):
    """Calls the master daemon; first come, first served; reactor thread only.

    One call is on its way at a time, the others wait: a call that waits long, such as
    ``wait_for_job_change``, is better made on a client of its own.

    It connects when there is something to send, and again when the connection was lost
    since. While no connection can be made it tries again after growing waits, for
    ``connect_timeout`` seconds in all (0: one try); then all calls that wait fail with
    ``DaemonUnreachable``. A call that was sent is never repeated by itself.

    ``timeout`` (seconds) is for each call as a whole, from when it is made.
    """

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        timers: Timers,
        *,
        timeout: float = LUXI_DEF_RWTO,
        connect_timeout: float = 10.0,
        version: int | None = LUXI_VERSION,
        name: str = "the master daemon",
    ) -> None:
        self.timeout = timeout
        self.connect_timeout = connect_timeout
        self.version = version
        self._endpoint = endpoint
        self._timers = timers
        self._name = name
        self._waiting: deque[_Call] = deque()
        self._sent: _Call | None = None
        self._wire: _Wire | None = None
        self._attempt: Deferred[Any] | None = None  # a connect under way
        self._attempt_limit: Timer | None = None
        self._retry: Timer | None = None
        self._wait = FIRST_WAIT
        self._tries_end = 0.0
        self._closing: Deferred[None] | None = None

    @classmethod
    def at(cls, path: str, reactor: Any, **options: Any) -> Self:
        """Returns a client of the UNIX socket ``path``; ``options`` as in the constructor."""
        endpoint = UNIXClientEndpoint(reactor, path)
        return cls(endpoint, Timers(reactor), **{"name": path, **options})

    def call(self, method: str, *args: Any, timeout: float | None = None) -> Deferred[Any]:
        """Calls a method; fires with its result.

        Fails with the error that the daemon answers; with ``DaemonUnreachable``,
        ``ConnectionLost``, ``CallTimeout`` or ``ClientClosed`` if there is no answer; with
        ``ProtocolError`` if what came isn't one. Raises ``ProgrammerError`` at once for
        arguments that have no form in JSON. Cancelled, a call that waits isn't sent; one
        that was sent is given up, with its connection, so that the daemon learns of it.
        """
        message = encode_request(method, args, self.version) + LUXI_EOM
        call = _Call(method, message, Deferred(lambda _: self._give_up(call, None)))
        if self._closing is not None:
            call.answer(ClientClosed(f"{method}: the client is closed"))
            return call.deferred
        limit = self.timeout if timeout is None else timeout
        call.timer = self._timers.later(limit, self._timed_out, call, limit)
        self._waiting.append(call)
        self._send_next()
        return call.deferred

    def close(self) -> Deferred[None]:
        """Ends the connection for good; calls without an answer fail with ``ClientClosed``.

        Fires when the connection is gone.
        """
        if self._closing is None:
            self._closing = Deferred()
            self._stop_connecting()
            if self._wire is not None:
                self._transport(self._wire).loseConnection()
            sent, self._sent = self._sent, None
            waiting = list(self._waiting)
            self._waiting.clear()
            for call in [sent, *waiting] if sent is not None else waiting:
                call.answer(ClientClosed(f"{call.method}: the client was closed"))
            if self._wire is None:
                self._closing.callback(None)
        done: Deferred[None] = Deferred()
        self._closing.addBoth(lambda _: done.callback(None))
        return done

    # Sending, one by one

    def _send_next(self) -> None:
        if self._sent is not None or not self._waiting:
            return
        if self._wire is not None and hung_up(self._wire.transport):
            self._drop(self._wire)  # the reactor has not told yet
        if self._wire is None:
            self._connect()
            return
        self._sent = self._waiting.popleft()
        self._transport(self._wire).write(self._sent.message)

    def _replied(self, wire: _Wire, message: bytes) -> None:
        if wire is not self._wire:  # what still came in when it was given up
            return
        call, self._sent = self._sent, None
        if call is None:
            self._broken(wire, ProtocolError("A reply to nothing"))
            return
        result: Any
        try:
            result = decode_reply(message, self.version)
        except ProtocolError as error:
            self._sent = call
            self._broken(wire, error)
            return
        except Exception as error:
            result = error
        call.answer(result)
        self._send_next()

    def _broken(self, wire: _Wire, error: Exception) -> None:
        """The daemon sent nonsense: the call fails, and the connection is dropped."""
        call, self._sent = self._sent, None
        self._drop(wire)
        if call is not None:
            call.answer(error)
        self._send_next()

    def _lost(self, wire: _Wire, why: str) -> None:
        if wire is not self._wire:
            return
        self._wire = None
        if self._closing is not None:
            self._closing.callback(None)
            return
        call, self._sent = self._sent, None
        if call is not None:
            call.answer(
                ConnectionLost(
                    f"{call.method}: the connection was lost before the answer came ({why}); "
                    "the daemon may have done what was asked or not"
                )
            )
        self._send_next()

    def _timed_out(self, call: _Call, limit: float) -> None:
        sent = call is self._sent
        self._give_up(call, CallTimeout(f"{call.method}: no answer within {limit:g} seconds", sent))

    def _give_up(self, call: _Call, error: Exception | None) -> None:
        """Ends a call from this side, with ``error`` or as cancelled."""
        if call is self._sent:
            self._sent = None
            if self._wire is not None:
                self._drop(self._wire)
        elif call in self._waiting:
            self._waiting.remove(call)
            if not self._waiting:
                self._stop_connecting()
        call.answer(CancelledError() if error is None else error)
        self._send_next()

    def _drop(self, wire: _Wire) -> None:
        """Ends a connection that is out of step. What it still brings is ignored."""
        self._wire = None
        self._transport(wire).abortConnection()

    # Connecting

    def _connect(self) -> None:
        if self._attempt is None and self._retry is None:
            self._wait = FIRST_WAIT
            self._tries_end = self._timers.seconds() + self.connect_timeout
            self._try()

    def _try(self) -> None:
        self._retry = None
        attempt: Deferred[Any] = maybeDeferred(
            self._endpoint.connect, Factory.forProtocol(lambda: _Wire(self))
        )
        self._attempt = attempt
        left = max(self._tries_end - self._timers.seconds(), FIRST_WAIT)
        self._attempt_limit = self._timers.later(left, attempt.cancel)
        attempt.addCallbacks(self._connected, self._not_connected)

    def _connected(self, wire: _Wire) -> None:
        self._end_attempt()
        if not wire.lost:
            self._wire = wire
        self._send_next()

    def _not_connected(self, failure: Failure) -> None:
        if self._attempt is None:  # stopped
            return
        self._end_attempt()
        code = getattr(failure.value, "osError", None)
        left = self._tries_end - self._timers.seconds()
        if left > self._wait and code not in HOPELESS:
            self._retry = self._timers.later(self._wait, self._try)
            self._wait = min(self._wait * 2, LONGEST_WAIT)
            return
        text = failure.getErrorMessage()
        if failure.check(CancelledError, ConnectingCancelledError):
            text = f"it took longer than {self.connect_timeout:g} seconds"
        error = unreachable(self._name, code, text)
        waiting = list(self._waiting)
        self._waiting.clear()
        for call in waiting:
            call.answer(error)

    def _end_attempt(self) -> None:
        self._attempt = None
        limit, self._attempt_limit = self._attempt_limit, None
        if limit is not None:
            limit.cancel()

    def _stop_connecting(self) -> None:
        attempt = self._attempt
        self._end_attempt()
        if attempt is not None:
            attempt.cancel()
        retry, self._retry = self._retry, None
        if retry is not None:
            retry.cancel()

    @staticmethod
    def _transport(wire: _Wire) -> Any:
        return wire.transport
