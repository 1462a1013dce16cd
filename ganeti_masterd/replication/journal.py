"""The journal whose commits wait for other nodes: :class:`ReplicatedJournal`.

Readers see what is durable on *this* node, as with any journal; only the Deferreds of ``commit``
wait for the candidates. So a dependent job may begin, and a watching client may be notified, a
moment before the candidates have the commit, as with luxid. What must not happen before they have
it (answering a job id, running an opcode) waits for the Deferred.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import implementer

from ganeti_masterd.journal.interfaces import IJournal
from ganeti_masterd.journal.rows import Row
from ganeti_masterd.replication.replication import Publication, Replication


@implementer(IJournal)
class ReplicatedJournal:
    """An :class:`IJournal` over another one, replicated from :meth:`replicate_with` on.

    ``settle``, ``backlog`` and ``files_fault`` concern the files of this node only. ``close``
    doesn't end the replication; close that first.
    """

    def __init__(self, local: IJournal) -> None:
        self._local = local
        self._replication: Replication | None = None

    def replicate_with(self, replication: Replication) -> None:
        """Hands what is committed from now on to ``replication`` as it is published."""
        self._replication = replication

    @property
    def backlog(self) -> int:
        """See :attr:`IJournal.backlog`."""
        return self._local.backlog

    @property
    def files_fault(self) -> str | None:
        """See :attr:`IJournal.files_fault`."""
        return self._local.files_fault

    @property
    def reserved(self) -> int:
        """See :attr:`IJournal.reserved`."""
        return self._local.reserved

    def commit(
        self, rows: Sequence[Row], publish: Callable[[], object] | None = None
    ) -> Deferred[None]:
        """See :meth:`IJournal.commit`; fires once the commit is acknowledged."""
        replication = self._replication
        if replication is None:
            alone: Deferred[None] = self._local.commit(rows, publish)
            return alone
        publications: list[Publication] = []

        def published() -> None:
            try:
                if publish is not None:
                    publish()
            finally:
                publication = replication.publish(rows)
                if publication is not None:
                    publications.append(publication)

        def durable(_: None) -> Deferred[None] | None:
            return replication.acknowledged(publications[0]) if publications else None

        done: Deferred[None] = self._local.commit(rows, published)
        return done.addCallback(durable)

    def on_rollback(self, function: Callable[[], object]) -> None:
        """See :meth:`IJournal.on_rollback`."""
        self._local.on_rollback(function)

    def effect(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """See :meth:`IJournal.effect`; its effect is not replicated."""
        done: Deferred[Any] = self._local.effect(function, *args)
        return done

    def settle(self) -> Deferred[None]:
        """See :meth:`IJournal.settle`."""
        done: Deferred[None] = self._local.settle()
        return done

    def close(self) -> Deferred[None]:
        """See :meth:`IJournal.close`."""
        done: Deferred[None] = self._local.close()
        return done
