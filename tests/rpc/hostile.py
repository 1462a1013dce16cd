"""Nodes that hold the cluster's certificate and answer like enemies: floods, rubbish, silence."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IPullProducer
from twisted.internet.protocol import Protocol
from zope.interface import implementer

from tests.rpc.peers import Daemon, Peer, _fire


@implementer(IPullProducer)
class _Flooder(Daemon):
    """Reads a request, then sends a beginning and one piece over and over, until cut off."""

    factory: Flood

    def _answer(self, body: bytes) -> None:
        self.factory.asked(self._line, self._headers, body)
        self.transport.write(self.factory.begin)
        self.transport.registerProducer(self, False)

    def resumeProducing(self) -> None:
        """Sends another piece, as the transport has room."""
        self.factory.pieces += 1
        self.transport.write(self.factory.piece)

    def stopProducing(self) -> None:
        """Does nothing: the connection is gone."""


class Flood(Peer):
    """Answers each request with ``begin``, and then ``piece`` for ever, as fast as it is read."""

    protocol = _Flooder

    def __init__(self, begin: bytes, piece: bytes) -> None:
        super().__init__()
        self.begin = begin
        self.piece = piece
        self.pieces = 0


class _Stubborn(Daemon):
    """Answers, and from then on looks at nothing: it takes no part in an end of TLS."""

    def _answer(self, body: bytes) -> None:
        super()._answer(body)
        # What comes stays below TLS, where the other side's end would be seen.
        self.transport.dataReceived = lambda data: None


class Stubborn(Peer):
    """Gives one answer of raw bytes to each request and never closes."""

    protocol = _Stubborn

    def __init__(self, answer: bytes) -> None:
        super().__init__(answer, closes=False)


class _Records(Daemon):
    """Goes through the handshake, reads a request, and answers below TLS with other bytes."""

    factory: Any

    def _answer(self, body: bytes) -> None:
        self.factory.asked(self._line, self._headers, body)
        self.transport.transport.write(self.factory.answer)


class Records(Peer):
    """Answers each request with bytes that are no, or no good, TLS records."""

    protocol = _Records


class _Greeter(Protocol):
    """Sends bytes as soon as somebody connects, without TLS."""

    factory: Peer

    def connectionMade(self) -> None:
        self.factory.connections.append(self)
        self.transport.write(self.factory.answer)
        _fire(self.factory.asking)

    def connectionLost(self, reason: Any = None) -> None:
        self.factory.connections.remove(self)
        _fire(self.factory.losing)


class Greeter(Peer):
    """What listens on the port instead of TLS: ``answer`` is what it says first."""

    protocol = _Greeter
