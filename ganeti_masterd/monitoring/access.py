"""Who may look: TLS, certificates of clients, and the file of users, read once, at the start."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from msgspec import Struct
from OpenSSL import SSL
from OpenSSL.crypto import X509, PKey
from twisted.internet.ssl import Certificate as TwistedCertificate
from twisted.internet.ssl import CertificateOptions, TLSVersion, trustRootFromCertificates

from ganeti_masterd.monitoring.endpoints import local, private
from ganeti_masterd.monitoring.passwords import StoredPassword, read_users

#: More than this no certificates or users need.
_MOST_BYTES = 1 << 20


class Access(Struct, frozen=True):
    """``tls`` is what connections have to speak, ``users`` who has to give which password.

    Each is None if that isn't wanted.
    """

    tls: CertificateOptions | None = None
    users: Mapping[str, StoredPassword] | None = None


#: Everyone who reaches the endpoint.
EVERYBODY = Access()


def read_access(
    endpoint: str, certificate: str | None, client_ca: str | None, users: str | None
) -> Access:
    """Returns who may look at ``endpoint``, from the paths of files, of which each may be None.

    Raises ``ValueError``, with the option and the file, for a file that can't be used, and for
    options that don't go together.
    """
    if certificate is not None and endpoint.startswith("ssl:"):
        raise ValueError(
            "--monitoring-certificate: the endpoint has TLS of its own; give tcp: instead of ssl:"
        )
    if client_ca is not None and certificate is None:
        raise ValueError("--monitoring-client-ca needs --monitoring-certificate, for TLS")
    tls = None if certificate is None else _tls(certificate, client_ca)
    if users is None:
        return Access(tls)
    if tls is None and not private(local(endpoint)):
        raise ValueError(
            "--monitoring-users: passwords would cross the network for all to read; give "
            "--monitoring-certificate too, or listen on loopback or a UNIX socket"
        )
    return Access(tls, _users(users))


def _tls(certificate: str, client_ca: str | None) -> CertificateOptions:
    option = "--monitoring-certificate"
    data = _contents(option, certificate)
    own = _certificates(option, certificate, data)
    try:
        key = load_pem_private_key(data, password=None)
    except TypeError:
        raise ValueError(f"{option} {certificate}: its key has a passphrase") from None
    except ValueError:
        raise ValueError(f"{option} {certificate}: it has no private key as PEM") from None
    trusted: Any = None
    if client_ca is not None:
        named = "--monitoring-client-ca"
        found = _certificates(named, client_ca, _contents(named, client_ca))
        trusted = trustRootFromCertificates([TwistedCertificate(each) for each in found])
    options = CertificateOptions(
        privateKey=PKey.from_cryptography_key(key),  # type: ignore[arg-type]
        certificate=own[0],
        extraCertChain=own[1:],
        trustRoot=trusted,
        raiseMinimumTo=TLSVersion.TLSv1_2,
    )
    try:
        options.getContext().check_privatekey()
    except SSL.Error:
        raise ValueError(
            f"{option} {certificate}: the key isn't that of the first certificate"
        ) from None
    return options


def _certificates(option: str, path: str, data: bytes) -> list[X509]:
    try:
        found = x509.load_pem_x509_certificates(data)
    except ValueError:
        raise ValueError(f"{option} {path}: it has no certificate as PEM") from None
    return [X509.from_cryptography(each) for each in found]


def _users(path: str) -> dict[str, StoredPassword]:
    option = "--monitoring-users"
    data = _contents(option, path)
    if stat.S_IMODE(os.stat(path).st_mode) & 0o006:
        raise ValueError(f"{option} {path}: every user of this host may read or change it")
    try:
        return read_users(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise ValueError(f"{option} {path}: it isn't UTF-8") from None
    except ValueError as error:
        raise ValueError(f"{option} {path}: {error}") from None


def _contents(option: str, path: str) -> bytes:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ValueError(f"{option} {path}: it is not a regular file")
        with open(path, "rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{option} {path}: {error.strerror}") from None
    if len(data) > _MOST_BYTES:
        raise ValueError(f"{option} {path}: it has more than {_MOST_BYTES} bytes")
    return data
