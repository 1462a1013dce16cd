"""Which requests are answered: those that were meant for this daemon, and come from no web site.

A web site can have its own name resolve to 127.0.0.1 ("DNS rebinding"). Its pages could then read
whatever a local port serves, in the browser of an administrator: to the browser it is all one
site. What gives it away is the header Host, which has the site's name. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from ipaddress import ip_address

#: A host with an optional port, as the header Host has it.
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{0,5})?", re.IGNORECASE)

#: A name of a host, as ``--monitoring-hosts`` takes it.
_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")

#: What a browser says of requests that pages of other sites make (W3C Fetch Metadata).
_FOREIGN = (b"cross-site", b"same-site")


def host_names(text: str) -> tuple[str, ...]:
    """Returns the names of hosts in a list with commas; raises ``ValueError`` for anything else."""
    names = tuple(name.strip().lower().rstrip(".") for name in text.split(","))
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of a host, without port")
    return names


def bare_host(value: str) -> str | None:
    """Returns the host in a value of the header Host, in lower case; None if it is none."""
    found = _HOST.fullmatch(value)
    return None if found is None else found["name"].lower().rstrip(".").strip("[]")


class KnownHosts:
    """The hosts that this daemon may be asked for by.

    Always known are ``localhost`` and IP addresses: a name can be made to resolve to another
    address, an address can't. ``own`` returns the names of this cluster and its master, and
    ``named`` are those that were configured.
    """

    def __init__(self, own: Callable[[], Iterable[str]], named: Iterable[str] = ()) -> None:
        self._own = own
        self._named = frozenset(named)

    def __contains__(self, value: str) -> bool:
        """Whether a value of the header Host is one of them; its port doesn't matter."""
        host = bare_host(value)
        if host is None:
            return False
        if host == "localhost" or host in self._named or _is_address(host):
            return True
        return any(host in (own, own.partition(".")[0]) for own in map(str.lower, self._own()))


def foreign(site: bytes | None, mode: bytes | None) -> bool:
    """Whether a page of another web site makes the request, by ``Sec-Fetch-Site`` and ``-Mode``.

    Links on other sites (mode ``navigate``) may be followed: that site sees nothing of the answer.
    """
    return site in _FOREIGN and mode != b"navigate"


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
