"""What nodes and instances have and use, asked at intervals; a scrape shows the last answer.

Names, labels and units (MiB) are those of ganeti/prometheus-ganeti-exporter, which has them
from the remote API.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from prometheus_client.core import Metric
from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ganeti_masterd.monitoring import declarations as metrics
from ganeti_masterd.monitoring.declarations import Declared, MetricKey
from ganeti_masterd.monitoring.parts import Measure
from ganeti_masterd.timing import Timer, Timers

log = Logger()

_OF_NODES: dict[str, Declared] = {
    "ctotal": metrics.NODE_CPUS,
    "mtotal": metrics.NODE_MEMORY,
    "mfree": metrics.NODE_MEMORY_FREE,
    "dtotal": metrics.NODE_DISK,
    "dfree": metrics.NODE_DISK_FREE,
}
_OF_INSTANCES = ("name", "oper_state", "oper_ram", "oper_vcpus", "pnode", "snodes")


class Capacity:
    """Asks all nodes each ``interval`` seconds, from :meth:`begin` to :meth:`end`.

    What could not be asked isn't shown. ``cluster`` returns the cluster's name.
    """

    def __init__(
        self, measure: Measure, timers: Timers, interval: float, cluster: Callable[[], str]
    ) -> None:
        self._measure = measure
        self._timers = timers
        self._interval = interval
        self._cluster = cluster
        self._timer: Timer | None = None
        self._asking: Deferred[None] | None = None
        self._values: dict[Declared, dict[MetricKey, float]] = {}
        self._asked: float | None = None

    def begin(self) -> None:
        """Asks at once, and then at intervals."""
        self._timer = self._timers.every(self._interval, self._round)
        self._round()

    def end(self) -> None:
        """Stops asking."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._asking is not None:
            self._asking.cancel()

    def collect(self) -> Iterator[Metric]:
        """Yields the metrics as they were last asked."""
        for declared in CAPACITY:
            yield declared.family(self._values.get(declared, {}))
        yield metrics.NODES_ASKED.family({} if self._asked is None else {(): self._asked})

    def _round(self) -> None:
        if self._asking is not None:  # nodes are slow
            return
        self._asking = asking = self._look()  # it may be over already
        asking.addErrback(self._failed).addBoth(self._over)

    def _over(self, _: Any) -> None:
        self._asking = None

    def _failed(self, failure: Failure) -> None:
        self._values, self._asked = {}, None
        if self._timer is not None:
            log.failure("Nodes could not be asked what they have", failure)

    @inlineCallbacks
    def _look(self) -> Any:
        begun = self._timers.now()
        nodes = yield maybeDeferred(self._measure, "node", (), ("name", *_OF_NODES))
        instances = yield maybeDeferred(self._measure, "instance", (), _OF_INSTANCES)
        self._values = capacities(self._cluster(), nodes, instances)
        self._asked = begun


#: What is asked, in the order in which it is shown.
CAPACITY = (
    *_OF_NODES.values(),
    metrics.NODE_VCPUS,
    metrics.NODE_VCPUS_SECONDARY,
    metrics.INSTANCE_MEMORY,
    metrics.INSTANCE_VCPUS,
)


def capacities(
    cluster: str, nodes: Sequence[Sequence[Any]], instances: Sequence[Sequence[Any]]
) -> dict[Declared, dict[MetricKey, float]]:
    """Returns the values of each metric by its labels, from the rows of nodes and instances.

    An instance that doesn't run has 0 of all; one whose state isn't known is left out. Virtual
    processors of a node are known if all of its instances' are. Pure.
    """
    values: dict[Declared, dict[MetricKey, float]] = {declared: {} for declared in CAPACITY}
    unknown: dict[Declared, set[str]] = {
        metrics.NODE_VCPUS: set(),
        metrics.NODE_VCPUS_SECONDARY: set(),
    }
    for name, *row in nodes:
        for declared, value in zip(_OF_NODES.values(), row, strict=True):
            if value is not None:
                values[declared][cluster, name] = value
        for declared in unknown:
            values[declared][cluster, name] = 0
    for name, runs, memory, vcpus, primary, secondaries in instances:
        used = (0, 0) if runs is False else (memory, vcpus)
        for declared, value in zip(
            (metrics.INSTANCE_MEMORY, metrics.INSTANCE_VCPUS), used, strict=True
        ):
            if value is not None:
                values[declared][cluster, name] = value
        for declared, its_nodes in (
            (metrics.NODE_VCPUS, [primary]),
            (metrics.NODE_VCPUS_SECONDARY, secondaries or []),
        ):
            for node in its_nodes:
                if used[1] is None:
                    unknown[declared].add(node)
                elif (cluster, node) in values[declared]:
                    values[declared][cluster, node] += used[1]
    for declared, names in unknown.items():
        for node in names:
            values[declared].pop((cluster, node), None)
    return values
