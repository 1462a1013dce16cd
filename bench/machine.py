"""What the machine can do at best, measured in the same run as the daemon."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from time import perf_counter

import msgspec

import twisted

#: The size of a job file with one opcode, about.
JOB_FILE_BYTES = 1024


def durable_replacements(folder: Path, count: int, seconds: float = 3.0) -> float:
    """Returns how many times a second a small file can be replaced durably.

    Write under a temporary name, sync, rename: what Ganeti does for each change
    of a job, one after another; ``count`` times, or fewer in ``seconds``. No
    more than needed, as each replacement deletes a file: see :func:`creation`.
    """
    data = b"x" * JOB_FILE_BYTES
    target, fresh = folder / "replaced", folder / "replaced.new"
    begun = perf_counter()
    done = 0
    while done < count and perf_counter() - begun < seconds:
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
        try:
            os.write(fd, data)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(fresh, target)
        done += 1
    rate = done / (perf_counter() - begun)
    target.unlink()
    return rate


def creation(folder: Path, count: int = 100) -> float:
    """Returns the seconds that it takes to create one empty file, without a sync.

    Some hundredths of a millisecond, as a rule. ext4 does not use an inode again
    for five minutes or so after its file was deleted, and steps over each on its
    way to a free one; after some ten thousand deletions, such as those of the
    last run, that takes up to a millisecond of processor time a file.
    """
    paths = [folder / f"created-{number}" for number in range(count)]
    begun = perf_counter()
    for path in paths:
        path.touch()
    seconds = (perf_counter() - begun) / count
    for path in paths:
        path.unlink()
    return seconds


def file_system(folder: Path) -> str:
    """Returns the type of the file system that holds ``folder``, such as ``ext4``."""
    best, kind = "", "unknown"
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _, point, found, *_ = line.split()
        if len(point) >= len(best) and folder.resolve().is_relative_to(point):
            best, kind = point, found
    return kind


def description(folder: Path) -> dict[str, str]:
    """Returns what a reader needs to place the figures."""
    return {
        "processors": str(os.cpu_count()),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "twisted": twisted.__version__,
        "msgspec": msgspec.__version__,
        "file system": file_system(folder),
    }
