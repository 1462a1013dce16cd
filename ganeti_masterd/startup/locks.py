"""Files that only one daemon at a time may hold locked.

luxid and wconfd hold POSIX locks on theirs, Ganeti's Python daemons flock
ones, and the two kinds don't exclude each other: a file is taken with both
(spec masterd 3.0).
"""

from __future__ import annotations

import errno
import fcntl
import os

from ganeti_masterd.errors import PidFileLockError


class LockedFile:
    """A file held locked, with both kinds of lock, until it is released."""

    def __init__(self, path: str, mode: int = 0o640) -> None:
        """Opens (making it if need be) and locks; raises ``PidFileLockError`` if held."""
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
        try:
            os.fchmod(self._fd, mode)
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _holder(self._fd)
            os.close(self._fd)
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise PidFileLockError(f"{path} is locked by another process{holder}") from None
            raise

    def write(self, text: str) -> None:
        """Replaces the content, such as a process id, in place: the lock stays."""
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, text.encode(), 0)

    def release(self, *, remove: bool = False) -> None:
        """Gives the lock back; ``remove`` takes the file away first."""
        if self._fd < 0:
            return
        if remove:
            os.unlink(self.path)
        os.close(self._fd)
        self._fd = -1


def _holder(fd: int) -> str:
    text = os.pread(fd, 32, 0).strip()
    return f" (its process id is {text.decode()})" if text.isdigit() else ""
