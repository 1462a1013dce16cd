"""Where to listen: Twisted's endpoint strings, local unless they say otherwise."""

from __future__ import annotations

import re
from typing import Any

from twisted.internet.endpoints import serverFromString

#: Where each kind of endpoint listens that would be open to the network without a word.
_LOOPBACK = {"tcp": "127.0.0.1", "ssl": "127.0.0.1", "tcp6": r"\:\:1"}


def local(text: str) -> str:
    """Returns a server endpoint string that is bound to loopback where it names no interface.

    ``tcp:9100`` becomes ``tcp:9100:interface=127.0.0.1``. Raises ``ValueError`` for a text
    that is no server endpoint. Nothing listens yet.
    """
    parts = re.split(r"(?<!\\):", text)
    address = _LOOPBACK.get(parts[0])
    if address is not None and not any(part.startswith("interface=") for part in parts):
        text = f"{text}:interface={address}"
    unused: Any = None  # the reactor, which is only kept
    try:
        serverFromString(unused, text)
    except Exception as error:  # whatever the endpoint's parser stumbles over
        raise ValueError(f"{text!r} is not a server endpoint of Twisted: {error}") from None
    return text
