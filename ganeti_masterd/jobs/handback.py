"""Job files as a daemon that died left them, made fit for whoever comes next.

luxid never recovers a job file that is waiting, running or canceling without a
livelock: it stays so for good
(protocol/queue.rst, Restart, take-over, hand-back). So the rules of a
restart are applied to the files themselves. Blocking; nobody else may be at
work on the queue, and its journal must be empty.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from ganeti_masterd.jobs import files
from ganeti_masterd.jobs.files import QueueFolder
from ganeti_masterd.jobs.model import encode_job
from ganeti_masterd.jobs.restart import after_restart
from ganeti_masterd.jobs.takeover import LivingJob, living
from ganeti_masterd.journal.files import replace_file
from ganeti_masterd.journal.interfaces import IDisk


class HandedBack(Struct, frozen=True):
    """What was done: jobs as ``(id, status before, status now)``, ids of files set aside.

    ``living`` are the jobs that a process of luxid still runs: they are as they were.
    """

    changed: list[tuple[int, str, str]]
    corrupt: list[int]
    living: list[LivingJob]


def hand_back(
    folder: QueueFolder, disk: IDisk, now: float, is_locked: Callable[[str], bool]
) -> HandedBack:
    """Leaves only queued and finished jobs in the queue's files, durably.

    Files that can't be understood are set aside. Raises ``OSError``; it can then be
    called again.
    """
    loaded = files.load(folder)
    files.set_aside(folder, disk, loaded.corrupt)
    alive = living(loaded.jobs.values(), is_locked)
    left_alone = {one.job_id for one in alive}
    changed = []
    for job_id, found in sorted(loaded.jobs.items()):
        if job_id in left_alone:
            continue
        job = after_restart(found, now)
        if job is not found:
            replace_file(disk, folder.job(job_id), encode_job(job))
            changed.append((job_id, found.status, job.status))
    if changed:
        disk.sync_directory(folder.queue)
    return HandedBack(changed, sorted(loaded.corrupt), alive)
