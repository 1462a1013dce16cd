"""Keys and certificates of a new simulated cluster: what ``gnt-cluster init`` makes on a real one.

Simulated nodes don't check them, but ``gnt-cluster verify`` does, and Ganeti's own daemons (the
remote API) need them.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

#: The name that Ganeti gives to all of its certificates.
COMMON_NAME = "ganeti.example.com"
VALID_DAYS = 5 * 365
KEY_BITS = 2048

_SECRET_BYTES = 20


def files(now: float) -> Iterator[tuple[str, bytes, int]]:
    """Yields file names below the data folder, with content and mode.

    ``now`` is in seconds since the epoch. Takes a moment, as a key is generated.
    """
    key, certificate = _certificate(now)
    for name in ("server.pem", "rapi.pem", "spice.pem"):
        yield name, key + certificate, 0o440
    yield "spice-ca.pem", certificate, 0o440
    for name in ("hmac.key", "cluster-domain-secret"):
        yield name, secrets.token_hex(_SECRET_BYTES).encode() + b"\n", 0o440
    yield "known_hosts", b"", 0o644


def _certificate(now: float) -> tuple[bytes, bytes]:
    """Returns a key and a certificate signed with it, as PEM."""
    # Imported here because only a new cluster needs it.
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.x509.oid import NameOID

    key = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, COMMON_NAME)])
    begin = datetime.fromtimestamp(now, UTC).replace(microsecond=0)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin - timedelta(minutes=5))
        .not_valid_after(begin + timedelta(days=VALID_DAYS))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    return private, certificate.public_bytes(serialization.Encoding.PEM)
