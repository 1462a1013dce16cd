"""Events of the master daemon, for Twisted programs.

For example::

    reader = EventReader(clientFromString(reactor, "tcp:localhost:19100"))
    async for event in reader:
        print(event["event"], event["seq"])
"""

from __future__ import annotations

from collections import deque
from typing import Any, Self

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from ganeti_masterd.luxi.documents import ProtocolError
from ganeti_masterd.luxi.eventlines import EventLines, event_request
from ganeti_masterd.luxi.failures import ClientClosed, ConnectionLost, unreachable

#: How many events wait for whoever iterates before no more are read, and before more are again.
MOST, FEW = 1000, 100


class _EventWire(Protocol):
    """One connection to the stream."""

    def __init__(self, since: int | None) -> None:
        self._since = since
        self._lines = EventLines()
        self.events: deque[dict[str, Any]] = deque()
        self.error: Exception | None = None
        self.waiting: Deferred[None] | None = None
        self._paused = False

    def connectionMade(self) -> None:
        self._transport.write(event_request(self._since))

    def dataReceived(self, data: bytes) -> None:
        try:
            self.events += self._lines.feed(data)
        except ProtocolError as error:
            self.error = self.error or error
            self._transport.abortConnection()
        if len(self.events) > MOST and not self._paused:
            self._paused = True
            self._transport.pauseProducing()
        if self.events or self.error:
            self._wake()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.error = self.error or ConnectionLost(f"Events: {self._lines.ended()}")
        self._wake()

    def taken(self) -> None:
        """Whoever iterates took an event."""
        if self._paused and len(self.events) <= FEW and self.error is None:
            self._paused = False
            self._transport.resumeProducing()

    def close(self) -> None:
        """Ends the connection; who waits for an event is told."""
        self.error = ClientClosed("Events: the reader was closed")
        self._transport.abortConnection()
        self._wake()

    def _wake(self) -> None:
        waiting, self.waiting = self.waiting, None
        if waiting is not None:
            waiting.callback(None)

    @property
    def _transport(self) -> Any:
        return self.transport


class EventReader:
    """An asynchronous iterator over ``/events`` of ``--monitoring``; one task may iterate.

    Events are dictionaries as the schema in ``ganeti_masterd/monitoring/events.schema.json`` has
    them; the first is the full state, unless ``since`` names a message to go on from. It connects
    when it is first asked for one. Raises ``DaemonUnreachable`` if it can't, ``ConnectionLost``
    when the daemon goes away or shows no stream, ``ProtocolError`` for what is none. Iterated again
    after that, it connects again and goes on where it was; what was missed comes first, or a
    full state in its place. While nobody takes them no more than some thousand events are kept.
    """

    def __init__(self, endpoint: IStreamClientEndpoint, since: int | None = None) -> None:
        #: The number of the last event that was taken.
        self.seq = since
        self._endpoint = endpoint
        self._wire: _EventWire | None = None
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> dict[str, Any]:
        """Returns the next event, once there is one; see the class for what it raises."""
        if self._closed:
            raise StopAsyncIteration
        if self._wire is None:
            self._wire = await self._connected()
        wire = self._wire
        while not wire.events:
            if wire.error is not None:
                self._wire = None
                if self._closed:
                    raise StopAsyncIteration
                raise wire.error
            wire.waiting = Deferred()
            await wire.waiting
        event = wire.events.popleft()
        wire.taken()
        self.seq = event["seq"]
        return event

    def close(self) -> None:
        """Ends the connection, and the iteration."""
        self._closed = True
        if self._wire is not None:
            self._wire.events.clear()
            self._wire.close()

    async def _connected(self) -> _EventWire:
        factory = Factory.forProtocol(lambda: _EventWire(self.seq))
        try:
            wire: Any = await self._endpoint.connect(factory)
        except Exception as error:
            raise unreachable(
                "the stream of events", getattr(error, "osError", None), str(error)
            ) from None
        connected: _EventWire = wire
        if self._closed:
            connected.close()
            raise StopAsyncIteration
        return connected
