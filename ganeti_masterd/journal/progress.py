"""What a disk thread is doing, and since when: so that others see that the disk doesn't answer.

A system call that hangs can't be ended from within the process. It can be told of.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, ParamSpec, TypeVar

from zope.interface import implementer

from ganeti_masterd.journal.interfaces import IDisk

P = ParamSpec("P")
T = TypeVar("T")


class DiskTask(NamedTuple):
    """What is being done ("syncing /a/file"), and since when, by the clock of the progress."""

    doing: str
    since: float


class DiskProgress:
    """What one disk thread is doing; set by that thread, read by any.

    ``purpose`` says what the thread's work is where nothing says more.
    """

    __slots__ = ("_clock", "_purpose", "task")

    def __init__(self, purpose: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._purpose = purpose
        self._clock = clock
        #: None while the thread waits for work.
        self.task: DiskTask | None = None

    def begin(self) -> None:
        """A piece of work begins."""
        self.task = DiskTask(self._purpose, self._clock())

    def end(self) -> None:
        """It has ended."""
        self.task = None

    def during(self, doing: str, function: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        """Calls a function; meanwhile the task is ``doing``."""
        outer = self.task
        self.task = DiskTask(doing, self._clock())
        try:
            return function(*args, **named)
        finally:
            self.task = None if outer is None else DiskTask(outer.doing, self._clock())

    def steps(self, doing: str, steps: Iterator[object]) -> Iterator[object]:
        """Yields what ``steps`` yields; while it works for that, that is what is done."""
        while (item := self.during(doing, next, steps, _END)) is not _END:
            yield item


_END = object()


@implementer(IDisk)
class WatchedDisk:
    """An :class:`IDisk` that tells a progress what it does to which file."""

    def __init__(self, disk: IDisk, progress: DiskProgress) -> None:
        self._disk = disk
        self._during = progress.during

    def read(self, path: str) -> bytes | None:
        """See :meth:`IDisk.read`."""
        content: bytes | None = self._during(f"reading {path}", self._disk.read, path)
        return content

    def names(self, directory: str) -> list[str]:
        """See :meth:`IDisk.names`."""
        names: list[str] = self._during(f"listing {directory}", self._disk.names, directory)
        return names

    def write(self, path: str, content: bytes, mode: int) -> None:
        """See :meth:`IDisk.write`."""
        self._during(f"writing {path}", self._disk.write, path, content, mode)

    def sync(self, path: str) -> None:
        """See :meth:`IDisk.sync`."""
        self._during(f"syncing {path}", self._disk.sync, path)

    def rename(self, old: str, new: str) -> None:
        """See :meth:`IDisk.rename`."""
        self._during(f"renaming {old}", self._disk.rename, old, new)

    def unlink(self, path: str) -> None:
        """See :meth:`IDisk.unlink`."""
        self._during(f"removing {path}", self._disk.unlink, path)

    def make_directory(self, path: str, mode: int) -> None:
        """See :meth:`IDisk.make_directory`."""
        self._during(f"making {path}", self._disk.make_directory, path, mode)

    def sync_directory(self, path: str) -> None:
        """See :meth:`IDisk.sync_directory`."""
        self._during(f"syncing {path}", self._disk.sync_directory, path)
