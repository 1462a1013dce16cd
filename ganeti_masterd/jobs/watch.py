"""Clients that wait for a job to change: each costs a Deferred, nothing else.

WaitForJobChange answers when the values of the fields, or the log
entries newer than a serial, differ from what the client knows; at once for a
job that has ended; with the unchanged values at the time-out.

News of a job that goes on is held back for ``SHORTLY``. Most jobs take many steps in
less time: their clients hear of the end at once, and not of each step before it, each of
which they would answer with a request.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from ganeti_masterd.constants import LUXI_WFJC_TIMEOUT
from ganeti_masterd.errors import DaemonStopping, JobLost
from ganeti_masterd.jobs.model import Job, LogEntry
from ganeti_masterd.timing import Timer, Timers

#: ``(values, log entries)``, as the answer holds them.
JobNews = tuple[list[Any], list[LogEntry]]

#: Seconds that news may be held back while the job has not ended.
SHORTLY = 0.01

#: Seconds that sums of times may be off.
_TINY = 1e-6


class _Waiter:
    """One client's question about one job, whose published state is ``job``.

    ``held``: there is news for it, and ``timer`` is when it is told.
    """

    __slots__ = ("deadline", "done", "fields", "held", "job", "log_serial", "previous", "timer")

    def __init__(self, job: Job, fields: tuple[str, ...], previous: Any, log_serial: int) -> None:
        self.job = job
        self.fields = fields
        self.previous = previous
        self.log_serial = log_serial
        self.held = False
        self.deadline = 0.0
        self.done: Deferred[JobNews] | None = None
        self.timer: Timer | None = None

    @property
    def news(self) -> list[LogEntry]:
        """The log entries that the client doesn't have."""
        job, serial = self.job, self.log_serial
        if job.log_serial <= serial:
            return []
        return [entry for op in job.ops for entry in op.log if entry.serial > serial]


