"""Answers to queries in readable form: cells as text, rows as JSON objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct

from ganeti_masterd.cli.answers import read_as
from ganeti_masterd.cli.words import json_text, minute, printable
from ganeti_masterd.constants import RS_NODATA, RS_NORMAL, RS_OFFLINE, RS_UNAVAIL, RS_UNKNOWN
from ganeti_masterd.errors import LuxiError

#: How sizes are shown: each in a suitable unit (h), or all as plain numbers in one unit.
Units = Literal["h", "m", "g", "t"]

#: How cells without a value are shown: in short, like in the gnt-* tools, and in words.
ABSENT: Mapping[int, tuple[str, str]] = {
    RS_UNKNOWN: ("??", "unknown"),
    RS_NODATA: ("?", "no data"),
    RS_UNAVAIL: ("-", "unavailable"),
    RS_OFFLINE: ("*", "offline"),
}

_DIVISORS = {"m": 1, "g": 1 << 10, "t": 1 << 20}


class Head(Struct, frozen=True):
    """A field of an answer."""

    name: str
    title: str
    kind: str
    doc: str = ""

    @property
    def right(self) -> bool:
        """Whether its column is right-aligned."""
        return self.kind in ("number", "unit", "float")


class ListedAnswer(Struct, frozen=True):
    """The daemon's answer to Query: rows of ``[status, value]``.

    See protocol/luxi.rst, Methods.
    """

    fields: list[Head]
    data: list[list[tuple[int, Any]]] = []


def read_answer(answer: Any) -> ListedAnswer:
    """Returns an answer to Query or QueryFields; raises ``LuxiError`` if it is malformed."""
    found = read_as(ListedAnswer, answer)
    if any(len(row) != len(found.fields) for row in found.data):
        raise LuxiError("The daemon's answer can't be understood: not one value for each field")
    return found


class CellWriting(Struct, frozen=True):
    """How to format cells as text."""

    units: Units = "h"
    verbose: bool = False

    def cell(self, head: Head, status: int, value: Any) -> str:
        """Returns a cell as text on one line."""
        if status != RS_NORMAL:
            short, words = ABSENT.get(status, ("?", f"status {status}"))
            return f"({words})" if self.verbose else short
        if head.kind == "unit" and _is_number(value):
            return size(value, self.units)
        if head.kind == "timestamp" and _is_number(value):
            return minute((int(value), 0))
        if head.name == "pending":
            value = _waiting(value)
        return printable(_plain(value)).replace("\n", " ")


def size(mebibytes: float, units: Units) -> str:
    """Returns a size in MiB as ``512M``, ``1.5G`` or ``2.0T``, or as a number in a fixed unit."""
    if units == "h":
        if mebibytes < 1 << 10:
            return f"{mebibytes:.0f}M"
        if mebibytes < 1 << 20:
            return f"{mebibytes / (1 << 10):.1f}G"
        return f"{mebibytes / (1 << 20):.1f}T"
    return f"{mebibytes:.0f}" if units == "m" else f"{mebibytes / _DIVISORS[units]:.1f}"


def as_object(answer: ListedAnswer, row: list[tuple[int, Any]]) -> dict[str, Any]:
    """Returns a row for JSON output: values by the names of their fields.

    Missing values are None; an entry ``missing`` then says for each such field why.
    """
    values: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for head, (status, value) in zip(answer.fields, row, strict=True):
        values[head.name] = value
        if status != RS_NORMAL:
            missing[head.name] = ABSENT.get(status, ("", f"status {status}"))[1]
    return {**values, "missing": missing} if missing else values


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _waiting(value: Any) -> Any:
    """Returns the jobs that wait for a lock, in order: ``exclusive:4, shared:5|6``."""
    try:
        waiting = msgspec.convert(value, list[tuple[str, list[str]]])
    except msgspec.ValidationError:
        return value
    return ", ".join(f"{mode}:{'|'.join(jobs)}" for mode, jobs in waiting) or None


def _plain(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "Y" if value else "N"
    if isinstance(value, list) and not any(isinstance(each, list | dict) for each in value):
        return ",".join(_plain(each) for each in value)
    return value if isinstance(value, str) else json_text(value)
