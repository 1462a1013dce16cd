"""Who is at the other end of a connection, and whether it is still there."""

from __future__ import annotations

import select
import socket
import struct
from typing import Any

import msgspec
from twisted.internet.interfaces import ISystemHandle

#: The kernel's ``struct ucred``: pid, uid, gid.
_CREDENTIALS = struct.Struct("=iII")


class Peer(msgspec.Struct, frozen=True):
    """A client: the number of its connection, counted from 1, and who it is.

    ``uid``, ``pid`` and ``gid`` are those at the time of its connect, as the kernel says;
    null where the connection isn't a UNIX socket.
    """

    connection: int
    uid: int | None = None
    pid: int | None = None
    gid: int | None = None

    @property
    def credentials(self) -> str:
        """Who it is as ``uid=0;pid=123``; empty where that isn't known."""
        return "" if self.uid is None else f"uid={self.uid};pid={self.pid}"


def peer_of(transport: Any, connection: int) -> Peer:
    """Returns the peer of a transport; one without credentials if it has none."""
    handle = _socket(transport)
    if handle is None or handle.family != socket.AF_UNIX:
        return Peer(connection)
    try:
        raw = handle.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except OSError:
        return Peer(connection)
    pid, uid, gid = _CREDENTIALS.unpack(raw)
    return Peer(connection, uid=uid, pid=pid, gid=gid)


def hung_up(transport: Any) -> bool:
    """Whether the other end is closed for good, and not only done with sending.

    On a UNIX socket the kernel tells the two apart. Without a socket: false.
    """
    handle = _socket(transport)
    if handle is None:
        return False
    try:
        poll = select.poll()
        poll.register(handle.fileno(), 0)
        return bool(poll.poll(0))
    except (OSError, ValueError):  # closed on this side
        return True


def _socket(transport: Any) -> socket.socket | None:
    if not ISystemHandle.providedBy(transport):
        return None
    handle = transport.getHandle()
    return handle if isinstance(handle, socket.socket) else None
