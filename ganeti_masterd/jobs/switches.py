"""Two flags that are files: the queue's drain flag and the watcher's pause.

Reactor thread only; the disk thread writes. Other tools read these files, so
they are Ganeti's own: ``queue/drain`` exists or not, ``watcher.pause`` holds
seconds since the epoch (protocol/queue.rst, Files of the queue).
"""

from __future__ import annotations

import os
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ganeti_masterd import safely
from ganeti_masterd.jobs.queue import JobQueue
from ganeti_masterd.journal.files import replace_file
from ganeti_masterd.journal.interfaces import IDisk
from ganeti_masterd.journal.layout import FLAG_MODE

log = Logger()

#: Seconds since the epoch above which no time is meant: all below it are exact in a float.
LATEST = 1 << 53


class OtherNodes(Protocol):
    """Who sends the flags on to other nodes."""

    def set_drained(self, drained: bool) -> Deferred[None]:
        """Fires when those that are waited for have the drain flag."""

    def set_watcher_pause(self, until: int | None) -> Deferred[None]:
        """Fires when those that are waited for have the pause."""


class Switches:
    """The drain flag and the watcher's pause of one cluster; ``others`` None: of one node."""

    def __init__(self, queue: JobQueue, pause_file: str, others: OtherNodes | None = None) -> None:
        self._others = others
        self._queue = queue
        self._pause_file = pause_file
        self._pause = _read_pause(pause_file)

    @property
    def drained(self) -> bool:
        """Whether the queue takes no new jobs."""
        return self._queue.drained

    @property
    def watcher_pause(self) -> int | None:
        """Until when the watcher pauses (seconds since the epoch); None if it doesn't."""
        until = self._pause
        return until if until is not None and until > self._queue.timers.now() else None

    def set_drained(self, drained: bool) -> Deferred[bool]:
        """Sets or clears the drain flag; fires with true once it is durable and sent on."""
        path = self._queue.folder.drain

        def done(_: object) -> bool | Deferred[bool]:
            self._queue.drained = drained
            log.info("The queue is {state}", state="drained" if drained else "open again")
            if self._others is None:
                return True
            return self._others.set_drained(drained).addCallback(lambda _: True)

        return self._queue.journal.effect(_replace, path, b"" if drained else None).addCallback(
            done
        )

    def set_watcher_pause(self, until: int | None) -> Deferred[int | None]:
        """Pauses the watcher until then, or no longer; fires once it is durable and sent on."""
        content = None if until is None else b"%d\n" % until

        def done(_: object) -> int | Deferred[int | None] | None:
            self._pause = until
            if self._others is None:
                return until
            return self._others.set_watcher_pause(until).addCallback(lambda _: until)

        effect: Deferred[None] = self._queue.journal.effect(_replace, self._pause_file, content)
        return effect.addCallback(done)


def _replace(disk: IDisk, path: str, content: bytes | None) -> None:
    """Writes a whole file (None: removes it), durably."""
    if content is None:
        disk.unlink(path)
    else:
        replace_file(disk, path, content, FLAG_MODE)
    disk.sync_directory(os.path.dirname(path))


def _read_pause(path: str) -> int | None:
    """Returns the time in the watcher's file; None where it holds none, which is logged."""
    try:
        until = float(safely.read(path)[:64].strip())
        if not 0 <= until <= LATEST:
            raise ValueError(f"{until} is no time")
        return int(until)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log.warn(
            "{path} holds no time ({error}); the watcher is not paused", path=path, error=error
        )
        return None
