"""A UNIX connection that sends an answer at once instead of in the reactor's next turn.

Twisted's own takes three system calls and a turn of the loop for what is one: the
socket almost always has room for an answer. Where it has not, Twisted sends the rest.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.interfaces import IListeningPort


class PromptServer(unix.Server):
    """A server's connection as Twisted makes it, but for what is here."""

    #: Bytes that may wait here before the protocol is told to pause. Of a slice that doesn't fit
    #: the kernel has most.
    bufferSize = 1 << 14

    def doRead(self) -> Any:
        """Reads as from a TCP socket; descriptors that a client may send along are dropped."""
        return tcp.Connection.doRead(self)

    def write(self, data: bytes) -> None:
        """Sends what the socket takes now, after which the reactor sends the rest.

        What was written before, and could not be sent yet, goes first.
        """
        if self.connected and not self._writeDisconnected and not self._pending:
            sent: Any = self.writeSomeData(data)
            # A broken connection (an exception) is the reactor's to find and to report.
            if isinstance(sent, int):
                if sent == len(data):
                    return
                data = data[sent:]
        super().write(data)

    @property
    def _pending(self) -> bool:
        return bool(self.dataBuffer or self._tempDataBuffer)


def send_promptly(port: IListeningPort) -> None:
    """Lets a UNIX port make its connections :class:`PromptServer`."""
    assert isinstance(port, unix.Port)
    port.transport = PromptServer
