"""Which certificates the HTTPS client trusts, and how nodes refuse its own."""

from __future__ import annotations

import os
from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import inlineCallbacks
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IStreamClientEndpoint
from twisted.trial.unittest import TestCase
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface.verify import verifyObject

from ganeti_masterd.errors import ConfigurationError
from ganeti_masterd.rpc import certificates
from ganeti_masterd.rpc.calls import CALLS
from ganeti_masterd.rpc.certificates import CIPHERS, Certificates
from ganeti_masterd.rpc.exchange import CallExchange, CallLine
from ganeti_masterd.rpc.wire import VirtualPaths
from tests.rpc import pki
from tests.rpc.peers import Peer, Scene, ServerTLS, target, tls

VERSIONS = (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION)
FOREIGN = "Node node2 does not hold the cluster's certificate"
PAST, FUTURE = pki.NOW - 2 * pki.DAY, pki.NOW + 2 * pki.DAY


class TLSCase(TestCase):
    timeout = 30

    def setUp(self) -> None:
        self.scene = Scene()
        self.addCleanup(self.scene.close)

    @inlineCallbacks
    def error(self, server: ServerTLS | None, node: Any = None, **settings: Any) -> Any:
        """Returns the error of a call to a peer with these TLS settings; None if it succeeds.

        A peer that isn't trusted must not get a byte of the request.
        """
        peer = Peer()
        nodes = self.scene.nodes((yield self.scene.listen(peer, server)), **settings)
        node = node or target()
        found = yield nodes.call([node], "version")
        error = found[node.key].error
        if error is not None and "refused" not in error and server is not None:
            self.assertEqual(peer.bytes_received, 0)
        yield nodes.close()
        yield peer.alone()
        return error


class ServerTests(TLSCase):
    """Certificates that nodes show."""

    @inlineCallbacks
    def test_good(self) -> Any:
        """The cluster's own certificate is trusted, with TLS 1.2 and 1.3, and no name is sent."""
        for version in VERSIONS:
            server = tls(version=version)
            self.assertIsNone((yield self.error(server)))
            self.assertEqual(server.seen, [pki.client().digest])
            self.assertEqual(server.names, [None])

    @inlineCallbacks
    def test_signed_cluster_certificate(self) -> Any:
        """The cluster's certificate may be signed by an authority, which isn't trusted itself."""
        authority = pki.identity("authority")
        own = pki.identity("ganeti.example.com", authority)
        own.write(self.scene.server)
        self.assertIsNone((yield self.error(tls(own))))
        other = pki.identity("ganeti.example.com", authority)
        self.assertEqual((yield self.error(tls(other))), FOREIGN)

    @inlineCallbacks
    def test_foreign(self) -> Any:
        """A self-signed certificate is refused, even with the same name."""
        for version in VERSIONS:
            for shown in (pki.identity("node2"), pki.identity("ganeti.example.com")):
                self.assertEqual((yield self.error(tls(shown, version=version))), FOREIGN)

    @inlineCallbacks
    def test_signed_only(self) -> Any:
        """A certificate only signed by the cluster's key, like client.pem, is refused."""
        for version in VERSIONS:
            shown = pki.identity("node2", pki.cluster())
            self.assertEqual((yield self.error(tls(shown, version=version))), FOREIGN)

    @inlineCallbacks
    def test_signed_by_another(self) -> Any:
        """A certificate signed by another authority is refused."""
        authority = pki.identity("ganeti.example.com")
        self.assertEqual((yield self.error(tls(pki.identity("node2", authority)))), FOREIGN)

    @inlineCallbacks
    def test_expired(self) -> Any:
        """The error says that a cluster's certificate has expired."""
        old = pki.identity("ganeti.example.com", begins=PAST - pki.DAY, ends=PAST)
        old.write(self.scene.server)
        for version in VERSIONS:
            error = yield self.error(tls(old, version=version))
            self.assertEqual(
                error, f"Node node2 shows a certificate that expired on {PAST:%Y-%m-%d}"
            )

    @inlineCallbacks
    def test_not_yet(self) -> Any:
        """The error says that a certificate isn't valid yet."""
        early = pki.identity("ganeti.example.com", begins=FUTURE, ends=FUTURE + pki.DAY)
        early.write(self.scene.server)
        error = yield self.error(tls(early))
        self.assertEqual(
            error, f"Node node2 shows a certificate that isn't valid before {FUTURE:%Y-%m-%d}"
        )

    @inlineCallbacks
    def test_no_certificate(self) -> Any:
        """A server without any certificate can't agree on TLS."""
        server = ServerTLS(None)
        self.assertIn("alert handshake failure", (yield self.error(server)))

    @inlineCallbacks
    def test_old_tls(self) -> Any:
        """TLS before 1.2 is refused."""
        # By the daemon's own setting, not only by the default of the system's OpenSSL.
        lax = CIPHERS + b":@SECLEVEL=0"
        self.patch(certificates, "CIPHERS", lax)
        for ciphers in (CIPHERS, lax):
            server = tls(version=SSL.TLS1_1_VERSION, ciphers=ciphers)
            error = yield self.error(server)
            self.assertTrue(error.startswith("No TLS connection with node node2 ("), error)
            self.assertEqual(server.seen, [])

    @inlineCallbacks
    def test_no_tls(self) -> Any:
        """A server without TLS is refused."""

        class Plain(Peer):
            def buildProtocol(self, addr: Any) -> Any:
                protocol = super().buildProtocol(addr)
                protocol.dataReceived = lambda data: protocol.transport.write(
                    b"HTTP/1.0 400 No\r\n"
                )
                return protocol

        nodes = self.scene.nodes((yield self.scene.listen(Plain(), None)))
        found = yield nodes.call([target()], "version")
        error = found[target().key].error
        self.assertTrue(error.startswith("No TLS connection with node node2 ("), error)


