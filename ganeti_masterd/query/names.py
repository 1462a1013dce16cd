"""Natural order of names, and matching of shortened host names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TypeVar

from ganeti_masterd.config.base import ConfigObject
from ganeti_masterd.config.section import Section

T = TypeVar("T", bound=ConfigObject)

_DIGITS = re.compile(r"([0-9]+)")


@lru_cache(maxsize=1 << 16)
def natural_key(name: str) -> str:
    """Returns a sort key for a name in which numbers are compared by value.

    So ``node2`` comes before ``node10``. Names that differ only in leading zeros are
    ordered by the whole text.
    """
    return f"{_DIGITS.sub(_number, name)}\0{name}"


def _number(match: re.Match[str]) -> str:
    """Returns text that sorts by the number's value and before letters: its length goes first."""
    digits = match[0].lstrip("0")
    return f"\1{chr(len(digits))}{digits}"


def natural(names: Iterable[str]) -> list[str]:
    """Returns names in their natural order."""
    return sorted(names, key=natural_key)


def in_order(section: Section[T]) -> Sequence[T]:
    """Returns a section's objects in natural order of names; cached with the section."""
    return section.cached(
        "natural order", lambda: [section[uuid] for uuid in section.ordered(natural_key).uuids]
    )


def means(given: str, name: str) -> bool:
    """Whether ``given`` is ``name``, or a prefix of it that ends before a dot."""
    if name == given:
        return True
    return name.startswith(given) and name[len(given) : len(given) + 1] == "."
