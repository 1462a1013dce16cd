"""What is in the queue's folder when the daemon starts, and in its archive later.

The journal knows where the files are (:mod:`ganeti_masterd.journal.layout`), and writes
them; here they are only found and read, and a file that can't be understood is set aside.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping

import msgspec
from twisted.logger import Logger

from ganeti_masterd.jobs.model import Job, decode_job, decode_job_of
from ganeti_masterd.journal.files import make_archive_directory, replace_file
from ganeti_masterd.journal.interfaces import IDisk
from ganeti_masterd.journal.layout import (
    MAX_DIGITS,
    QueuePaths,
    archive_number,
    job_number,
    parse_serial,
)

log = Logger()


class QueueFolder(QueuePaths, frozen=True):
    """The queue's folder of one cluster, on this machine; what it reads, it blocks for."""

    def live_ids(self) -> list[int]:
        """Returns the ids of all jobs that have a file here, in order."""
        return sorted(_ids_in(self.queue))

    def highest_archived(self) -> int:
        """Returns the highest archived id, 0 without any; reads one folder only."""
        for folder in self.archive_folders():
            highest = max(_ids_in(folder), default=0)
            if highest:
                return highest
        return 0

    def ids_in(self, folder: str) -> list[int]:
        """Returns the ids of the jobs that have a file in a folder, in no order."""
        return list(_ids_in(folder))

    def read(self, job_id: int) -> Job | None:
        """Returns a job, archived or not, as its file has it; None where there is none.

        Raises ``msgspec.DecodeError`` if the file can't be understood.
        """
        for path in (self.job(job_id), self.archived_job(job_id)):
            try:
                with open(path, "rb") as file:
                    return decode_job(file.read())
            except FileNotFoundError:
                continue
        return None

    def read_archived(self, job_ids: Iterable[int]) -> dict[int, Job]:
        """Returns those of the archived jobs that are there and can be understood."""
        found = {}
        for job_id in job_ids:
            try:
                job = self.read(job_id)
            except (msgspec.DecodeError, OSError) as error:
                log.warn("Job {job_id} can't be read: {error}", job_id=job_id, error=error)
                continue
            if job is not None:
                found[job_id] = job
        return found

    def read_serial(self) -> int:
        """Returns the last job id given, 0 where the file is missing or makes no sense."""
        try:
            with open(self.serial, "rb") as file:
                content = file.read(2 * MAX_DIGITS)
        except FileNotFoundError:
            return 0
        serial = parse_serial(content)
        if serial is None:
            log.error(
                "{path} holds {text!r}, not a number; it is not relied upon",
                path=self.serial,
                text=content,
            )
        return serial or 0

    def drained(self) -> bool:
        """Whether the drain flag is set."""
        return os.path.exists(self.drain)

    def archive_folders(self) -> list[str]:
        """Returns the paths of the archive's folders, that of the highest ids first."""
        try:
            names = os.listdir(self.archive)
        except FileNotFoundError:
            return []
        numbers = {number for name in names if (number := archive_number(name)) is not None}
        return [f"{self.archive}/{number}" for number in sorted(numbers, reverse=True)]


def _ids_in(folder: str) -> Iterator[int]:
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return
    for name in names:
        number = job_number(name)
        if number is not None:
            yield number


class LoadedJobs(msgspec.Struct, frozen=True):
    """What the queue's folder held: jobs by id, and what is wrong with bad files."""

    jobs: dict[int, Job]
    corrupt: dict[int, str]


def load(folder: QueueFolder) -> LoadedJobs:
    """Reads every live job file. A bad one is reported, never fatal.

    See protocol/queue.rst, Restart, take-over, hand-back.
    """
    jobs: dict[int, Job] = {}
    corrupt: dict[int, str] = {}
    for job_id in folder.live_ids():
        with open(folder.job(job_id), "rb") as file:
            body = file.read()
        try:
            job = decode_job_of(job_id, body)
        except msgspec.DecodeError as error:
            corrupt[job_id] = str(error)
            continue
        jobs[job_id] = job
    return LoadedJobs(jobs, corrupt)


def set_aside(folder: QueueFolder, disk: IDisk, corrupt: Mapping[int, str]) -> None:
    """Moves job files that can't be understood into the archive, each with a log line.

    The name ends in ``.corrupt``, so that no one takes it for a job. A crash leaves
    each where it was, or there, or in both places: no disk promises that the two
    names of a move become durable together. Raises ``OSError``; it can then be called again.
    """
    for job_id, fault in corrupt.items():
        body = disk.read(folder.job(job_id))
        if body is None:
            continue
        target = folder.corrupt_job(job_id)
        make_archive_directory(disk, folder, job_id)
        disk.sync_directory(folder.queue)
        replace_file(disk, target, body)
        disk.sync_directory(folder.archive_directory(job_id))
        disk.unlink(folder.job(job_id))
        log.error(
            "Job file {job_id} can't be understood ({fault}); it is kept as {target}",
            job_id=job_id,
            fault=fault,
            target=target,
        )
    if corrupt:
        disk.sync_directory(folder.queue)