class ClientTests(TLSCase):
    """The certificate that this side shows."""

    @inlineCallbacks
    def test_unlisted(self) -> Any:
        """A certificate that is unlisted, self-signed or expired is refused by the node."""
        shown = (
            pki.client(),
            pki.identity("node1"),
            pki.identity("node1", pki.cluster(), begins=PAST - pki.DAY, ends=PAST),
        )
        for version in VERSIONS:
            for each in shown:
                each.write(self.scene.client)
                error = yield self.error(tls(listed=[pki.cluster().digest], version=version))
                self.assertTrue(error.startswith("Node node2 refused our certificate ("), error)

    @inlineCallbacks
    def test_nothing_shown(self) -> Any:
        """A node's alert that it got no certificate counts as a refusal, too."""
        nodes_error = yield self.error(tls(listed=[]))
        self.assertIn("refused our certificate", nodes_error)

    @inlineCallbacks
    def test_expired_but_listed(self) -> Any:
        """An expired but listed certificate works, as nodes don't check the dates."""
        old = pki.identity("node1", pki.cluster(), begins=PAST - pki.DAY, ends=PAST)
        old.write(self.scene.client)
        self.assertIsNone((yield self.error(tls(listed=[old.digest]))))

    @inlineCallbacks
    def test_bootstrap(self) -> Any:
        """Without client.pem the cluster's certificate is shown."""
        os.unlink(self.scene.client)
        self.assertIsNone((yield self.error(tls(listed=[pki.cluster().digest]))))
        error = yield self.error(tls())
        self.assertIn("refused our certificate", error)

    @inlineCallbacks
    def test_unusable(self) -> Any:
        """Missing, empty or mismatched files give a result that says so."""
        server, client = self.scene.server, self.scene.client
        other = pki.identity("node1")
        mixed = pki.Identity(other.key, pki.client().certificate)
        for path, content, expected in (
            (client, b"", f"{client} doesn't hold a certificate and the key that fits it"),
            (client, mixed.pem, f"{client} doesn't hold a certificate and the key that fits it"),
            (server, b"-----BEGIN", f"{server} holds no certificate that can be read"),
            (server, None, "can't read the cluster's certificate: "),
        ):
            with open(path, "rb") as file:
                before = file.read()
            os.unlink(path)
            if content is not None:
                with open(path, "wb") as file:
                    file.write(content)
            error = yield self.error(tls())
            self.assertTrue(error.startswith(f"No TLS: {expected}"), error)
            with open(path, "wb") as file:
                file.write(before)
        self.assertIsNone((yield self.error(tls())))


class RenewalTests(TLSCase):
    @inlineCallbacks
    def test_renewed(self) -> Any:
        """New certificates are used from the next call on, by the same client."""
        port = yield self.scene.listen(Peer(), tls())
        nodes = self.scene.nodes(port)
        found = yield nodes.call([target()], "version")
        self.assertIsNone(found[target().key].error)

        renewed = pki.identity("ganeti.example.com")
        client = pki.identity("node1", renewed)
        renewed.write(self.scene.server)
        client.write(self.scene.client)
        found = yield nodes.call([target()], "version")
        self.assertEqual(found[target().key].error, FOREIGN)
        peer = Peer()
        nodes._line.port = yield self.scene.listen(peer, tls(renewed, listed=[client.digest]))
        found = yield nodes.call([target()], "version")
        self.assertIsNone(found[target().key].error)

    def test_interface(self) -> None:
        """The interfaces that Twisted needs for TLS and connections are implemented."""
        certificates = Certificates(self.scene.server, self.scene.client)
        line = CallLine(None, self.scene.timers, certificates, VirtualPaths(), port=1, patience=1.0)
        call = CallExchange(line, target(), CALLS["version"], b"", 1.0, lambda *_: None)
        verifyObject(IAgentEndpointFactory, call)
        verifyObject(IStreamClientEndpoint, call)
        verifyObject(IOpenSSLClientConnectionCreator, certificates.creator(call))

    def test_built_once(self) -> None:
        """The settings are built again only when a file has changed."""
        scene = self.scene
        certificates = Certificates(scene.server, scene.client)
        first = certificates.context()
        self.assertIs(certificates.context(), first)
        pki.client().write(scene.client)
        second = certificates.context()
        self.assertIsNot(second, first)
        os.utime(scene.server, (1, 1))
        self.assertIsNot(certificates.context(), second)

    def test_broken_and_mended(self) -> None:
        """Broken files are an error until they change again."""
        scene = self.scene
        certificates = Certificates(scene.server, scene.client)
        certificates.context()
        os.unlink(scene.server)
        for _ in range(2):
            self.assertRaises(ConfigurationError, certificates.context)
        pki.cluster().write(scene.server)
        certificates.context()


