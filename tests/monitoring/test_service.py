"""Tests of listening: addresses, start and close; once with a real port."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.internet.endpoints import UNIXClientEndpoint, serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import Agent, readBody
from zope.interface.verify import verifyObject

from ganeti_masterd.errors import GenericError
from ganeti_masterd.events import JobChanged
from ganeti_masterd.luxi.eventreader import EventReader
from ganeti_masterd.luxi.failures import ConnectionLost
from ganeti_masterd.monitoring.endpoints import local
from ganeti_masterd.monitoring.stream import GATHER
from tests.luxi.doubles import reactor as real_reactor
from tests.monitoring.scene import FakeEndpoint, MonitoringScene


class EndpointTests(SynchronousTestCase):
    """Endpoint strings."""

    def test_local_by_default(self) -> None:
        """An endpoint that names no interface is bound to loopback."""
        for text, expected in [
            ("tcp:9100", "tcp:9100:interface=127.0.0.1"),
            ("tcp:port=9100:backlog=5", "tcp:port=9100:backlog=5:interface=127.0.0.1"),
            ("tcp6:9100", r"tcp6:9100:interface=\:\:1"),
        ]:
            self.assertEqual(local(text), expected)

    def test_as_told(self) -> None:
        """Endpoints with an interface, and UNIX sockets, are unchanged."""
        for text in (
            "tcp:9100:interface=192.0.2.1",
            "tcp:9100:interface=0.0.0.0",
            r"tcp6:9100:interface=\:\:",
            "unix:/run/ganeti/monitoring:mode=660",
        ):
            self.assertEqual(local(text), text)

    def test_an_escaped_colon(self) -> None:
        """An escaped colon in a value doesn't begin an interface."""
        self.assertEqual(local(r"unix:/a\:interface\=b"), r"unix:/a\:interface\=b")

    def test_bound_as_said(self) -> None:
        """The reactor listens on loopback."""
        reactor = MemoryReactorClock()
        serverFromString(reactor, local("tcp:9100")).listen(None)
        serverFromString(reactor, local("tcp6:9101")).listen(None)
        self.assertEqual(
            [(port, interface) for port, _, _, interface in reactor.tcpServers],
            [(9100, "127.0.0.1"), (9101, "::1")],
        )

    def test_nonsense(self) -> None:
        """Text that isn't an endpoint is refused, and the error names it."""
        for text in ("", "9100", "tcp", "tcp:", "tcp:http-ish", "carrier-pigeon:1", "tcp:1:x=2"):
            with self.assertRaisesRegex(ValueError, "is not a server endpoint"):
                local(text)


class ListeningTests(MonitoringScene):
    """Start and close."""

    def test_port_in_use(self) -> None:
        """A start that can't listen fails with the reason, and observes nothing."""
        self.endpoint = FakeEndpoint(CannotListenError("127.0.0.1", 9100, OSError(98, "in use")))
        self.monitoring = self.make_monitoring()
        failure = self.failureResultOf(self.monitoring.start(), GenericError)
        self.assertIn("Monitoring can't listen on tcp:9100: ", str(failure.value))
        self.assertIn("in use", str(failure.value))
        self.assertFalse(self.events.observed(JobChanged))
        self.assertEqual(len(self.timers), 0)
        self.successResultOf(self.monitoring.close())

    def test_close(self) -> None:
        """Closing ends the port and all connections; closing again does nothing."""
        self.begin()
        connections = [self.connect() for _ in range(3)]
        self.assertTrue(self.endpoint.port.open)
        self.successResultOf(self.monitoring.close())
        self.assertFalse(self.endpoint.port.open)
        for _, transport in connections:
            self.assertTrue(transport.disconnecting)
        self.successResultOf(self.monitoring.close())

    def test_never_started(self) -> None:
        """Closing before the start is not an error."""
        self.successResultOf(self.monitoring.close())


class DoubleTests(SynchronousTestCase):
    """The fakes of this folder."""

    def test_interfaces(self) -> None:
        """They implement their interfaces."""
        verifyObject(IStreamServerEndpoint, FakeEndpoint())
        verifyObject(IListeningPort, FakeEndpoint().port)


class RealPortTests(MonitoringScene, TestCase):
    """The whole service on a real socket."""

    async def scrape(self, endpoint: str, url: str) -> None:
        """Serves on an endpoint, scrapes twice over one connection, and closes."""
        self.endpoint = serverFromString(real_reactor, endpoint)
        listening: list[Any] = []
        listen = self.endpoint.listen

        async def note(factory: Factory) -> Any:
            listening.append(await listen(factory))
            return listening[-1]

        self.patch(self.endpoint, "listen", lambda factory: ensureDeferred(note(factory)))
        self.monitoring = self.make_monitoring()
        await self.monitoring.start()
        address = listening[0].getHost()
        agent = Agent(real_reactor)
        for path in ("metrics", "status"):
            target = url.format(port=address.port, path=path)
            response = await agent.request(b"GET", target.encode())
            self.assertEqual(response.code, 200)
            body = await readBody(response)
            self.assertIn(b"cluster.example", body)
        await self.monitoring.close()

    async def test_tcp(self) -> None:
        """A real client gets its pages from a real port."""
        await self.scrape(local("tcp:0"), "http://127.0.0.1:{port}/{path}")

    async def test_events(self) -> None:
        """The client's iterator reads the stream of a real port, and learns of its end."""
        path = os.path.relpath(self.mktemp())
        self.endpoint = serverFromString(real_reactor, f"unix:{path}:mode=600")
        self.monitoring = self.make_monitoring()
        await self.monitoring.start()
        reader = EventReader(UNIXClientEndpoint(real_reactor, path))
        state = await reader.__anext__()
        self.assertEqual((state["event"], state["cluster"]), ("state", "cluster.example"))
        self.start()
        job_id = self.submit_one()
        self.clock.advance(GATHER)
        seen = await reader.__anext__()
        self.assertEqual((seen["event"], seen["job"]["id"]), ("job", job_id))
        await self.monitoring.close()
        with self.assertRaises(ConnectionLost):
            await reader.__anext__()

    async def test_unix(self) -> None:
        """A UNIX socket has the given mode, and is removed at the end."""
        path = os.path.relpath(self.mktemp())
        self.endpoint = serverFromString(real_reactor, f"unix:{path}:mode=600")
        self.monitoring = self.make_monitoring()
        await self.monitoring.start()
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
        await self.monitoring.close()
        self.assertFalse(os.path.exists(path))
