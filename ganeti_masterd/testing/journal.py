"""A journal in memory, which can hold commits until the test releases them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from ganeti_masterd.errors import JobQueueError
from ganeti_masterd.journal.interfaces import IJournal
from ganeti_masterd.journal.rows import Row, SerialRow
from ganeti_masterd.observers import Observers


@implementer(IJournal)
class MemoryJournal:
    """An :class:`IJournal` that commits at once, or if ``held`` at :meth:`release`.

    ``rows`` has everything that was committed, in order.
    """

    def __init__(self, *, held: bool = False) -> None:
        self.held = held
        self.rows: list[Row] = []
        self.backlog = 0
        self.files_fault: str | None = None
        self.reserved = 0
        self._pending: list[tuple[list[Row], Callable[[], object] | None, Deferred[None]]] = []
        self._rollbacks: Observers[[]] = Observers("a commit that failed")

    def commit(
        self, rows: Sequence[Row], publish: Callable[[], object] | None = None
    ) -> Deferred[None]:
        """See :meth:`IJournal.commit`."""
        done: Deferred[None] = Deferred()
        self._pending.append((list(rows), publish, done))
        if not self.held:
            self.release()
        return done

    def release(self) -> None:
        """Completes every pending commit."""
        pending, self._pending = self._pending, []
        for rows, publish, done in pending:
            self.rows += rows
            for row in rows:
                if isinstance(row, SerialRow):
                    self.reserved = max(self.reserved, row.reserved)
            if publish is not None:
                publish()
            done.callback(None)

    def fail(self, message: str = "the journal can't be written: disk full") -> None:
        """Fails every pending commit."""
        pending, self._pending = self._pending, []
        self._rollbacks.call()
        for _, _, done in pending:
            done.errback(Failure(JobQueueError(message)))

    def on_rollback(self, function: Callable[[], object]) -> None:
        """See :meth:`IJournal.on_rollback`."""
        self._rollbacks.add(function)

    def effect(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """Calls the function at once, with None instead of a disk."""
        return defer.maybeDeferred(function, None, *args)

    def settle(self) -> Deferred[None]:
        """Fires at once, as there are no files to write."""
        return defer.succeed(None)

    def close(self) -> Deferred[None]:
        """Completes pending commits."""
        self.release()
        return defer.succeed(None)
