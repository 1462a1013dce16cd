"""Waits that look again and again, without the job's slot, and what they log meanwhile."""

from __future__ import annotations

from collections.abc import Callable

from ganeti_masterd.logical_units.context import Context

#: The shortest and the longest time between two looks, seconds.
SHORTEST = 1.0
LONGEST = 10.0

#: How often at most a line tells how far something is, seconds.
PACE = 60.0


def poll(ctx: Context, look: Callable[[], float | None]) -> None:
    """Calls ``look`` until it returns None; otherwise it returns after how long to look again.

    That time, in seconds, is kept between :data:`SHORTEST` and :data:`LONGEST`. Between the
    looks the job has no slot (:meth:`Context.without_slot`); a kill ends the wait.
    """
    pause = look()
    if pause is None:
        return
    with ctx.without_slot():
        while pause is not None:
            ctx.sleep(min(max(pause, SHORTEST), LONGEST))
            pause = look()


class Pace:
    """Says when it is time for the next line about progress: at once, then each minute."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._next = ctx.seconds()

    def due(self) -> bool:
        """Whether a line is due now; if so, the next is due a minute later."""
        now = self._ctx.seconds()
        if now < self._next:
            return False
        self._next = now + PACE
        return True


def time_left(seconds: float) -> str:
    """Returns a time as Ganeti writes it: ``1h 2m 5s``."""
    whole = max(0, round(seconds))
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if whole >= size or parts:
            count, whole = divmod(whole, size)
            parts.append(f"{count}{unit}")
    return " ".join([*parts, f"{whole}s"])
