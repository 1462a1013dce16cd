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


class Progress:
    """Says how far something is: to those who follow the job each time, to its log each minute."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._next = ctx.seconds()

    def tell(self, *texts: str) -> None:
        """Shows lines that begin with INFO; the first are logged, then those of each minute."""
        now = self._ctx.seconds()
        if now >= self._next:
            self._next = now + PACE
            for text in texts:
                self._ctx.info(text)
        else:
            self._ctx.progress("\n".join(f" - INFO: {text}" for text in texts))

    def wait(self) -> None:
        """Keeps the log quiet for the next minute, as something was said in another way."""
        self._next = self._ctx.seconds() + PACE


def time_left(seconds: float) -> str:
    """Returns a time as Ganeti writes it: ``1h 2m 5s``."""
    whole = max(0, round(seconds))
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if whole >= size or parts:
            count, whole = divmod(whole, size)
            parts.append(f"{count}{unit}")
    return " ".join([*parts, f"{whole}s"])
