"""Publishes an event for the result of each request."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ganeti_masterd.events import Events, RequestAnswered
from ganeti_masterd.luxi.factory import AnswerFunction
from ganeti_masterd.luxi.messages import LuxiRequest
from ganeti_masterd.luxi.peers import Peer

#: The method name in events for unknown methods, instead of the client's text.
UNKNOWN = "unknown"


class ObservedAnswers:
    """Answers like ``answer``, and publishes a :class:`RequestAnswered` for each request.

    ``known`` has the names of all methods. Without observers it only calls ``answer``.
    """

    def __init__(
        self,
        answer: AnswerFunction,
        known: Container[str],
        events: Events,
        seconds: Callable[[], float],
    ) -> None:
        self._answer = answer
        self._known = known
        self._events = events
        self._seconds = seconds

    def __call__(self, request: LuxiRequest, peer: Peer) -> object:
        """Returns what ``answer`` returns; raises what it raises."""
        if not self._events.observed(RequestAnswered):
            return self._answer(request, peer)
        method = request.method if request.method in self._known else UNKNOWN
        began = self._seconds()
        try:
            result = self._answer(request, peer)
        except Exception as error:
            self._tell(method, began, error)
            raise
        if isinstance(result, Deferred):
            return result.addBoth(self._answered, method, began)
        self._tell(method, began, None)
        return result

    def _answered(self, result: Any, method: str, began: float) -> Any:
        self._tell(method, began, result.value if isinstance(result, Failure) else None)
        return result

    def _tell(self, method: str, began: float, error: BaseException | None) -> None:
        name = None if error is None else type(error).__name__
        self._events.publish(RequestAnswered(method, name, self._seconds() - began))
