"""Where Ganeti's own files stand, and how one of them is replaced.

See protocol/queue.rst, Files of the queue.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from msgspec import Struct

from ganeti_masterd.constants import JOB_QUEUE_FILES_PERMS, JOBS_PER_ARCHIVE_DIRECTORY
from ganeti_masterd.journal.interfaces import IDisk

ARCHIVE_DIRECTORY_PERMS = 0o750

#: What a file is called until it is whole; no reader of the queue takes it for a job.
TEMPORARY_SUFFIX = ".following"

JOB_PREFIX = "job-"

#: How many job files are written, synced and named together: more would gain little,
#: and each is open until it is synced.
GROUP = 32

#: A file that is to be replaced: its path and its new content.
File = tuple[str, bytes]


class QueueFiles(Struct, frozen=True):
    """The files that follow the journal, by absolute paths.

    ``queue`` is the directory of the job queue, ``config`` the file config.data.
    """

    queue: str
    config: str

    @property
    def serial(self) -> str:
        """The file that holds the last job id given."""
        return f"{self.queue}/serial"

    @property
    def archive(self) -> str:
        """The directory above all archived jobs."""
        return f"{self.queue}/archive"

    @property
    def config_directory(self) -> str:
        """The directory of config.data."""
        return self.config.rpartition("/")[0]

    def job(self, job_id: int) -> str:
        """The file of a job that is not archived."""
        return f"{self.queue}/{JOB_PREFIX}{job_id}"

    def archive_directory(self, job_id: int) -> str:
        """The directory that holds the job's file once it is archived."""
        return f"{self.archive}/{job_id // JOBS_PER_ARCHIVE_DIRECTORY}"

    def archived_job(self, job_id: int) -> str:
        """The file of an archived job."""
        return f"{self.archive_directory(job_id)}/{JOB_PREFIX}{job_id}"


def replace_file(disk: IDisk, path: str, content: bytes) -> None:
    """Puts a whole, synced file in the place of ``path``, mode 0640.

    The new name is durable once the directory is synced, which is the
    caller's: one sync serves many files. Where it fails with ``OSError`` the
    old file stands and no temporary one is left, as far as the disk lets.
    """
    for _ in replace_files(disk, [(path, content)]):
        pass


def replace_files(disk: IDisk, files: Sequence[File]) -> Iterator[None]:
    """Replaces several files as :func:`replace_file` does, in short steps.

    All are written, then synced, then given their names, in the order given:
    together that costs the disk much less than one after another. Where it fails
    with ``OSError`` some may be replaced; no temporary file is left, as far as the
    disk lets.
    """
    temporaries = [(path + TEMPORARY_SUFFIX, path) for path, _ in files]
    try:
        for (temporary, _), (_, content) in zip(temporaries, files, strict=True):
            disk.write(temporary, content, JOB_QUEUE_FILES_PERMS)
            yield
        for temporary, _ in temporaries:
            disk.sync(temporary)
            yield
        for temporary, path in temporaries:
            disk.rename(temporary, path)
        yield
    except OSError:
        for temporary, _ in temporaries:
            with contextlib.suppress(OSError):
                disk.unlink(temporary)
        raise


def in_groups(disk: IDisk, files: Sequence[File]) -> Iterator[None]:
    """Replaces any number of files as :func:`replace_files` does, some at a time."""
    for start in range(0, len(files), GROUP):
        yield from replace_files(disk, files[start : start + GROUP])


def job_number(name: str) -> int | None:
    """Returns the id of the job whose file has this name; None for other names."""
    digits = name.removeprefix(JOB_PREFIX)
    if digits == name or not digits.isascii() or not digits.isdigit():
        return None
    return int(digits)


def parse_serial(content: bytes | None) -> int:
    """Returns the number in the file ``serial``; 0 where it is missing or no number."""
    text = (content or b"").strip()
    return int(text) if text.isdigit() else 0
