"""The master socket, never reachable with wrong permissions (protocol/startup.rst, The socket)."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from collections.abc import Callable

from twisted.internet import tcp
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IListeningPort, IReactorSocket
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from ganeti_masterd import safely
from ganeti_masterd.luxi.prompt import send_promptly

log = Logger()

#: How many connections may wait to be accepted.
BACKLOG = 4096

#: Seconds between two looks at whether the socket still has its name.
LOOK_EVERY = 5.0


class MasterSocket:
    """A listening UNIX socket, bound in a private folder, then linked to its name.

    When Twisted adopts a socket, it makes it accessible to everyone, shortens its backlog, and at
    the end removes the name under which it was bound. That name is the one in the private folder,
    ``PATH.d/q``; ``path`` is a second one. Others may write to the folder that ``path`` is in, so
    the private folder is only used by its descriptor.
    """

    def __init__(self, path: str, mode: int, owner: tuple[int, int] | None = None) -> None:
        self.path = path
        self._mode = mode
        self._owner = owner
        #: The descriptor of the private folder; -1 while there is none.
        self._private = -1
        self._port: IListeningPort | None = None
        self._listen_again: Callable[[], None] = lambda: None
        #: Whether the last :meth:`restore` failed, so that it is logged once.
        self._lost = False

    def listen(self, reactor: IReactorSocket, factory: ServerFactory) -> None:
        """Starts to listen; replaces whatever has the socket's name. Raises ``OSError``."""
        self._listen_again = lambda: self._listen(reactor, factory)
        self._listen_again()

    def _listen(self, reactor: IReactorSocket, factory: ServerFactory) -> None:
        parent = safely.open_folder(os.path.dirname(self.path), make=True)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        private, port = -1, None
        try:
            private = safely.own_folder(parent, self.path + ".d")
            safely.clear(private, "q")
            sock.setblocking(False)
            sock.bind(f"/proc/self/fd/{private}/q")
            port = reactor.adoptStreamPort(sock.fileno(), socket.AF_UNIX, factory)
            send_promptly(port)
            os.chmod("q", self._mode, dir_fd=private)
            if self._owner is not None:
                os.chown("q", *self._owner, dir_fd=private, follow_symlinks=False)
            sock.listen(BACKLOG)
            self._name(parent, private)
        except BaseException:
            if port is not None:
                self._stop(port, private)
            elif private >= 0:
                os.close(private)
            raise
        finally:
            # The reactor has a duplicate of its own.
            sock.close()
            os.close(parent)
        self._port, self._private = port, private

    def _name(self, parent: int, private: int) -> None:
        """Gives the bound socket its name, in place of anything that has it."""
        name = os.path.basename(self.path)
        fresh = f".{name}.{secrets.token_hex(8)}"
        os.link("q", fresh, src_dir_fd=private, dst_dir_fd=parent, follow_symlinks=False)
        try:
            try:
                os.rename(fresh, name, src_dir_fd=parent, dst_dir_fd=parent)
            except IsADirectoryError:
                safely.clear(parent, name)
                os.rename(fresh, name, src_dir_fd=parent, dst_dir_fd=parent)
        except BaseException:
            safely.clear(parent, fresh)
            raise

    def restore(self) -> None:
        """Gives the socket its name again where it was removed, or stands for something else.

        To be called every now and then. A failure is logged, the first of several.
        """
        if self._port is None:
            return
        try:
            done = self._restore()
        except OSError as error:
            if not self._lost:
                log.error(
                    "The socket {path} can't be made again: {error}", path=self.path, error=error
                )
            self._lost = True
        else:
            self._lost = False
            if done:
                log.warn("The socket {path} was gone: it is there again", path=self.path)

    def _restore(self) -> bool:
        """Returns whether anything had to be done."""
        try:
            bound = os.stat("q", dir_fd=self._private, follow_symlinks=False)
        except FileNotFoundError:
            port, private = self._port, self._private
            self._listen_again()
            assert port is not None
            self._stop(port, private)
            return True
        parent = safely.open_folder(os.path.dirname(self.path))
        try:
            with contextlib.suppress(FileNotFoundError):
                named = os.stat(os.path.basename(self.path), dir_fd=parent, follow_symlinks=False)
                if os.path.samestat(named, bound):
                    return False
            self._name(parent, self._private)
            return True
        finally:
            os.close(parent)

    def close(self) -> Deferred[None]:
        """Stops accepting and removes the socket; connections stay as they are.

        Fires when its private folder is gone too.
        """
        port, self._port = self._port, None
        private, self._private = self._private, -1
        if port is None:
            return succeed(None)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        return self._stop(port, private).addCallback(lambda _: self._remove_folder())

    def _stop(self, port: IListeningPort, private: int) -> Deferred[None]:
        """Closes a port and the descriptor of the folder that it was bound in."""

        def closed(_: object) -> None:
            os.close(private)

        return (
            maybeDeferred(self._stop_port, port, private)
            .addErrback(lambda failure: log.failure("A socket could not be closed", failure))
            .addCallback(closed)
        )

    def _stop_port(self, port: IListeningPort, private: int) -> Deferred[None] | None:
        # Twisted removes the file, and fails half way if there is none.
        with contextlib.suppress(FileExistsError):
            try:
                os.close(os.open("q", os.O_CREAT | os.O_EXCL, 0o600, dir_fd=private))
            except FileNotFoundError:  # the folder is gone too, so Twisted's step is left out
                assert isinstance(port, tcp.Port)
                port.stopReading()
                tcp.Port.connectionLost(port, Failure(ConnectionDone()))
                return None
        return port.stopListening()

    def _remove_folder(self) -> None:
        with contextlib.suppress(OSError):
            os.rmdir(self.path + ".d")
