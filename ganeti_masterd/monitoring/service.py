"""The monitoring service: observes events, measures, and serves the pages until it is closed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from io import BytesIO
from typing import Any, cast

from prometheus_client import CollectorRegistry, ProcessCollector
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IReactorTime,
    IStreamServerEndpoint,
)
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from twisted.web import http
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from ganeti_masterd.errors import GenericError
from ganeti_masterd.monitoring.access import EVERYBODY, Access
from ganeti_masterd.monitoring.activity import Activity
from ganeti_masterd.monitoring.capacity import Capacity
from ganeti_masterd.monitoring.feed import Feed
from ganeti_masterd.monitoring.guard import Guard
from ganeti_masterd.monitoring.hosts import KnownHosts
from ganeti_masterd.monitoring.jobs import JobMetrics
from ganeti_masterd.monitoring.latency import ReactorLatency
from ganeti_masterd.monitoring.live.documents import LiveDocuments, put_page
from ganeti_masterd.monitoring.logins import Logins
from ganeti_masterd.monitoring.pages import pages
from ganeti_masterd.monitoring.parts import Parts
from ganeti_masterd.monitoring.readings import Readings
from ganeti_masterd.monitoring.schema import schema
from ganeti_masterd.monitoring.status import StatusReport
from ganeti_masterd.monitoring.stream import EventStream

log = Logger()

#: The most connections at a time, and of one host. For another one that is closed which has been
#: without an answer for the longest time: so those who ask slowly, or never, keep out nobody.
MAX_CONNECTIONS = 32
MAX_OF_A_HOST = 16
#: Seconds without data after which a connection is closed.
IDLE_TIMEOUT = 60


class Monitoring:
    """Monitors the daemon's ``parts`` and serves metrics and status on ``endpoint``.

    ``name`` is the endpoint's string as configured, for messages; ``access`` is who may look.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        parts: Parts,
        endpoint: IStreamServerEndpoint,
        name: str,
        access: Access = EVERYBODY,
    ) -> None:
        jobs = JobMetrics(parts.queue.jobs)
        self._activity = Activity(parts.events, jobs)
        self._latency = ReactorLatency(parts.timers, self._activity.reactor_latency.observe)
        registry = CollectorRegistry()
        registry.register(self._activity)
        registry.register(Readings(parts, jobs))
        ProcessCollector(registry=registry)
        self._capacity: Capacity | None = None
        if parts.nodes_interval:
            self._capacity = Capacity(
                parts.measure, parts.timers, parts.nodes_interval, lambda: parts.own_names()[0]
            )
            registry.register(self._capacity)
        status = StatusReport(parts, jobs, self._latency, parts.timers.now())
        self._stream = EventStream(parts, lambda: jobs.by_status)
        root = pages(registry, status, schema)
        root.putChild(b"events", Feed(self._stream, parts.timers))
        self._documents = LiveDocuments(
            parts,
            lambda: (self._latency.last, self._activity.rows, len(self._stream)),
        )
        put_page(root, self._documents)
        self._checks = ThreadPool(0, 1, "passwords")
        logins = None
        if access.users is not None:
            seconds = parts.timers.seconds
            logins = Logins(access.users, partial(_in_thread, reactor, self._checks), seconds)
        self._asks_passwords = logins is not None
        self._tls = access.tls
        guarded = Guard(root, KnownHosts(parts.own_names, parts.hosts), logins)
        #: Serves a connection; public so that tests need no port.
        self.factory = _Bounded(_site(guarded, reactor))
        self._endpoint = endpoint
        self._name = name
        self._port: IListeningPort | None = None

    def start(self) -> Deferred[None]:
        """Starts observing and listening; called once the queue has the jobs found on disk.

        Fires when it is listening; fails with ``GenericError`` if it can't listen.
        """
        self._activity.begin()
        self._latency.begin()
        if self._asks_passwords:
            self._checks.start()
        factory: Any = self.factory
        if self._tls is not None:
            factory = TLSMemoryBIOFactory(self._tls, False, factory)
            factory.noisy = False
        listening: Deferred[Any] = maybeDeferred(self._endpoint.listen, factory)
        return listening.addCallbacks(self._listening, self._not_listening)

    def close(self) -> Deferred[None]:
        """Stops observing and listening, drops connections; fires when the port is closed."""
        self._activity.end()
        self._latency.end()
        if self._capacity is not None:
            self._capacity.end()
        self.factory.drop()
        self._stream.end()
        self._documents.close()
        self._end_checks()
        port, self._port = self._port, None
        if port is None:
            return succeed(None)
        closed: Deferred[Any] = maybeDeferred(port.stopListening)
        return closed

    def _end_checks(self) -> None:
        if self._checks.started:
            self._checks.stop()  # one that is going on takes a tenth of a second

    def _listening(self, port: IListeningPort) -> None:
        self._port = port
        if self._capacity is not None:
            self._capacity.begin()
        log.info("Monitoring is on {name}", name=self._name)

    def _not_listening(self, failure: Failure) -> None:
        self._activity.end()
        self._latency.end()
        self._end_checks()
        reason = failure.getErrorMessage()
        raise GenericError(f"Monitoring can't listen on {self._name}: {reason}")


