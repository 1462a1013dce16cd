"""Who is at the other end: what the kernel says, each number in its place."""

from __future__ import annotations

import os
import socket
import struct
from typing import Any

from twisted.internet.interfaces import ISystemHandle
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from ganeti_masterd.luxi.peers import Peer, peer_of


class Told(socket.socket):
    """A socket whose other end is another user's, as far as the kernel says."""

    def getsockopt(self, *asked: Any) -> Any:
        if asked[:2] != (socket.SOL_SOCKET, socket.SO_PEERCRED):
            raise OSError
        return struct.pack("=iII", 4711, 1001, 2002)


@implementer(ISystemHandle)
class Transport:
    """A transport on a socket."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def getHandle(self) -> Any:
        return self._handle


class PeerTests(SynchronousTestCase):
    """The peer of a transport."""

    def transport(self, kind: type[socket.socket], family: int = socket.AF_UNIX) -> Transport:
        """Returns a transport on a socket of its own."""
        made = kind(family, socket.SOCK_STREAM)
        self.addCleanup(made.close)
        return Transport(made)

    def test_credentials(self) -> None:
        """Process, user and group are those that the kernel names, and not this process's."""
        peer = peer_of(self.transport(Told), 3)
        self.assertEqual(peer, Peer(3, uid=1001, pid=4711, gid=2002))
        self.assertEqual(peer.credentials, "uid=1001;pid=4711")

    def test_own(self) -> None:
        """The layout is the kernel's: of a pair of this process's sockets it is this process."""
        one, other = socket.socketpair()
        self.addCleanup(one.close)
        self.addCleanup(other.close)
        expected = Peer(1, uid=os.geteuid(), pid=os.getpid(), gid=os.getegid())
        self.assertEqual(peer_of(Transport(one), 1), expected)

    def test_nobody(self) -> None:
        """What isn't a UNIX socket is nobody's: no user, never root."""
        for transport in (
            self.transport(Told, socket.AF_INET),
            Transport("no socket"),
            object(),
        ):
            peer = peer_of(transport, 2)
            self.assertEqual((peer, peer.credentials), (Peer(2), ""))
