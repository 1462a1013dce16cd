"""Tests of who may look: the options' files, and each way in on a real connection."""

from __future__ import annotations

import base64
import os
import socket
import ssl
import threading
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any

from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.internet.endpoints import serverFromString
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from ganeti_masterd.monitoring import passwords
from ganeti_masterd.monitoring.access import EVERYBODY, Access, read_access
from ganeti_masterd.monitoring.endpoints import local, private
from ganeti_masterd.monitoring.passwords import password_line
from tests.luxi.doubles import reactor as real_reactor
from tests.monitoring.certificates import Authority
from tests.monitoring.scene import MonitoringScene
from tests.monitoring.test_passwords import header


class OptionTests(SynchronousTestCase):
    """What the options' files have to be."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.authority = Authority(self.folder, "authority")

    def file(self, name: str, text: str, mode: int = 0o640) -> str:
        """Writes a file; returns its path."""
        path = self.folder / name
        path.write_text(text)
        path.chmod(mode)
        return str(path)

    def refused(self, said: str, *arguments: str | None, endpoint: str = "tcp:1") -> None:
        """Options are refused for a reason."""
        with self.assertRaises(ValueError) as caught:
            read_access(endpoint, *arguments)  # type: ignore[arg-type]
        self.assertIn(said, str(caught.exception))
        self.assertTrue(str(caught.exception).startswith("--monitoring-"))

    def test_none(self) -> None:
        """Without options everyone who reaches the endpoint may look."""
        self.assertEqual(read_access("tcp:1", None, None, None), EVERYBODY)

    def test_certificates(self) -> None:
        """Files that are missing, empty, without key, of another key, or with a passphrase."""
        good = str(self.authority.issue("server"))
        ca = str(self.authority.path)
        other = self.authority.issue("other").read_text()
        own = Path(good).read_text()
        mixed = own[: own.index("-----BEGIN PRIVATE")] + other[other.index("-----BEGIN PRIVATE") :]
        self.assertIsNotNone(read_access("tcp:1", good, ca, None).tls)
        self.refused("No such file", "/nonexistent/x", None, None)
        self.refused("not a regular file", str(self.folder), None, None)
        self.refused("no certificate as PEM", self.file("empty", ""), None, None)
        self.refused("no private key as PEM", ca, None, None)
        self.refused("the key isn't that of", self.file("mixed", mixed), None, None)
        locked = str(self.authority.issue("locked", b"secret"))
        self.refused("has a passphrase", locked, None, None)
        self.refused("no certificate as PEM", good, self.file("empty", ""), None)
        self.refused("more than", self.file("large", "x" * (1 << 21)), None, None)
        self.refused("needs --monitoring-certificate", None, ca, None)
        self.refused("TLS of its own", good, None, None, endpoint="ssl:1")

    def test_users(self) -> None:
        """Files that are wrong, that everybody may read, or for a connection that all can read."""
        line = password_line("anna", "x")
        good = self.file("users", line)
        for endpoint in ("tcp:1", "unix:/run/x", "tcp:1:interface=127.0.0.1", "tcp6:1", "ssl:1"):
            if endpoint != "ssl:1":  # which wants a key at once
                access = read_access(endpoint, None, None, good)
                self.assertEqual(list(access.users or ()), ["anna"])
        self.refused("line 1", None, None, self.file("wrong", "anna:x"))
        self.refused("every user of this host", None, None, self.file("open", line, 0o644))
        self.refused("No such file", None, None, str(self.folder / "none"))
        binary = self.folder / "binary"
        binary.write_bytes(b"\xff\xfe")
        binary.chmod(0o600)
        self.refused("isn't UTF-8", None, None, str(binary))
        for endpoint in (
            "tcp:1:interface=0.0.0.0",
            "tcp:1:interface=192.0.2.1",
            r"tcp6:1:interface=\:\:",
        ):
            self.refused("cross the network", None, None, good, endpoint=endpoint)
        certificate = str(self.authority.issue("server"))
        access = read_access("tcp:1:interface=0.0.0.0", certificate, None, good)
        self.assertIsNotNone(access.tls)

    def test_private(self) -> None:
        """What nobody on the way can read: names that only resemble loopback are not."""
        for text in ("unix:/x", "ssl:1:interface=0.0.0.0", "tcp:1:interface=127.0.0.1"):
            self.assertTrue(private(text), text)
        self.assertTrue(private(local("tcp:1")))
        self.assertTrue(private(local("tcp6:1")))
        for text in (
            "tcp:1",
            "tcp:1:interface=127.0.0.1.example.com",
            "tcp:1:interface=",
            "systemd:domain=INET:index=0",
            r"tcp:1:interface=\:\:",
        ):
            self.assertFalse(private(text), text)


class GuardTests(MonitoringScene):
    """Passwords on connections in memory."""

    def setUp(self) -> None:
        super().setUp()
        users = passwords.read_users(password_line("anna", "right"))
        self.monitoring = self.make_monitoring(access=Access(users=users))

    def test_refused(self) -> None:
        """Every page wants a password, and says so in a way that browsers and tools know."""
        for path in ("/", "/metrics", "/status", "/healthz", "/events", "/live/app.js", "/nothing"):
            response = self.ask(path)
            self.assertEqual(response.code, 401, path)
            self.assertIn('basic realm="ganeti"', response.headers["www-authenticate"])
            self.assertIn("content-security-policy", response.headers)
            self.assertNotIn(b"cluster.example", response.body)

    def test_before_the_host(self) -> None:
        """A host that isn't known is refused without a look at the password."""
        response = self.ask("/", headers="Host: evil.example\r\nAuthorization: Basic eDp5\r\n")
        self.assertIn(response.code, (400, 421))


