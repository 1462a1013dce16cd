"""Where Ganeti's own files stand, and what their names and numbers mean.

Ganeti's layout (protocol/queue.rst, Files of the queue): ``job-N`` in the queue's
folder, ``archive/<N div 10000>/job-N`` once archived, ``serial`` with the last id given,
``drain`` while no jobs are taken. No other module spells these names. Pure.
"""

from __future__ import annotations

import re

from msgspec import Struct

from ganeti_masterd.constants import JOB_QUEUE_FILES_PERMS, JOBS_PER_ARCHIVE_DIRECTORY

ARCHIVE_DIRECTORY_PERMS = 0o750

#: The mode of files that say something by being there: any user may look.
FLAG_MODE = 0o644

#: The mode of a job's file that holds private parameters: not even the daemons' group may look.
PRIVATE_JOB_PERMS = 0o600

#: Parameters of opcodes that hold private values, which are written to disk until the opcode ends.
PRIVATE_PARAMETERS = ("osparams_private", "osparams_private_cluster")

_PRIVATE = re.compile(rf'"(?:{"|".join(PRIVATE_PARAMETERS)})" ?: ?(?!null|\{{\}})'.encode())

JOB_PREFIX = "job-"

#: The longest number in a name or in ``serial`` that is taken for one: what counts on from it
#: still fits into the 64 bits that other programs have for it.
MAX_DIGITS = 18


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


def job_number(name: str) -> int | None:
    """Returns the id of the job whose file has this name; None for other names.

    A job has one name only: ``job-007`` is nobody's.
    """
    digits = name.removeprefix(JOB_PREFIX)
    return None if digits == name else _only_number(digits)


def archive_number(name: str) -> int | None:
    """Returns which directory of the archive has this name; None for other names."""
    return _only_number(name)


def encode_serial(serial: int) -> bytes:
    """Returns the content of the file ``serial``."""
    return b"%d\n" % serial


def parse_serial(content: bytes | None) -> int | None:
    """Returns the number in the file ``serial``; None where it is missing or no number."""
    return None if content is None else _number(content.strip().decode("ascii", "replace"))


def _only_number(digits: str) -> int | None:
    """Returns a number if this is how it is spelt."""
    number = _number(digits)
    return number if str(number) == digits else None


def _number(digits: str) -> int | None:
    if len(digits) > MAX_DIGITS or not digits.isascii() or not digits.isdigit():
        return None
    return int(digits)


def job_file_mode(body: bytes) -> int:
    """Returns the mode of a job's file with this content, by whether it has private parameters."""
    return PRIVATE_JOB_PERMS if _PRIVATE.search(body) else JOB_QUEUE_FILES_PERMS
