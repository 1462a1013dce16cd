"""Which versions of the configuration are kept as time goes by. Pure.

The newest :data:`NEWEST` are always kept. Of the last day each change is, of the week before that
the last one of each hour, and of the quarter before that the last one of each day. Where that
would be more than the bound, the last day is thinned as well: to the last change of each second,
ten seconds, minute, ten minutes, or hour, the finest that fits. Hours and days are those of UTC.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

HOUR = 3600
DAY = 24 * HOUR

#: The ages up to which each change, one change of each hour, and one of each day are kept.
ALL_FOR = DAY
HOURLY_FOR = 7 * DAY
DAILY_FOR = 90 * DAY

#: How many versions may be kept, and how many of the newest are never thinned.
MOST = 10_000
NEWEST = 50

#: Seconds of which only the last change is kept in the last day; 0 keeps each change.
WIDTHS = (0, 1, 10, 60, 600, HOUR)


def kept(times: Sequence[float], now: float, most: int = MOST, newest: int = NEWEST) -> list[int]:
    """Returns which versions to keep, as indexes into ``times``, in order.

    ``times`` (seconds since the epoch) are those of the versions, the oldest first; a clock that
    was set back does no harm. At most ``most`` are kept, which is at least 1; the newest always is.
    """
    chosen: list[int] = []
    for width in WIDTHS:
        chosen = _chosen(times, now, width, max(1, min(newest, most)))
        if len(chosen) <= most:
            return chosen
    return chosen[-most:]


def _chosen(times: Sequence[float], now: float, width: int, newest: int) -> list[int]:
    last: dict[Hashable, int] = {}
    always = len(times) - newest
    for index, time in enumerate(times):
        age = now - time
        if index >= always or (age < ALL_FOR and not width):
            last["each", index] = index
        elif age < ALL_FOR:
            last["span", time // width] = index
        elif age < HOURLY_FOR:
            last["hour", time // HOUR] = index
        elif age < DAILY_FOR:
            last["day", time // DAY] = index
    return sorted(last.values())
