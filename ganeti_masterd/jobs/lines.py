"""Jobs in a line: the most urgent first, the oldest among equals.

Pure. Leaving from the middle and changing a place are as cheap as standing in
the line: an entry of the heap that doesn't hold any more is skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush

#: A heap shorter than this is never tidied.
SHORT = 64


class ReadyLine:
    """Job ids by priority (the lower the more urgent), then by id."""

    __slots__ = ("_priorities", "heap")

    def __init__(self) -> None:
        self._priorities: dict[int, int] = {}
        #: Entries by priority and id, those included that don't hold any more. Nobody is in the
        #: line if it is empty. Read only.
        self.heap: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._priorities)

    def __contains__(self, job_id: int) -> bool:
        return job_id in self._priorities

    def __iter__(self) -> Iterator[int]:
        return iter(self._priorities)

    def add(self, job_id: int, priority: int) -> None:
        """Puts a job into the line, or gives it another place there."""
        self._priorities[job_id] = priority
        heappush(self.heap, (priority, job_id))

    def priority(self, job_id: int) -> int:
        """Returns the priority of a job in the line; raises ``KeyError`` for another."""
        return self._priorities[job_id]

    def discard(self, job_id: int) -> bool:
        """Takes a job out of the line; false if it wasn't there."""
        return self._priorities.pop(job_id, None) is not None

    def pop(self) -> tuple[int, int] | None:
        """Takes out the first job, as ``(priority, job id)``; None if nobody is there."""
        heap, priorities = self.heap, self._priorities
        if len(heap) > SHORT and len(heap) > 4 * len(priorities):
            heap[:] = [(priority, job_id) for job_id, priority in priorities.items()]
            heapify(heap)
        while heap:
            first = heappop(heap)
            priority, job_id = first
            if priorities.get(job_id) == priority:
                del priorities[job_id]
                return first
        return None
