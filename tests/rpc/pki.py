"""Keys and certificates of a cluster for tests: good ones and every kind of bad one."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import os
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtensionOID, NameOID

NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
DAY = datetime.timedelta(days=1)


class Identity:
    """A key with its certificate."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self.key = key
        self.certificate = certificate

    @property
    def pem(self) -> bytes:
        """The key and certificate in the form of ``server.pem``."""
        private = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return private + self.certificate.public_bytes(Encoding.PEM)

    @property
    def digest(self) -> str:
        """The digest in the form of ``ssconf_master_candidates_certs``."""
        digest = hashlib.sha1(self.certificate.public_bytes(Encoding.DER)).hexdigest().upper()
        return ":".join(digest[i : i + 2] for i in range(0, len(digest), 2))

    def write(self, path: str, *issuers: Identity) -> str:
        """Writes the PEM to a file, replacing it in one step as a renewal does; returns the path.

        The certificates of ``issuers`` follow it in the file.
        """
        with open(path + ".new", "wb") as file:
            file.write(self.pem)
            for issuer in issuers:
                file.write(issuer.certificate.public_bytes(Encoding.PEM))
        os.replace(path + ".new", path)
        return path


def identity(
    name: str,
    issuer: Identity | None = None,
    *,
    names: tuple[str, ...] = (),
    broken_names: bool = False,
    begins: datetime.datetime = NOW - DAY,
    ends: datetime.datetime = NOW + DAY,
) -> Identity:
    """Makes a certificate, self-signed unless there is an issuer.

    ``names`` are its names, host names or addresses; with ``broken_names`` its extension for names
    can't be parsed.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
    )
    if names:
        carried = [_general(each) for each in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(carried), critical=False)
    if broken_names:
        unreadable = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, b"names")
        builder = builder.add_extension(unreadable, critical=False)
    if issuer is None:
        # Ganeti's own are of version 1, which may sign others without an extension.
        builder = builder.add_extension(x509.BasicConstraints(True, None), critical=True)
    signer = key if issuer is None else issuer.key
    return Identity(key, builder.sign(signer, hashes.SHA256()))


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


@cache
def cluster() -> Identity:
    """The cluster's own key and certificate, ``server.pem``."""
    return identity("ganeti.example.com")


@cache
def client() -> Identity:
    """The certificate of the calling node, ``client.pem``."""
    return identity("node1", cluster())
