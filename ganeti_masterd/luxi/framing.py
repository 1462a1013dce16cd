"""Framing: a stream of chunks in, whole LUXI messages out.

A message ends with the byte 0x03 (protocol/luxi.rst, Framing). JSON can't hold that byte bare, so
nothing needs escaping.
"""

from __future__ import annotations

from ganeti_masterd.constants import LUXI_EOM
from ganeti_masterd.errors import LuxiError

#: The most bytes that a message may have unless told otherwise. The largest that
#: real tools send (thousands of jobs at once) stay below half of it; to read one that is
#: larger would keep other clients waiting.
MAX_MESSAGE_SIZE = 8 * 1024 * 1024


class MessageTooLarge(LuxiError):
    """A message is longer than the limit; the rest of the stream makes no sense."""


class Framer:
    """Cuts one stream into messages; knows no transport.

    ``feed`` takes what arrived, ``take`` gives the messages one by one. Each byte is
    searched once however the stream is split: ``scanned`` counts them. At most
    ``limit`` bytes of a message that is not yet whole, and one chunk, are kept.
    """

    __slots__ = ("_buffer", "_scan", "_start", "limit", "scanned")

    def __init__(self, limit: int = MAX_MESSAGE_SIZE) -> None:
        self.limit = limit
        self.scanned = 0
        self._buffer: bytes | bytearray = b""
        self._start = 0  # where the first message that is still here begins
        self._scan = 0  # nothing before it is left to search

    @property
    def buffered(self) -> int:
        """How many bytes were fed and not yet taken."""
        return len(self._buffer) - self._start

    def feed(self, chunk: bytes) -> None:
        """Takes the next bytes of the stream. A chunk fed to an empty framer isn't copied."""
        buffer = self._buffer
        if not buffer:
            self._buffer = chunk
            return
        start = self._start
        if isinstance(buffer, bytearray):
            del buffer[:start]
        else:
            self._buffer = buffer = bytearray(memoryview(buffer)[start:])
        buffer += chunk
        self._scan -= start
        self._start = 0

    def take(self) -> bytes | None:
        """Returns the next whole message without its end byte, or null if none is here.

        Raises ``MessageTooLarge`` as soon as more than ``limit`` bytes of one message are
        here, whether or not its end is. The framer is then empty.
        """
        buffer = self._buffer
        if not buffer:
            return None
        start = self._start
        end = buffer.find(LUXI_EOM, self._scan)
        if end < 0:
            size = len(buffer)
            self.scanned += size - self._scan
            self._scan = size
            if size - start > self.limit:
                raise self._too_large()
            return None
        following = end + 1
        self.scanned += following - self._scan
        if end - start > self.limit:
            raise self._too_large()
        if isinstance(buffer, bytes):
            message = buffer[start:end]
        else:
            with memoryview(buffer) as view:
                message = bytes(view[start:end])
        if following == len(buffer):
            self.clear()
        else:
            self._start = self._scan = following
        return message

    def clear(self) -> None:
        """Drops whatever is here."""
        self._buffer = b""
        self._start = self._scan = 0

    def _too_large(self) -> MessageTooLarge:
        self.clear()
        return MessageTooLarge(f"A message of more than {self.limit} bytes is not accepted")
