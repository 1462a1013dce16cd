"""Formatting of times, durations, errors and results as text. Pure."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from ganeti_masterd.constants import (
    STATUS_CANCELED,
    STATUS_CANCELING,
    STATUS_ERROR,
    STATUS_QUEUED,
    STATUS_RUNNING,
    STATUS_SUCCESS,
    STATUS_WAITING,
)

#: Seconds since the epoch that a calendar has: up to the year 9999.
CalendarSeconds = Annotated[int, msgspec.Meta(ge=0, le=253402300799)]
#: ``(seconds, microseconds)`` since the epoch, as LUXI has it.
Stamp = tuple[CalendarSeconds, Annotated[int, msgspec.Meta(ge=0, lt=1_000_000)]]

#: The colour of each status.
STYLES = {
    STATUS_QUEUED: "dim",
    STATUS_WAITING: "yellow",
    STATUS_CANCELING: "magenta",
    STATUS_RUNNING: "cyan",
    STATUS_CANCELED: "magenta",
    STATUS_SUCCESS: "green",
    STATUS_ERROR: "bold red",
}

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?[smhdw]?)+", re.ASCII)
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhdw]?)", re.ASCII)


def seconds_of(stamp: Stamp) -> float:
    """Returns a time as seconds since the epoch."""
    return stamp[0] + stamp[1] / 1_000_000


def moment(stamp: Stamp | None) -> str:
    """Returns a time in the local zone, to the millisecond; a dash for None."""
    if stamp is None:
        return "-"
    return f"{_day(stamp[0])}.{stamp[1] // 1000:03}"


def minute(stamp: Stamp | None) -> str:
    """Returns a time in the local zone, to the second; a dash for None."""
    return "-" if stamp is None else _day(stamp[0])


def clock(stamp: Stamp) -> str:
    """Returns the time of day alone, in the local zone."""
    return time.strftime("%H:%M:%S", time.localtime(stamp[0]))


def _day(seconds: int) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):  # no calendar goes that far
        return f"{seconds} s"


def span(begin: Stamp | None, end: Stamp | None, now: float | None = None) -> str:
    """Returns the time from ``begin`` to ``end``, as text.

    If ``end`` is None, the time until ``now``; if ``begin`` is None, a dash.
    """
    if begin is None:
        return "-"
    until = now if end is None else seconds_of(end)
    return "-" if until is None else duration(until - seconds_of(begin))


def duration(seconds: float) -> str:
    """Returns seconds in the form ``0.4 ms``, ``250 ms``, ``1.25 s``, ``42.0 s``, ``2 h 5 min``."""
    seconds = max(seconds, 0.0)
    if seconds < 0.00095:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole >= 86400:
        return _two_units(whole, 86400, "d", 3600, "h")
    if whole >= 3600:
        return _two_units(whole, 3600, "h", 60, "min")
    return _two_units(whole, 60, "min", 1, "s")


def _two_units(seconds: int, large: int, larges: str, small: int, smalls: str) -> str:
    rest = seconds % large // small
    return f"{seconds // large} {larges}" + (f" {rest} {smalls}" if rest else "")


def parse_duration(text: str) -> float:
    """Returns the seconds in ``90``, ``45s``, ``30m``, ``12h``, ``7d``, ``2w`` or ``1h30m``.

    Raises ``ValueError``.
    """
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is not a duration such as 90, 30m, 12h or 7d")
    seconds = sum(float(number) * _SECONDS[unit or "s"] for number, unit in _PART.findall(text))
    if not math.isfinite(seconds) or seconds > 1e10:
        raise ValueError(f"{text!r} is too long")
    return seconds


def counted(number: int, thing: str) -> str:
    """Returns ``1 job``, ``2,000 jobs``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def printable(text: str) -> str:
    """Returns text that is safe for a terminal: escapes control characters except newlines."""
    if text.isprintable():
        return text
    return "".join(
        each
        if each.isprintable() or each == "\n"
        else each.encode("unicode_escape", "backslashreplace").decode("ascii")
        for each in text
    )


def exception_text(error: BaseException) -> str:
    """Returns an error as ``Class (code): message``."""
    return _error(type(error).__name__, error.args)


def failure_text(result: Any) -> str:
    """Returns a failed opcode's result, ``[class, [args...]]``, as ``Class (code): message``.

    Returns anything else, such as the text of a cancelled one, as it is.
    """
    if (
        isinstance(result, list)
        and len(result) == 2
        and isinstance(result[0], str)
        and isinstance(result[1], list)
    ):
        return _error(result[0], result[1])
    return json_text(result) if not isinstance(result, str) else printable(result)


def _error(name: str, args: Sequence[Any]) -> str:
    texts = [each if isinstance(each, str) else json_text(each) for each in args]
    if name == "OpPrereqError" and len(texts) == 2:
        return printable(f"{name} ({texts[1]}): {texts[0]}")
    return printable(f"{name}: {', '.join(texts)}" if texts else name)


def log_text(message: Any) -> str:
    """Returns the message of an opcode's log entry as text."""
    return printable(message) if isinstance(message, str) else json_text(message)


def json_text(value: Any, *, indent: bool = False) -> str:
    """Returns a value as JSON; objects that aren't JSON types are converted to text."""
    encoded = msgspec.json.encode(value, enc_hook=str)
    return (msgspec.json.format(encoded, indent=2) if indent else encoded).decode()


def summaries(texts: Sequence[str], most: int = 3) -> str:
    """Returns a job's opcodes in one line: the first ``most`` summaries, and the total."""
    shown = ", ".join(map(printable, texts[:most]))
    return shown if len(texts) <= most else f"{shown}, ... ({len(texts)} opcodes)"
