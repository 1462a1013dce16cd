"""Decoding JSON from outside (files, output of scripts), with one error for every fault."""

from __future__ import annotations

from typing import TypeVar

import msgspec

T = TypeVar("T")


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