class WayTests(MonitoringScene, TestCase):
    """Each way in, as the documentation has it, with a client of the standard library."""

    timeout = 60

    def setUp(self) -> None:
        super().setUp()
        self.folder = Path(os.path.relpath(self.mktemp()))
        self.folder.mkdir()

    async def serve(self, endpoint: str, access: Access) -> Any:
        """Starts monitoring on a real endpoint; returns its address."""
        listening: list[Any] = []
        self.endpoint = serverFromString(real_reactor, local(endpoint))
        listen = self.endpoint.listen

        async def note(factory: Any) -> Any:
            listening.append(await listen(factory))
            return listening[-1]

        self.patch(self.endpoint, "listen", lambda factory: ensureDeferred(note(factory)))
        self.monitoring = self.make_monitoring(access=access, reactor=real_reactor)
        await self.monitoring.start()
        self.addCleanup(self.monitoring.close)
        return listening[0].getHost()

    def get(
        self, port: int, context: ssl.SSLContext | None = None, authorization: str | None = None
    ) -> Any:
        """Asks for the status in a thread: fires with the code, or with the error's class."""

        def ask() -> Any:
            connection = (
                HTTPConnection("127.0.0.1", port, timeout=30)
                if context is None
                else HTTPSConnection("127.0.0.1", port, timeout=30, context=context)
            )
            try:
                headers = {} if authorization is None else {"Authorization": authorization}
                connection.request("GET", "/status", headers=headers)
                response = connection.getresponse()
                body = response.read()
            except (OSError, HTTPException) as error:
                return type(error).__name__
            finally:
                connection.close()
            return response.status, b"cluster.example" in body

        return deferToThread(ask)

    async def test_loopback(self) -> None:
        """A local port, without more."""
        address = await self.serve("tcp:0", EVERYBODY)
        self.assertEqual(address.host, "127.0.0.1")
        self.assertEqual(await self.get(address.port), (200, True))

    async def test_unix_socket(self) -> None:
        """A UNIX socket with the mode that was given, as ssh forwards it."""
        path = self.folder / "socket"
        await self.serve(f"unix:{path}:mode=660", EVERYBODY)
        self.assertEqual(path.stat().st_mode & 0o777, 0o660)

        def ask() -> bytes:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(30)
                connection.connect(str(path))
                connection.sendall(b"GET / HTTP/1.0\r\nHost: localhost:8080\r\n\r\n")
                with connection.makefile("rb") as answer:
                    return answer.read()

        said = await deferToThread(ask)
        self.assertIn(b" 200 OK", said.partition(b"\r\n")[0])
        self.assertIn(b"<title>Ganeti cluster</title>", said)

    async def test_client_certificates(self) -> None:
        """TLS: who has a certificate of the authority may look, others get no answer at all."""
        authority, other = Authority(self.folder, "own"), Authority(self.folder, "other")
        access = read_access("tcp:0", str(authority.issue("server")), str(authority.path), None)
        address = await self.serve("tcp:0", access)
        context = ssl.create_default_context(cafile=str(authority.path))
        context.load_cert_chain(authority.issue("anna"))
        self.assertEqual(await self.get(address.port, context), (200, True))
        for issued in (None, other.issue("mallory")):
            context = ssl.create_default_context(cafile=str(authority.path))
            if issued is not None:
                context.load_cert_chain(issued)
            said = await self.get(address.port, context)
            self.assertIn("Error", str(said))
        self.assertNotEqual(await self.get(address.port), (200, True))
        old = ssl.create_default_context(cafile=str(authority.path))
        old.load_cert_chain(authority.issue("bert"))
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
        self.assertEqual(await self.get(address.port, old), (200, True))

    async def test_passwords_over_tls(self) -> None:
        """TLS and a password: the right one alone, asked for by many at once."""
        authority = Authority(self.folder, "own")
        users = self.folder / "users"
        users.write_text(password_line("anna", "right"))
        users.chmod(0o600)
        access = read_access("tcp:0", str(authority.issue("server")), None, str(users))
        address = await self.serve("tcp:0", access)
        context = ssl.create_default_context(cafile=str(authority.path))
        self.assertEqual(await self.get(address.port, context), (401, False))
        right = header("anna", "right")
        answers = await gatherResults([self.get(address.port, context, right) for _ in range(4)])
        self.assertEqual(answers, [(200, True)] * 4)
        for wrong in (header("anna", "wrong"), header("bert", "right"), "Basic x"):
            self.assertEqual(await self.get(address.port, context, wrong), (401, False))

    async def test_the_reactor_goes_on(self) -> None:
        """Passwords are checked in another thread than the reactor's; who hangs up is no fault."""
        threads: list[threading.Thread] = []
        real = passwords.StoredPassword.matches

        def matches(stored: Any, password: bytes) -> bool:
            threads.append(threading.current_thread())
            return real(stored, password)

        self.patch(passwords.StoredPassword, "matches", matches)
        users = passwords.read_users(password_line("anna", "right"))
        address = await self.serve("tcp:0", Access(users=users))
        right = base64.b64encode(b"anna:right")

        def hang_up() -> None:
            with socket.create_connection(("127.0.0.1", address.port)) as connection:
                connection.sendall(
                    b"GET /status HTTP/1.1\r\nHost: localhost\r\n"
                    b"Authorization: Basic %b\r\n\r\n" % right
                )

        await deferToThread(hang_up)
        self.assertEqual(await self.get(address.port, None, "Basic " + right.decode()), (200, True))
        self.assertNotIn(threading.main_thread(), threads)
        self.assertGreaterEqual(len(threads), 1)
        self.assertEqual(self.flushLoggedErrors(), [])
