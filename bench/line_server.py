"""The bare server that LUXI's is measured against: Twisted's LineReceiver and json.

It reads requests that end with 0x03 and answers each with the same small reply. Run it
as ``python bench/line_server.py SOCKET`` and load it with any LUXI client.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.internet.task import react
from twisted.protocols.basic import LineReceiver

REPLY = {"success": True, "result": {"name": "cluster.example.com", "uuid": "0" * 36}}


class Bare(LineReceiver):
    """Parses each request and answers it with :data:`REPLY`."""

    delimiter = b"\x03"
    MAX_LENGTH = 32 * 1024 * 1024

    def lineReceived(self, line: bytes) -> None:
        """Answers one request."""
        json.loads(line)
        self.sendLine(json.dumps(REPLY, separators=(",", ":")).encode())


def main(reactor: Any, path: str) -> Deferred[None]:
    """Serves on the UNIX socket ``path`` until interrupted."""
    reactor.listenUNIX(path, Factory.forProtocol(Bare), backlog=1024)
    return Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
