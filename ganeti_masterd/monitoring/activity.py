"""Counters fed by events: calls to nodes, requests, waits for locks, commits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client.core import Metric
from twisted.internet.defer import CancelledError

from ganeti_masterd.events import (
    Committed,
    Events,
    JobArchived,
    JobChanged,
    LockWaited,
    NodeCalled,
    RequestAnswered,
)
from ganeti_masterd.monitoring import declarations as metrics
from ganeti_masterd.monitoring.jobs import JobMetrics
from ganeti_masterd.monitoring.tallies import Counter, Histogram

#: Values of the label ``outcome``; ``gone`` means that the client disconnected before the answer.
OK, ERROR, GONE = "ok", "error", "gone"

_GONE = CancelledError.__name__


class Activity:
    """Counts the daemon's events from :meth:`begin` to :meth:`end`.

    ``reactor_latency`` is not fed by events; see :class:`.latency.ReactorLatency`.
    """

    def __init__(self, events: Events, jobs: JobMetrics) -> None:
        self._events = events
        self._jobs = jobs
        self._ends: list[Callable[[], None]] = []
        self.reactor_latency = Histogram(metrics.REACTOR_LATENCY)
        self._node_calls = Counter(metrics.NODE_CALLS)
        self._node_seconds = Histogram(metrics.NODE_SECONDS)
        self._node_errors = Counter(metrics.NODE_ERRORS)
        self._requests = Counter(metrics.REQUESTS)
        self._request_seconds = Histogram(metrics.REQUEST_SECONDS)
        self._request_errors = Counter(metrics.REQUEST_ERRORS)
        self._lock_waits = Histogram(metrics.LOCK_WAIT)
        self._commit_seconds = Histogram(metrics.COMMIT_SECONDS)
        self._rows = Counter(metrics.ROWS)

    def begin(self) -> None:
        """Counts the jobs in the queue, and observes events from now on."""
        self._jobs.begin()
        observers: list[tuple[type[Any], Callable[[Any], object]]] = [
            (JobChanged, self._jobs.changed),
            (JobArchived, self._jobs.archived),
            (NodeCalled, self._node_called),
            (RequestAnswered, self._request_answered),
            (LockWaited, self._lock_waited),
            (Committed, self._committed),
        ]
        self._ends = [self._events.subscribe(kind, observer) for kind, observer in observers]

    def end(self) -> None:
        """Stops observing."""
        while self._ends:
            self._ends.pop()()

    @property
    def rows(self) -> int:
        """How many rows the journal made durable."""
        return int(self._rows.values[()])

    def collect(self) -> Iterator[Metric]:
        """Yields the metrics."""
        yield from self._jobs.collect()
        for counter in (
            self._node_calls,
            self._node_errors,
            self._requests,
            self._request_errors,
            self._rows,
        ):
            yield counter.family()
        for histogram in (
            self._node_seconds,
            self._request_seconds,
            self._lock_waits,
            self._commit_seconds,
            self.reactor_latency,
        ):
            yield histogram.family()

    def _node_called(self, event: NodeCalled) -> None:
        self._node_calls.add(event.procedure, OK if event.error is None else ERROR)
        self._node_seconds.observe(event.seconds, event.procedure)
        if event.error is not None:
            self._node_errors.add(event.node)

    def _request_answered(self, event: RequestAnswered) -> None:
        outcome = OK if event.error is None else GONE if event.error == _GONE else ERROR
        self._requests.add(event.method, outcome)
        self._request_seconds.observe(event.seconds, event.method)
        if outcome is ERROR and event.error is not None:
            self._request_errors.add(event.error)

    def _lock_waited(self, event: LockWaited) -> None:
        self._lock_waits.observe(event.seconds, event.level)

    def _committed(self, event: Committed) -> None:
        self._commit_seconds.observe(event.seconds)
        self._rows.add(by=event.rows)
