"""Reads the daemon's answers as typed values; what has another shape is an error with a message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from ganeti_masterd.errors import LuxiError
from ganeti_masterd.luxi.calls import Calls

T = TypeVar("T")


def read_as(kind: type[T], answer: Any, about: str = "") -> T:
    """Returns an answer as ``kind``; raises ``LuxiError`` if it has another shape.

    ``about`` says what the answer is about, for the message. Classic daemons send some numbers
    as text, which is understood.
    """
    try:
        return msgspec.convert(answer, kind, strict=False)
    except (msgspec.ValidationError, OverflowError) as error:
        about = about and f" about {about}"
        raise LuxiError(f"The daemon's answer{about} can't be understood: {error}") from None


def config_values(client: Calls, names: Sequence[str]) -> list[Any]:
    """Asks for values of the configuration; returns one for each name."""
    values = read_as(list[Any], client.config_values(names), "its configuration")
    if len(values) != len(names):
        raise LuxiError(
            "The daemon's answer about its configuration can't be understood: "
            f"{len(values)} values for {len(names)} names"
        )
    return values