class NameTests(TLSCase):
    """Clusters whose certificates have names, as the master's own certificate shows."""

    def setUp(self) -> None:
        super().setUp()
        self.authority = pki.identity("authority")
        own = pki.identity("node1.example.com", self.authority, names=("node1.example.com",))
        own.write(self.scene.server, self.authority)

    @inlineCallbacks
    def named(self, shown: pki.Identity) -> Any:
        return (yield self.error(tls(shown), target("node2.example.com")))

    @inlineCallbacks
    def test_good(self) -> Any:
        """The node's name, a wildcard for it, or its address is accepted."""
        for name in ("node2.example.com", "*.example.com", "127.0.0.1"):
            shown = pki.identity("any", self.authority, names=("other.example.com", name))
            self.assertIsNone((yield self.named(shown)), name)

    @inlineCallbacks
    def test_one_for_all(self) -> Any:
        """One certificate with the names of all nodes is accepted, even if self-signed."""
        names = ("node1.example.com", "node2.example.com")
        one = pki.identity("ganeti.example.com", names=names)
        one.write(self.scene.server)
        self.assertIsNone((yield self.named(one)))
        error = yield self.error(tls(one), target("node3.example.com", "127.0.0.1"))
        self.assertEqual(
            error,
            "Node node3.example.com shows a certificate that is for neither "
            "node3.example.com nor 127.0.0.1",
        )

    @inlineCallbacks
    def test_another_node(self) -> Any:
        """A certificate for another node or address is refused."""
        for names in (("node3.example.com",), ("127.0.0.2",), ("example.com", "*.org")):
            shown = pki.identity("node2.example.com", self.authority, names=names)
            self.assertEqual(
                (yield self.named(shown)),
                "Node node2.example.com shows a certificate that is for neither "
                "node2.example.com nor 127.0.0.1",
            )

    @inlineCallbacks
    def test_no_names(self) -> Any:
        """A certificate without names is refused, which Twisted's own client would accept."""
        for shown in (self.authority, pki.identity("node2.example.com", self.authority)):
            error = yield self.named(shown)
            self.assertIn("shows a certificate that is for neither", error)

    @inlineCallbacks
    def test_another_authority(self) -> Any:
        """A certificate with the right name that isn't the cluster's is refused."""
        names = ("node2.example.com",)
        for issuer in (None, pki.identity("authority"), pki.cluster()):
            shown = pki.identity("node2.example.com", issuer, names=names)
            self.assertEqual(
                (yield self.named(shown)),
                "Node node2.example.com does not hold the cluster's certificate",
            )

    @inlineCallbacks
    def test_expired(self) -> Any:
        """An expired certificate with the right name is refused."""
        shown = pki.identity(
            "node2", self.authority, names=("127.0.0.1",), begins=PAST - pki.DAY, ends=PAST
        )
        self.assertIn("expired on", (yield self.named(shown)))

    @inlineCallbacks
    def test_broken_names(self) -> Any:
        """Names that can't be parsed match no node, in the master's certificate or a node's."""
        broken = pki.identity("node2.example.com", self.authority, broken_names=True)
        self.assertEqual(
            (yield self.named(broken)),
            "Node node2.example.com does not hold the cluster's certificate",
        )
        broken.write(self.scene.server, self.authority)
        self.assertIn("is for neither", (yield self.named(broken)))

    @inlineCallbacks
    def test_pinned(self) -> Any:
        """If the master's own certificate has no names, a node's with names is refused."""
        pki.cluster().write(self.scene.server)
        names = ("node2.example.com",)
        shown = pki.identity("node2.example.com", pki.cluster(), names=names)
        self.assertEqual(
            (yield self.named(shown)),
            "Node node2.example.com does not hold the cluster's certificate",
        )