def _in_thread(reactor: Any, pool: ThreadPool, check: Callable[[], bool]) -> Deferred[bool]:
    done: Deferred[bool] = deferToThreadPool(reactor, pool, check)
    return done


class _WithoutBody(Request):
    """A request whose body is discarded as it arrives, because no page reads it."""

    def gotLength(self, length: int | None) -> None:
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        pass

    def process(self) -> None:
        if self.uri == b"*":  # Twisted answers that itself, without a look at who asks
            self.uri = self.path = b"/*"
        super().process()


class _Channel(http.HTTPChannel):
    """A connection that answers a line that is too long, instead of waiting until it idles."""

    def lineLengthExceeded(self, line: bytes) -> None:
        # The transport's own loseConnection waits for this producer, which never ends, over TLS.
        transport: Any = self.transport
        transport.write(b"HTTP/1.1 431 Request Header Fields Too Large\r\n\r\n")
        self.loseConnection()


class _Site(Site):
    """A site whose requests are logged only at the debug level."""

    noisy = False
    protocol = _Channel  # type: ignore[assignment]  # without HTTP/2
    requestFactory = _WithoutBody

    def log(self, request: http.Request) -> None:
        log.debug(
            "Monitoring: {method} {uri} {code}",
            method=request.method.decode("ascii", "backslashreplace"),
            uri=request.uri.decode("ascii", "backslashreplace"),
            code=request.code,
        )


def _site(root: Resource, reactor: IReactorTime) -> _Site:
    return _Site(root, timeout=IDLE_TIMEOUT, reactor=reactor)


class _Answering(ProtocolWrapper):
    """A connection that tells its factory when something is sent on it; ``host`` is its peer's."""

    factory: _Bounded

    def __init__(self, factory: _Bounded, protocol: Any, host: str | None) -> None:
        super().__init__(factory, protocol)
        self.host = host

    def write(self, data: bytes) -> None:
        self.factory.answered(self)
        super().write(data)

    def writeSequence(self, data: Any) -> None:
        self.factory.answered(self)
        super().writeSequence(data)


class _Bounded(WrappingFactory["_Answering"]):
    """Keeps no more than :data:`MAX_CONNECTIONS` connections, and can drop all of them."""

    noisy = False

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        #: The connections, the longest without an answer first.
        self._places: dict[_Answering, None] = {}

    def buildProtocol(self, addr: IAddress | None) -> _Answering | None:  # type: ignore[override]
        host = getattr(addr, "host", None)
        of_host = [each for each in self._places if host is not None and each.host == host]
        if len(of_host) >= MAX_OF_A_HOST:
            self._close(of_host[0])
        elif len(self._places) >= MAX_CONNECTIONS:
            self._close(next(iter(self._places)))
        inner = self.wrappedFactory.buildProtocol(cast(IAddress, addr))
        if inner is None:
            return None
        made = _Answering(self, inner, host)
        self._places[made] = None
        return made

    def answered(self, connection: _Answering) -> None:
        """Notes that something was sent on a connection."""
        if connection in self._places:
            del self._places[connection]
            self._places[connection] = None

    def unregisterProtocol(self, p: ProtocolWrapper) -> None:
        """Gives the place of a connection that is gone free."""
        self._places.pop(cast(_Answering, p), None)
        if p in self.protocols:
            super().unregisterProtocol(p)

    def drop(self) -> None:
        """Aborts every connection."""
        for connection in list(self._places):
            self._close(connection)

    def _close(self, connection: _Answering) -> None:
        del self._places[connection]
        transport: Any = connection.transport
        if transport is not None:
            transport.abortConnection()
