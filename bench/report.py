"""The table that a run prints, and the same as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bench.figures import Line, Times

HEAD = ("figure", "measured", "machine's limit", "ratio", "wanted", "verdict")


def number(value: float | None, unit: str = "") -> str:
    """Returns a value with three or more digits that mean something, and its unit."""
    if value is None:
        return "-"
    if not math.isfinite(value):
        return "never"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f} {unit}".rstrip()


def verdict(line: Line) -> str:
    """Returns the last word on a figure."""
    if line.measured is None:
        return "not measured"
    return {True: "reached", False: "MISSED", None: ""}[line.reached]


def table(lines: Sequence[tuple[str, Line]], peer: bool) -> str:
    """Returns the lines, each with its workload's description, as one text table."""
    head = (*HEAD, "peer") if peer else HEAD
    rows = [head]
    said = ""
    for about, line in lines:
        unit = line.figure.unit
        title = line.figure.title if about == said else f"{about}: {line.figure.title}"
        indent = "  " if about == said else ""
        said = about
        ratio = line.times_peer if isinstance(line.figure.wanted, Times) else line.ratio
        row = (
            indent + title,
            number(line.measured, unit),
            number(line.machine, unit),
            f"{ratio:.2f}" if ratio is not None else "-",
            str(line.figure.wanted) if line.figure.wanted else "-",
            verdict(line),
        )
        rows.append((*row, number(line.peer, unit)) if peer else row)
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]

    def text(row: Sequence[str]) -> str:
        cells = [row[0].ljust(widths[0])]
        for column, cell in enumerate(row[1:], start=1):
            left = head[column] in ("wanted", "verdict")
            cells.append(cell.ljust(widths[column]) if left else cell.rjust(widths[column]))
        return "  ".join(cells).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return "\n".join([text(rows[0]), rule, *map(text, rows[1:])])


def as_json(
    lines: Sequence[tuple[str, Line]], machine: Mapping[str, str], remarks: Sequence[str]
) -> dict[str, Any]:
    """Returns all of a run as plain values; what never happened is null."""

    def finite(value: float | None) -> float | None:
        return value if value is not None and math.isfinite(value) else None

    return {
        "machine": dict(machine),
        "figures": [
            {
                "workload": line.workload,
                "figure": line.figure.key,
                "unit": line.figure.unit,
                "measured": finite(line.measured),
                "limit": line.limit,
                "machine": finite(line.machine),
                "ratio": finite(line.ratio),
                "wanted": str(line.figure.wanted) if line.figure.wanted else None,
                "reached": line.reached,
                "peer": finite(line.peer),
                "times_peer": finite(line.times_peer),
            }
            for _, line in lines
        ],
        "remarks": list(remarks),
    }
