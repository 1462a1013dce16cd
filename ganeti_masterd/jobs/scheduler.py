"""Which job begins next: by priority, then by age, within limits.

Pure. A ready job waits here for one of ``limit`` slots. A job that has to wait
for a lock gives its slot back, as it costs nothing while it waits; once it has
its locks it *resumes*: it takes the next free slot before any job that holds
no locks yet. ``max_blocked`` bounds how many jobs may stand in the lock table.

A job may come with limits of its own
(filter rules and reasons, protocol/queue.rst, Order and filter rules):
no more than so many jobs with the same limit are under way at a time, those
that wait for locks included. A job that meets a full limit is put into that
limit's own line and costs nothing until the limit has room.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from ganeti_masterd.jobs.lines import ReadyLine

#: How many jobs may wait for locks at a time.
MAX_BLOCKED = 1000


class Limit(Struct, frozen=True):
    """At most ``most`` jobs under way at a time; ``key`` says which limit it is."""

    key: tuple[str, str]
    most: int


class Scheduler:
    """Ready jobs in order, and the slots that are taken."""

    def __init__(self, limit: int, max_blocked: int = MAX_BLOCKED) -> None:
        self.limit = limit
        self.max_blocked = max_blocked
        self.running: set[int] = set()
        self.blocked: set[int] = set()
        self._ready = ReadyLine()
        self._resuming = ReadyLine()
        #: The limits of each job that has any, until it is discarded.
        self._limits: dict[int, tuple[Limit, ...]] = {}
        #: How many jobs under way count for a limit.
        self._taken: dict[tuple[str, str], int] = {}
        #: Ready jobs that met a full limit: a line for each limit, and who stands where.
        self._held: dict[tuple[str, str], ReadyLine] = {}
        self._held_at: dict[int, tuple[str, str]] = {}

    def __len__(self) -> int:
        return len(self._ready) + len(self._held_at)

    def __contains__(self, job_id: int) -> bool:
        return job_id in self._ready or job_id in self._held_at

    def under_way(self, job_id: int) -> bool:
        """Whether the job has or had a slot, and was not discarded since."""
        return job_id in self.running or job_id in self.blocked or job_id in self._resuming

    def limit_holding(self, job_id: int) -> tuple[str, str] | None:
        """Returns the key of the full limit in whose line a job stands; None if in none."""
        return self._held_at.get(job_id)

    def add(self, job_id: int, priority: int, limits: tuple[Limit, ...] = ()) -> None:
        """A job may begin, as soon as its limits have room."""
        if limits:
            self._limits[job_id] = limits
        self._ready.add(job_id, priority)

    def discard(self, job_id: int) -> None:
        """A job ended, or may not begin any more."""
        if self._limits and job_id in self._limits:
            self._leave_limits(job_id)
        self._ready.discard(job_id)
        self._resuming.discard(job_id)
        self.running.discard(job_id)
        self.blocked.discard(job_id)

    def reprioritize(self, job_id: int, priority: int) -> None:
        """A ready or resuming job's priority changed; others are untouched."""
        if job_id in self._held_at:
            self._take_from_hold(job_id)
            self._ready.add(job_id, priority)
        elif job_id in self._ready:
            self._ready.add(job_id, priority)
            # It may have been let in first to a limit whose others are now more urgent.
            for limit in self._limits.get(job_id, ()):
                self._let_one_try(limit)
        elif job_id in self._resuming:
            self._resuming.add(job_id, priority)

    def block(self, job_id: int) -> None:
        """A running job waits, for a lock or in its thread: its slot is free."""
        self.running.remove(job_id)
        self.blocked.add(job_id)

    def resume(self, job_id: int, priority: int) -> None:
        """A blocked job's wait is over: it wants a slot again."""
        self.blocked.remove(job_id)
        self._resuming.add(job_id, priority)

    def reclaim(self, job_id: int) -> None:
        """A blocked or resuming job gets a slot at once, beyond the limit if need be."""
        self.blocked.discard(job_id)
        self._resuming.discard(job_id)
        self.running.add(job_id)

    def take(self) -> int | None:
        """Returns the job that goes on now, which then counts as running; None for none."""
        if len(self.running) >= self.limit:
            return None
        if self._resuming.heap and (resumed := self._resuming.pop()) is not None:
            job_id = resumed[1]
        elif (
            self._ready.heap
            and len(self.blocked) < self.max_blocked
            and (found := self._first()) is not None
        ):
            job_id = found
        else:
            return None
        self.running.add(job_id)
        return job_id

    def limit_anew(self, limits_of: Callable[[int], tuple[Limit, ...]]) -> None:
        """Gives every job here the limits that ``limits_of`` says, also those under way."""
        for job_id in list(self._held_at):
            self._ready.add(job_id, self._take_from_hold(job_id))
        under_way = {*self.running, *self.blocked, *self._resuming}
        self._limits = {
            job_id: limits for job_id in (*under_way, *self._ready) if (limits := limits_of(job_id))
        }
        self._taken = {}
        for job_id in under_way:
            self._count(job_id)

    # Limits of single jobs

    def _first(self) -> int | None:
        """Takes out the first ready job whose limits have room, and counts it."""
        while (first := self._ready.pop()) is not None:
            priority, job_id = first
            limits = self._limits.get(job_id)
            if limits is None:
                return job_id
            full = next((limit for limit in limits if not self._has_room(limit)), None)
            if full is None:
                self._count(job_id)
                return job_id
            self._held.setdefault(full.key, ReadyLine()).add(job_id, priority)
            self._held_at[job_id] = full.key
            for limit in limits:
                self._let_one_try(limit)
        return None

    def _has_room(self, limit: Limit) -> bool:
        return self._taken.get(limit.key, 0) < limit.most

    def _count(self, job_id: int) -> None:
        for limit in self._limits.get(job_id, ()):
            self._taken[limit.key] = self._taken.get(limit.key, 0) + 1

    def _leave_limits(self, job_id: int) -> None:
        limits = self._limits.pop(job_id)
        if job_id in self._held_at:
            self._take_from_hold(job_id)
            return
        if job_id not in self._ready:
            for limit in limits:
                left = self._taken[limit.key] - 1
                if left:
                    self._taken[limit.key] = left
                else:
                    del self._taken[limit.key]
        for limit in limits:
            self._let_one_try(limit)

    def _let_one_try(self, limit: Limit) -> None:
        """A limit may have room: the first job that it holds is ready again."""
        line = self._held.get(limit.key)
        if line is None or not self._has_room(limit):
            return
        first = line.pop()
        assert first is not None
        priority, job_id = first
        del self._held_at[job_id]
        if not line:
            del self._held[limit.key]
        self._ready.add(job_id, priority)

    def _take_from_hold(self, job_id: int) -> int:
        """Takes a job out of the line of the limit that holds it; returns its priority."""
        key = self._held_at.pop(job_id)
        line = self._held[key]
        priority = line.priority(job_id)
        line.discard(job_id)
        if not line:
            del self._held[key]
        return priority
