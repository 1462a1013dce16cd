"""Collects the results of one call to several nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed

from ganeti_masterd.rpc.interfaces import CallAbandoned, NodeResult, Target


class Gathering:
    """Collects one result for each key of the targets, in their order."""

    __slots__ = ("_done", "_missing", "_results")

    def __init__(self, targets: Sequence[Target]) -> None:
        # None for results that are missing; it is only handed out once there are none.
        self._results: dict[str, Any] = {t.key: None for t in targets}
        self._missing = len(self._results)
        self._done: Deferred[Mapping[str, NodeResult[Any]]] | None = None

    def put(self, key: str, result: NodeResult[Any]) -> None:
        """Stores the result of a key that has none yet; the last one fires :meth:`ready`.

        Results are dropped after :meth:`ready` was cancelled.
        """
        self._results[key] = result
        self._missing -= 1
        if self._missing == 0 and self._done is not None:
            self._done.callback(self._results)

    def ready(
        self, procedure: str, abandon: Callable[[Gathering], Sequence[str]]
    ) -> Deferred[Mapping[str, NodeResult[Any]]]:
        """Fires when all results are there; must be called only once.

        When cancelled, it calls ``abandon`` and fails with ``CallAbandoned``. ``abandon`` ends the
        calls that have no result yet, and returns the names of nodes that may still carry them out.
        """
        if self._missing <= 0:
            return succeed(self._results)

        def canceled(done: Deferred[Mapping[str, NodeResult[Any]]]) -> None:
            self._done = None
            done.errback(CallAbandoned(procedure, abandon(self)))

        self._done = Deferred(canceled)
        return self._done


def there_at_once(
    answer: Deferred[Mapping[str, NodeResult[Any]]],
) -> Mapping[str, NodeResult[Any]] | None:
    """Returns the results if the call has fired already, else None.

    Simulated nodes answer most calls at once, and adding a callback would cost as much as the call.
    """
    there = answer.called and not answer.paused
    found: object = answer.result if there else None
    return found if isinstance(found, dict) else None
