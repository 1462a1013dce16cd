"""What clusters that share a secret tell each other, signed so that each knows it for the other's.

The forms are those of real daemon 3.0.2 (protocol/rpc.rst, Exports and transfers): HMAC-SHA1 with
the cluster domain secret as the key, over a salt and the text. All but :func:`domain_secret` is
pure.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Sequence
from typing import Any

from ganeti_masterd.errors import ECODE_ENVIRON, prereq

#: Where the secret is that clusters share.
SECRET_FILE = "/var/lib/ganeti/cluster-domain-secret"

#: Seconds for which a certificate of an export or import is good.
VALIDITY = 86400

#: The version of what is said between clusters.
VERSION = 0

_GREETING = "Hi, I'm Ganeti"
_SALT_BYTES = 8

_SIGNATURE = re.compile(
    r"^X-Ganeti-Signature:\s*(?P<salt>[a-zA-Z0-9_.-]+)/(?P<digest>[a-fA-F0-9]+)\s*$", re.MULTILINE
)
_CERTIFICATE = re.compile(
    r"-----BEGIN CERTIFICATE-----\r?\n.+?\r?\n-----END CERTIFICATE-----", re.DOTALL
)


class Untrusted(ValueError):
    """Something was not signed with the secret, or isn't what it should be."""


def domain_secret(root: str) -> str:
    """Returns the cluster's domain secret; ``root`` is where Ganeti's files are.

    Reads a file. Raises ``OpPrereqError`` if there is none.
    """
    try:
        with open(root + SECRET_FILE, encoding="utf-8") as file:
            secret = file.readline().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise prereq(f"Can't read the cluster domain secret: {error}", ECODE_ENVIRON)
    if not secret:
        raise prereq(f"The cluster domain secret in {SECRET_FILE} is empty", ECODE_ENVIRON)
    return secret


def new_salt() -> str:
    """Returns a salt: 16 hexadecimal digits."""
    return secrets.token_hex(_SALT_BYTES)


def digest(secret: str, text: str, salt: str) -> str:
    """Returns the signature of a text, in hexadecimal digits."""
    return hmac.new(secret.encode(), (salt + text).encode(), "sha1").hexdigest()


def is_signed(secret: str, text: str, signature: object, salt: object) -> bool:
    """Whether a signature is that of a text."""
    if not (isinstance(signature, str) and isinstance(salt, str)):
        return False
    expected = digest(secret, text, salt)
    return hmac.compare_digest(expected.encode(), signature.lower().encode())


def handshake(secret: str) -> tuple[int, str, str]:
    """Returns what one cluster shows to another: that it has the secret."""
    salt = new_salt()
    return VERSION, digest(secret, f"{VERSION}:{_GREETING}", salt), salt


def check_handshake(secret: str, shown: Sequence[Any]) -> None:
    """Raises :class:`Untrusted` for a handshake of a cluster with another secret or version."""
    if len(shown) != 3:
        raise Untrusted(f"Invalid data: {len(shown)} parts instead of 3")
    version, signature, salt = shown
    if not is_signed(secret, f"{version}:{_GREETING}", signature, salt):
        raise Untrusted("Hash didn't match, clusters don't share the same domain secret")
    if version != VERSION:
        raise Untrusted(
            "Clusters don't have the same remote import/export protocol "
            f"(local={VERSION}, remote={version})"
        )


def signed_name(secret: str, name: str) -> tuple[str, str, str]:
    """Returns the name of a key with its signature."""
    salt = new_salt()
    return name, digest(secret, name, salt), salt


def signed_certificate(secret: str, certificate: str) -> str:
    """Returns a certificate (PEM) with its signature before it."""
    salt = new_salt()
    return f"X-Ganeti-Signature: {salt}/{digest(secret, certificate, salt)}\n\n{certificate}"


def certificate_of(secret: str, signed: str) -> str:
    """Returns the certificate (PEM) of a signed one; raises :class:`Untrusted`."""
    found = _CERTIFICATE.search(signed)
    if found is None:
        raise Untrusted("Couldn't find a certificate")
    signature = _SIGNATURE.search(signed, 0, found.start())
    if signature is None:
        raise Untrusted("Couldn't find X509 certificate signature")
    certificate = found[0].replace("\r\n", "\n") + "\n"
    if not is_signed(secret, certificate, signature["digest"], signature["salt"]):
        raise Untrusted("X509 certificate signature is invalid")
    return certificate


def signed_place(
    secret: str, index: int, host: str, port: int, magic: str, salt: str
) -> tuple[str, int, str, str, str]:
    """Returns where one disk of an instance is awaited, with its signature."""
    return host, port, magic, digest(secret, f"{index}:{host}:{port}:{magic}", salt), salt


def place_of(secret: str, index: int, shown: Any) -> tuple[str, int, str]:
    """Returns host, port and magic of a signed place; raises :class:`Untrusted`."""
    if not isinstance(shown, list | tuple) or len(shown) != 5:
        raise Untrusted("Invalid data: not host, port, magic, signature and salt")
    host, port, magic, signature, salt = shown
    if not (host and port and magic):
        raise Untrusted("Missing destination host, port or magic")
    if not is_signed(secret, f"{index}:{host}:{port}:{magic}", signature, salt):
        raise Untrusted("HMAC is wrong")
    return str(host), int(port), str(magic)
