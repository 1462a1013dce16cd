"""Asks nodes what only they know, while someone looks: a page that is looked at asks for it."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import inlineCallbacks, maybeDeferred
from twisted.logger import Logger

from ganeti_masterd.monitoring.live.inventory import INSTANCE_MEASURES, NODE_MEASURES, Inventory
from ganeti_masterd.monitoring.parts import Parts

log = Logger()

#: Seconds from one asking of all nodes to the next, and between askings for changed instances.
ALL, SOME = 60.0, 5.0
#: The most changed instances that are asked for before it is time to ask for all.
MOST_SOME = 50


class Measuring:
    """Keeps an inventory up to date with the nodes, whenever :meth:`wanted` is called.

    It has no timer: nodes are never asked while nobody looks. One asking at a time.
    """

    def __init__(self, parts: Parts, inventory: Inventory) -> None:
        self._parts = parts
        self._inventory = inventory
        #: When all nodes were last asked, by the reactor's clock, and when some were.
        self._asked_all: float | None = None
        self._asked_some = 0.0
        self._changed: dict[str, None] = {}
        self.under_way = False
        #: Whether an asking was given up as the daemon stops.
        self._closed = False
        #: When the last answers came (seconds since the epoch), and why none did.
        self.at: float | None = None
        self.fault: str | None = None

    def wanted(self, changed: list[str]) -> None:
        """Someone looks; ``changed`` are instances that have changed since the last call.

        Asks the nodes, if it is time to; what they say comes to the inventory later.
        """
        self._changed.update(dict.fromkeys(changed))
        if self.under_way or self._closed:
            return
        now = self._parts.timers.seconds()
        if self._asked_all is None or now - self._asked_all >= ALL:
            self._asked_all = self._asked_some = now
            self._changed.clear()
            self._begin([])
        elif self._changed and now - self._asked_some >= SOME:
            self._asked_some = now
            there = {one.name for one in self._parts.snapshot().instances.values()}
            names = [name for name in self._changed if name in there][:MOST_SOME]
            self._changed.clear()
            if names:
                self._begin(names)

    def close(self) -> None:
        """Asks nothing more."""
        self._closed = True

    def _begin(self, names: list[str]) -> None:
        self.under_way = True
        self._ask(names).addErrback(self._failed).addBoth(self._ended)

    @inlineCallbacks
    def _ask(self, names: list[str]) -> Any:
        measure, whole = self._parts.measure, not names
        if whole:
            rows = yield maybeDeferred(measure, "node", (), NODE_MEASURES)
            self._inventory.measured("node", rows, whole=True)
        rows = yield maybeDeferred(measure, "instance", names, INSTANCE_MEASURES)
        self._inventory.measured("instance", rows, whole=whole)
        if whole:
            self.at = self._parts.timers.now()
        self.fault = None

    def _failed(self, failure: Any) -> None:
        self.fault = failure.getErrorMessage() or failure.type.__name__
        if not self._closed:
            log.warn("Nodes could not be asked for the live page: {reason}", reason=self.fault)

    def _ended(self, _: Any) -> None:
        self.under_way = False
