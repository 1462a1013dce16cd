"""Records each change of the configuration, a moment behind it, and answers questions about them.

The reactor only gathers what is published; a thread of its own packs and writes it, so that no
commit waits for the history. What can't be written isn't lost to the configuration, and is put into
one version once the file can be written again.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Concatenate, ParamSpec, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.store import ChangeAuthor
from ganeti_masterd.errors import ConfigurationError, DaemonStopping, GenericError
from ganeti_masterd.history.states import state_of
from ganeti_masterd.history.versions import NewVersion, VersionStore
from ganeti_masterd.journal.rows import ConfigRow
from ganeti_masterd.journal.thread import IDiskThread
from ganeti_masterd.timing import Timer, Timers

P = ParamSpec("P")
T = TypeVar("T")

log = Logger()

#: Seconds that changes are gathered before they are written, and how many at most.
PACE = 1.0
AT_ONCE = 1000

FOUND_AT_START = "found when the daemon started"
NOT_WRITTEN = "changes that could not be recorded one by one"

_FAULTS = (OSError, sqlite3.Error, ConfigurationError)


class ConfigHistory:
    """The history of one cluster's configuration. Reactor thread only, from :meth:`start` on.

    ``snapshot`` returns what is published; ``uid_of`` whose a job is, None if that isn't known.
    """

    def __init__(
        self,
        path: str,
        thread: IDiskThread,
        timers: Timers,
        snapshot: Callable[[], Snapshot],
        uid_of: Callable[[int], int | None],
        *,
        open_store: Callable[[str, str], VersionStore] = VersionStore,
    ) -> None:
        self._path = path
        self._thread = thread
        self._timers = timers
        self._snapshot = snapshot
        self._uid_of = uid_of
        self._open_store = open_store
        self._store: VersionStore | None = None
        self._gathered: list[NewVersion] = []
        self._timer: Timer | None = None
        #: Why the newest version lacks something of what is published; None if it has it all.
        self._behind: str | None = FOUND_AT_START
        self._fault: str | None = None
        self._started = False
        self._closed = False

    @property
    def fault(self) -> str | None:
        """Why the last changes could not be recorded; None if they were."""
        return self._fault

    def start(self) -> None:
        """Starts the thread, and records what changed while no daemon was running."""
        self._started = True
        self._thread.start()
        self._write()

    def record(self, after: Snapshot, rows: Sequence[ConfigRow], author: ChangeAuthor) -> None:
        """Takes a change that is published."""
        if self._closed:
            return
        uid = author.uid
        if uid is None and author.job is not None:
            uid = self._uid_of(author.job)
        self._gathered.append(
            NewVersion(
                self._timers.now(),
                after.header.serial_no,
                uid,
                author.job,
                author.note,
                {(row.section, row.uuid): row.body for row in rows},
            )
        )
        if len(self._gathered) >= AT_ONCE:
            self._write()
        elif self._timer is None:
            self._timer = self._timers.later(PACE, self._write)

    def ask(
        self,
        question: Callable[Concatenate[VersionStore, P], T],
        *args: P.args,
        **options: P.kwargs,
    ) -> Deferred[T]:
        """Asks ``question(store, ...)`` in the thread, once all changes so far are recorded.

        Fails with Ganeti's errors, also where the history can't be read. Once it is cancelled,
        or the history is closed, a question whose turn has not come yet costs nothing more.
        """
        if self._closed or not self._started:
            return fail(DaemonStopping("The history of the configuration is closed"))
        self._write()
        gone: list[Deferred[Any]] = []
        done: Deferred[Any] = Deferred(gone.append)

        def work() -> T:
            if gone or self._closed:
                raise DaemonStopping("Nobody waits for an answer any more")
            store = self._store
            if store is None:
                raise GenericError("The history of the configuration can't be read")
            return question(store, *args, **options)

        def answered(result: Any) -> None:
            if isinstance(result, Failure) and result.check(OSError, sqlite3.Error):
                text = f"The history of the configuration can't be read: {result.value}"
                result = Failure(GenericError(text))
            if not gone:
                done.callback(result)

        self._thread.do(work, answered)
        return done

    def close(self) -> Deferred[None]:
        """Records what is gathered, and ends the thread."""
        done: Deferred[None] = Deferred()
        if self._closed or not self._started:
            done.callback(None)
            return done
        self._write()
        self._closed = True
        self._thread.do(self._close_store, lambda _: None)
        self._thread.stop(lambda _: done.callback(None))
        return done

    # In the reactor

    def _write(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._started:
            return
        gathered, self._gathered = self._gathered, []
        behind, self._behind = self._behind, None
        if gathered or behind is not None:
            snapshot = self._snapshot()
            work = partial(self._record, gathered, behind, snapshot, self._timers.now())
            self._thread.do(work, partial(self._written, behind))

    def _written(self, behind: str | None, result: Any) -> None:
        if not isinstance(result, Failure):
            if self._fault is not None:
                log.info("The history of the configuration can be written again")
                self._fault = None
            return
        self._behind = behind or NOT_WRITTEN
        fault = f"{type(result.value).__name__}: {result.getErrorMessage()}"
        if fault != self._fault:
            if not result.check(*_FAULTS):
                log.failure("The history of the configuration could not be written", result)
            log.error("The configuration's changes aren't recorded: {fault}", fault=fault)
            self._fault = fault

    # In the thread

    def _record(
        self, gathered: Sequence[NewVersion], behind: str | None, snapshot: Snapshot, now: float
    ) -> None:
        store = self._store
        if store is None:
            os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
            store = self._store = self._open_store(self._path, snapshot.cluster.uuid)
        if behind is not None:
            # What was gathered since is part of it.
            store.catch_up(state_of(snapshot), now, snapshot.header.serial_no, behind)
        elif gathered:
            store.append(gathered, now)

    def _close_store(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None
