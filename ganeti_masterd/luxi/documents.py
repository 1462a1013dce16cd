"""JSON documents as LUXI takes them: strict, exact, and quick to refuse.

Beyond what msgspec refuses by itself (bad syntax, invalid UTF-8, lone surrogates, NaN,
infinities, anything after the document) a request must not name a key twice in one
object, nor be nested too deep
(protocol/luxi.rst, Framing). Integers are exact up to Python's own limit
of 4,300 digits; longer ones are refused, as they would cost quadratic time.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
from msgspec import MsgspecError

from ganeti_masterd.decoding import deeper_than
from ganeti_masterd.errors import LuxiError

#: How deep objects and arrays may stand in each other.
MAX_NESTING = 200

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class ProtocolError(LuxiError):
    """A message that can't be understood. The connection ends after the answer to it.

    Travels as ``LuxiError``.
    """

    @property
    def logged(self) -> str:
        """The text without what the message holds."""
        return str(self)


class DuplicateKey(ProtocolError):
    """An object names a key twice. Only the client is told which: it may be a secret."""

    @property
    def logged(self) -> str:
        """See :attr:`ProtocolError.logged`."""
        return "An object has a key twice"


def parse(data: bytes) -> Any:
    """Returns the value of one JSON document, blanks around it allowed.

    Raises ``ProtocolError`` if it is malformed, or nested deeper than the decoder goes.
    """
    try:
        return _decode(data)
    except RecursionError:
        raise _too_deep() from None
    except (ValueError, MsgspecError) as error:  # UTF-8; syntax, or range of numbers
        raise ProtocolError(f"Not a JSON document: {error}") from None


def parse_strictly(data: bytes) -> Any:
    """Returns the value of one JSON document that someone else may have made up.

    Raises ``ProtocolError`` if it is malformed, names a key twice in one object, or is
    nested deeper than :data:`MAX_NESTING`.
    """
    value = parse(data)
    if deeper_than(data, value, MAX_NESTING):
        raise _too_deep()
    # Each key has a colon. As many as the outer object has keys: then there is no other
    # object with keys, and no key came twice.
    colons = data.count(b":")
    if colons and not (type(value) is dict and len(value) == colons):
        _refuse_duplicates(data, value, colons)
    return value


def _refuse_duplicates(data: bytes, value: Any, colons: int) -> None:
    r"""Raises ``ProtocolError`` if an object in ``data`` names a key twice.

    ``value`` is what ``data`` decodes to, ``colons`` how many colons it has. Decoding
    drops all but the last of equal keys, and with each its colon. Encoded again the
    document has as many colons as before exactly if none was dropped, as long as no
    text spells its colons as an escape (``\u003a``).
    """
    if b"\\u003" not in data and _encode(value).count(b":") == colons:
        return
    try:
        json.loads(data, object_pairs_hook=_distinct, parse_int=str, parse_float=str)
    except RecursionError:  # below a key that was dropped
        raise _too_deep() from None


def _distinct(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise DuplicateKey(f"An object has the key {key!r} twice")
        seen.add(key)


def _too_deep() -> ProtocolError:
    return ProtocolError(f"The document is nested deeper than {MAX_NESTING} levels")
