"""What a scrape reads of this node's disk: when certificates expire, and how much room is left.

A certificate is parsed again only when its file has changed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Protocol

from cryptography import x509


class MonitoredFiles(Protocol):
    """The files of the master node that monitoring looks at."""

    def expiries(self) -> dict[str, float]:
        """Returns when each certificate expires (epoch); those that can't be read are missing."""

    def room(self) -> tuple[int, int] | None:
        """Returns the bytes that are free for the daemon, and all; None if that can't be told."""


class NoFiles:
    """No files at all."""

    def expiries(self) -> dict[str, float]:
        """Returns nothing."""
        return {}

    def room(self) -> tuple[int, int] | None:
        """Returns None."""
        return None


class NodeFiles:
    """The files of this node.

    ``certificates`` are paths by the names they are shown with; ``folder`` is where there has to be
    room.
    """

    def __init__(self, certificates: Mapping[str, str], folder: str) -> None:
        self._certificates = certificates
        self._folder = folder
        #: What a file was when it was parsed, and when its certificate expires.
        self._known: dict[str, tuple[tuple[int, int, int], float | None]] = {}

    def expiries(self) -> dict[str, float]:
        """See :class:`MonitoredFiles`. A cluster needn't have each of the files."""
        found = {name: self._expiry(path) for name, path in self._certificates.items()}
        return {name: expiry for name, expiry in found.items() if expiry is not None}

    def room(self) -> tuple[int, int] | None:
        """See :class:`MonitoredFiles`."""
        try:
            found = os.statvfs(self._folder)
        except OSError:
            return None
        return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize

    def _expiry(self, path: str) -> float | None:
        try:
            found = os.stat(path)
            mark = found.st_ino, found.st_mtime_ns, found.st_size
            known = self._known.get(path)
            if known is None or known[0] != mark:
                known = self._known[path] = mark, _parsed(path)
        except OSError:
            self._known.pop(path, None)
            return None
        return known[1]


def _parsed(path: str) -> float | None:
    """Returns when the first certificate to expire of a PEM file does; None if it has none."""
    with open(path, "rb") as file:
        content = file.read()
    try:
        certificates = x509.load_pem_x509_certificates(content)
    except ValueError:
        return None
    return min(each.not_valid_after_utc.timestamp() for each in certificates)
