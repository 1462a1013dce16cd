"""How config.data is sent to the candidates: prepared in a thread, and at a limited rate.

Sending a large config.data costs far more than committing a change of it. Changes that are
committed while a file is in flight are sent together in the next file. So no commit waits for more
than two files.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed

from ganeti_masterd.replication.states import ConfigFile

#: Seconds between two large config.data for a candidate that nobody waits for.
INTERVAL = 1.0

#: Runs a function in another thread; fires in the reactor thread with its result.
InThread = Callable[[Callable[[], Any]], Deferred[Any]]


def pause(large: bool, took: float, awaited: bool) -> float:
    """Returns the seconds to wait after a config.data that ``took`` so many seconds to send.

    Returns 0 if the file is not ``large`` or somebody waits for the candidate. Pure.
    """
    return 0.0 if awaited or not large else max(0.0, INTERVAL - took)


class Preparing:
    """Prepares each config.data once for all candidates. Reactor thread only."""

    def __init__(self, in_thread: InThread) -> None:
        self._in_thread = in_thread
        self._waiting: dict[ConfigFile, list[Deferred[None]]] = {}

    def prepare(self, file: ConfigFile) -> Deferred[None]:
        """Fires with None when preparing has ended; if it failed, using the file raises."""
        if file.ready:
            return succeed(None)
        done: Deferred[None] = Deferred()
        waiting = self._waiting.get(file)
        if waiting is not None:
            waiting.append(done)
            return done
        self._waiting[file] = [done]
        self._in_thread(lambda: file.travelling).addBoth(self._ended, file)
        return done

    def _ended(self, _: object, file: ConfigFile) -> None:
        for done in self._waiting.pop(file):
            done.callback(None)
