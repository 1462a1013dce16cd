"""Checks of certificates: the cluster's files, and those that nodes show."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from ganeti_masterd.config.objects import Node
from ganeti_masterd.constants import NODE_MAX_CLOCK_SKEW
from ganeti_masterd.logical_units.verification.report import ERROR, WARNING, Finding

#: Days before a certificate's expiry from which on there is a warning, then an error.
WARN_DAYS = 30
ERROR_DAYS = 7

#: The minimum size of RSA keys.
LEAST_BITS = 2048
WEAK_HASHES = ("md5", "sha1")

_DAY = 86400.0

REBUILD = (
    "To rebuild node certificates, please run 'gnt-cluster renew-crypto --new-node-certificates'."
)


def check_file(path: str, now: float) -> Iterator[Finding]:
    """Yields what is wrong with a certificate in a PEM file. Blocks."""
    try:
        with open(path, "rb") as file:
            certificate = x509.load_pem_x509_certificate(file.read())
    except (OSError, ValueError) as error:
        yield Finding("ECLUSTERCERT", "", f"Failed to load X509 certificate {path}: {error}")
        return
    faults = [*_age(certificate, now), *_strength(certificate)]
    for severity in (ERROR, WARNING):
        texts = [text for found, text in faults if found == severity]
        if texts:
            text = f"While verifying {path}: {', '.join(texts)}"
            yield Finding("ECLUSTERCERT", "", text, severity)
            return


def client_faults(
    nodes: Mapping[str, Node], shown: Mapping[str, Any], listed: Mapping[str, str]
) -> Iterator[Finding]:
    """Yields differences between the certificates that nodes show and the listed ones.

    ``nodes`` are by uuid. ``shown`` has, by uuid, the answers of ``node_verify`` under
    ``client-cert``, of those that answered. ``listed`` are the digests of the candidates'
    certificates in the configuration.
    """
    if not listed:
        yield _fault(
            "The cluster's list of master candidate certificates is empty. This may be because you"
            f" just updated the cluster. {REBUILD}"
        )
        return
    faults = list(_client_faults(nodes, shown, listed))
    yield from map(_fault, faults)
    if faults:
        yield _fault(REBUILD)


def _client_faults(
    nodes: Mapping[str, Node], shown: Mapping[str, Any], listed: Mapping[str, str]
) -> Iterator[str]:
    if len(set(listed.values())) != len(listed):
        yield "There are at least two master candidates configured to use the same certificate."
    for uuid, answer in shown.items():
        node = nodes[uuid]
        if not isinstance(answer, (list, tuple)) or len(answer) != 2:
            yield f"Node '{uuid}' did not tell its client certificate."
            continue
        code, digest = answer
        if code is not None:
            yield (
                f"Client certificate of node '{uuid}' failed validation: {digest} (code '{code}')"
            )
        elif node.master_candidate:
            yield from _candidate_faults(uuid, digest, listed)
        elif uuid in listed:
            yield (
                f"Node '{uuid}' is not a master candidate, but still listed in the map of master"
                " candidate certificates."
            )
        elif digest in listed.values():
            yield (
                f"Node '{uuid}' is not a master candidate and is incorrectly using a certificate of"
                " another node which is master candidate."
            )


def _candidate_faults(uuid: str, digest: str, listed: Mapping[str, str]) -> Iterator[str]:
    expected = listed.get(uuid)
    if expected is None:
        yield (
            f"The master candidate '{uuid}' does not have an entry in the map of candidate"
            " certificates."
        )
        if digest in listed.values():
            yield f"Master candidate '{uuid}' is using a certificate of another node."
    elif digest != expected:
        yield (
            f"Client certificate digest of master candidate '{uuid}' does not match its entry in"
            f" the cluster's map of master candidate certificates. Expected: {expected} Got:"
            f" {digest}"
        )


def _fault(text: str) -> Finding:
    return Finding("ECLUSTERCLIENTCERT", "", text)


def _age(certificate: x509.Certificate, now: float) -> Iterator[tuple[str, str]]:
    begin = certificate.not_valid_before_utc.timestamp()
    end = certificate.not_valid_after_utc.timestamp()
    if end < now:
        yield (
            ERROR,
            f"Certificate is expired (valid from {_moment(begin)} to {_moment(end)})",
        )
    elif begin > now + NODE_MAX_CLOCK_SKEW:
        yield WARNING, f"Certificate not yet valid (valid from {_moment(begin)})"
    else:
        days = int((end - now) / _DAY)
        text = f"Certificate expires in about {days} days"
        if days <= ERROR_DAYS:
            yield ERROR, text
        elif days <= WARN_DAYS:
            yield WARNING, text


def _strength(certificate: x509.Certificate) -> Iterator[tuple[str, str]]:
    renew = "consider running gnt-cluster renew-crypto"
    try:
        algorithm = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        algorithm = None
    if algorithm is not None and algorithm.name in WEAK_HASHES:
        yield WARNING, f"weak signature algorithm '{algorithm.name}', {renew}"
    key = certificate.public_key()
    if isinstance(key, RSAPublicKey) and key.key_size < LEAST_BITS:
        yield (
            WARNING,
            f"weak public/private keypair: {key.key_size} bits, should be at least {LEAST_BITS}"
            f" bits, {renew}",
        )


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
