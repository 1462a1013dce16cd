"""The monitoring service: observes events, measures, and serves the pages until it is closed."""

from __future__ import annotations

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
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from ganeti_masterd.errors import GenericError
from ganeti_masterd.monitoring.activity import Activity
from ganeti_masterd.monitoring.feed import Feed
from ganeti_masterd.monitoring.guard import Guard
from ganeti_masterd.monitoring.hosts import KnownHosts
from ganeti_masterd.monitoring.jobs import JobMetrics
from ganeti_masterd.monitoring.latency import ReactorLatency
from ganeti_masterd.monitoring.pages import pages
from ganeti_masterd.monitoring.parts import Parts
from ganeti_masterd.monitoring.readings import Readings
from ganeti_masterd.monitoring.schema import schema
from ganeti_masterd.monitoring.status import StatusReport
from ganeti_masterd.monitoring.stream import EventStream

log = Logger()

#: The most connections at a time; further ones are closed at once.
MAX_CONNECTIONS = 32
#: Seconds without data after which a connection is closed.
IDLE_TIMEOUT = 60


class Monitoring:
    """Monitors the daemon's ``parts`` and serves metrics and status on ``endpoint``.

    ``name`` is the endpoint's string as configured, for messages.
    """

    def __init__(
        self, reactor: IReactorTime, parts: Parts, endpoint: IStreamServerEndpoint, name: str
    ) -> None:
        jobs = JobMetrics(parts.queue.jobs)
        self._activity = Activity(parts.events, jobs)
        self._latency = ReactorLatency(parts.timers, self._activity.reactor_latency.observe)
        registry = CollectorRegistry()
        registry.register(self._activity)
        registry.register(Readings(parts, jobs))
        ProcessCollector(registry=registry)
        status = StatusReport(parts, jobs, self._latency, parts.timers.now())
        self._stream = EventStream(parts, lambda: jobs.by_status)
        root = pages(registry, status, schema)
        root.putChild(b"events", Feed(self._stream, parts.timers))
        guarded = Guard(root, KnownHosts(parts.own_names, parts.hosts))
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
        listening: Deferred[Any] = maybeDeferred(self._endpoint.listen, self.factory)
        return listening.addCallbacks(self._listening, self._not_listening)

    def close(self) -> Deferred[None]:
        """Stops observing and listening, drops connections; fires when the port is closed."""
        self._activity.end()
        self._latency.end()
        self.factory.drop()
        self._stream.end()
        port, self._port = self._port, None
        if port is None:
            return succeed(None)
        closed: Deferred[Any] = maybeDeferred(port.stopListening)
        return closed

    def _listening(self, port: IListeningPort) -> None:
        self._port = port
        log.info("Monitoring is on {name}", name=self._name)

    def _not_listening(self, failure: Failure) -> None:
        self._activity.end()
        self._latency.end()
        reason = failure.getErrorMessage()
        raise GenericError(f"Monitoring can't listen on {self._name}: {reason}")


class _WithoutBody(Request):
    """A request whose body is discarded as it arrives, because no page reads it."""

    def gotLength(self, length: int | None) -> None:
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        pass


class _Site(Site):
    """A site whose requests are logged only at the debug level."""

    noisy = False
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


class _Bounded(WrappingFactory):
    """Accepts no more than :data:`MAX_CONNECTIONS` connections, and can drop all of them."""

    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> ProtocolWrapper | None:  # type: ignore[override]
        if len(self.protocols) >= MAX_CONNECTIONS:
            return None
        return super().buildProtocol(cast(IAddress, addr))

    def drop(self) -> None:
        """Aborts every connection."""
        for protocol in list(self.protocols):
            protocol.transport.abortConnection()
