"""Counters and histograms as plain numbers, which are made into metrics at a scrape.

Pure; for one thread. prometheus-client's own take a lock and look up each
label, which costs ten times as much on the path of every job. They also export the time
at which each series began, unless a global switch is set.
"""

from __future__ import annotations

from bisect import bisect_left

from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

from ganeti_masterd.monitoring.declarations import Declared, MetricKey


class Counter:
    """Counts events by label values. Without labels it exists from the start, with value 0."""

    __slots__ = ("declared", "values")

    def __init__(self, declared: Declared) -> None:
        self.declared = declared
        self.values: dict[MetricKey, float] = {} if declared.labels else {(): 0}

    def add(self, *key: str, by: float = 1) -> None:
        """Adds ``by`` to the series with the label values ``key``."""
        self.values[key] = self.values.get(key, 0) + by

    def family(self) -> Metric:
        """Returns the metric as prometheus-client's type."""
        return self.declared.family(self.values)


class _Series:
    """One series of a histogram: the sum, and the count of each bucket (not cumulative)."""

    __slots__ = ("buckets", "total")

    def __init__(self, bounds: int) -> None:
        self.buckets = [0] * (bounds + 1)
        self.total = 0.0


class Histogram:
    """Durations by label values. Without labels it exists from the start, empty."""

    __slots__ = ("_series", "declared")

    def __init__(self, declared: Declared) -> None:
        self.declared = declared
        self._series: dict[MetricKey, _Series] = {}
        if not declared.labels:
            self._series[()] = _Series(len(declared.bounds))

    def observe(self, seconds: float, *key: str) -> None:
        """Adds a duration; a negative one, after the clock was set back, counts as 0."""
        series = self._series.get(key)
        bounds = self.declared.bounds
        if series is None:
            series = self._series[key] = _Series(len(bounds))
        seconds = max(seconds, 0.0)
        series.buckets[bisect_left(bounds, seconds)] += 1
        series.total += seconds

    def family(self) -> Metric:
        """Returns the metric as prometheus-client's type."""
        declared = self.declared
        family = HistogramMetricFamily(declared.name, declared.text, labels=declared.labels)
        names = [*map(floatToGoString, declared.bounds), "+Inf"]
        for key, series in self._series.items():
            below = 0
            cumulated = []
            for name, count in zip(names, series.buckets, strict=True):
                below += count
                cumulated.append((name, below))
            family.add_metric(key, cumulated, series.total)
        return family
