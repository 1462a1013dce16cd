"""What the tests of LUXI share: transports, real sockets, and how long hypothesis tries."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable
from typing import Any

from hypothesis import settings
from twisted.internet import reactor as _reactor  # noqa: TID251
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import TestCase

from ganeti_masterd.luxi.factory import LuxiFactory
from ganeti_masterd.luxi.prompt import send_promptly
from ganeti_masterd.luxi.server import LuxiServer
from ganeti_masterd.timing import Timers
from tests.examples import SOAK

reactor: Any = _reactor


def examples(number: int) -> settings:
    """Settings for so many examples, far more when soaking."""
    return settings(deadline=None, max_examples=number * (50 if SOAK else 1))


def request(method: str = "Echo", *args: Any, **keys: Any) -> bytes:
    """A request as bytes, with its end byte."""
    return json.dumps({"method": method, "args": list(args), **keys}).encode() + b"\x03"


def replies(data: bytes) -> list[Any]:
    """The replies in a stream, as documents."""
    whole, rest = data.split(b"\x03")[:-1], data.split(b"\x03")[-1]
    assert rest == b"", rest
    return [json.loads(message) for message in whole]


def results(data: bytes) -> list[Any]:
    """The results in a stream of replies."""
    return [reply["result"] for reply in replies(data)]


def echo(request: Any, peer: Any) -> Any:
    """Answers with the arguments."""
    return request.args


class HalfClosing(StringTransport):
    """A transport in memory that can be closed for writing alone."""

    half_closed = False

    def loseWriteConnection(self) -> None:
        self.half_closed = True


class Line:
    """A server in memory with one client: what it sent is in ``transport``."""

    def __init__(
        self, answer: Callable[[Any, Any], Any] = echo, transport: Any = None, **options: Any
    ) -> None:
        self.clock = Clock()
        self.factory = LuxiFactory(answer, Timers(self.clock), **options)
        self.server, self.transport = self.connect(transport)

    def connect(self, transport: Any = None) -> tuple[LuxiServer, Any]:
        """Connects another client."""
        server = self.factory.buildProtocol(None)
        transport = HalfClosing() if transport is None else transport
        server.makeConnection(transport)
        return server, transport

    def send(self, data: bytes) -> list[Any]:
        """Brings bytes, and returns the replies to them."""
        self.transport.clear()
        self.server.dataReceived(data)
        return replies(self.transport.value())


class SocketCase(TestCase):
    """A test with real UNIX sockets on the reactor; the daemon's clock stands still."""

    timeout = 20

    def setUp(self) -> None:
        self.clock = Clock()
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        self.path = os.path.join(self.folder, "master")

    def listen(self, answer: Callable[[Any, Any], Any] = echo, **options: Any) -> LuxiFactory:
        """Serves on ``self.path`` until the test's end."""
        factory = LuxiFactory(answer, Timers(self.clock), **options)
        self.port = reactor.listenUNIX(self.path, factory, backlog=200)
        send_promptly(self.port)
        self.addCleanup(self.stop, factory)
        return factory

    async def stop(self, factory: LuxiFactory) -> None:
        """Stops listening, and ends all connections."""
        await maybeDeferred(self.port.stopListening)
        await factory.close()

    def connect(self) -> socket.socket:
        """A client of its own, without Twisted: calls on it don't wait."""
        client = socket.socket(socket.AF_UNIX)
        client.connect(self.path)
        client.setblocking(False)
        self.addCleanup(client.close)
        return client

    async def until(self, condition: Callable[[], Any]) -> Any:
        """Lets the reactor run until ``condition`` gives something true, and returns it."""
        while not (value := condition()):
            await turn()
        return value

    async def turns(self, number: int = 20) -> None:
        """Lets the reactor run a few times."""
        for _ in range(number):
            await turn()

    async def read(self, client: socket.socket, number: int = 1) -> list[Any]:
        """Reads so many replies."""
        data = bytearray()

        def complete() -> bool:
            data.extend(received(client))
            return data.count(b"\x03") >= number

        await self.until(complete)
        return replies(bytes(data))

    async def ended(self, client: socket.socket) -> bytes:
        """Reads until the other end closes; returns what came."""
        data = bytearray()

        def end() -> bool:
            try:
                chunk = client.recv(65536)
            except BlockingIOError:
                return False
            except ConnectionResetError:
                return True
            data.extend(chunk)
            return not chunk

        await self.until(end)
        return bytes(data)


def turn() -> Deferred[None]:
    """One turn of the reactor."""
    done: Deferred[None] = Deferred()
    reactor.callLater(0, done.callback, None)
    return done


def received(client: socket.socket) -> bytes:
    """What a client can read now."""
    try:
        return client.recv(1 << 20)
    except BlockingIOError:
        return b""


class Scripted:
    """A daemon in a thread that plays one script for each connection, then closes it.

    A script is called with the daemon and the connected socket. ``heard`` is every
    message that :meth:`hear` read.
    """

    def __init__(
        self, case: Any, path: str, *scripts: Callable[[Scripted, socket.socket], object]
    ) -> None:
        self.heard: list[bytes] = []
        self._scripts = scripts
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        case.addCleanup(self._end)

    def hear(self, connection: socket.socket) -> None:
        """Reads one message."""
        data = b""
        while not data.endswith(b"\x03"):
            chunk = connection.recv(65536)
            if not chunk:
                return
            data += chunk
        self.heard.append(data[:-1])

    def _run(self) -> None:
        for script in self._scripts:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                script(self, connection)

    def _end(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)


def says(*answers: bytes) -> Callable[[Scripted, socket.socket], None]:
    """A script that hears and answers in turn."""

    def script(daemon: Scripted, connection: socket.socket) -> None:
        for answer in answers:
            daemon.hear(connection)
            connection.sendall(answer)

    return script
