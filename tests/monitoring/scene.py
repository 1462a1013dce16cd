"""A monitored queue, and an HTTP client without a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import msgspec
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from ganeti_masterd.config.newcluster import new_cluster
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.luxi.factory import LuxiFactory
from ganeti_masterd.monitoring.access import EVERYBODY, Access
from ganeti_masterd.monitoring.parts import Parts
from ganeti_masterd.monitoring.service import Monitoring
from ganeti_masterd.query.waits import JobWait
from ganeti_masterd.replication.replication import Replica
from ganeti_masterd.requests.config_lock import ConfigLockState
from tests.jobs.scene import QueueScene


class Response(msgspec.Struct):
    """A server's response: code, headers in lower case, body."""

    code: int
    headers: dict[str, str]
    body: bytes


def parse_response(raw: bytes) -> Response:
    """Returns one HTTP response, whose body is everything after the headers."""
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return Response(int(first.split()[1]), headers, body)


@implementer(IListeningPort)
class FakePort:
    """A port that only knows whether it is open."""

    def __init__(self) -> None:
        self.open = True

    def startListening(self) -> None:
        self.open = True

    def stopListening(self) -> Deferred[None]:
        self.open = False
        return succeed(None)

    def getHost(self) -> Any:
        return "here"


@implementer(IStreamServerEndpoint)
class FakeEndpoint:
    """An endpoint that listens at once, or fails with ``error``."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.port = FakePort()

    def listen(self, protocolFactory: Any) -> Deferred[IListeningPort]:
        if self.error is not None:
            raise self.error
        return succeed(cast(IListeningPort, self.port))


class FakeJournal:
    """The part of a journal that monitoring uses."""

    def __init__(self) -> None:
        self.backlog = 0
        self.fault: str | None = None
        self.files_fault: str | None = None
        self.clerk_fault: str | None = None


class FakePool:
    """The part of a thread pool that monitoring uses."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.busy = 0


class MonitoringScene(QueueScene):
    """Base of tests: a queue, three nodes, and the monitoring of both, not started."""

    def setUp(self) -> None:
        super().setUp()
        self.snapshot: Snapshot = new_cluster("cluster.example", 3, 1000.0)
        self.observed_journal = FakeJournal()
        self.listener = LuxiFactory(lambda request, peer: None, self.timers)
        self.pool = FakePool(20)
        self.replicas: list[Replica] = []
        self.asked: list[tuple[str, tuple[str, ...], Deferred[list[list[Any]]]]] = []
        self.users_file = "/nonexistent/passwd"
        self.config_lock: ConfigLockState | None = None
        self.endpoint: Any = FakeEndpoint()
        self.monitoring = self.make_monitoring()

    def make_monitoring(
        self,
        waits: Callable[[int], list[JobWait]] = lambda _: [],
        access: Access = EVERYBODY,
        reactor: Any = None,
        **parameters: Any,
    ) -> Monitoring:
        """Makes another monitoring of the same parts, and of those given."""
        parts = Parts(
            events=self.events,
            timers=self.timers,
            snapshot=lambda: self.snapshot,
            queue=self.queue,
            journal=self.observed_journal,
            listeners={"master": self.listener},
            pools={"opcodes": self.pool},
            replicas=lambda: self.replicas,
            waits=waits,
            measure=self.measure,
            users_file=self.users_file,
            config_lock=lambda: self.config_lock,
            **parameters,
        )
        return Monitoring(reactor or self.clock, parts, self.endpoint, "tcp:9100", access)

    def measure(
        self, kind: str, names: Sequence[str], fields: Sequence[str]
    ) -> Deferred[list[list[Any]]]:
        """Asks the nodes; the test answers by the last of ``asked``."""
        answer: Deferred[list[list[Any]]] = Deferred()
        self.asked.append((kind, tuple(names), answer))
        return answer

    def stall(self, seconds: float) -> None:
        """Lets time pass during which the reactor runs nothing."""
        self.clock.rightNow += seconds

    def begin(self) -> None:
        """Starts monitoring."""
        self.assertIsNone(self.successResultOf(self.monitoring.start()))

    def connect(self, host: str | None = None) -> tuple[Any, StringTransport]:
        """Returns a connection's protocol and its transport; it comes from a host, if given."""
        address = None if host is None else IPv4Address("TCP", host, 4711)
        protocol = self.monitoring.factory.buildProtocol(address)
        transport = StringTransport()
        if protocol is not None:
            protocol.makeConnection(transport)
        return protocol, transport

    def ask(self, path: str, method: str = "GET", body: bytes = b"", headers: str = "") -> Response:
        """Sends a request on a new connection; returns the response."""
        protocol, transport = self.connect()
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        lines = f"Host: localhost\r\n{length}{headers}Connection: close\r\n\r\n"
        head = f"{method} {path} HTTP/1.1\r\n{lines}"
        protocol.dataReceived(head.encode() + body)
        protocol.connectionLost(Failure(ConnectionDone()))
        return parse_response(transport.value())

    def metrics(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """Returns the samples of a scrape by name and sorted labels."""
        response = self.ask("/metrics")
        self.assertEqual(response.code, 200)
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(response.body.decode())
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float | None:
        """Returns one sample of a scrape, or None if it doesn't exist."""
        return self.metrics().get((name, tuple(sorted(labels.items()))))

    def jobs(self, status: str) -> float | None:
        """Returns how many jobs the metrics report for a status."""
        return self.value("ganeti_cluster_jobs", cluster="cluster.example", job_status=status)
