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
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from ganeti_masterd import safely
from ganeti_masterd.errors import PidFileLockError

_HELD = (errno.EACCES, errno.EAGAIN)

#: How often the queue's lock is tried, and the seconds between two tries. noded holds the lock
#: during each call that writes a job's file, and a former master may be making such a call right
#: now.
TRIES = 100
PAUSE = 0.05

#: How often a file is opened that is replaced between being opened and being locked.
_OPENINGS = 50

T = TypeVar("T")


class LockedFile:
    """A file held locked, with both kinds of lock, until it is released."""

    def __init__(self, path: str, mode: int = 0o640, *, pid_file: bool = False) -> None:
        """Opens or creates the file and locks it.

        No link is followed to it. Others may write to the folder of a ``pid_file``, so a name
        there that is neither a file of this user's or root's nor holds a process id is removed
        first. Raises ``PidFileLockError`` if the file is held, else ``OSError``.
        """
        self.path = path
        self._fd = -1
        for _ in range(_OPENINGS):
            self._fd = _open_locked(path, mode, pid_file)
            if self._fd >= 0:
                return
        raise PidFileLockError(f"{path} is replaced again and again by another process")

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
        self._held.append((LockedFile(path, 0o644, pid_file=True), True))
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
    read is skipped, and so is a link: daemons that hold the lock hold the file itself.
    """
    for path in paths:
        try:
            fd = safely.open_file(path, os.O_RDONLY)
        except OSError:
            continue
        try:
            # Shared locks need no write permission, and conflict with a daemon's exclusive lock.
            _lock(path, fd, fcntl.LOCK_SH)
        finally:
            os.close(fd)


def _open_locked(path: str, mode: int, pid_file: bool) -> int:
    """Returns a descriptor that holds the locks; -1 if the file has to be opened again."""
    folder = safely.open_folder(os.path.dirname(path))
    try:
        if pid_file and _alien(folder, path):
            refuse_held([path])
            safely.clear(folder, os.path.basename(path))
        return _locked_in(folder, path, mode, pid_file)
    finally:
        os.close(folder)


def _locked_in(folder: int, path: str, mode: int, pid_file: bool) -> int:
    name = os.path.basename(path)
    try:
        fd = safely.open_file_in(folder, path, os.O_RDWR | os.O_CREAT, mode, single=pid_file)
    except (safely.UnsafePath, PermissionError):
        if not pid_file:
            raise
        refuse_held([path])
        safely.clear(folder, name)
        return -1
    current = False
    try:
        _lock(path, fd, fcntl.LOCK_EX)
        try:
            named = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            named = None
        opened = os.fstat(fd)
        if named is not None and os.path.samestat(named, opened):
            if not pid_file:
                safely.give(fd, path, -1, -1, mode)
                current = True
            elif _is_alien(opened):
                current = False
            elif _holds_number(fd):
                os.fchmod(fd, mode)
                current = True
            else:
                safely.clear(folder, name)
    finally:
        if not current:
            os.close(fd)
    return fd if current else -1


def _alien(folder: int, path: str) -> bool:
    """Whether a PID file's name stands for something that no daemon has put there."""
    try:
        return _is_alien(os.stat(os.path.basename(path), dir_fd=folder, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _is_alien(found: os.stat_result) -> bool:
    ours = found.st_uid in (0, os.geteuid())
    return not (stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and ours)


def _holds_number(fd: int) -> bool:
    """Whether a file holds a process id or nothing, so that it may be truncated."""
    text = os.pread(fd, 64, 0)
    return os.fstat(fd).st_size <= 64 and (not text.strip() or text.strip().isdigit())


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