class JobWatch:
    """All waiting clients, by job. ``values`` computes a job's fields as JSON values.

    What a client's Deferred runs may do anything here: give up the wait of others, wait for
    a job anew, close it all. Where ``values`` raises, that client alone has the error.
    """

    def __init__(
        self,
        timers: Timers,
        values: Callable[[Job, tuple[str, ...]], list[Any]],
        cap: float = LUXI_WFJC_TIMEOUT,
    ) -> None:
        self._timers = timers
        self._values = values
        self._cap = cap
        self._waiters: dict[int, dict[_Waiter, None]] = {}
        #: The clients whose news is held back, and until when, the earliest first. One timer
        #: serves all of them, as most have been answered before they are due.
        self._held: dict[_Waiter, float] = {}
        self._telling: Timer | None = None
        self._busy_telling = False
        self._closed = False

    def __len__(self) -> int:
        return sum(map(len, self._waiters.values()))

    def wait(
        self,
        job: Job,
        fields: Sequence[str],
        previous: Any,
        log_serial: int | None,
        timeout: float,
    ) -> JobNews | Deferred[JobNews]:
        """Returns the change at once for a job that has ended, else a Deferred of it.

        ``previous`` is the values that the client has, or null; ``log_serial``
        the last log entry that it has. ``timeout`` is seconds, capped. The
        Deferred may be cancelled; it fails with ``JobLost`` if the job is
        archived meanwhile, and with ``DaemonStopping`` once this is closed.
        """
        waiter = _Waiter(job, tuple(fields), previous, log_serial or 0)
        if job.finished:
            return self._change(waiter)
        if self._closed:
            return fail(_stopping())
        knows = self._knows(waiter)
        waiter.done = Deferred(lambda _: self._forget(waiter))
        delay = min(max(timeout, 0.0), self._cap)
        waiter.deadline = self._timers.seconds() + delay
        self._waiters.setdefault(job.id, {})[waiter] = None
        if knows:
            waiter.timer = self._timers.later(delay, self._time_out, waiter)
        else:
            self._hold(waiter)
        return waiter.done

    def changed(self, job: Job) -> None:
        """Tells the clients for whom the job's new state is news: at once if it has ended."""
        waiters = self._waiters.get(job.id)
        if not waiters:
            return
        finished = job.finished
        for waiter in list(waiters):
            if waiter not in waiters:
                continue  # given up, or told, by one that was told before
            waiter.job = job
            if finished:
                self._answer(waiter)
            elif not waiter.held and not self._knows(waiter):
                self._hold(waiter)

    def gone(self, job_id: int) -> None:
        """Tells whoever waits that the job was archived."""
        for waiter in list(self._waiters.get(job_id, ())):
            self._fail(waiter, JobLost(f"Job {job_id} was archived"))

    def close(self) -> None:
        """Tells every waiting client that the daemon stops, and those who come later."""
        self._closed = True
        for waiters in list(self._waiters.values()):
            for waiter in list(waiters):
                self._fail(waiter, _stopping())

    def _knows(self, waiter: _Waiter) -> bool:
        """Whether the client has the job's state and all of its log.

        False too where its values can't be had: the answer says why.
        """
        job = waiter.job
        if waiter.previous is None or job.log_serial > waiter.log_serial:
            return False
        try:
            return bool(_as_json(self._values(job, waiter.fields)) == waiter.previous)
        except Exception:
            return False

    def _change(self, waiter: _Waiter) -> JobNews:
        return self._values(waiter.job, waiter.fields), waiter.news

    def _hold(self, waiter: _Waiter) -> None:
        """Tells the news in a moment."""
        if waiter.timer is not None:
            waiter.timer.cancel()
            waiter.timer = None
        waiter.held = True
        now = self._timers.seconds()
        left = waiter.deadline - now
        if left < SHORTLY:
            waiter.timer = self._timers.later(left, self._answer, waiter)
            return
        self._held[waiter] = now + SHORTLY
        if self._telling is None and not self._busy_telling:
            self._telling = self._timers.later(SHORTLY, self._tell_held)

    def _tell_held(self) -> None:
        """Tells the news that was held back long enough."""
        self._telling = None
        held, now = self._held, self._timers.seconds()
        self._busy_telling = True
        try:
            while held:
                waiter, at = next(iter(held.items()))
                if at > now + _TINY:
                    break
                del held[waiter]
                self._answer(waiter)
        finally:
            self._busy_telling = False
            if held:
                at = next(iter(held.values()))
                left = max(0.0, at - self._timers.seconds())
                self._telling = self._timers.later(left, self._tell_held)

    def _answer(self, waiter: _Waiter) -> None:
        done = self._leave(waiter)
        if done is None:
            return
        try:
            change = self._change(waiter)
        except Exception:
            done.errback(Failure())
        else:
            done.callback(change)

    def _time_out(self, waiter: _Waiter) -> None:
        done = self._leave(waiter)
        if done is not None:
            done.callback((waiter.previous, []))

    def _forget(self, waiter: _Waiter) -> None:
        self._leave(waiter)

    def _fail(self, waiter: _Waiter, error: Exception) -> None:
        done = self._leave(waiter)
        if done is not None:
            done.errback(error)

    def _leave(self, waiter: _Waiter) -> Deferred[JobNews] | None:
        """Takes a client out; returns its Deferred, or None if it doesn't wait any more."""
        waiters = self._waiters.get(waiter.job.id, {})
        if waiter not in waiters:
            return None
        del waiters[waiter]
        if not waiters:
            del self._waiters[waiter.job.id]
        if waiter.timer is not None:
            waiter.timer.cancel()
        if self._held.pop(waiter, None) is not None and not self._held and self._telling:
            self._telling.cancel()
            self._telling = None
        return waiter.done


def _stopping() -> DaemonStopping:
    return DaemonStopping("The master daemon stops; ask again once it runs")


def _as_json(values: list[Any]) -> Any:
    """Returns values as a client gets them back, tuples and structs as lists."""
    if all(value is None or isinstance(value, (str, int, float)) for value in values):
        return values
    return msgspec.json.decode(msgspec.json.encode(values))
