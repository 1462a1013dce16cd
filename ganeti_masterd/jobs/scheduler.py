"""Which job begins next: by priority, then by age, within a limit.

Pure. A ready job waits here for one of ``limit`` slots. A job that has to wait
for a lock gives its slot back, as it costs nothing while it waits; once it has
its locks it *resumes*: it takes the next free slot before any job that holds
no locks yet. ``max_blocked`` bounds how many jobs may stand in the lock table.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

#: How many jobs may wait for locks at a time.
MAX_BLOCKED = 1000


class Scheduler:
    """Ready jobs in order, and the slots that are taken."""

    def __init__(self, limit: int, max_blocked: int = MAX_BLOCKED) -> None:
        self.limit = limit
        self.max_blocked = max_blocked
        self.running: set[int] = set()
        self.blocked: set[int] = set()
        self._ready: dict[int, int] = {}
        self._resuming: dict[int, int] = {}
        self._heap: list[tuple[int, int]] = []
        self._resume_heap: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._ready)

    def __contains__(self, job_id: int) -> bool:
        return job_id in self._ready

    def add(self, job_id: int, priority: int) -> None:
        """A job may begin (or its priority changed)."""
        self._ready[job_id] = priority
        heappush(self._heap, (priority, job_id))

    def discard(self, job_id: int) -> None:
        """A job ended, or may not begin any more."""
        self._ready.pop(job_id, None)
        self._resuming.pop(job_id, None)
        self.running.discard(job_id)
        self.blocked.discard(job_id)

    def reprioritize(self, job_id: int, priority: int) -> None:
        """A ready or resuming job's priority changed; others are untouched."""
        if job_id in self._ready:
            self.add(job_id, priority)
        if job_id in self._resuming:
            self._resuming[job_id] = priority
            heappush(self._resume_heap, (priority, job_id))

    def block(self, job_id: int) -> None:
        """A running job waits for a lock: its slot is free."""
        self.running.remove(job_id)
        self.blocked.add(job_id)

    def resume(self, job_id: int, priority: int) -> None:
        """A blocked job has its locks and wants a slot again."""
        self.blocked.remove(job_id)
        self._resuming[job_id] = priority
        heappush(self._resume_heap, (priority, job_id))

    def take(self) -> int | None:
        """Returns the job that goes on now, which then counts as running; null for none."""
        if len(self.running) >= self.limit:
            return None
        job_id = self._pop(self._resume_heap, self._resuming)
        if job_id is None and len(self.blocked) < self.max_blocked:
            job_id = self._pop(self._heap, self._ready)
        if job_id is not None:
            self.running.add(job_id)
        return job_id

    @staticmethod
    def _pop(heap: list[tuple[int, int]], valid: dict[int, int]) -> int | None:
        # Entries whose priority has moved on, or whose job is gone, are stale.
        if len(heap) > 64 and len(heap) > 4 * len(valid):
            heap[:] = [(priority, job_id) for job_id, priority in valid.items()]
            heapify(heap)
        while heap:
            priority, job_id = heappop(heap)
            if valid.get(job_id) == priority:
                del valid[job_id]
                return job_id
        return None
