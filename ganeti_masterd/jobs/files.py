"""What is in the queue's folder when the daemon starts, and in its archive later.

The journal knows where the files are (:mod:`ganeti_masterd.journal.layout`), and writes
them; here they are only found and read, and a file that can't be understood is set aside.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping

import msgspec
from twisted.logger import Logger

from ganeti_masterd.errors import JobQueueError
from ganeti_masterd.jobs.model import Job, decode_job, decode_job_of
from ganeti_masterd.journal.disk import NotAFile, read_file
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

    def strange(self) -> dict[int, str]:
        """Returns what has a job's name here and is no file, by the id that it names.

        The values are paths. Folders, pipes and links that lead nowhere are never read.
        """
        return {number: entry.path for number, entry in _jobs_in(self.queue) if not _is_file(entry)}

    def highest_archived(self) -> int:
        """Returns the highest archived id, 0 without any; reads one folder only."""
        for folder in self.archive_folders():
            highest = max(
                (n for n, _ in _jobs_in(folder) if self.archive_directory(n) == folder), default=0
            )
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
                return decode_job(read_file(path))
            except (FileNotFoundError, NotAFile):
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
            content = read_file(self.serial, 2 * MAX_DIGITS)
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise _unreadable(self.serial, error) from None
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
        except (FileNotFoundError, NotADirectoryError):
            return []
        numbers = {number for name in names if (number := archive_number(name)) is not None}
        return [f"{self.archive}/{number}" for number in sorted(numbers, reverse=True)]


def _ids_in(folder: str) -> Iterator[int]:
    return (number for number, entry in _jobs_in(folder) if _is_file(entry))


def _jobs_in(folder: str) -> Iterator[tuple[int, os.DirEntry[str]]]:
    """Yields what has the name of a job's file in a folder, whatever it is."""
    try:
        entries = os.scandir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    with entries:
        for entry in entries:
            number = job_number(entry.name)
            if number is not None:
                yield number, entry


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link in a circle
        return False


def _unreadable(path: str, error: OSError) -> JobQueueError:
    return JobQueueError(f"{path} can't be read: {error.strerror or error}")


class LoadedJobs(msgspec.Struct, frozen=True):
    """What the queue's folder held: jobs by id, and what is wrong with bad files.

    ``strange`` has the paths of what only has a job's name, by the id; such an id is not given.
    """

    jobs: dict[int, Job]
    corrupt: dict[int, str]
    strange: dict[int, str] = {}


def load(folder: QueueFolder) -> LoadedJobs:
    """Reads every live job file. A bad one is reported, never fatal.

    What isn't a file is logged and left alone. Raises ``JobQueueError`` for a file that the
    disk doesn't give, and ``FileNotFoundError`` for one that goes meanwhile. See
    protocol/queue.rst, Restart, take-over, hand-back.
    """
    jobs: dict[int, Job] = {}
    corrupt: dict[int, str] = {}
    for job_id in folder.live_ids():
        path = folder.job(job_id)
        try:
            body = read_file(path)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _unreadable(path, error) from None
        try:
            job = decode_job_of(job_id, body)
        except msgspec.DecodeError as error:
            corrupt[job_id] = str(error)
            continue
        jobs[job_id] = job
    strange = folder.strange()
    for path in strange.values():
        log.error("{path} has the name of a job's file and is none; it is left alone", path=path)
    return LoadedJobs(jobs, corrupt, strange)


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
