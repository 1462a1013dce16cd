"""Where job files are, and what is in them when the daemon starts.

Ganeti's own layout (protocol/queue.rst, Files of the queue): ``job-N`` in the queue's folder,
``archive/<N div 10000>/job-N`` once archived, ``serial`` with the last id
given. The journal writes these files; here they are only found and read, and a
file that can't be understood is set aside.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator

import msgspec
from twisted.logger import Logger

from ganeti_masterd.constants import JOBS_PER_ARCHIVE_DIRECTORY
from ganeti_masterd.jobs.model import Job, decode_job

log = Logger()

_JOB_FILE = re.compile(r"job-(\d+)")


class QueueFolder:
    """The queue's folder of one cluster, by path."""

    def __init__(self, path: str) -> None:
        self.path = path

    def live(self, job_id: int) -> str:
        """Returns the path of a job that isn't archived."""
        return os.path.join(self.path, f"job-{job_id}")

    def archived(self, job_id: int) -> str:
        """Returns the path of an archived job."""
        folder = str(job_id // JOBS_PER_ARCHIVE_DIRECTORY)
        return os.path.join(self.path, "archive", folder, f"job-{job_id}")

    @property
    def serial(self) -> str:
        """The path of the file with the last job id given."""
        return os.path.join(self.path, "serial")

    @property
    def drain(self) -> str:
        """The path of the file that exists while the queue is drained."""
        return os.path.join(self.path, "drain")

    def live_ids(self) -> list[int]:
        """Returns the ids of all jobs that have a file here, in order."""
        return sorted(_ids_in(self.path))

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
        for path in (self.live(job_id), self.archived(job_id)):
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
                text = file.read(64).strip()
        except FileNotFoundError:
            return 0
        if not text.isdigit():
            log.error(
                "{path} holds {text!r}, not a number; it is not relied upon",
                path=self.serial,
                text=text,
            )
            return 0
        return int(text)

    def drained(self) -> bool:
        """Whether the drain flag is set."""
        return os.path.exists(self.drain)

    def archive_folders(self) -> list[str]:
        """Returns the paths of the archive's folders, that of the highest ids first."""
        base = os.path.join(self.path, "archive")
        try:
            names = os.listdir(base)
        except FileNotFoundError:
            return []
        numbers = sorted((int(name) for name in names if name.isdigit()), reverse=True)
        return [os.path.join(base, str(number)) for number in numbers]


def _ids_in(folder: str) -> Iterator[int]:
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return
    for name in names:
        match = _JOB_FILE.fullmatch(name)
        if match:
            yield int(match[1])


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
        with open(folder.live(job_id), "rb") as file:
            body = file.read()
        try:
            job = decode_job(body)
            if job.id != job_id:
                raise msgspec.ValidationError(f"the file holds job {job.id}")
        except msgspec.DecodeError as error:
            corrupt[job_id] = str(error)
            continue
        jobs[job_id] = job
    return LoadedJobs(jobs, corrupt)


def set_aside(folder: QueueFolder, corrupt: dict[int, str]) -> None:
    """Moves job files that can't be understood into the archive, each with a log line.

    The name ends in ``.corrupt``, so that no one takes it for a job.
    """
    for job_id, fault in corrupt.items():
        target = folder.archived(job_id) + ".corrupt"
        os.makedirs(os.path.dirname(target), mode=0o750, exist_ok=True)
        os.replace(folder.live(job_id), target)
        log.error(
            "Job file {job_id} can't be understood ({fault}); it is kept as {target}",
            job_id=job_id,
            fault=fault,
            target=target,
        )
