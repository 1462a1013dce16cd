"""Following jobs until they end: turns answers of the daemon into a stream of events.

A single job is followed by waiting for its changes. Several jobs are followed, over the
same connection, by asking for the state of all of them in one call, and then waiting a
moment for a change of one that is running. So the number of calls doesn't depend on the
number of jobs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from msgspec import Struct

from ganeti_masterd.cli.answers import read_as
from ganeti_masterd.cli.rows import JobOutcome, JobStep, LogLine, fetch
from ganeti_masterd.cli.words import Stamp
from ganeti_masterd.constants import (
    JOB_NOTCHANGED,
    STATUS_RUNNING,
    STATUSES_FINALIZED,
)
from ganeti_masterd.errors import JobLost
from ganeti_masterd.luxi.calls import Calls

#: How long to wait for a change of the only job left, seconds.
PATIENCE = 30.0
#: How long to wait for a change of one job while others are followed too, seconds.
INTERVAL = 0.25
#: The least time between two calls that ask for all jobs, seconds.
REST = 0.05

_FIELDS = ["status", "opstatus"]


class StatusMoved(Struct, frozen=True, tag="status"):
    """A job's status changed, or another of its opcodes ended: ``done`` of ``opcodes``."""

    job: int
    status: str
    done: int
    opcodes: int


class LineSaid(Struct, frozen=True, tag="log"):
    """An opcode of a job logged a message."""

    job: int
    time: Stamp
    kind: str
    message: Any


class Ended(Struct, frozen=True, tag="end"):
    """A job has ended; the last event about it."""

    job: int
    outcome: JobOutcome


Event = StatusMoved | LineSaid | Ended


class _Known(Struct):
    """The last known state of a job that has not ended: field values and log serial."""

    values: list[Any] | None = None
    serial: int = 0

    @property
    def status(self) -> str | None:
        return None if self.values is None else self.values[0]


class LogFollower:
    """Follows jobs with one client. ``jobs`` are ids, without duplicates."""

    def __init__(
        self,
        client: Calls,
        jobs: Sequence[int],
        *,
        timeout: float,
        rest: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._timeout = timeout
        self._rest = rest
        self._open = {job: _Known() for job in jobs}

    def events(self) -> Iterator[Event]:
        """Yields what happens to the jobs, until all have ended.

        The first event of each job is its current status, even if it has already
        ended. Raises ``JobLost`` for a job that doesn't exist, and the errors that
        the daemon answers with.
        """
        yield from self._look()
        while self._open:
            if len(self._open) == 1:
                (job,) = self._open
                yield from self._ask(job, PATIENCE)
                continue
            first = self._foremost()
            yield from self._ask(first, INTERVAL)
            self._rest(REST)
            yield from self._look()
            for job in self._running():
                yield from self._ask(job, 0)

    def _running(self) -> list[int]:
        return [job for job, known in self._open.items() if known.status == STATUS_RUNNING]

    def _foremost(self) -> int:
        """Returns the job that is most likely to change next."""
        return next(iter(self._running()), next(iter(self._open)))

    def _look(self) -> Iterator[Event]:
        """Asks for the state of all jobs."""
        rows = fetch(self._client, JobStep, list(self._open))
        lost = [job for job in self._open if job not in rows]
        if lost:
            raise JobLost(f"There is no job {', '.join(map(str, lost))}")
        ended = []
        for job, row in rows.items():
            yield from self._moved(job, [row.status, row.opstatus])
            if row.status in STATUSES_FINALIZED:
                ended.append(job)
        yield from self._ends(ended)

    def _ask(self, job: int, wait: float) -> Iterator[Event]:
        """Asks for changes of one job, waiting for up to ``wait`` seconds."""
        known = self._open[job]
        try:
            answer = self._client.call(
                "WaitForJobChange",
                job,
                _FIELDS,
                known.values,
                known.serial,
                wait,
                timeout=wait + self._timeout,
            )
        except JobLost:  # it was archived meanwhile, so it has ended
            answer = None
        if answer is None:
            yield from self._ends([job])
            return
        if answer == JOB_NOTCHANGED:
            return
        values, lines = _change(answer)
        for line in lines:
            yield from self._said(job, known, line)
        yield from self._moved(job, values)
        if values[0] in STATUSES_FINALIZED:
            yield from self._ends([job])

    def _moved(self, job: int, values: list[Any]) -> Iterator[Event]:
        known = self._open[job]
        if known.values != values:
            known.values = values
            status, opcodes = values
            done = sum(each in STATUSES_FINALIZED for each in opcodes)
            yield StatusMoved(job, status, done, len(opcodes))

    def _said(self, job: int, known: _Known, line: LogLine) -> Iterator[Event]:
        if line.serial > known.serial:
            known.serial = line.serial
            yield LineSaid(job, line.time, line.kind, line.message)

    def _ends(self, jobs: list[int]) -> Iterator[Event]:
        outcomes = fetch(self._client, JobOutcome, jobs)
        for job in jobs:
            outcome = outcomes.get(job)
            if outcome is None:
                raise JobLost(f"Job {job} no longer exists")
            known = self._open.pop(job)
            for line in sorted((line for op in outcome.oplog for line in op), key=_serial):
                yield from self._said(job, known, line)
            yield Ended(job, outcome)


def _serial(line: LogLine) -> int:
    return line.serial


def _change(answer: Any) -> tuple[list[Any], list[LogLine]]:
    """Reads an answer of WaitForJobChange."""
    (status, opcodes), lines = read_as(tuple[tuple[str, list[str]], list[LogLine]], answer, "a job")
    return [status, opcodes], lines
