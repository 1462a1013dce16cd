"""Waiting, in tests of real processes: what for, for how long, and what was seen last.

What can say so itself is not polled: a job tells by WaitForJobChange when it changes
(:func:`job_is`, :func:`jobs_end`), the system tells when a process ends
(:func:`process_ends`). All else is looked at again and again by :func:`until`. Each wait
that is in vain fails with what it was for and what was seen last.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from ganeti_masterd.luxi.blocking import BlockingClient
from tests.functional.ledger import FINAL

#: Seconds that a wait lasts, unless it is given another limit.
PATIENCE = 60.0

#: Seconds between two looks, and the longest that a daemon is asked to hold an answer.
_INTERVAL = 0.02
_HELD = 10.0

#: So many characters of what was seen last are shown: the end of a log, not all of it.
_SHOWN = 2000

T = TypeVar("T")


class _Wait:
    """One wait for something: until when, and how it fails."""

    def __init__(self, what: str, limit: float) -> None:
        self._what = what
        self._limit = limit
        self._end = time.monotonic() + limit

    def left(self, seen: object) -> float:
        """Returns the seconds that are left; fails if there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            shown = seen if isinstance(seen, str) else repr(seen)
            if len(shown) > _SHOWN:
                shown = f"...{shown[-_SHOWN:]}"
            raise AssertionError(
                f"Waited {self._limit:g} s in vain for this: {self._what}. Last seen: {shown}"
            )
        return left


def until(
    what: str,
    look: Callable[[], T],
    holds: Callable[[T], object] = bool,
    limit: float = PATIENCE,
) -> T:
    """Looks until what is seen holds, at least once; returns what was seen.

    ``what`` says what is waited for, as a sentence: "node3 is up to date".
    """
    wait = _Wait(what, limit)
    while not holds(seen := look()):
        wait.left(seen)
        time.sleep(_INTERVAL)
    return seen


async def until_in_reactor(
    what: str,
    look: Callable[[], T],
    holds: Callable[[T], object],
    pause: Callable[[float], Awaitable[None]],
    limit: float = PATIENCE,
) -> T:
    """The same where the reactor runs meanwhile; ``pause`` is what lets it run."""
    wait = _Wait(what, limit)
    while not holds(seen := look()):
        wait.left(seen)
        await pause(_INTERVAL)
    return seen


def equal_to(wanted: object) -> Callable[[object], bool]:
    """For :func:`until`: whether it is just this that is seen."""
    return lambda seen: seen == wanted


def containing(text: str) -> Callable[[str], bool]:
    """For :func:`until`: whether what is seen, such as a log, has this text."""
    return lambda seen: text in seen


def job_is(client: BlockingClient, job: int, *statuses: str, limit: float = PATIENCE) -> str:
    """Returns the job's status once it is one of these; fails if it ends as another."""
    what = f"job {job} is {' or '.join(sorted(statuses))}"
    wait = _Wait(what, limit)
    seen: Any = None
    while True:
        held = min(wait.left(seen), _HELD)
        seen, _ = client.wait_for_job_change(job, ["status"], seen, None, held)
        (status,) = seen
        if status in statuses:
            return str(status)
        assert status not in FINAL, f"Job {job} ended as {status}, so never this: {what}"


def jobs_end(client: BlockingClient, limit: float = PATIENCE) -> None:
    """Returns once every job in the queue has ended, those included that come meanwhile."""
    wait = _Wait("all jobs have ended", limit)
    while open_ones := unfinished(client):
        for job in open_ones:
            job_is(client, job, *FINAL, limit=wait.left(open_ones))


def unfinished(client: BlockingClient) -> list[int]:
    """Returns the jobs that have not ended."""
    rows = client.query_jobs(None, ["id", "status"])
    return [job for job, status in rows if status not in FINAL]


def process_ends(pid: int, limit: float = PATIENCE) -> None:
    """Returns once the process has ended, whoever its parent is."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            ended, _, _ = select.select([descriptor], [], [], limit)
        finally:
            os.close(descriptor)
        assert ended, f"Process {pid} has not ended within {limit:g} s"
