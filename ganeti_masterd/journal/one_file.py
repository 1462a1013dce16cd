"""A journal without rows of its own, for a daemon that runs no jobs: :class:`ConfigFileJournal`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure
from zope.interface import implementer

from ganeti_masterd.errors import DaemonStopping, JobQueueError, ProgrammerError
from ganeti_masterd.journal.digests import digest_of
from ganeti_masterd.journal.files import replace_file
from ganeti_masterd.journal.interfaces import IDisk, IJournal
from ganeti_masterd.journal.replay import MergeConfig
from ganeti_masterd.journal.rows import ConfigRow, Row
from ganeti_masterd.observers import Observers


@implementer(IJournal)
class ConfigFileJournal:
    """An :class:`IJournal` whose commits write config.data itself, each in full and synced.

    It takes rows of the configuration only. ``in_thread`` runs blocking work in another thread, in
    order, and fires with its result. ``content`` is what the file holds; ``merge`` puts rows in it.

    A file that another program has changed since then is left alone, and commits fail: on a node
    that is to become the master the old one may go on for a while, and sends what it changes.
    """

    def __init__(
        self,
        path: str,
        content: bytes,
        disk: IDisk,
        in_thread: Callable[[Callable[[], Any]], Deferred[Any]],
        merge: MergeConfig,
    ) -> None:
        self.backlog = 0
        self.files_fault: str | None = None
        self.reserved = 0
        self._path = path
        self._disk = disk
        self._in_thread = in_thread
        self._merge = merge
        #: The file's content; the thread's own.
        self._content = content
        #: Digests that the file may have: as last written, and of writes that failed halfway.
        self._lawful = {digest_of(content)}
        #: Commits that failed, counted by the thread; those of which the reactor has heard.
        self._failed = 0
        self._failed_heard = 0
        self._rollbacks: Observers[[]] = Observers("a commit that failed")
        self._closed = False

    def commit(
        self, rows: Sequence[Row], publish: Callable[[], object] | None = None
    ) -> Deferred[None]:
        """See :meth:`IJournal.commit`."""
        if self._closed:
            return fail(DaemonStopping("The master daemon stops"))
        config = [row for row in rows if isinstance(row, ConfigRow)]
        if len(config) != len(rows):
            raise ProgrammerError("Only the configuration is written here")
        heard = self._failed_heard

        def work() -> None:
            try:
                if heard < self._failed:
                    raise OSError("a change before it, on which it builds, was not written")
                if config:
                    self._write(self._merge(self._content, config))
            except BaseException:
                self._failed += 1
                raise

        def written(_: None) -> None:
            self.files_fault = None
            if publish is not None:
                publish()

        def failed(failure: Failure) -> None:
            self._failed_heard += 1
            self.files_fault = failure.getErrorMessage()
            self._rollbacks.call()
            raise JobQueueError(f"{self._path} can't be written: {self.files_fault}")

        return self._in_thread(work).addCallbacks(written, failed)

    def _write(self, content: bytes) -> None:
        if digest_of(self._disk.read(self._path)) not in self._lawful:
            raise OSError(
                "another program has changed it since this daemon read it: stop this daemon, start"
                " it again, and repeat the change"
            )
        made = digest_of(content)
        self._lawful.add(made)
        replace_file(self._disk, self._path, content)
        self._disk.sync_directory(os.path.dirname(self._path))
        self._content = content
        self._lawful = {made}

    def on_rollback(self, function: Callable[[], object]) -> None:
        """See :meth:`IJournal.on_rollback`."""
        self._rollbacks.add(function)

    def effect(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """See :meth:`IJournal.effect`."""
        return self._in_thread(lambda: function(self._disk, *args))

    def settle(self) -> Deferred[None]:
        """See :meth:`IJournal.settle`."""
        return self._in_thread(lambda: None)

    def close(self) -> Deferred[None]:
        """See :meth:`IJournal.close`; the thread goes on."""
        self._closed = True
        return self.settle()
