"""Why a job waits, in one sentence, from the state of the scheduler and of the lock table.

Sentences name jobs with what they do, and locks by the names of their objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from msgspec import Struct

from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.constants import (
    STATUS_CANCELING,
    STATUS_QUEUED,
    STATUS_RUNNING,
    STATUS_WAITING,
)
from ganeti_masterd.jobs.model import Job
from ganeti_masterd.jobs.queue import JobQueue
from ganeti_masterd.locking.decisions import LockState
from ganeti_masterd.locking.levels import Level, LockMode, WantedLocks
from ganeti_masterd.query.jobs import op_summary

#: How many jobs, or locks, a sentence names; it counts the others.
NAMED = 3
#: How many locks a wait lists.
LISTED = 20

_PLURALS = {
    Level.INSTANCE: "instances",
    Level.NODEGROUP: "node groups",
    Level.NODE: "nodes",
    Level.NODE_RES: "nodes' resources",
    Level.NETWORK: "networks",
}


#: The section of the configuration that has a level's objects, and what one of these is called.
_SECTIONS = {
    Level.NODEGROUP: ("nodegroups", "node group"),
    Level.NODE: ("nodes", "node"),
    Level.NODE_RES: ("nodes", "the resources of node"),
    Level.NETWORK: ("networks", "network"),
}

#: One place in the line for a lock: how it is asked for, and by which jobs.
_Place = tuple[LockMode, tuple[int, ...]]


class HeldLock(Struct, frozen=True):
    """A lock that a job waits for: who holds it, and who is before the job in its line.

    ``alone`` is whether it is held alone. Only jobs that stand in the way are listed.
    """

    level: Level
    name: str | None
    alone: bool
    owners: tuple[int, ...]
    before: tuple[int, ...]


class AwaitedLock(Struct, frozen=True):
    """A lock that a job waits for, by a name for people, such as ``node node3``.

    ``owners`` are the jobs that hold it, ``before`` those that asked for it earlier; only jobs that
    stand in the way are listed. ``shared`` is whether the owners hold it shared.
    """

    name: str
    owners: tuple[int, ...]
    before: tuple[int, ...]
    shared: bool


class JobWait(Struct, frozen=True):
    """What a job waits for.

    ``kind`` is ``lock``, ``slot``, ``dependency``, ``rule``, ``limit``, ``daemon`` or
    ``moment`` (it goes on by itself at once); ``jobs`` are the ids of those that it waits for.
    ``locks`` are those that it waits for, the first :data:`LISTED` of them.
    """

    job_id: int
    kind: str
    sentence: str
    jobs: tuple[int, ...] = ()
    locks: tuple[AwaitedLock, ...] = ()


class WaitingForLocks(Protocol):
    """The lock table, as far as it says who waits."""

    def states(self) -> Iterator[LockState]:
        """Returns each lock that is held or waited for."""

    def wanted(self, job_id: int) -> tuple[Level, WantedLocks] | None:
        """Returns what a job that waits asks for; None if it doesn't wait."""


