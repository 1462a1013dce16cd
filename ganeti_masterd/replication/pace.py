"""How config.data goes to the candidates: made ready in a thread, and not all the time.

A large config.data costs the network and the candidates far more than it costs to
commit a change of it. What is committed meanwhile waits, and goes in one file. So all
who wait for a candidate get what was promised to them, and never wait for more than two
files.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed

from ganeti_masterd.replication.states import ConfigFile

#: Seconds from one large config.data to the next for a candidate that nobody waits for.
INTERVAL = 1.0

#: Runs a function in another thread; fires in the reactor thread with what it returned.
InThread = Callable[[Callable[[], Any]], Deferred[Any]]


def pause(large: bool, took: float, awaited: bool) -> float:
    """Returns the seconds that no config.data goes to a candidate after one that ``took`` so long.

    What somebody waits for, and what is small, goes at once. Pure.
    """
    return 0.0 if awaited or not large else max(0.0, INTERVAL - took)


class Preparing:
    """Makes config.data ready to be sent, each once for all candidates. Reactor thread only."""

    def __init__(self, in_thread: InThread) -> None:
        self._in_thread = in_thread
        self._waiting: dict[ConfigFile, list[Deferred[None]]] = {}

    def prepare(self, file: ConfigFile) -> Deferred[None]:
        """Fires when the file is ready, or can't be made so: who uses it then meets the fault."""
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
