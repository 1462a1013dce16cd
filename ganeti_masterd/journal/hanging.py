"""Notices a disk that doesn't answer, logs it once, and reports it on request.

The work that hangs is still waited for: it may yet be done, and it can't be taken back.
Commits that wait for it are neither acknowledged nor failed until it ends.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from msgspec import Struct
from twisted.logger import Logger

from ganeti_masterd.errors import JobQueueError
from ganeti_masterd.journal.progress import DiskProgress, DiskTask
from ganeti_masterd.timing import Timers

log = Logger()

#: Seconds that one piece of work may take before the disk counts as one that doesn't answer.
PATIENCE = 10.0
#: Seconds after which no more jobs are taken in: nobody knows when they could be acknowledged.
REFUSAL = 30.0
#: Seconds that work may take which isn't a matter of the disk alone, such as to pack a backup.
LONG = 120.0
#: Seconds between two looks.
LOOK = 1.0


_JOURNAL = "journal"


class DiskHang(Struct, frozen=True):
    """A piece of work that doesn't end: what it is, since when (epoch), for how many seconds."""

    doing: str
    since: float
    seconds: float

    def __str__(self) -> str:
        """As what a message says of it."""
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.since))
        return f"{self.doing} has not ended since {when} ({self.seconds:.0f} s)"


class DiskWatch:
    """Watches disk threads while it runs. Reactor thread only.

    ``journal`` is the thread that commits; ``others`` have names. Their clock is that of
    ``timers``. After ``patience`` seconds a piece of work hangs, after ``refusal`` no more jobs
    are taken in; work of the others may take :data:`LONG` at least.
    """

    def __init__(
        self,
        journal: DiskProgress,
        timers: Timers,
        others: Mapping[str, DiskProgress] | None = None,
        *,
        patience: float = PATIENCE,
        refusal: float = REFUSAL,
    ) -> None:
        self._threads = {_JOURNAL: journal, **(others or {})}
        self._timers = timers
        self._patience = patience
        self._refusal = refusal
        #: What was logged as hanging, by its thread.
        self._logged: dict[str, DiskTask] = {}

    def begin(self) -> None:
        """Begins to watch; ends with its timers."""
        self._timers.every(LOOK, self._look)

    def seconds(self) -> dict[str, float]:
        """Returns for how long each thread has been at what it does; 0 where it waits for work."""
        now = self._timers.seconds()
        return {
            name: 0.0 if (task := progress.task) is None else max(0.0, now - task.since)
            for name, progress in self._threads.items()
        }

    def hanging(self, patience: float | None = None, *, commits: bool = False) -> list[DiskHang]:
        """Returns what hangs: what has taken ``patience`` seconds, if they are given.

        ``commits``: only in the thread that commits.
        """
        patience = self._patience if patience is None else patience
        names = [_JOURNAL] if commits else list(self._threads)
        found = [self._hang(name, self._threads[name].task, patience) for name in names]
        return [hang for hang in found if hang is not None]

    def refusal(self) -> JobQueueError | None:
        """Returns why no more jobs should be taken in; None if nothing hangs for long."""
        hangs = self.hanging(self._refusal, commits=True)
        return (
            JobQueueError(f"The disk does not answer: {hangs[0]}. Submit again later")
            if hangs
            else None
        )

    def _hang(self, name: str, task: DiskTask | None, patience: float) -> DiskHang | None:
        if task is None:
            return None
        if name != _JOURNAL:
            patience = max(patience, LONG)
        seconds = self._timers.seconds() - task.since
        if seconds < patience:
            return None
        return DiskHang(task.doing, self._timers.now() - seconds, seconds)

    def _look(self) -> None:
        for name, progress in self._threads.items():
            task, logged = progress.task, self._logged.get(name)
            if logged is not None and task is not logged:
                del self._logged[name]
                log.warn(
                    "The disk answers again: {doing} took {seconds} s",
                    doing=logged.doing,
                    seconds=round(self._timers.seconds() - logged.since),
                )
            hang = self._hang(name, task, self._patience)
            if task is not None and hang is not None and name not in self._logged:
                self._logged[name] = task
                log.warn("The disk does not answer: {hang}", hang=str(hang))