class JobWaits:
    """Says of jobs why they wait; reactor thread only. Looking changes nothing."""

    def __init__(
        self, queue: JobQueue, locks: WaitingForLocks, snapshot: Callable[[], Snapshot]
    ) -> None:
        self._queue = queue
        self._locks = locks
        self._snapshot = snapshot

    def of(self, job_id: int) -> JobWait | None:
        """Returns why a job waits; None if it doesn't, or isn't in the queue."""
        job = self._queue.jobs.get(job_id)
        return None if job is None else self._why(job, self._blocked({job_id}))

    def all(self, limit: int) -> list[JobWait]:
        """Returns why jobs that are under way wait, and then those that depend on others.

        The first ``limit`` of each, by id. Queued jobs that only lack a slot aren't listed.
        """
        queue = self._queue
        under_way = sorted(queue.scheduler.blocked)[:limit]
        others = sorted({*queue.admission.dependent(), *queue.admission.paused})[:limit]
        blocked = self._blocked(set(under_way))
        jobs = (queue.jobs.get(job_id) for job_id in (*under_way, *others))
        found = (self._why(job, blocked) for job in jobs if job is not None)
        return [wait for wait in found if wait is not None]

    def why_not(self, job_id: int) -> str | None:
        """Returns a sentence about a job that doesn't wait; None if it isn't in the queue."""
        job = self._queue.jobs.get(job_id)
        if job is None:
            return None
        if job.status == STATUS_RUNNING:
            return f"Job {job_id} runs; it waits for nothing"
        if job.status == STATUS_CANCELING:
            return f"Job {job_id} is being cancelled"
        return f"Job {job_id} doesn't wait: its status is {job.status}"

    # Locks

    def _blocked(self, job_ids: set[int]) -> dict[int, list[HeldLock]]:
        """Returns what keeps each of the jobs from its locks; one look at the whole table."""
        found: dict[int, dict[HeldLock, None]] = {}
        by_members: dict[tuple[Level, LockMode], list[HeldLock | None]] = {}
        states = list(self._locks.states())
        whole = {state.level: state for state in states if state.name is None}
        for state in states:
            ahead: list[_Place] = []
            for mode, owners in state.pending:
                for job_id in job_ids.intersection(owners):
                    ways: list[HeldLock | None] = [_in_the_way(state, mode, ahead)]
                    if state.name is None:
                        # It waits for all members at once, and is in no line of theirs.
                        if (state.level, mode) not in by_members:
                            by_members[state.level, mode] = [
                                _in_the_way(each, mode, ())
                                for each in states
                                if each.level is state.level and each.name is not None
                            ]
                        ways += by_members[state.level, mode]
                    elif (level := whole.get(state.level)) is not None:
                        ways.append(_in_the_way(level, mode, ()))
                        if not any(ways):
                            ways.append(_in_the_way(level, mode, level.pending))
                    known = found.setdefault(job_id, {})
                    known.update((way, None) for way in ways if way is not None)
                ahead.append((mode, owners))
        return {job_id: list(known) for job_id, known in found.items()}

    # Sentences

    def _why(self, job: Job, blocked: dict[int, list[HeldLock]]) -> JobWait | None:
        if job.status == STATUS_QUEUED:
            return self._queued(job)
        if job.id not in self._queue.scheduler.blocked:
            if job.status in (STATUS_WAITING, STATUS_RUNNING) and self._lacks_slot(job.id):
                return self._without_slot(job, "goes on")
            return None
        if job.status == STATUS_RUNNING:
            text = (
                f"Job {job.id} waits for something that takes long, such as disks that synchronize"
            )
            return JobWait(job.id, "moment", text)
        held = blocked.get(job.id)
        if held:
            return self._locked(job, held)
        wanted = self._locks.wanted(job.id)
        if wanted is not None:
            level, locks = wanted
            if locks.minimum is not None:
                some = "one" if locks.minimum == 1 else str(locks.minimum)
                text = f"Job {job.id} waits until at least {some} of its {_PLURALS[level]} is free"
                return JobWait(job.id, "lock", text)
        return JobWait(job.id, "moment", f"Job {job.id} is about to go on")

    def _locked(self, job: Job, held: Sequence[HeldLock]) -> JobWait:
        clauses = []
        blockers: dict[int, None] = {}
        for lock in held[:NAMED]:
            name = self._lock(lock.level, lock.name)
            blockers.update(dict.fromkeys(lock.owners))
            blockers.update(dict.fromkeys(lock.before))
            if lock.owners:
                verb = "holds" if len(lock.owners) == 1 else "hold"
                how = "" if lock.alone else ", shared"
                clauses.append(f"{name}, which {self._jobs(lock.owners)} {verb}{how}")
            else:
                verb = "asked" if len(lock.before) == 1 else "have asked"
                clauses.append(f"{name}, for which {self._jobs(lock.before)} {verb} before it")
        if len(held) > NAMED:
            more = len(held) - NAMED
            clauses.append(f"{more} more lock{'' if more == 1 else 's'}")
        for lock in held[NAMED:]:
            blockers.update(dict.fromkeys((*lock.owners, *lock.before)))
        text = f"Job {job.id} waits for {'; and for '.join(clauses)}"
        listed = tuple(
            AwaitedLock(self._lock(each.level, each.name), each.owners, each.before, not each.alone)
            for each in held[:LISTED]
        )
        return JobWait(job.id, "lock", text, tuple(sorted(blockers)), listed)

    def _queued(self, job: Job) -> JobWait:
        queue = self._queue
        if queue.closing:
            return JobWait(job.id, "daemon", f"Job {job.id} waits: the daemon is stopping")
        wanted = queue.admission.waiting_for(job.id)
        if wanted:
            text = f"Job {job.id} waits for the end of {self._jobs(wanted)}, on which it depends"
            return JobWait(job.id, "dependency", text, tuple(wanted))
        if job.id in queue.admission.paused:
            rule = queue.admission.rule_of(job)
            return JobWait(job.id, "rule", f"Job {job.id} is held back by filter rule {rule}")
        limit = queue.scheduler.limit_holding(job.id)
        if limit is not None:
            kind, name = limit
            what = f"filter rule {name}" if kind == "rule" else f"the reason rate-limit:{name}"
            text = f"Job {job.id} waits as {what} lets no more such jobs run at a time"
            return JobWait(job.id, "limit", text)
        if queue.runner is None:
            return JobWait(job.id, "daemon", f"Job {job.id} waits: the daemon is starting")
        if job.id not in queue.scheduler:
            return JobWait(job.id, "moment", f"Job {job.id} is about to begin")
        scheduler = queue.scheduler
        if len(scheduler.running) < scheduler.limit:
            if len(scheduler.blocked) >= scheduler.max_blocked:
                text = f"Job {job.id} waits as {len(scheduler.blocked)} jobs wait for locks already"
                return JobWait(job.id, "slot", text)
            return JobWait(job.id, "moment", f"Job {job.id} is about to begin")
        return self._without_slot(job, "begins")

    def _lacks_slot(self, job_id: int) -> bool:
        scheduler = self._queue.scheduler
        return job_id not in scheduler.running and scheduler.under_way(job_id)

    def _without_slot(self, job: Job, then: str) -> JobWait:
        scheduler = self._queue.scheduler
        slots = f"all {scheduler.limit} slots are" if scheduler.limit != 1 else "the only slot is"
        running = tuple(sorted(scheduler.running))
        text = f"Job {job.id} {then} when there is a slot: {slots} taken, by {self._jobs(running)}"
        return JobWait(job.id, "slot", text, running)

    # Names

    def _jobs(self, job_ids: Iterable[int]) -> str:
        ids = list(job_ids)
        named = [self._job(job_id) for job_id in ids[:NAMED]]
        if len(ids) > NAMED:
            named.append(f"{len(ids) - NAMED} more")
        return named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"

    def _job(self, job_id: int) -> str:
        job = self._queue.tip(job_id)
        if job is None:
            return f"job {job_id}"
        op = job.ops[min(job.current, len(job.ops) - 1)]
        return f"job {job_id} ({op_summary(op.input)})"

    def _lock(self, level: Level, name: str | None) -> str:
        if level is Level.CLUSTER:
            return "the lock of the whole cluster"
        if name is None:
            return f"all {_PLURALS[level]}"
        snapshot = self._snapshot()
        if level is Level.INSTANCE:
            return f"instance {name}"
        section, kind = _SECTIONS[level]
        known = snapshot.section(section).get(name)
        return f"{kind} {name if known is None else known.name}"


def _in_the_way(state: LockState, mode: LockMode, ahead: Sequence[_Place]) -> HeldLock | None:
    """Returns who keeps a request from a lock; None if nobody does."""
    alone = state.mode is LockMode.EXCLUSIVE
    wants_alone = mode is LockMode.EXCLUSIVE
    taken = state.mode is not None and (alone or wants_alone)
    owners = state.owners if taken else ()
    before = [
        owner
        for other, waiting in ahead
        if wants_alone or other is LockMode.EXCLUSIVE
        for owner in waiting
    ]
    if not owners and not before:
        return None
    return HeldLock(state.level, state.name, alone, owners, tuple(before))
