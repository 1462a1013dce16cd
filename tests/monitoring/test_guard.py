"""Tests of which requests are answered, and of the headers that every answer has."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.monitoring.guard import HEADERS
from ganeti_masterd.monitoring.hosts import KnownHosts, foreign, host_names
from tests.monitoring.scene import MonitoringScene, Response, parse_response

KNOWN = KnownHosts(lambda: ["Cluster.example", "node1.example.com"], ["proxy.example"])


class HostTests(SynchronousTestCase):
    """The header Host."""

    def test_known(self) -> None:
        """Addresses, localhost, and the names that are known, with any port, in any case."""
        for host in (
            "localhost",
            "LocalHost:8080",
            "127.0.0.1",
            "127.0.0.1:19100",
            "192.0.2.7:",
            "[::1]",
            "[2001:DB8::1]:19100",
            "cluster.example",
            "CLUSTER.example.:1",
            "cluster",
            "node1.example.com:19100",
            "node1",
            "proxy.example",
        ):
            self.assertIn(host, KNOWN)

    def test_unknown(self) -> None:
        """Any other name, names that only resemble known ones, and text that is no host."""
        for host in (
            "",
            "evil.example.com",
            "localhost.evil.example",
            "evil.localhost.example",
            "node1.evil.example",
            "node1.example.com.evil.example",
            "proxy",
            "127.0.0.1.evil.example",
            "1.2.3",
            "256.0.0.1",
            "[localhost]",
            "[::1",
            "::1",
            "localhost:80:80",
            "localhost:http",
            "user@localhost",
            "localhost,evil.example",
            " localhost",
            "localhost\x00",
            "lócalhost",
        ):
            self.assertNotIn(host, KNOWN, host)

    def test_renamed(self) -> None:
        """The names are those of the moment."""
        names = ["old.example"]
        known = KnownHosts(lambda: names)
        self.assertIn("old.example", known)
        names[0] = "new.example"
        self.assertNotIn("old.example", known)
        self.assertIn("new.example", known)

    def test_names(self) -> None:
        """A list of names is taken apart; what is no name is refused."""
        self.assertEqual(host_names("A.example, b_1.example."), ("a.example", "b_1.example"))
        for text in ("", ",", "a,", "a:1", "http://a", "*.example", "a..b", "-a", "a b", "[::1]"):
            with self.assertRaisesRegex(ValueError, "is not the name of a host"):
                host_names(text)

    def test_foreign(self) -> None:
        """What pages of other sites load is foreign; a link that is followed isn't."""
        for site in (b"cross-site", b"same-site"):
            for mode in (b"cors", b"no-cors", b"websocket", b"same-origin", None):
                self.assertTrue(foreign(site, mode))
            self.assertFalse(foreign(site, b"navigate"))
        for site in (b"same-origin", b"none", None):
            self.assertFalse(foreign(site, b"cors"))


class GuardTests(MonitoringScene):
    """Requests over a connection."""

    def setUp(self) -> None:
        super().setUp()
        self.begin()
        self.start()

    def request(self, path: str, headers: Sequence[str], version: str = "1.1") -> Response:
        """Sends a request with just these headers; returns the response."""
        protocol, transport = self.connect()
        lines = [f"GET {path} HTTP/{version}", *headers, "Connection: close", "", ""]
        protocol.dataReceived("\r\n".join(lines).encode())
        protocol.connectionLost(Failure(ConnectionDone()))
        return parse_response(transport.value())

    def test_unknown_host(self) -> None:
        """No page is shown for an unknown host: 421, and a text that says what can be done."""
        for path in ("/", "/status", "/metrics", "/healthz", "/nothing", "//", "/metrics/x"):
            response = self.request(path, ["Host: evil.example.com"])
            self.assertEqual(response.code, 421, path)
            self.assertIn(b"doesn't know the host 'evil.example.com'", response.body)
            self.assertIn(b"--monitoring-hosts", response.body)
            self.assertNotIn(b"cluster.example", response.body)

    def test_strange_hosts(self) -> None:
        """An unknown host is shown without its control characters, and not at full length."""
        response = self.request("/status", [f"Host: \x1b[2J{'x' * 900}"])
        self.assertEqual(response.code, 421)
        self.assertNotIn(b"\x1b", response.body)
        self.assertLess(len(response.body), 600)

    def test_known_hosts(self) -> None:
        """The cluster, its master, and addresses are answered; so are probes without a host."""
        for host in ("cluster.example", "node1:19100", "127.0.0.1:9", "[::1]:9"):
            self.assertEqual(self.request("/status", [f"Host: {host}"]).code, 200, host)
        self.assertEqual(self.request("/healthz", [], version="1.0").code, 200)

    def test_two_hosts(self) -> None:
        """Each of several hosts has to be known."""
        response = self.request("/status", ["Host: localhost", "Host: evil.example.com"])
        self.assertIn(response.code, (400, 421))

    def test_other_sites(self) -> None:
        """What another site's page asks for is refused; a link there to here works."""
        host = "Host: localhost"
        asked = self.request(
            "/status", [host, "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors"]
        )
        self.assertEqual((asked.code, b"cluster.example" in asked.body), (403, False))
        followed = self.request(
            "/status", [host, "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"]
        )
        self.assertEqual(followed.code, 200)

    def test_asterisk(self) -> None:
        """A request of the server as a whole passes the same checks as one of a page."""
        for path, host, code in (("*", "localhost", 404), ("*", "evil.example.com", 421)):
            response = self.request(path, [f"Host: {host}"])
            self.assertEqual(response.code, code)
            self.assertIn("content-security-policy", response.headers)
        self.assertEqual(self.ask("*", "OPTIONS").code, 405)

    def test_long_line(self) -> None:
        """A header that is too long is answered, and the connection ends at once, also over TLS."""
        for line in (f"Host: localhost\r\nX-Long: {'x' * 100_000}", f"X: {'x' * 100_000}\r\n"):
            protocol, transport = self.connect()
            protocol.dataReceived(f"GET /status HTTP/1.1\r\n{line}".encode())
            self.assertEqual(parse_response(transport.value()).code, 431)
            self.assertTrue(transport.disconnecting)
            self.assertIsNone(transport.producer)  # TLS ends only after its producer
            protocol.connectionLost(Failure(ConnectionDone()))

    def test_headers(self) -> None:
        """Every answer has the headers, and none lets another site read it."""
        refused = self.request("/status", ["Host: evil.example.com"])
        answers = [refused, self.ask("/status", "POST", b"x")]
        answers += [self.ask(path) for path in ("/status", "/metrics", "/healthz", "/nothing")]
        self.assertEqual([answer.code for answer in answers], [421, 405, 200, 200, 200, 404])
        for answer in answers:
            for name, value in HEADERS.items():
                shown = answer.headers[name.decode().lower()]
                self.assertEqual(shown, value.decode().lower())
            self.assertIn("default-src 'none'", answer.headers["content-security-policy"])
            self.assertEqual(answer.headers["cache-control"], "no-store")
            self.assertNotIn("access-control-allow-origin", answer.headers)
