"""When the files follow: rounds planned, run one after another, tried again after a fault."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ganeti_masterd.errors import JobQueueError
from ganeti_masterd.journal.backlog import Backlog, Taken
from ganeti_masterd.journal.following import FollowedImage
from ganeti_masterd.journal.rows import Row
from ganeti_masterd.journal.thread import IDiskThread
from ganeti_masterd.journal.writing import JournalWriting
from ganeti_masterd.timing import Timer, Timers

log = Logger()


class FollowingPace(Struct, frozen=True):
    """How soon the files follow, in seconds.

    ``pause`` lets quick changes of one job become one file, also for most of those that
    were submitted together; config.data follows once in ``config_interval`` at most, and
    everything with it, as a job's file must not precede it; after a fault the next try
    waits ``retry``.
    """

    pause: float = 1.0
    config_interval: float = 1.0
    retry: float = 5.0


class Rounds:
    """Lets the files follow what is published. Reactor thread only.

    ``config_image`` is called as a round begins that includes configuration; ``numbered`` is
    the last number that the files hold already.
    """

    def __init__(
        self,
        thread: IDiskThread,
        timers: Timers,
        writing: JournalWriting,
        config_image: Callable[[], FollowedImage],
        pace: FollowingPace,
        numbered: int = 0,
    ) -> None:
        self._thread = thread
        self._timers = timers
        self._writing = writing
        self._config_image = config_image
        self._pace = pace
        self._backlog = Backlog()
        self._under_way = False
        self._decided = numbered
        self._followed = numbered
        self._due_since: float | None = None
        self._config_at = float("-inf")
        self._failed_at = float("-inf")
        self._fault: str | None = None
        self._timer: Timer | None = None
        self._timer_at = 0.0
        self._waiting: list[tuple[int, Deferred[None]]] = []
        self._last = False

    @property
    def backlog(self) -> int:
        """How many rows the files don't hold yet."""
        return self._backlog.rows

    @property
    def fault(self) -> str | None:
        """Why the last round could not be written; None if it was."""
        return self._fault

    def published(self, rows: Sequence[tuple[int, Row]]) -> None:
        """Takes numbered rows that are published; the last one's number is the highest yet."""
        self._backlog.publish(rows)
        self._decided = rows[-1][0]
        if self._due_since is None and self._backlog.due:
            self._due_since = self._timers.seconds()
        self._plan_safely()

    def failed(self) -> None:
        """Those who wait for numbers above the last published one wait for that now."""
        self._waiting = [(min(seq, self._decided), done) for seq, done in self._waiting]
        self._plan_safely()

    def _plan_safely(self) -> None:
        try:
            self._plan()
        except Exception:
            # Those who committed are told all the same; the next commit plans again.
            log.failure("The next round of the files can't be planned")

    def settle(self, seq: int) -> Deferred[None]:
        """Fires when the files hold all rows up to ``seq`` (but open log lines); hurries."""
        done: Deferred[None] = Deferred()
        self._waiting.append((seq, done))
        self._plan()
        return done

    def finish(self) -> Deferred[None]:
        """Lets the files follow in full, at once; fails with ``JobQueueError`` if they can't.

        No round begins after that.
        """
        self._last = True
        return self.settle(self._decided)

    def _plan(self) -> None:
        """Begins a round if it is time, else sets the clock for it; tells who waited."""
        if self._under_way:
            return
        if not self._backlog.due:
            self._followed = self._decided
        self._tell_settled()
        if self._under_way or not self._backlog.due:
            return
        now = self._timers.seconds()
        at = self._due_at(now)
        if at <= now:
            self._begin(now)
        elif self._timer is None or not self._timer.active or at < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = at
            self._timer = self._timers.later(at - now, self._plan)

    def _due_at(self, now: float) -> float:
        if self._last:
            return now
        pace, since = self._pace, self._due_since if self._due_since is not None else now
        at = since
        if not self._waiting:
            at += pace.pause
            if self._backlog.config_due:
                at = max(at, self._config_at + pace.config_interval)
        return max(at, self._failed_at + pace.retry)

    def _begin(self, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._backlog.config_due:
            self._config_at = now
        self._due_since = None
        try:
            taken = self._backlog.take(self._decided, self._config_image)
        except Exception:
            log.failure("The configuration can't be had for config.data")
            self._failed(Failure())
            return
        self._under_way = True
        self._thread.follow(
            self._writing.steps(taken.round), lambda result: self._ended(taken, result)
        )

    def _ended(self, taken: Taken, result: Failure | None) -> None:
        self._under_way = False
        if result is not None:
            self._backlog.failed(taken)
            self._failed(result)
            return
        self._backlog.done(taken)
        self._followed = taken.round.seq
        self._failed_at = float("-inf")
        if self._fault is not None:
            log.info("The files follow the journal again")
            self._fault = None
        self._plan()

    def _failed(self, failure: Failure) -> None:
        fault = f"{type(failure.value).__name__}: {failure.getErrorMessage()}"
        if fault != self._fault:
            log.error(
                "The files can't follow the journal, which holds {rows} rows: {fault}",
                rows=self._backlog.rows,
                fault=fault,
            )
        self._fault = fault
        now = self._timers.seconds()
        self._failed_at = now
        if self._due_since is None:
            self._due_since = now
        if not self._last:
            self._plan()
            return
        waiting, self._waiting = self._waiting, []
        for _, done in waiting:
            done.errback(JobQueueError(f"the files can't follow the journal: {fault}"))

    def _tell_settled(self) -> None:
        if not self._waiting:
            return
        settled = [done for seq, done in self._waiting if seq <= self._followed]
        self._waiting = [entry for entry in self._waiting if entry[0] > self._followed]
        for done in settled:
            done.callback(None)
