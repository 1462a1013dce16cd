"""The cluster's certificates: which nodes the daemon trusts, and how it authenticates itself.

Only ``server.pem`` (the same key and certificate on every node) is trusted; ``client.pem`` is this
node's own certificate, whose digest the nodes know (protocol/rpc.rst, TLS). The system's
certificate authorities are not used. The files are checked before each call and read again when
they have changed, as after renew-crypto.

Ganeti's own certificates have no names, so a node must show exactly the cluster's certificate: one
that is only signed by it, such as another node's ``client.pem``, is refused. If this node's own
certificate, the first in ``server.pem``, has names (subjectAltName), those of all nodes must have
names: each node must then show a certificate that is in ``server.pem`` or signed by one there, and
that has the node's name or address. Both rules are checked while OpenSSL verifies the certificate,
before a byte of the request is sent; a certificate that can't be checked is refused. (Twisted's
``optionsForClientTLS`` accepts a certificate without names.)
"""

from __future__ import annotations

import os
from typing import Any, Protocol, cast
from weakref import WeakKeyDictionary

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from OpenSSL import SSL, crypto
from service_identity.cryptography import (
    verify_certificate_hostname,
    verify_certificate_ip_address,
)
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from zope.interface import implementer

from ganeti_masterd.errors import ConfigurationError
from ganeti_masterd.rpc.interfaces import Target

#: What noded 3.0.2 offers; both sides agree on ECDHE and AES-256.
CIPHERS = b"HIGH:-DES:-3DES:-EXPORT:-DH"

# OpenSSL's verdicts (X509_V_ERR_*) that get a message of their own.
_NOT_YET_VALID = 9
_EXPIRED = 10


class TLSPeer(Protocol):
    """A connection that is notified of the outcome of its TLS handshake."""

    target: Target
    #: Why the node's certificate was refused; None if it wasn't.
    distrust: str | None

    def handshaken(self) -> None:
        """Called when the handshake is done; may be called more than once."""


#: The peer of each existing connection.
Peers = WeakKeyDictionary[SSL.Connection, TLSPeer]


class Certificates:
    """The TLS settings of all calls, from the current files. Reactor thread only."""

    def __init__(self, server: str, client: str) -> None:
        """Takes the paths of ``server.pem`` and ``client.pem``; reads nothing yet.

        While there is no ``client.pem``, ``server.pem`` is used in its place, which nodes accept as
        long as they know no client certificate (protocol/rpc.rst, TLS).
        """
        self._server = server
        self._client = client
        self._seen: tuple[Any, ...] = ()
        self._context: SSL.Context | None = None
        self._fault: ConfigurationError | None = None
        # Twisted uses the connection's own application data.
        self._peers: Peers = WeakKeyDictionary()

    def context(self) -> SSL.Context:
        """Returns the context for a new connection.

        Raises ``ConfigurationError`` if the files can't be read or don't fit.
        """
        seen = (_stamp(self._server), _stamp(self._client))
        if seen != self._seen:
            self._seen, self._context, self._fault = seen, None, None
            client = self._client if seen[1] is not None else self._server
            try:
                self._context = _context(self._server, client, self._peers)
            except ConfigurationError as error:
                self._fault = error
        if self._context is None:
            raise self._fault or ConfigurationError("no certificates were read")
        return self._context

    def creator(self, peer: TLSPeer) -> Creator:
        """Returns the creator of one TLS connection; raises like :meth:`context`."""
        return Creator(self.context(), peer, self._peers)


@implementer(IOpenSSLClientConnectionCreator)
class Creator:
    """Starts TLS on one connection to a node."""

    def __init__(self, context: SSL.Context, peer: TLSPeer, peers: Peers) -> None:
        self._context = context
        self._peer = peer
        self._peers = peers

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        """Returns the connection; sends no server name (SNI), which Ganeti's clusters don't use."""
        connection = SSL.Connection(self._context, None)
        self._peers[connection] = self._peer
        return connection


