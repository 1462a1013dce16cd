"""The journal in the reactor thread: group commit, publishing in order, a clean close.

While one batch is in the disk thread the next one gathers, so one transaction
serves all who wait. Nothing here blocks.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from enum import Enum
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ganeti_masterd.errors import DaemonStopping, JobQueueError
from ganeti_masterd.events import Committed, Events
from ganeti_masterd.journal.following import FollowedImage, JobFiles
from ganeti_masterd.journal.interfaces import IJournal
from ganeti_masterd.journal.recovery import Recovered
from ganeti_masterd.journal.rounds import FollowingPace, Rounds
from ganeti_masterd.journal.rows import Row, SerialRow
from ganeti_masterd.journal.thread import IDiskThread
from ganeti_masterd.journal.writing import JournalWriting
from ganeti_masterd.observers import Observers
from ganeti_masterd.timing import Timers

log = Logger()


#: So many rows the files may be behind before they get their share of the disk: bursts are
#: over by then, and what never ends must not run away from its files.
BEHIND = 10_000

#: How many steps of the files run before a row is committed, once they are so far behind;
#: a job has two rows or more and takes two steps. And at most how many before a batch.
STEPS_A_ROW = 2
STEPS_A_BATCH = 64


class _Stage(Enum):
    """The life of a journal, in order."""

    OPEN = "takes commits"
    CLOSING = "finishes commits that are pending"
    FOLLOWING = "lets the files follow in full"
    CLOSED = "its thread has ended"


class _Commit:
    """Rows of one caller, numbered, and who is told."""

    __slots__ = ("done", "publish", "rows")

    def __init__(self, rows: list[tuple[int, Row]], publish: Callable[[], object] | None) -> None:
        self.rows = rows
        self.publish = publish
        self.done: Deferred[None] = Deferred()


@implementer(IJournal)
class Journal:
    """An :class:`IJournal` over a recovered journal.

    ``job_files`` replaces job files (None: the disk thread does), and is closed with
    the journal. Work waits until :meth:`start`.
    """

    def __init__(
        self,
        recovered: Recovered,
        thread: IDiskThread,
        timers: Timers,
        *,
        events: Events | None = None,
        pace: FollowingPace | None = None,
        job_files: JobFiles | None = None,
    ) -> None:
        self.reserved = recovered.reserved
        self._thread = thread
        self._timers = timers
        self._config_image: Callable[[], FollowedImage] | None = None
        self._exact_serial: Callable[[], int | None] = lambda: None
        self._events = events if events is not None else Events()
        self._writing = JournalWriting(recovered, job_files, thread.progress)
        self._job_files = job_files
        self._rounds = Rounds(
            thread,
            timers,
            self._writing,
            self._published_config,
            pace if pace is not None else FollowingPace(),
            recovered.numbered,
        )
        self._rollbacks: Observers[[]] = Observers("a commit that failed")
        self._gathered: list[_Commit] = []
        self._flying: list[_Commit] | None = None
        self._effects: list[Callable[[], None]] = []
        self._answering = False
        # The numbers of the last row that was given one, and of the last one committed.
        self._numbered = self._committed = recovered.numbered
        self._fault: str | None = None
        self._stage = _Stage.OPEN
        self._closers: list[Deferred[None]] = []
        self._close_fault: str | None = None

    def config_from(self, image: Callable[[], FollowedImage]) -> None:
        """Sets what returns the published configuration, called as a round of the files begins.

        Without it no round that includes the configuration can begin.
        """
        self._config_image = image

    def serial_from(self, last_id: Callable[[], int | None]) -> None:
        """Sets what returns the last job id given, called at a clean stop.

        Without it, and where it returns None, the file keeps the number that it holds.
        """
        self._exact_serial = last_id

    def start(self) -> None:
        """Starts the disk thread; not before the process has detached."""
        self._thread.start()

    @property
    def backlog(self) -> int:
        """See :attr:`IJournal.backlog`."""
        return self._rounds.backlog

    @property
    def files_fault(self) -> str | None:
        """See :attr:`IJournal.files_fault`."""
        return self._rounds.fault

    @property
    def fault(self) -> str | None:
        """Why the last commit of rows failed; None if it did not."""
        return self._fault

    @property
    def clerk_fault(self) -> str | None:
        """What is wrong with the process for job files; the daemon does its work meanwhile."""
        return None if self._job_files is None else self._job_files.fault

    def commit(
        self, rows: Sequence[Row], publish: Callable[[], object] | None = None
    ) -> Deferred[None]:
        """See :meth:`IJournal.commit`."""
        if self._stage is not _Stage.OPEN:
            return fail(_stopping())
        first = self._numbered + 1
        self._numbered += len(rows)
        commit = _Commit(list(enumerate(rows, first)), publish)
        self._gathered.append(commit)
        self._dispatch()
        return commit.done

    def on_rollback(self, function: Callable[[], object]) -> None:
        """See :meth:`IJournal.on_rollback`."""
        self._rollbacks.add(function)

    def effect(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """See :meth:`IJournal.effect`; it runs also if the commits before it fail."""
        if self._stage is not _Stage.OPEN:
            return fail(_stopping())
        done: Deferred[Any] = Deferred()
        work = partial(self._writing.effect, function, args)
        self._effects.append(lambda: self._thread.do(work, done.callback))
        self._dispatch()
        return done

    def settle(self) -> Deferred[None]:
        """See :meth:`IJournal.settle`; log lines wait for their job's next row."""
        if self._stage is not _Stage.OPEN:
            return fail(_stopping())
        return self._rounds.settle(self._numbered)

    def close(self) -> Deferred[None]:
        """See :meth:`IJournal.close`.

        Fails with ``JobQueueError`` where the files can't follow: the journal
        is closed all the same, and keeps the rows for the next start.
        """
        done: Deferred[None] = Deferred()
        self._closers.append(done)
        if self._stage is _Stage.OPEN:
            self._stage = _Stage.CLOSING
            self._follow_when_idle()
        elif self._stage is _Stage.CLOSED:
            self._tell_closers()
        return done

    def _dispatch(self) -> None:
        """Hands the disk thread what has gathered, unless a batch is there or is answered."""
        if self._flying is None and not self._answering and self._gathered:
            batch, self._gathered = self._gathered, []
            self._flying = batch
            rows = [row for commit in batch for row in commit.rows]
            began = self._timers.seconds()
            if self._rounds.backlog > BEHIND:
                self._thread.hurry(min(STEPS_A_ROW * len(rows), STEPS_A_BATCH))
            self._thread.do(
                partial(self._writing.append, rows),
                lambda result: self._answered(rows, began, result),
            )
        if not self._gathered:
            effects, self._effects = self._effects, []
            for start in effects:
                start()

    def _answered(self, rows: list[tuple[int, Row]], began: float, result: Failure | None) -> None:
        batch, self._flying = self._flying or [], None
        self._answering = True  # what the answers commit goes together
        if result is None:
            if rows and self._fault is not None:
                log.info("The journal can be written again")
                self._fault = None
            self._publish(batch, rows)
            if rows and self._events.observed(Committed):
                self._events.publish(Committed(len(rows), self._timers.seconds() - began))
            for commit in batch:
                commit.done.callback(None)
        else:
            self._fail(batch, result)
        self._answering = False
        self._dispatch()
        self._follow_when_idle()

    def _publish(self, batch: list[_Commit], rows: list[tuple[int, Row]]) -> None:
        for _, row in rows:
            if isinstance(row, SerialRow) and row.reserved > self.reserved:
                self.reserved = row.reserved
        for commit in batch:
            if commit.publish is not None:
                _guarded(commit.publish)
        if rows:
            self._committed = rows[-1][0]
            self._rounds.published(rows)

    def _fail(self, batch: list[_Commit], failure: Failure) -> None:
        failed, self._gathered = [*batch, *self._gathered], []
        if not failure.check(OSError, sqlite3.Error):
            log.failure("The journal could not take a batch", failure)
        fault = f"the journal can't be written: {failure.getErrorMessage()}"
        if fault != self._fault:
            log.error("Commits fail: {fault}", fault=fault)
            self._fault = fault
        # All that was numbered since has failed: the numbers of rows must have no gap.
        self._numbered = self._committed
        self._rollbacks.call()
        self._rounds.failed()
        for commit in failed:
            commit.done.errback(JobQueueError(fault))

    def _follow_when_idle(self) -> None:
        if self._stage is _Stage.CLOSING and self._flying is None and not self._gathered:
            self._stage = _Stage.FOLLOWING
            self._rounds.finish().addCallbacks(lambda _: self._finish(), self._end)

    def _published_config(self) -> FollowedImage:
        assert self._config_image is not None, "a configuration was committed, none is published"
        return self._config_image()

    def _finish(self) -> None:
        serial: int | None = None
        try:
            serial = self._exact_serial()
        except Exception:
            log.failure("The last job id is not known: serial stays as it is")
        self._thread.follow(self._writing.finish(serial), self._end)

    def _end(self, result: Failure | None) -> None:
        if result is not None:
            self._close_fault = f"the journal keeps its rows: {result.getErrorMessage()}"
            log.error("The files are not complete, {fault}", fault=self._close_fault)
        self._thread.do(self._writing.close, _noted)
        self._thread.stop(self._ended)

    def _ended(self, _: None) -> None:
        self._stage = _Stage.CLOSED
        self._tell_closers()

    def _tell_closers(self) -> None:
        closers, self._closers = self._closers, []
        for done in closers:
            if self._close_fault is None:
                done.callback(None)
            else:
                done.errback(JobQueueError(self._close_fault))


def _stopping() -> DaemonStopping:
    return DaemonStopping("the journal is closed: the daemon stops")


def _guarded(function: Callable[[], object]) -> None:
    try:
        function()
    except Exception:
        log.failure("What publishes a commit failed: {function}", function=function)


def _noted(result: Any) -> None:
    if isinstance(result, Failure):
        log.failure("The journal's store could not be closed", result)
