"""Many LUXI clients in one thread, cheap enough to wear out the server first.

A client is a *script*: a generator that yields a request's bytes and is given
its reply, or yields a number of seconds to pause. :class:`Crowd` runs one
script on each connection over epoll. Between reply and next request lie two
system calls and little else; an event loop with streams or Deferreds costs
several times that, and would measure itself.
"""

from __future__ import annotations

import contextlib
import heapq
import select
import socket
import struct
from collections.abc import Generator
from time import perf_counter

EOM = 0x03
CHUNK = 1 << 18

#: Yields requests (with their end mark) or pauses; receives replies, null after a pause.
Script = Generator[bytes | float, bytes | None, None]


class Failed(Exception):
    """The server answered with an error, or what it sent makes no sense."""


class _Client:
    """One connection and the script that it plays."""

    __slots__ = ("blocked", "received", "script", "sock", "unsent")

    def __init__(self, sock: socket.socket, script: Script | None) -> None:
        self.sock = sock
        self.script = script
        self.received = bytearray()
        self.unsent = b""
        self.blocked = False


class Crowd:
    """Clients of one UNIX socket.

    ``lost`` counts connections that the server closed before their script
    ended, or while they were idle.
    """

    def __init__(self, path: str, connect_timeout: int = 30) -> None:
        self._path = path
        self._timeout = connect_timeout
        self._poll = select.epoll()
        self._clients: dict[int, _Client] = {}
        self._pauses: list[tuple[float, int]] = []
        self._playing = 0
        # One for all reads: a fresh buffer of this size for each costs more than the read.
        self._buffer = memoryview(bytearray(CHUNK))
        self.lost = 0

    def add(self, script: Script | None = None) -> None:
        """Connects one client; without a script it stays idle until :meth:`close`."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Connects blocking, so that a full backlog waits instead of failing at once. Python's
        # own timeout would make it non-blocking; the kernel's doesn't.
        limit = struct.pack("ll", self._timeout, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        sock.connect(self._path)
        sock.setblocking(False)
        client = _Client(sock, script)
        self._clients[sock.fileno()] = client
        self._poll.register(sock.fileno(), select.EPOLLIN)
        if script is not None:
            self._playing += 1
            self._advance(client, None)

    def run(self) -> None:
        """Plays until every script has ended; a script's exception comes through."""
        clients = self._clients
        while self._playing:
            wait = -1.0
            if self._pauses:
                wait = self._wake()
                if not self._playing:
                    break
            for fd, event in self._poll.poll(wait):
                client = clients.get(fd)
                if client is None:
                    continue
                if event & select.EPOLLOUT:
                    self._flush(client)
                if event & ~select.EPOLLOUT:
                    self._read(client)

    def close(self) -> None:
        """Closes every connection that is left."""
        for client in list(self._clients.values()):
            self._drop(client)
        self._poll.close()

    def _read(self, client: _Client) -> None:
        try:
            size = client.sock.recv_into(self._buffer)
        except BlockingIOError:
            return
        except ConnectionError:
            size = 0
        if not size:
            self.lost += 1
            self._drop(client)
            return
        data = self._buffer[:size]
        if data[-1] != EOM:
            client.received += data
        elif client.received:
            client.received += data[:-1]
            reply = bytes(client.received)
            client.received.clear()
            self._advance(client, reply)
        else:
            self._advance(client, bytes(data[:-1]))

    def _advance(self, client: _Client, reply: bytes | None) -> None:
        """Gives the script its reply and does what it asks for next."""
        script = client.script
        if script is None:
            raise Failed(f"an idle connection was sent {reply!r}")
        try:
            step = next(script) if reply is None else script.send(reply)
        except StopIteration:
            self._drop(client)
            return
        if isinstance(step, bytes):
            client.unsent = step
            self._flush(client)
        else:
            heapq.heappush(self._pauses, (perf_counter() + step, client.sock.fileno()))

    def _flush(self, client: _Client) -> None:
        try:
            sent = client.sock.send(client.unsent)
        except BlockingIOError:
            sent = 0
        except ConnectionError:
            return  # reading finds the end of the connection
        client.unsent = client.unsent[sent:]
        if client.blocked != bool(client.unsent):
            client.blocked = not client.blocked
            mask = select.EPOLLIN | (select.EPOLLOUT if client.blocked else 0)
            self._poll.modify(client.sock.fileno(), mask)

    def _wake(self) -> float:
        """Ends the pauses that are over; returns the seconds to the next, -1 for none."""
        while self._pauses:
            left = self._pauses[0][0] - perf_counter()
            if left > 0:
                return left
            _, fd = heapq.heappop(self._pauses)
            if fd in self._clients:
                self._advance(self._clients[fd], None)
        return -1.0

    def _drop(self, client: _Client) -> None:
        fd = client.sock.fileno()
        if self._clients.pop(fd, None) is None:
            return
        if client.script is not None:
            self._playing -= 1
            client.script.close()
        with contextlib.suppress(OSError):
            self._poll.unregister(fd)
        client.sock.close()
