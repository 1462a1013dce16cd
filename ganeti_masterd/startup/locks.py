"""Files that only one daemon at a time may hold locked.

luxid and wconfd hold POSIX locks on their files, Ganeti's Python daemons ``flock`` ones, and the
two kinds don't exclude each other. So a file is locked with both (protocol/startup.rst, Checks
before the start). A POSIX lock is lost when the process closes any descriptor of the file, so
nothing else in this process may open a file that is held.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from ganeti_masterd.errors import PidFileLockError

_HELD = (errno.EACCES, errno.EAGAIN)

#: How often the queue's lock is tried, and the seconds between two tries. noded holds the lock
#: during each call that writes a job's file, and a former master may be making such a call right
#: now.
TRIES = 100
PAUSE = 0.05

T = TypeVar("T")


class LockedFile:
    """A file held locked, with both kinds of lock, until it is released."""

    def __init__(self, path: str, mode: int = 0o640) -> None:
        """Opens or creates the file and locks it; raises ``PidFileLockError`` if held."""
        self.path = path
        self._fd = -1
        while self._fd < 0:
            self._fd = _open_locked(path, mode)

    def write(self, text: str) -> None:
        """Replaces the content, such as a process id, in place: the lock stays."""
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, text.encode(), 0)

    def fileno(self) -> int:
        """Returns the descriptor; a process that inherits it holds the ``flock`` as well."""
        return self._fd

    def release(self, *, remove: bool = False) -> None:
        """Releases the lock; with ``remove`` deletes the file first. May be called again."""
        if self._fd < 0:
            return
        if remove:
            with contextlib.suppress(OSError):
                os.unlink(self.path)
        os.close(self._fd)
        self._fd = -1


class Locks:
    """Several locked files, released in the reverse order of locking."""

    def __init__(self) -> None:
        self._held: list[tuple[LockedFile, bool]] = []

    def take(self, path: str, mode: int = 0o640) -> LockedFile:
        """Locks one more file. Raises like :class:`LockedFile`; files locked before stay locked."""
        self._held.append((LockedFile(path, mode), False))
        return self._held[-1][0]

    def take_pid_file(self, path: str) -> None:
        """Locks a PID file and writes this process's id; it is removed when released."""
        self._held.append((LockedFile(path, 0o644), True))
        self._held[-1][0].write(f"{os.getpid()}\n")

    def release(self) -> None:
        """Releases all files; may be called again."""
        while self._held:
            file, remove = self._held.pop()
            file.release(remove=remove)


def patiently(take: Callable[[], T], sleep: Callable[[float], object] = time.sleep) -> T:
    """Calls ``take``, which locks or checks the queue, until it succeeds or time is up.

    noded may hold the lock for a moment. Blocks for a few seconds at most, then raises the last
    ``PidFileLockError`` of ``take``.
    """
    for _ in range(TRIES):
        try:
            return take()
        except PidFileLockError:
            sleep(PAUSE)
    return take()


@contextlib.contextmanager
def queue_locked(path: str) -> Iterator[None]:
    """Holds the queue's lock within the body; raises like :func:`patiently` if it is taken."""
    lock = patiently(lambda: LockedFile(path))
    try:
        yield
    finally:
        lock.release()


def refuse_held(paths: Iterable[str]) -> None:
    """Raises ``PidFileLockError`` if a process holds a lock of either kind on one of the files.

    Creates and changes no file: one that doesn't exist is not locked. A file that this user may not
    read is skipped.
    """
    for path in paths:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            continue
        try:
            # Shared locks need no write permission, and conflict with a daemon's exclusive lock.
            _lock(path, fd, fcntl.LOCK_SH)
        finally:
            os.close(fd)


def _open_locked(path: str, mode: int) -> int:
    """Returns a descriptor that holds the locks; -1 if the file was replaced meanwhile."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
    try:
        _lock(path, fd, fcntl.LOCK_EX)
        opened = os.fstat(fd)
        try:
            named = os.stat(path)
        except FileNotFoundError:
            named = None
        current = named is not None and os.path.samestat(named, opened)
        if current and opened.st_mode & 0o777 != mode:
            os.fchmod(fd, mode)
    except BaseException:
        os.close(fd)
        raise
    if not current:
        os.close(fd)
        return -1
    return fd


def _lock(path: str, fd: int, kind: int) -> None:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
        fcntl.lockf(fd, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            raise PidFileLockError(f"{path} is locked by another process{_holder(fd)}") from None
        raise


def _holder(fd: int) -> str:
    text = os.pread(fd, 32, 0).strip()
    return f" (its process id is {text.decode()})" if text.isdigit() else ""
