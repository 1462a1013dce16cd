"""How many faults the configuration has, counted in a thread and never more than once a minute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.verify import verify
from ganeti_masterd.timing import Timers

log = Logger()

#: Seconds between two checks at least.
PAUSE = 60.0


class ConfigFaults:
    """Counts the faults of the configuration that is published.

    ``in_thread`` runs a function in another thread.
    """

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        timers: Timers,
        in_thread: Callable[[Callable[[], Any]], Deferred[Any]],
    ) -> None:
        self._snapshot = snapshot
        self._timers = timers
        self._in_thread = in_thread
        self._checked: Snapshot | None = None
        self._begun = float("-inf")
        self._running = False
        self._count: int | None = None

    def __call__(self) -> int | None:
        """Returns what the last check found, None before there was one.

        Begins another check, which the next call may see, if the configuration has changed.
        """
        snapshot, now = self._snapshot(), self._timers.seconds()
        if not self._running and snapshot is not self._checked and now - self._begun >= PAUSE:
            self._running, self._begun = True, now
            self._in_thread(lambda: verify(snapshot)).addCallbacks(
                self._found, self._failed, callbackArgs=(snapshot,)
            )
        return self._count

    def _found(self, faults: list[str], snapshot: Snapshot) -> None:
        self._running = False
        self._checked = snapshot
        self._count = len(faults)

    def _failed(self, failure: Failure) -> None:
        self._running = False
        self._count = None
        log.failure("The configuration could not be checked", failure)
