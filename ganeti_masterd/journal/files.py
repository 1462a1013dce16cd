"""Where Ganeti's own files stand, what their names and numbers mean, and how one is replaced.

Ganeti's layout (protocol/queue.rst, Files of the queue): ``job-N`` in the queue's
folder, ``archive/<N div 10000>/job-N`` once archived, ``serial`` with the last id given,
``drain`` while no jobs are taken. No other module spells these names.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from msgspec import Struct

from ganeti_masterd.constants import JOB_QUEUE_FILES_PERMS, JOBS_PER_ARCHIVE_DIRECTORY
from ganeti_masterd.journal.interfaces import IDisk

ARCHIVE_DIRECTORY_PERMS = 0o750

#: The mode of files that say something by being there: any user may look.
FLAG_MODE = 0o644

#: What a file is called until it is whole; no reader of the queue takes it for a job.
TEMPORARY_SUFFIX = ".following"

JOB_PREFIX = "job-"

#: How many job files are written, synced and named together: more would gain little,
#: and each is open until it is synced.
GROUP = 32

#: The longest number in a name or in ``serial`` that is taken for one.
MAX_DIGITS = 64

#: A file that is to be replaced: its path and its new content.
File = tuple[str, bytes]


class QueuePaths(Struct, frozen=True):
    """The files of the job queue whose directory is ``queue``, by path."""

    queue: str

    @property
    def lock(self) -> str:
        """The file that is locked while a daemon owns the queue."""
        return f"{self.queue}/lock"

    @property
    def version(self) -> str:
        """The file that says how the queue is laid out."""
        return f"{self.queue}/version"

    @property
    def drain(self) -> str:
        """The file that exists while the queue is drained."""
        return f"{self.queue}/drain"

    @property
    def serial(self) -> str:
        """The file that holds the last job id given."""
        return f"{self.queue}/serial"

    @property
    def archive(self) -> str:
        """The directory above all archived jobs."""
        return f"{self.queue}/archive"

    def job(self, job_id: int) -> str:
        """The file of a job that is not archived."""
        return f"{self.queue}/{JOB_PREFIX}{job_id}"

    def archive_directory(self, job_id: int) -> str:
        """The directory that holds the job's file once it is archived."""
        return f"{self.archive}/{job_id // JOBS_PER_ARCHIVE_DIRECTORY}"

    def archived_job(self, job_id: int) -> str:
        """The file of an archived job."""
        return f"{self.archive_directory(job_id)}/{JOB_PREFIX}{job_id}"

    def corrupt_job(self, job_id: int) -> str:
        """The file of a job that can't be understood; its name keeps readers away from it."""
        return self.archived_job(job_id) + ".corrupt"


class QueueFiles(QueuePaths, frozen=True):
    """The files that follow the journal: those of the queue, and ``config``, config.data."""

    config: str

    @property
    def config_directory(self) -> str:
        """The directory of config.data."""
        return self.config.rpartition("/")[0]


def replace_file(disk: IDisk, path: str, content: bytes, mode: int = JOB_QUEUE_FILES_PERMS) -> None:
    """Puts a whole, synced file in the place of ``path``.

    The new name is durable once the directory is synced, which is the
    caller's: one sync serves many files. Where it fails with ``OSError`` the
    old file stands and no temporary one is left, as far as the disk lets.
    """
    for _ in replace_files(disk, [(path, content)], mode):
        pass


def replace_files(
    disk: IDisk, files: Sequence[File], mode: int = JOB_QUEUE_FILES_PERMS
) -> Iterator[None]:
    """Replaces several files as :func:`replace_file` does, in short steps.

    All are written, then synced, then given their names, in the order given:
    together that costs the disk much less than one after another. Where it fails
    with ``OSError`` some may be replaced; no temporary file is left, as far as the
    disk lets.
    """
    temporaries = [(path + TEMPORARY_SUFFIX, path) for path, _ in files]
    try:
        for (temporary, _), (_, content) in zip(temporaries, files, strict=True):
            disk.write(temporary, content, mode)
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


def make_archive_directory(disk: IDisk, files: QueuePaths, job_id: int) -> None:
    """Makes the directory of an archived job, durably once the queue's is synced.

    That, which names the archive itself, is the caller's.
    """
    disk.make_directory(files.archive, ARCHIVE_DIRECTORY_PERMS)
    disk.make_directory(files.archive_directory(job_id), ARCHIVE_DIRECTORY_PERMS)
    disk.sync_directory(files.archive)


def job_number(name: str) -> int | None:
    """Returns the id of the job whose file has this name; None for other names."""
    digits = name.removeprefix(JOB_PREFIX)
    return None if digits == name else _number(digits)


def archive_number(name: str) -> int | None:
    """Returns which directory of the archive has this name; None for other names."""
    return _number(name)


def encode_serial(serial: int) -> bytes:
    """Returns the content of the file ``serial``."""
    return b"%d\n" % serial


def parse_serial(content: bytes | None) -> int | None:
    """Returns the number in the file ``serial``; None where it is missing or no number."""
    return None if content is None else _number(content.strip().decode("ascii", "replace"))


def _number(digits: str) -> int | None:
    if len(digits) > MAX_DIGITS or not digits.isascii() or not digits.isdigit():
        return None
    return int(digits)
