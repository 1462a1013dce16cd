"""Peers on loopback for the HTTPS client: a TLS server that answers as noded does, or badly."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Collection
from typing import Any

from OpenSSL import SSL
from twisted.internet import reactor  # noqa: TID251
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint, wrapServerTLS
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from zope.interface import implementer

from ganeti_masterd.events import Events
from ganeti_masterd.rpc.certificates import CIPHERS, Certificates
from ganeti_masterd.rpc.https import HTTPSNodes
from ganeti_masterd.rpc.interfaces import Target
from ganeti_masterd.timing import Timers
from tests.rpc import pki

LOOPBACK = "127.0.0.1"


@implementer(IOpenSSLServerConnectionCreator)
class ServerTLS:
    """A node daemon's TLS settings: clients must show a listed certificate."""

    def __init__(
        self,
        shown: pki.Identity | None,
        listed: Collection[str] = (),
        *,
        version: int | None = None,
        ciphers: bytes = CIPHERS,
    ) -> None:
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_cipher_list(ciphers)
        if version is not None:
            context.set_min_proto_version(version)
            context.set_max_proto_version(version)
        if shown is not None:
            context.use_certificate(shown.certificate)
            context.use_privatekey(shown.key)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        self.seen: list[str] = []
        self.names: list[bytes | None] = []

        def verify(connection: Any, shown: Any, code: int, depth: int, good: int) -> bool:
            if depth:
                return True
            self.seen.append(shown.digest("sha1").decode())
            self.names.append(connection.get_servername())
            return self.seen[-1] in listed

        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, verify)
        self._context = context

    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        return SSL.Connection(self._context, None)


class Daemon(Protocol):
    """Reads one request as noded does and gives one answer, then closes."""

    factory: Peer

    def connectionMade(self) -> None:
        self._head = b""
        self._body: list[bytes] = []
        self._missing: int | None = None
        self.factory.connections.append(self)

    def dataReceived(self, data: bytes) -> None:
        self.factory.bytes_received += len(data)
        if self._missing is None:
            self._head += data
            head, found, data = self._head.partition(b"\r\n\r\n")
            if not found:
                return
            lines = head.decode("ascii").split("\r\n")
            self._line = lines[0]
            self._headers = dict(line.lower().split(": ", 1) for line in lines[1:])
            self._missing = int(self._headers["content-length"])
        self._body.append(data)
        self._missing -= len(data)
        if self._missing == 0:
            self._answer(b"".join(self._body))

    def _answer(self, body: bytes) -> None:
        self.factory.asked(self._line, self._headers, body)
        answer = self.factory.answer
        raw = answer(json.loads(body)) if callable(answer) else answer
        if raw is None:
            return
        if isinstance(raw, bytes):
            self.transport.write(raw)
        else:
            self.transport.write(response(raw))
        if self.factory.closes:
            self.transport.loseConnection()

    def connectionLost(self, reason: Any = None) -> None:
        self.factory.connections.remove(self)
        _fire(self.factory.losing)


def response(answer: Any) -> bytes:
    """Returns an answer in the bytes that noded would send."""
    body = json.dumps(answer).encode("ascii") + b"\n"
    return (
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nDate: Tue, 24 Nov 2026 05:00:00 GMT\r\n"
        b"Server: ganeti-noded\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    )


class Peer(Factory):
    """One peer. ``answer`` is a value, raw bytes, None for silence, or a function."""

    protocol = Daemon
    noisy = False

    def __init__(self, answer: Any = (True, 3000000), *, closes: bool = True) -> None:
        self.answer: Any = answer
        self.closes = closes
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.bytes_received = 0
        self.connections: list[Any] = []
        self.asking: list[Deferred[None]] = []
        self.losing: list[Deferred[None]] = []

    def asked(self, line: str, headers: dict[str, str], body: bytes) -> None:
        """Records a request."""
        self.requests.append((line, headers, body))
        _fire(self.asking)

    def next_request(self) -> Deferred[None]:
        """Fires with the next request that is complete."""
        self.asking.append(Deferred())
        return self.asking[-1]

    @inlineCallbacks
    def alone(self) -> Any:
        """Fires when all connections are closed."""
        while self.connections:
            self.losing.append(Deferred())
            yield self.losing[-1]


class Deaf(Protocol):
    """Accepts a connection and never sends anything."""

    factory: Peer

    def connectionMade(self) -> None:
        self.factory.connections.append(self)
        _fire(self.factory.asking)

    def connectionLost(self, reason: Any = None) -> None:
        self.factory.connections.remove(self)
        _fire(self.factory.losing)


def _fire(waiting: list[Deferred[None]]) -> None:
    fired = waiting[:]
    waiting.clear()
    for each in fired:
        each.callback(None)


class Scene:
    """Files, peers and clients of one test; ``close`` stops all of them."""

    def __init__(self) -> None:
        self.folder = folder = tempfile.mkdtemp(prefix="gnt-")
        self.server = pki.cluster().write(folder + "/server.pem")
        self.client = pki.client().write(folder + "/client.pem")
        self.clock = Clock()
        self.timers = Timers(self.clock)
        self.events = Events()
        self._ports: list[Any] = []
        self._peers: list[Peer] = []
        self._nodes: list[HTTPSNodes] = []

    @inlineCallbacks
    def listen(self, peer: Peer, tls: ServerTLS | None, address: str = LOOPBACK) -> Any:
        """Starts a peer, with TLS if ``tls`` is given; fires with its port."""
        kind = TCP6ServerEndpoint if ":" in address else TCP4ServerEndpoint
        endpoint: Any = kind(reactor, 0, interface=address)
        if tls is not None:
            endpoint = wrapServerTLS(tls, endpoint)
        port = yield endpoint.listen(peer)
        self._ports.append(port)
        self._peers.append(peer)
        return port.getHost().port

    def nodes(self, port: int, **settings: Any) -> HTTPSNodes:
        """Makes a client for the peers on a port, which uses the scene's clock."""
        certificates = Certificates(self.server, self.client)
        settings.setdefault("events", self.events)
        nodes = HTTPSNodes(reactor, self.timers, certificates, port=port, **settings)
        self._nodes.append(nodes)
        return nodes

    @inlineCallbacks
    def close(self) -> Any:
        """Stops everything and checks that nothing is left."""
        for nodes in self._nodes:
            yield nodes.close()
            assert nodes.pending == 0
        for port in self._ports:
            yield port.stopListening()
        for peer in self._peers:
            yield peer.alone()
        shutil.rmtree(self.folder)
        assert len(self.timers) == 0


def target(name: str = "node2", address: str = LOOPBACK, **settings: Any) -> Target:
    """A node to call, on loopback."""
    return Target(f"uuid of {name}", name, address, **settings)


def tls(shown: pki.Identity | None = None, **settings: Any) -> ServerTLS:
    """Returns a node's TLS settings, by default those of a good node."""
    settings.setdefault("listed", [pki.client().digest])
    return ServerTLS(shown or pki.cluster(), **settings)
