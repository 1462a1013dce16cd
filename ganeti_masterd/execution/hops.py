"""How a pool thread reaches what the reactor owns.

A hop runs a function in the reactor thread and waits for its result. All hops
fail with ``DaemonStopping`` once the daemon ends, so that no thread waits for a
reactor that is gone (``blockingCallFromThread`` would wait for ever).
"""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar, overload

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger
from twisted.python.failure import Failure

from ganeti_masterd.errors import DaemonStopping, OpExecError

log = Logger()

T = TypeVar("T")

STOPPING = "The master daemon stops; the opcode is given up"


class GivenUp(OpExecError, DaemonStopping):
    """The daemon ends while an opcode runs: recorded as ``OpExecError``, as after a hard kill."""


class _Hop:
    """One thread's wait: the first outcome counts, later ones are dropped."""

    __slots__ = ("_outcome", "settled", "waiting_for")

    def __init__(self) -> None:
        self._outcome: SimpleQueue[tuple[bool, Any]] = SimpleQueue()
        self.settled = False
        self.waiting_for: Deferred[Any] | None = None

    def settle(self, good: bool, value: Any) -> None:
        if not self.settled:
            self.settled = True
            self._outcome.put((good, value))

    def result(self) -> Any:
        good, value = self._outcome.get()
        if good:
            return value
        raise value


class Hops:
    """Every hop under way; one for the whole daemon."""

    def __init__(self, reactor: IReactorFromThreads) -> None:
        self._reactor = reactor
        self._open: set[_Hop] = set()
        self._closed = False
        self._reason = STOPPING

    def __len__(self) -> int:
        return len(self._open)

    @property
    def closed(self) -> bool:
        """Whether the daemon ends: every hop fails."""
        return self._closed

    @overload
    def wait(self, function: Callable[..., Deferred[T]], *args: Any) -> T: ...

    @overload
    def wait(self, function: Callable[..., T], *args: Any) -> T: ...

    def wait(self, function: Callable[..., Any], *args: Any) -> Any:
        """Runs ``function(*args)`` in the reactor; returns or raises its outcome.

        Called in a pool thread. A Deferred is waited for. Raises
        ``DaemonStopping`` when the daemon ends first.
        """
        hop = _Hop()
        self._reactor.callFromThread(self._run, hop, function, args)
        return hop.result()

    def tell(self, function: Callable[..., object], *args: Any) -> None:
        """Runs ``function(*args)`` in the reactor, soon, without waiting for it."""
        self._reactor.callFromThread(function, *args)

    def close(self, reason: str = STOPPING) -> None:
        """Fails every hop, now and from now on, with that reason. Reactor thread."""
        self._closed = True
        self._reason = reason
        for hop in list(self._open):
            self._open.discard(hop)
            hop.settle(False, GivenUp(reason))
            if hop.waiting_for is not None:
                try:
                    hop.waiting_for.cancel()
                except Exception:
                    log.failure("What an opcode waits for can't be cancelled")

    def _run(
        self, hop: _Hop, function: Callable[..., Deferred[Any] | Any], args: tuple[Any, ...]
    ) -> None:
        if self._closed:
            hop.settle(False, GivenUp(self._reason))
            return
        try:
            value = function(*args)
        except Exception as error:
            hop.settle(False, error)
            return
        if not isinstance(value, Deferred):
            hop.settle(True, value)
            return
        self._open.add(hop)
        hop.waiting_for = value

        def fired(result: Any) -> None:
            self._open.discard(hop)
            if isinstance(result, Failure):
                hop.settle(False, result.value)
            else:
                hop.settle(True, result)

        value.addBoth(fired)
