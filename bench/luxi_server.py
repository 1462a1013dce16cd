"""LUXI's server with an answer that costs nothing, to be compared with ``line_server.py``.

Run it as ``python bench/luxi_server.py SOCKET``.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from line_server import REPLY
from twisted.internet.defer import Deferred
from twisted.internet.task import react

from ganeti_masterd.luxi.factory import LuxiFactory
from ganeti_masterd.luxi.messages import Encoded, Request
from ganeti_masterd.luxi.peers import Peer
from ganeti_masterd.timing import Timers

RESULT = Encoded(json.dumps(REPLY["result"], separators=(",", ":")).encode())


def answer(request: Request, peer: Peer) -> Encoded:
    """Returns the same small result for each request."""
    return RESULT


def main(reactor: Any, path: str) -> Deferred[None]:
    """Serves on the UNIX socket ``path`` until interrupted."""
    reactor.listenUNIX(path, LuxiFactory(answer, Timers(reactor)), backlog=1024)
    return Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
