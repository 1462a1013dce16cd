"""Clients that wait for a job to change: each costs a Deferred, nothing else.

WaitForJobChange (spec luxi 2) answers as soon as the values of the fields, or
the log entries newer than a serial, differ from what the client knows; at once
for a job that has ended; with the unchanged values at the time-out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from twisted.internet.defer import Deferred

from ganeti_masterd.constants import LUXI_WFJC_TIMEOUT
from ganeti_masterd.errors import DaemonStopping, JobLost
from ganeti_masterd.jobs.model import Job, LogEntry
from ganeti_masterd.timing import Timer, Timers

#: ``(values, log entries)``, as the answer holds them.
Change = tuple[list[Any], list[LogEntry]]


class _Waiter:
    """One client's question about one job."""

    __slots__ = ("done", "fields", "log_serial", "previous", "timer")

    def __init__(self, fields: tuple[str, ...], previous: Any, log_serial: int) -> None:
        self.fields = fields
        self.previous = previous
        self.log_serial = log_serial
        self.done: Deferred[Change] | None = None
        self.timer: Timer | None = None


class JobWatch:
    """All waiting clients, by job. ``values`` computes a job's fields as JSON values."""

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

    def __len__(self) -> int:
        return sum(map(len, self._waiters.values()))

    def wait(
        self,
        job: Job,
        fields: Sequence[str],
        previous: Any,
        log_serial: int | None,
        timeout: float,
    ) -> Change | Deferred[Change]:
        """Returns the change if there is one by now, else a Deferred of it.

        ``previous`` is the values that the client has, or null; ``log_serial``
        the last log entry that it has. ``timeout`` is seconds, capped. The
        Deferred may be cancelled; it fails with ``JobLost`` if the job is
        archived meanwhile.
        """
        waiter = _Waiter(tuple(fields), previous, log_serial or 0)
        change = self._change(job, waiter)
        if change is not None or job.finished:
            return change if change is not None else (self._values(job, waiter.fields), [])
        done: Deferred[Change] = Deferred(lambda _: self._forget(job.id, waiter))
        waiter.done = done
        delay = min(max(timeout, 0.0), self._cap)
        waiter.timer = self._timers.later(delay, self._timed_out, job.id, waiter)
        self._waiters.setdefault(job.id, {})[waiter] = None
        return done

    def changed(self, job: Job) -> None:
        """Answers the clients for whom the job's new state is news."""
        waiters = self._waiters.get(job.id)
        if not waiters:
            return
        finished = job.finished
        for waiter in list(waiters):
            change = self._change(job, waiter)
            if change is None and finished:
                change = (self._values(job, waiter.fields), [])
            if change is not None:
                self._answer(job.id, waiter, change)

    def gone(self, job_id: int) -> None:
        """Tells whoever waits that the job was archived."""
        for waiter in list(self._waiters.get(job_id, ())):
            self._drop(job_id, waiter).errback(JobLost(f"Job {job_id} was archived"))

    def close(self) -> None:
        """Tells every waiting client that the daemon stops."""
        for job_id in list(self._waiters):
            for waiter in list(self._waiters[job_id]):
                self._drop(job_id, waiter).errback(
                    DaemonStopping("The master daemon stops; ask again once it runs")
                )

    def _change(self, job: Job, waiter: _Waiter) -> Change | None:
        values = self._values(job, waiter.fields)
        news = (
            [entry for op in job.ops for entry in op.log if entry.serial > waiter.log_serial]
            if job.log_serial > waiter.log_serial
            else []
        )
        if news or _as_json(values) != waiter.previous:
            return values, news
        return None

    def _answer(self, job_id: int, waiter: _Waiter, change: Change) -> None:
        self._drop(job_id, waiter).callback(change)

    def _timed_out(self, job_id: int, waiter: _Waiter) -> None:
        self._answer(job_id, waiter, (waiter.previous, []))

    def _forget(self, job_id: int, waiter: _Waiter) -> None:
        self._drop(job_id, waiter)

    def _drop(self, job_id: int, waiter: _Waiter) -> Deferred[Change]:
        waiters = self._waiters[job_id]
        del waiters[waiter]
        if not waiters:
            del self._waiters[job_id]
        assert waiter.timer is not None
        waiter.timer.cancel()
        assert waiter.done is not None
        return waiter.done


def _as_json(values: list[Any]) -> Any:
    """Returns values as a client gets them back, tuples and structs as lists."""
    if all(value is None or isinstance(value, (str, int, float)) for value in values):
        return values
    return msgspec.json.decode(msgspec.json.encode(values))
