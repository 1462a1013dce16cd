"""The journal as the rest of the daemon sees it, and the disk as it sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from ganeti_masterd.journal.rows import Row


class IJournal(Interface):
    """Makes changes durable, in order, many in one transaction. Reactor thread only.

    The caller applies a change to its tip first, then commits its rows; readers
    see it when ``publish`` runs. (architecture.rst, journal rule 1.)
    """

    backlog: int = Attribute("Rows that Ganeti's own files don't hold yet.")
    files_fault: str | None = Attribute("Why these files can't be written; null if they can.")
    reserved: int = Attribute("The serial that is durably reserved: ids up to it may be given.")

    def commit(rows: Sequence[Row], publish: Callable[[], object] | None = None) -> Deferred[None]:
        """Makes ``rows`` durable, all or none.

        Once they are on disk, ``publish`` runs in the reactor, in the order of
        the calls to ``commit``, then the Deferred fires. If the disk refuses,
        every commit that is pending fails (they were built on one another):
        the functions given to ``on_rollback`` run once, then each Deferred
        fails with ``JobQueueError``. Fails with ``DaemonStopping`` after close.
        """

    def on_rollback(function: Callable[[], object]) -> None:
        """Adds a function that drops the caller's tip back to what is published."""

    def effect(function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """Runs ``function(disk, *args)`` in the disk thread, after the commits before it."""

    def settle() -> Deferred[None]:
        """Fires when the files hold all that was committed before the call."""

    def close() -> Deferred[None]:
        """Commits what is pending, lets the files follow in full, ends the thread."""


class IDisk(Interface):
    """Every effect on files that durable state needs; blocking, disk thread only.

    Failures are ``OSError``. Paths are absolute strings.
    """

    def read(path: str) -> bytes | None:
        """Returns the content, or None where there is no such file.

        ``OSError`` at once for a folder, a pipe, or anything else that isn't a file.
        """

    def names(directory: str) -> list[str]:
        """Returns the sorted names in a directory; none where it doesn't exist."""

    def write(path: str, content: bytes, mode: int) -> None:
        """Creates or truncates the file and writes it, not synced: that is to follow soon."""

    def sync(path: str) -> None:
        """Makes the file's content durable (not its name)."""

    def rename(old: str, new: str) -> None:
        """Moves a file over another, atomically; durable after syncing both directories."""

    def unlink(path: str) -> None:
        """Removes a file; nothing happens where there is none."""

    def make_directory(path: str, mode: int) -> None:
        """Makes one directory; nothing happens where it exists."""

    def sync_directory(path: str) -> None:
        """Makes the names in a directory durable."""
