"""Decoding JSON from outside (files, output of scripts), with one error for every fault.

And how deep a decoded document is nested, of which the decoder allows far more than others do.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

_CONTAINERS = frozenset((list, dict))


def decode_json(document: bytes | str, kind: type[T]) -> T:
    """Returns a JSON document as a value of that type.

    Raises ``msgspec.DecodeError`` if the document is malformed, isn't UTF-8 or is nested
    too deeply (msgspec itself raises other errors for the last two), and its subclass
    ``msgspec.ValidationError`` for a value of another type.
    """
    try:
        return msgspec.json.decode(document, type=kind)
    except UnicodeError as error:
        raise msgspec.DecodeError(f"not UTF-8 text: {error}") from None
    except RecursionError:
        raise msgspec.DecodeError("nested too deep") from None


#: From how many bytes on a list or an object is decoded entry by entry, and how many levels deep.
_LARGE = 1 << 16
_LEVELS = 4

_plain = msgspec.json.Decoder().decode
_entries = msgspec.json.Decoder(list[msgspec.Raw]).decode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def decode_in_pieces(document: bytes | bytearray) -> Any:
    """Decodes JSON as ``msgspec.json.decode`` does, and raises what that raises.

    The decoder holds the interpreter lock for as long as a call takes. Here it is called for
    each entry of what is large, so that other threads run in between: for a third more time in
    all, none waits for long.
    """
    try:
        return _in_pieces(document, _LEVELS)
    except (ValueError, RecursionError, msgspec.MsgspecError):
        return _plain(document)  # whose error says where in the whole it is


def _in_pieces(document: bytes | bytearray | msgspec.Raw, levels: int) -> Any:
    with memoryview(document) as view:
        size, first = len(view), bytes(view[:1])
    if size < _LARGE or not levels or first not in (b"[", b"{"):
        return _plain(document)
    levels -= 1
    if first == b"[":
        return [_in_pieces(entry, levels) for entry in _entries(document)]
    return {name: _in_pieces(entry, levels) for name, entry in _members(document).items()}


def deeper_than(document: bytes | bytearray, value: Any, limit: int) -> bool:
    """Whether containers stand deeper than ``limit`` in each other, level by level.

    ``value`` is what ``document`` decodes to.
    """
    # A level takes two bytes at least, so that most documents need no closer look.
    if len(document) <= 2 * limit or document.count(b"[") + document.count(b"{") <= limit:
        return False
    level = [value] if type(value) in _CONTAINERS else []
    for _ in range(limit):
        if not level:
            return False
        level = [
            child
            for container in level
            for child in (container.values() if type(container) is dict else container)
            if type(child) in _CONTAINERS
        ]
    return bool(level)
