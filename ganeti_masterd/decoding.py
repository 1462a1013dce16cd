"""JSON that others wrote, such as files and what scripts print: one error for all that is wrong."""

from __future__ import annotations

from typing import TypeVar

import msgspec

T = TypeVar("T")


def decode_json(document: bytes | str, kind: type[T]) -> T:
    """Returns a JSON document as a value of that type.

    Raises ``msgspec.DecodeError`` for what is malformed, no UTF-8 or nested too deep
    (msgspec itself has other errors for the last two), ``msgspec.ValidationError``,
    which is one too, for a value of another shape.
    """
    try:
        return msgspec.json.decode(document, type=kind)
    except UnicodeError as error:
        raise msgspec.DecodeError(f"not UTF-8 text: {error}") from None
    except RecursionError:
        raise msgspec.DecodeError("nested too deep") from None
