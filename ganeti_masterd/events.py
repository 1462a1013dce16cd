"""Events that metrics, the status page and other observers subscribe to.

Parts of the daemon publish values of the classes below on one
:class:`Events`; observers subscribe to a class. Observers only look: one that
raises is logged and changes nothing for the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from msgspec import Struct

from ganeti_masterd.observers import Observers

E = TypeVar("E")


class JobChanged(Struct, frozen=True):
    """A job's published status changed; ``before`` is None for a new job."""

    job_id: int
    before: str | None
    after: str


class JobShown(Struct, frozen=True):
    """Something in a job's published state is new: its status, a log line, its progress."""

    job_id: int


class JobArchived(Struct, frozen=True):
    """A job that ended left the queue for the archive."""

    job_id: int
    status: str


class RequestAnswered(Struct, frozen=True):
    """A LUXI request was answered, or its client went away (``CancelledError``).

    ``error`` is the name of the error's class, None for success; ``seconds`` is how long
    the answer took.
    """

    method: str
    error: str | None
    seconds: float


class NodeCalled(Struct, frozen=True):
    """A node RPC ended after ``seconds``; ``error`` is None if it succeeded."""

    procedure: str
    node: str
    error: str | None
    seconds: float


class LockWaited(Struct, frozen=True):
    """A job got the locks of a level, ``seconds`` after it asked."""

    job_id: int
    level: str
    seconds: float


class Committed(Struct, frozen=True):
    """The journal made ``rows`` rows durable in one transaction."""

    rows: int
    seconds: float


class Events:
    """A bus of typed events, reactor thread only."""

    def __init__(self) -> None:
        self._observers: dict[type[Any], Observers[Any]] = {}
        self._kinds: set[type[Any]] = set()
        #: Whether anyone listens to events of a class, so that a hot path need not build one.
        #: Asked many times for each job, hence the set's own method.
        self.observed: Callable[[type[Any]], bool] = self._kinds.__contains__

    def subscribe(self, kind: type[E], observer: Callable[[E], object]) -> Callable[[], None]:
        """Calls ``observer`` with each event of ``kind``; returns a function that unsubscribes."""
        if kind not in self._observers:
            self._observers[kind] = Observers(kind.__name__)
        observers = self._observers[kind]
        remove = observers.add(observer)
        self._kinds.add(kind)

        def end() -> None:
            remove()
            if not observers:
                self._kinds.discard(kind)

        return end

    def publish(self, event: object) -> None:
        """Calls every observer of the event's class (see :class:`Observers`)."""
        observers = self._observers.get(type(event))
        if observers is not None:
            observers.call(event)
