"""The master socket: at no time reachable with wrong rights (spec masterd 4)."""

from __future__ import annotations

import contextlib
import os
import socket

from twisted.internet.interfaces import IListeningPort, IReactorSocket
from twisted.internet.protocol import ServerFactory

#: How many connections may wait to be accepted.
BACKLOG = 4096


class MasterSocket:
    """A listening UNIX socket, bound under a temporary name and then renamed."""

    def __init__(self, path: str, mode: int, owner: tuple[int, int] | None = None) -> None:
        self.path = path
        self._mode = mode
        self._owner = owner
        self._port: IListeningPort | None = None

    def listen(self, reactor: IReactorSocket, factory: ServerFactory) -> None:
        """Starts to listen; replaces a stale socket file. Raises ``OSError``."""
        temporary = self.path + ".new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.bind(temporary)
            os.chmod(temporary, self._mode)
            if self._owner is not None:
                os.chown(temporary, *self._owner)
            sock.listen(BACKLOG)
            self._port = reactor.adoptStreamPort(sock.fileno(), socket.AF_UNIX, factory)
            os.rename(temporary, self.path)
        finally:
            # The reactor has a duplicate of its own.
            sock.close()

    def close(self) -> None:
        """Stops accepting and removes the socket; connections stay as they are."""
        port, self._port = self._port, None
        if port is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)
            port.stopListening()
