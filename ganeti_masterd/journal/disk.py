"""The disk: every effect on real files, with modes and groups that no umask alters."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Mapping

from zope.interface import implementer

from ganeti_masterd.journal.interfaces import IDisk

_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
_READ = os.O_RDONLY | os.O_CLOEXEC

_PIECE = 1 << 20

# Of a pipe, to be opened for reading would be to wait for a writer.
_READ_FILE = _READ | os.O_NONBLOCK

#: How many files may be open between being written and being synced.
MOST_OPEN = 64


class NotAFile(OSError):
    """What has a file's name is something else."""


def read_file(path: str, most: int | None = None) -> bytes:
    """Returns the content of a regular file, or its first ``most`` bytes.

    :class:`NotAFile` for anything else, such as a folder or a pipe, at once.
    """
    descriptor = os.open(path, _READ_FILE)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise NotAFile(errno.EINVAL, "it is not a regular file", path)
        content = os.read(descriptor, found.st_size + 1 if most is None else most)
        if most is None and len(content) != found.st_size:  # it grows, or is very big
            while more := os.read(descriptor, _PIECE):
                content += more
        return content
    finally:
        os.close(descriptor)


def sync_directory(path: str) -> None:
    """Makes the names in a directory durable."""
    descriptor = os.open(path, _READ | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@implementer(IDisk)
class RealDisk:
    """An :class:`IDisk` on the filesystem of this machine.

    ``groups`` gives the group (gid) of a directory and what is made below, or of a
    file and the temporary one that takes its place, ``FILE.SUFFIX``; the longest
    path that fits decides; elsewhere the process's own group stays. Readers such as
    confd and noded have their rights by group (protocol/startup.rst, Files and their owners).
    """

    def __init__(self, groups: Mapping[str, int] | None = None) -> None:
        given = {place.rstrip("/"): gid for place, gid in (groups or {}).items()}
        self._groups = sorted(given.items(), key=lambda item: -len(item[0]))
        #: Files that were written and are open still, until they are synced.
        self._unsynced: dict[str, int] = {}

    def read(self, path: str) -> bytes | None:
        """See :meth:`IDisk.read`."""
        try:
            return read_file(path)
        except FileNotFoundError:
            return None

    def names(self, directory: str) -> list[str]:
        """See :meth:`IDisk.names`."""
        try:
            return sorted(os.listdir(directory))
        except FileNotFoundError:
            return []

    def write(self, path: str, content: bytes, mode: int) -> None:
        """See :meth:`IDisk.write`.

        The system is told to begin to write it out: of several files that are
        synced after all were written, only the first waits for the file system's
        own journal.
        """
        self._close(path)
        descriptor = os.open(path, _WRITE, mode)
        try:
            os.fchmod(descriptor, mode)
            group = self._group(path)
            if group is not None:
                os.fchown(descriptor, -1, group)
            written = os.write(descriptor, content)
            while written < len(content):
                written += os.write(descriptor, memoryview(content)[written:])
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        except BaseException:
            os.close(descriptor)
            raise
        if len(self._unsynced) >= MOST_OPEN:
            self._close(next(iter(self._unsynced)))
        self._unsynced[path] = descriptor

    def sync(self, path: str) -> None:
        """See :meth:`IDisk.sync`."""
        descriptor = self._unsynced.pop(path, None)
        if descriptor is None:
            descriptor = os.open(path, _READ)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, old: str, new: str) -> None:
        """See :meth:`IDisk.rename`."""
        self._close(old)
        os.replace(old, new)

    def unlink(self, path: str) -> None:
        """See :meth:`IDisk.unlink`."""
        self._close(path)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)

    def make_directory(self, path: str, mode: int) -> None:
        """See :meth:`IDisk.make_directory`; mode and group of one that exists stay."""
        try:
            os.mkdir(path, mode)
        except FileExistsError:
            if not os.path.isdir(path):
                raise
            return
        os.chmod(path, mode)
        group = self._group(path)
        if group is not None:
            os.chown(path, -1, group)

    def sync_directory(self, path: str) -> None:
        """See :meth:`IDisk.sync_directory`."""
        sync_directory(path)

    def _close(self, path: str) -> None:
        """Lets go of a file that was written and won't be synced through this descriptor."""
        descriptor = self._unsynced.pop(path, None)
        if descriptor is not None:
            os.close(descriptor)

    def _group(self, path: str) -> int | None:
        for place, group in self._groups:
            if path == place or path.startswith((place + "/", place + ".")):
                return group
        return None
