"""The oldest job of each status that isn't final. Pure; the cost doesn't grow with the queue."""

from __future__ import annotations

from heapq import heapify, heappop, heappush

#: Entries that are void may be this many before a heap is made anew.
SPARE = 64


class OldestJobs:
    """Knows of every status since when its oldest job has been waited for.

    Jobs come and go in any order. An entry of a job that left stays in its status's heap until it
    is on top, or until such entries are the majority.
    """

    def __init__(self, statuses: tuple[str, ...]) -> None:
        self._since: dict[str, dict[int, float]] = {status: {} for status in statuses}
        self._heaps: dict[str, list[tuple[float, int]]] = {status: [] for status in statuses}

    def enter(self, status: str, job_id: int, since: float) -> None:
        """A job has a status now; ``since`` (epoch) is what its age counts from."""
        jobs = self._since.get(status)
        if jobs is None:
            return
        jobs[job_id] = since
        heap = self._heaps[status]
        heappush(heap, (since, job_id))
        if len(heap) > 2 * len(jobs) + SPARE:
            heap[:] = [(since, job_id) for job_id, since in jobs.items()]
            heapify(heap)

    def leave(self, status: str, job_id: int) -> None:
        """A job no longer has that status."""
        jobs = self._since.get(status)
        if jobs is not None:
            jobs.pop(job_id, None)

    def ages(self, now: float) -> dict[str, float]:
        """Returns the age in seconds of each status's oldest job, 0 if there is none."""
        return {status: self._age(status, now) for status in self._since}

    def _age(self, status: str, now: float) -> float:
        jobs, heap = self._since[status], self._heaps[status]
        while heap:
            since, job_id = heap[0]
            if jobs.get(job_id) == since:
                return max(0.0, now - since)
            heappop(heap)
        return 0.0
