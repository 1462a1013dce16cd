"""How archived jobs ended, for as long as a job that has not ended depends on them.

Pure. Of a job that left the queue for the archive no more than its file is left. Its
dependants may ask once more how it ended, as one whose cancelling failed on the disk is
taken in again; nothing is kept for a job on which nobody depends.
"""

from __future__ import annotations

from collections.abc import Iterable


class Endings:
    """The final states of archived jobs that others depend on, and who these others are."""

    def __init__(self) -> None:
        self._wanted: dict[int, frozenset[int]] = {}
        #: How many jobs of ``_wanted`` depend on a job.
        self._dependants: dict[int, int] = {}
        self._statuses: dict[int, str] = {}

    def __len__(self) -> int:
        """How many final states are kept."""
        return len(self._statuses)

    def want(self, job_id: int, dependencies: Iterable[int]) -> None:
        """Takes in a job, with the ids of those that it depends on."""
        wanted = frozenset(dependencies)
        if wanted:
            self.release(job_id)
            self._wanted[job_id] = wanted
            for dependency in wanted:
                self._dependants[dependency] = self._dependants.get(dependency, 0) + 1

    def release(self, job_id: int) -> None:
        """Lets a job go that has ended, with all that was kept for it alone."""
        for dependency in self._wanted.pop(job_id, ()):
            left = self._dependants[dependency] - 1
            if left:
                self._dependants[dependency] = left
            else:
                del self._dependants[dependency]
                self._statuses.pop(dependency, None)

    def note(self, job_id: int, status: str) -> None:
        """Keeps the final state of an archived job, if anybody depends on it."""
        if job_id in self._dependants:
            self._statuses[job_id] = status

    def of(self, job_id: int) -> str | None:
        """Returns the final state of an archived job; None if it isn't kept."""
        return self._statuses.get(job_id)
