"""The master socket, never reachable with wrong permissions (protocol/startup.rst, The socket)."""

from __future__ import annotations

import contextlib
import os
import socket

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IListeningPort, IReactorSocket
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger

from ganeti_masterd.luxi.prompt import send_promptly

log = Logger()

#: How many connections may wait to be accepted.
BACKLOG = 4096


class MasterSocket:
    """A listening UNIX socket, bound in a private folder, then linked to its name.

    When Twisted adopts a socket, it makes it accessible to everyone, shortens its backlog, and at
    the end removes the name under which it was bound. That name is the one in the private folder,
    ``PATH.d/q``; ``path`` is a second one.
    """

    def __init__(self, path: str, mode: int, owner: tuple[int, int] | None = None) -> None:
        self.path = path
        self._mode = mode
        self._owner = owner
        self._folder = path + ".d"
        self._port: IListeningPort | None = None

    def listen(self, reactor: IReactorSocket, factory: ServerFactory) -> None:
        """Starts to listen; replaces a stale socket file. Raises ``OSError``."""
        bound, named = self._folder + "/q", self.path + ".new"
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        os.chmod(self._folder, 0o700)
        for stale in (bound, named):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(stale)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.bind(bound)
            self._port = reactor.adoptStreamPort(sock.fileno(), socket.AF_UNIX, factory)
            send_promptly(self._port)
            os.chmod(bound, self._mode)
            if self._owner is not None:
                os.chown(bound, *self._owner)
            sock.listen(BACKLOG)
            os.link(bound, named)
            os.rename(named, self.path)
        finally:
            # The reactor has a duplicate of its own.
            sock.close()

    def close(self) -> Deferred[None]:
        """Stops accepting and removes the socket; connections stay as they are.

        Fires when its private folder is gone too.
        """
        port, self._port = self._port, None
        if port is None:
            return succeed(None)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        return (
            maybeDeferred(port.stopListening)
            .addErrback(lambda failure: log.failure("A socket could not be closed", failure))
            .addCallback(lambda _: self._remove_folder())
        )

    def _remove_folder(self) -> None:
        with contextlib.suppress(OSError):
            os.rmdir(self._folder)
