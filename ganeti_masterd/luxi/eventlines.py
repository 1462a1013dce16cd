"""A client's side of ``/events``: the request, and messages out of the bytes that come. Pure.

HTTP/1.0 is asked for, as its response is the plain stream: no chunks, and no second request.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ganeti_masterd.luxi.documents import ProtocolError

#: The longest head of a response, and the longest message, in bytes.
LONGEST_HEAD, LONGEST_LINE = 1 << 16, 1 << 28


def event_request(since: int | None = None) -> bytes:
    """Returns the request for the stream, from after the message ``since`` on."""
    query = "format=jsonl" if since is None else f"format=jsonl&since={since}"
    return f"GET /events?{query} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode("ascii")


class EventLines:
    """Takes a response apart as it comes."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._in_head = True
        #: The text of a refusal, whose end is the end of the connection.
        self._refused: bytes | None = None

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """Returns the messages that are whole by now.

        Raises ``ProtocolError`` for what is no stream of events.
        """
        self._data += data
        if self._in_head and not self._take_head():
            return []
        if self._refused is not None:
            return []
        *lines, rest = self._data.split(b"\n")
        if len(rest) > LONGEST_LINE:
            raise ProtocolError("A message is too long")
        self._data = bytearray(rest)
        return [self._message(bytes(line)) for line in lines if line.strip()]

    def ended(self) -> str:
        """Returns why there is no more, once the connection has ended."""
        if self._refused is not None:
            text = bytes(self._data[:1000]).decode("utf-8", "replace").strip()
            return f"{self._refused.decode('latin-1')}: {text}"
        return "the connection was lost"

    def _take_head(self) -> bool:
        head, end, body = self._data.partition(b"\r\n\r\n")
        if not end:
            if len(head) > LONGEST_HEAD:
                raise ProtocolError("This is no HTTP server")
            return False
        first, *_ = bytes(head).split(b"\r\n")
        words = first.split(b" ", 2)
        if not words[0].startswith(b"HTTP/1.") or len(words) < 2:
            raise ProtocolError("This is no HTTP server")
        if words[1] != b"200":
            self._refused = b" ".join(words[1:])
        elif b"application/x-ndjson" not in bytes(head).lower():
            raise ProtocolError("This server has no stream of events")
        self._in_head = False
        self._data = bytearray(body)
        return True

    @staticmethod
    def _message(line: bytes) -> dict[str, Any]:
        try:
            message = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ProtocolError(f"A message is no JSON: {error}") from None
        if not isinstance(message, dict) or not isinstance(message.get("event"), str):
            raise ProtocolError("A message is no event")
        if type(message.get("seq")) is not int:
            raise ProtocolError("A message has no number")
        return message