def _stamp(path: str) -> tuple[int, int, int] | None:
    """Returns a value that changes when the file is replaced; None if the file doesn't exist."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size


def _context(server: str, client: str, peers: Peers) -> SSL.Context:
    trusted = _trusted(server)
    names = _carries_names(trusted[0])
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_cipher_list(CIPHERS)
    # Nodes refuse to resume a session.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    store = context.get_cert_store()
    if store is None:
        raise ConfigurationError("OpenSSL gave no certificate store")
    # Certificates in the store are trusted even if they aren't self-signed.
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    for certificate in trusted if names else trusted[:1]:
        store.add_cert(crypto.X509.from_cryptography(certificate))
    _identify(context, client)
    pinned = None if names else trusted[0].public_bytes(Encoding.DER)

    def verify(
        connection: SSL.Connection, shown: crypto.X509, code: int, depth: int, good: int
    ) -> bool:
        peer = peers[connection]
        try:
            distrust = _verdict(peer.target, shown.to_cryptography(), code, depth, pinned)
        except Exception as error:  # a certificate that can't be checked is not trusted
            distrust = f"shows a certificate that can't be verified ({type(error).__name__})"
        if distrust is not None:
            peer.distrust = peer.distrust or distrust
        return distrust is None

    context.set_verify(SSL.VERIFY_PEER, verify)

    def told(connection: SSL.Connection, where: int, _ret: int) -> None:
        if where & SSL.SSL_CB_HANDSHAKE_DONE:
            peers[connection].handshaken()

    context.set_info_callback(told)
    return context


def _verdict(
    target: Target, shown: x509.Certificate, code: int, depth: int, pinned: bytes | None
) -> str | None:
    """Returns what is wrong with a certificate that a node shows; None if nothing is.

    ``code`` is OpenSSL's own verdict, ``depth`` 0 for the node's certificate itself.
    """
    if code == _EXPIRED:
        return f"shows a certificate that expired on {shown.not_valid_after_utc:%Y-%m-%d}"
    if code == _NOT_YET_VALID:
        return f"shows a certificate that isn't valid before {shown.not_valid_before_utc:%Y-%m-%d}"
    if code != 0:
        return "does not hold the cluster's certificate"
    if depth != 0:
        return None
    if pinned is not None:
        if shown.public_bytes(Encoding.DER) != pinned:
            return "does not hold the cluster's certificate"
        return None
    if not _named(shown, target):
        return f"shows a certificate that is for neither {target.name} nor {target.address}"
    return None


def _carries_names(certificate: x509.Certificate) -> bool:
    """Returns whether a certificate has names; True if they can't be read, so that none match."""
    try:
        certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return False
    except ValueError:
        return True
    return True


def _named(shown: x509.Certificate, target: Target) -> bool:
    """Returns whether a certificate has the name or the address of a node."""
    for name in dict.fromkeys((target.name, target.address)):
        address = isIPAddress(name) or isIPv6Address(name)
        check = verify_certificate_ip_address if address else verify_certificate_hostname
        try:
            check(shown, name)
        except Exception:  # one of many kinds: no names, bad names, other names
            continue
        return True
    return False


def _trusted(path: str) -> list[x509.Certificate]:
    try:
        with open(path, "rb") as file:
            return x509.load_pem_x509_certificates(file.read())
    except OSError as error:
        raise ConfigurationError(f"can't read the cluster's certificate: {error}")
    except ValueError:
        raise ConfigurationError(f"{path} holds no certificate that can be read")


def _identify(context: SSL.Context, path: str) -> None:
    """Sets the context's own certificate and key from a file."""
    try:
        with open(path, "rb") as file:
            pem = file.read()
    except OSError as error:
        raise ConfigurationError(f"can't read this node's certificate: {error}")
    try:
        context.use_certificate(x509.load_pem_x509_certificate(pem))
        # A key of a kind that TLS can't use raises TypeError.
        context.use_privatekey(cast(Any, load_pem_private_key(pem, None)))
        context.check_privatekey()
    except (SSL.Error, ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigurationError(f"{path} doesn't hold a certificate and the key that fits it")
