"""Edits: what changed in a large document since the state before it. Pure.

Each step of a job changes one opcode. A job of hundreds of them would cost the journal its
whole document each time, which grows with the square of their number.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

#: From how many bytes on a document is worth an edit.
LARGE = 4096

#: What stands between two opcodes of a job's document. Only a hint to where changes are
#: apart from each other: any two documents have an edit.
_BETWEEN = b'},{"input":'

#: What a hunk costs beside its bytes.
_OVERHEAD = 16

#: A range of the document before, from and to, and the bytes that take its place.
Hunk = tuple[int, int, bytes]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Hunk]).decode


def edit_between(before: bytes, after: bytes) -> bytes | None:
    """Returns the edit that makes ``after`` of ``before``.

    None where the whole document is as good: it is small, or more than half of it changed.
    """
    if len(after) < LARGE:
        return None
    hunks = list(_hunks(before, after))
    if sum(len(new) + _OVERHEAD for _, _, new in hunks) > len(after) // 2:
        return None
    return _encode(hunks)


def apply_edit(before: bytes, edit: bytes) -> bytes:
    """Returns the document that an edit makes; ``ValueError`` if it is no edit of ``before``."""
    try:
        hunks = _decode(edit)
    except msgspec.DecodeError as error:
        raise ValueError(f"not an edit: {error}") from None
    pieces = []
    place = 0
    for start, end, new in hunks:
        if not place <= start <= end <= len(before):
            raise ValueError("an edit of another document")
        pieces += [before[place:start], new]
        place = end
    return b"".join([*pieces, before[place:]])


def _hunks(before: bytes, after: bytes) -> Iterator[Hunk]:
    old, new = before.split(_BETWEEN), after.split(_BETWEEN)
    if len(old) != len(new):
        old, new = [before], [after]
    place = 0
    for was, now in zip(old, new, strict=True):
        if was != now:
            start = _common_start(was, now)
            end = _common_end(was, now, min(len(was), len(now)) - start)
            yield place + start, place + len(was) - end, now[start : len(now) - end]
        place += len(was) + len(_BETWEEN)


def _common_start(one: bytes, other: bytes) -> int:
    """Returns how many bytes are the same from the start, by halving: slices compare fast."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _common_end(one: bytes, other: bytes, most: int) -> int:
    """Returns how many bytes are the same from the end, up to ``most``."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if one[len(one) - middle : len(one) - low] == other[len(other) - middle : len(other) - low]:
            low = middle
        else:
            high = middle - 1
    return low
