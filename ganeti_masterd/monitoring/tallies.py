"""Counters and histograms as plain numbers, which become metrics when they are asked for.

Pure; one thread. prometheus-client's own take a lock and a look-up for each
label: ten times the cost, on the path of every job. They also show the time
at which each series began, unless a global switch is set.
"""

from __future__ import annotations

from bisect import bisect_left

from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

from ganeti_masterd.monitoring.declarations import Declared, MetricKey


class Counter:
    """How often something happened, by the values of the labels. Without labels it begins at 0."""

    __slots__ = ("declared", "values")

    def __init__(self, declared: Declared) -> None:
        self.declared = declared
        self.values: dict[MetricKey, float] = {} if declared.labels else {(): 0}

    def add(self, *key: str, by: float = 1) -> None:
        """Counts ``by`` more."""
        self.values[key] = self.values.get(key, 0) + by

    def family(self) -> Metric:
        """Returns it as prometheus-client has it."""
        return self.declared.family(self.values)


class _Series:
    """One series of a histogram: the sum, and how many fell into each bucket alone."""

    __slots__ = ("buckets", "total")

    def __init__(self, bounds: int) -> None:
        self.buckets = [0] * (bounds + 1)
        self.total = 0.0


class Histogram:
    """How long things took, by the values of the labels. Without labels it begins empty."""

    __slots__ = ("_series", "declared")

    def __init__(self, declared: Declared) -> None:
        self.declared = declared
        self._series: dict[MetricKey, _Series] = {}
        if not declared.labels:
            self._series[()] = _Series(len(declared.bounds))

    def observe(self, seconds: float, *key: str) -> None:
        """Takes one in; a negative time, after the clock was set back, counts as 0."""
        series = self._series.get(key)
        bounds = self.declared.bounds
        if series is None:
            series = self._series[key] = _Series(len(bounds))
        seconds = max(seconds, 0.0)
        series.buckets[bisect_left(bounds, seconds)] += 1
        series.total += seconds

    def family(self) -> Metric:
        """Returns it as prometheus-client has it."""
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
