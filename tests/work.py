"""Work counted instead of timed: a busy machine changes nothing about it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


def calls_of(function: Callable[..., Any], *args: Any) -> tuple[Any, int]:
    """Returns what a function returns, and how many calls of Python and C functions it takes."""
    count = 0

    def note(frame: Any, event: str, arg: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        result = function(*args)
    finally:
        sys.setprofile(before)
    return result, count
