"""A LUXI client on Deferreds.

For example::

    master = LuxiClient.at("/run/ganeti/socket/ganeti-master", reactor)
    info = await master.cluster_info()
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from ganeti_masterd.constants import LUXI_DEF_RWTO, LUXI_EOM, LUXI_VERSION
from ganeti_masterd.luxi.calls import Calls
from ganeti_masterd.luxi.clientstates import ClientState, step
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


@dataclass(frozen=True, slots=True)
class _Tries:
    """How long to go on trying to connect: until when (the reactor's clock), and the next wait."""

    end: float
    wait: float = FIRST_WAIT


# What a client needs in each of its states, and has in no other.


@dataclass(frozen=True, eq=False, slots=True)
class _Idle:
    state: ClassVar = ClientState.IDLE


@dataclass(frozen=True, eq=False, slots=True)
class _Connecting:
    state: ClassVar = ClientState.CONNECTING
    tries: _Tries
    attempt: Deferred[Any]
    limit: Timer  # cancels the attempt


@dataclass(frozen=True, eq=False, slots=True)
class _Pausing:
    state: ClassVar = ClientState.PAUSING
    retry: Timer


@dataclass(frozen=True, eq=False, slots=True)
class _Connected:
    state: ClassVar = ClientState.CONNECTED
    wire: _Wire


@dataclass(frozen=True, eq=False, slots=True)
class _Calling:
    state: ClassVar = ClientState.CALLING
    wire: _Wire
    call: _Call


@dataclass(frozen=True, eq=False, slots=True)
class _Closing:
    state: ClassVar = ClientState.CLOSING
    wire: _Wire


@dataclass(frozen=True, eq=False, slots=True)
class _Closed:
    state: ClassVar = ClientState.CLOSED


_Situation = _Idle | _Connecting | _Pausing | _Connected | _Calling | _Closing | _Closed


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
        self._now: _Situation = _Idle()
        #: Calls that were not sent yet, in their order. Empty when ``IDLE``, ``CONNECTED``,
        #: ``CLOSING`` or ``CLOSED``.
        self._waiting: deque[_Call] = deque()
        #: What :meth:`close` returned while the connection was not yet gone.
        self._closers: list[Deferred[None]] = []

    @property
    def state(self) -> ClientState:
        """Where the client is in :data:`~ganeti_masterd.luxi.clientstates.TABLE`."""
        return self._now.state

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
        if isinstance(self._now, _Closing | _Closed):
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
        done: Deferred[None] = Deferred()
        self._closers.append(done)
        now = self._now
        unanswered = list(self._waiting)
        self._waiting.clear()
        match now:
            case _Calling(wire, call):
                unanswered.insert(0, call)
                self._hang_up(wire)
            case _Connected(wire):
                self._hang_up(wire)
            case _Connecting() | _Pausing():
                self._stop_connecting(_Closed())
            case _Idle():
                self._go(_Closed())
        for each in unanswered:
            each.answer(ClientClosed(f"{each.method}: the client was closed"))
        self._tell_closed()
        return done

    def _hang_up(self, wire: _Wire) -> None:
        self._go(_Closing(wire))
        self._transport(wire).loseConnection()

    def _tell_closed(self) -> None:
        if isinstance(self._now, _Closed):
            closers, self._closers = self._closers, []
            for done in closers:
                done.callback(None)

    def _go(self, situation: _Situation) -> None:
        step(self._now.state, situation.state)
        self._now = situation

    # Sending, one by one

    def _send_next(self) -> None:
        if not self._waiting:
            return
        if isinstance(self._now, _Connected) and hung_up(self._now.wire.transport):
            self._drop(self._now)  # the reactor has not told yet
        match self._now:
            case _Idle():
                self._try(_Tries(self._timers.seconds() + self.connect_timeout))
            case _Connected(wire):
                call = self._waiting.popleft()
                self._go(_Calling(wire, call))
                self._transport(wire).write(call.message)

    def _on(self, wire: _Wire) -> _Connected | _Calling | _Closing | None:
        """Returns what the client does on a connection; None if it has given that up."""
        now = self._now
        if isinstance(now, _Connected | _Calling | _Closing) and now.wire is wire:
            return now
        return None

    def _replied(self, wire: _Wire, message: bytes) -> None:
        match self._on(wire):
            case _Calling(_, call):
                result: Any
                try:
                    result = decode_reply(message, self.version)
                except ProtocolError as error:
                    self._broken(wire, error)
                    return
                except Exception as error:
                    result = error
                self._go(_Connected(wire))
                call.answer(result)
                self._send_next()
            case _Connected():
                self._broken(wire, ProtocolError("A reply to nothing"))

    def _broken(self, wire: _Wire, error: Exception) -> None:
        """The daemon sent nonsense: the call fails, and the connection is dropped."""
        match self._on(wire):
            case _Calling(_, call) as calling:
                self._drop(calling)
                call.answer(error)
                self._send_next()
            case _Connected() as connected:
                self._drop(connected)

    def _lost(self, wire: _Wire, why: str) -> None:
        match self._on(wire):
            case _Calling(_, call):
                self._go(_Idle())
                call.answer(
                    ConnectionLost(
                        f"{call.method}: the connection was lost before the answer came ({why}); "
                        "the daemon may have done what was asked or not"
                    )
                )
                self._send_next()
            case _Connected():
                self._go(_Idle())
            case _Closing():
                self._go(_Closed())
                self._tell_closed()

    def _timed_out(self, call: _Call, limit: float) -> None:
        sent = isinstance(self._now, _Calling) and self._now.call is call
        self._give_up(call, CallTimeout(f"{call.method}: no answer within {limit:g} seconds", sent))

    def _give_up(self, call: _Call, error: Exception | None) -> None:
        """Ends a call from this side, with ``error`` or as cancelled."""
        now = self._now
        if isinstance(now, _Calling) and now.call is call:
            self._drop(now)
        elif call in self._waiting:
            self._waiting.remove(call)
            if not self._waiting and isinstance(now, _Connecting | _Pausing):
                self._stop_connecting(_Idle())
        call.answer(CancelledError() if error is None else error)
        self._send_next()

    def _drop(self, now: _Connected | _Calling) -> None:
        """Ends a connection that is out of step. What it still brings is ignored."""
        self._go(_Idle())
        self._transport(now.wire).abortConnection()

    # Connecting

    def _try(self, tries: _Tries) -> None:
        attempt: Deferred[Any] = maybeDeferred(
            self._endpoint.connect, Factory.forProtocol(lambda: _Wire(self))
        )
        left = max(tries.end - self._timers.seconds(), FIRST_WAIT)
        connecting = _Connecting(tries, attempt, self._timers.later(left, attempt.cancel))
        self._go(connecting)
        attempt.addCallbacks(
            self._connected,
            self._not_connected,
            callbackArgs=(connecting,),
            errbackArgs=(connecting,),
        )

    def _connected(self, wire: _Wire, connecting: _Connecting) -> None:
        connecting.limit.cancel()
        if self._now is not connecting:  # stopped, but the endpoint went on
            self._transport(wire).abortConnection()
            return
        self._go(_Idle() if wire.lost else _Connected(wire))
        self._send_next()

    def _not_connected(self, failure: Failure, connecting: _Connecting) -> None:
        connecting.limit.cancel()
        if self._now is not connecting:  # stopped
            return
        code = getattr(failure.value, "osError", None)
        tries = connecting.tries
        left = tries.end - self._timers.seconds()
        if left > tries.wait and code not in HOPELESS:
            following = _Tries(tries.end, min(tries.wait * 2, LONGEST_WAIT))
            self._go(_Pausing(self._timers.later(tries.wait, self._try, following)))
            return
        text = failure.getErrorMessage()
        if failure.check(CancelledError, ConnectingCancelledError):
            text = f"it took longer than {self.connect_timeout:g} seconds"
        error = unreachable(self._name, code, text)
        self._go(_Idle())
        waiting = list(self._waiting)
        self._waiting.clear()
        for call in waiting:
            call.answer(error)

    def _stop_connecting(self, then: _Idle | _Closed) -> None:
        now = self._now
        self._go(then)
        match now:
            case _Connecting(_, attempt, limit):
                limit.cancel()
                attempt.cancel()
            case _Pausing(retry):
                retry.cancel()

    @staticmethod
    def _transport(wire: _Wire) -> Any:
        return wire.transport
