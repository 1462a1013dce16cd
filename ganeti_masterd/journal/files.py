"""How files that follow the journal are replaced, through the disk's interface.

Where they stand, :mod:`ganeti_masterd.journal.layout` says.
"""

from __future__ import annotations

import contextlib
import errno
import os.path
from collections.abc import Iterator, Sequence

from ganeti_masterd.constants import JOB_QUEUE_FILES_PERMS
from ganeti_masterd.journal.interfaces import IDisk
from ganeti_masterd.journal.layout import (
    ARCHIVE_DIRECTORY_PERMS,
    QueuePaths,
    job_file_mode,
    job_number,
)

#: What a file is called until it is whole; no reader of the queue takes it for a job.
TEMPORARY_SUFFIX = ".following"

#: How many job files are written, synced and named together: more would gain little,
#: and each is open until it is synced.
GROUP = 32

#: A file that is to be replaced: its path and its new content.
File = tuple[str, bytes]


def replace_file(disk: IDisk, path: str, content: bytes, mode: int = JOB_QUEUE_FILES_PERMS) -> None:
    """Puts a whole, synced file in the place of ``path``, once it reads back as written.

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

    All are written, then synced and read back, then given their names, in the order given:
    together that costs the disk much less than one after another. Where it fails
    with ``OSError`` some may be replaced; no temporary file is left, as far as the
    disk lets.
    """
    temporaries = [(path + TEMPORARY_SUFFIX, path) for path, _ in files]
    try:
        for (temporary, path), (_, content) in zip(temporaries, files, strict=True):
            disk.write(temporary, content, _mode_of(path, content, mode))
            yield
        for (temporary, _), (_, content) in zip(temporaries, files, strict=True):
            disk.sync(temporary)
            if disk.read(temporary) != content:
                raise OSError(errno.EIO, "what was written reads back differently", temporary)
            yield
        for temporary, path in temporaries:
            disk.rename(temporary, path)
        yield
    except OSError:
        for temporary, _ in temporaries:
            with contextlib.suppress(OSError):
                disk.unlink(temporary)
        raise


def _mode_of(path: str, content: bytes, mode: int) -> int:
    """Returns the mode of a file: that of a job is by its content."""
    return mode if job_number(os.path.basename(path)) is None else job_file_mode(content)


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
