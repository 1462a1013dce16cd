"""Where to listen: Twisted's endpoint strings, bound to loopback by default."""

from __future__ import annotations

import re
from typing import Any

from twisted.internet.endpoints import serverFromString

#: The loopback address for each kind of endpoint that by default listens on all interfaces.
_LOOPBACK = {"tcp": "127.0.0.1", "ssl": "127.0.0.1", "tcp6": r"\:\:1"}


def local(text: str) -> str:
    """Returns a server endpoint string that is bound to loopback if it names no interface.

    ``tcp:9100`` becomes ``tcp:9100:interface=127.0.0.1``. Raises ``ValueError`` if the text
    isn't a server endpoint. Doesn't start listening.
    """
    parts = re.split(r"(?<!\\):", text)
    address = _LOOPBACK.get(parts[0])
    if address is not None and not any(part.startswith("interface=") for part in parts):
        text = f"{text}:interface={address}"
    unused: Any = None  # the reactor, which isn't used until something listens
    try:
        serverFromString(unused, text)
    except Exception as error:  # the parsers of endpoints raise anything
        raise ValueError(f"{text!r} is not a server endpoint of Twisted: {error}") from None
    return text


def private(text: str) -> bool:
    """Whether nobody on the way can read what goes over an endpoint that :func:`local` returned.

    It is a UNIX socket, has TLS, or is bound to loopback.
    """
    kind, *parts = re.split(r"(?<!\\):", text)
    if kind in ("unix", "ssl"):
        return True
    interfaces = [part.partition("=")[2] for part in parts if part.startswith("interface=")]
    return bool(interfaces) and all(
        re.fullmatch(r"127(\.[0-9]{1,3}){3}|localhost|::1", each.replace("\\", ""))
        for each in interfaces
    )
