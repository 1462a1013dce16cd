"""Jobs of luxid that outlive it (protocol/queue.rst, Restart, take-over, hand-back).

luxid runs each job in a process of its own, which holds a POSIX lock on the
file that the job calls its livelock, and goes on when luxid ends. Such a job
and its file must be left alone until it has ended.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterable

from msgspec import Struct

from ganeti_masterd import safely
from ganeti_masterd.jobs.model import Job


class LivingJob(Struct, frozen=True):
    """A job that another process runs, and the process if the job's file says it."""

    job_id: int
    status: str
    livelock: str
    process_id: int | None

    def __str__(self) -> str:
        process = "" if self.process_id is None else f", process {self.process_id}"
        return f"job {self.job_id} ({self.status}{process})"


def living(jobs: Iterable[Job], is_locked: Callable[[str], bool]) -> list[LivingJob]:
    """Returns the unfinished jobs whose livelock is held, by id. Pure.

    ``is_locked`` says of a livelock's path whether anybody holds it.
    """
    found = [
        LivingJob(
            job.id,
            job.status,
            job.livelock,
            job.process_id if isinstance(job.process_id, int) else None,
        )
        for job in jobs
        if isinstance(job.livelock, str) and not job.finished and is_locked(job.livelock)
    ]
    return sorted(found, key=lambda one: one.job_id)


def is_locked(path: str) -> bool:
    """Whether another process holds a POSIX lock on a file; not for one that isn't there.

    Not to be called for a file on which this process holds a lock itself: it
    would lose it. Raises ``OSError`` for a file that can't be opened.
    """
    try:
        fd = safely.open_file(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return True
        raise
    finally:
        os.close(fd)
    return False
