"""A thread that does one thing whenever the test says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure


class OneThread:
    """Keeps the functions that it is to run in ``waiting``, until :meth:`step`."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Callable[[], Any], Deferred[Any]]] = []
        self._asking: Deferred[None] | None = None

    def run(self, function: Callable[[], Any]) -> Deferred[Any]:
        """Takes a function; fires with its result once it has run."""
        done: Deferred[Any] = Deferred()
        self.waiting.append((function, done))
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.callback(None)
        return done

    def asked(self) -> Deferred[None]:
        """Fires when the next function comes."""
        self._asking = Deferred()
        return self._asking

    def step(self) -> Any:
        """Runs the oldest function, tells its result, and returns it."""
        function, done = self.waiting.pop(0)
        try:
            result = function()
        except Exception:
            result = Failure()
        done.callback(result)
        return result
