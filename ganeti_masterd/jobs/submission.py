"""How a job comes into the queue: its id, its dependencies, its first state.

A submission is one journal commit, one with thousands of opcodes a few of them, with room for
others in between; the ids are answered once all of it is durable. Ids come from a block that is
reserved durably before any of it is given (architecture.rst, journal rule 5).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any

from msgspec.structs import replace
from twisted.internet.defer import Deferred, DeferredList, fail, inlineCallbacks
from twisted.logger import Logger
from twisted.python.failure import Failure

from ganeti_masterd.errors import (
    DaemonStopping,
    GenericError,
    JobQueueError,
    JobQueueFull,
    OpPrereqError,
    prereq,
)
from ganeti_masterd.jobs.model import Job, nanoseconds, new_job
from ganeti_masterd.jobs.queue import NONE_ENDED, JobQueue
from ganeti_masterd.journal.rows import Row, SerialRow
from ganeti_masterd.opcodes import Dependency, Opcode, encode_opcode, strip_secrets, summary

log = Logger()

#: How many job ids are reserved at a time.
SERIAL_BLOCK = 200

#: About how many opcodes are made jobs of at a time, which takes 10 ms.
BATCH = 200

#: The id of a new job, or why it was refused.
Submitted = int | GenericError


class Submission:
    """Takes new jobs into a queue."""

    def __init__(
        self,
        queue: JobQueue,
        *,
        max_jobs: int = 200_000,
        max_backlog: int = 100_000,
        refusal: Callable[[], JobQueueError | None] = lambda: None,
    ) -> None:
        """``refusal`` says why no job may be taken for now, if others have a reason."""
        self._queue = queue
        self._refused_elsewhere = refusal
        #: How many jobs of requests under way are not published yet.
        self._promised = 0
        self._max_jobs = max_jobs
        self._max_backlog = max_backlog

    def submit(
        self,
        jobs: Sequence[Sequence[Opcode]],
        *,
        even_if_drained: bool = False,
        sender: str = "",
    ) -> Deferred[list[Submitted]]:
        """Queues jobs, each a list of opcodes; fires with an id or an error for each.

        One bad job, such as one that depends on an id that was never given, doesn't keep out
        the others. Fails as a whole when the queue is drained
        or full, the daemon stops, or the disk refuses. ``sender`` ("uid=0;pid=7")
        says who it was, in the daemon's own entry of the reason trail.

        Of more than :data:`BATCH` opcodes some jobs are committed before others are made. If the
        disk refuses once some are durable, that is the error of the rest.
        """
        refused = self._refusal(len(jobs), even_if_drained)
        if refused is not None:
            return fail(refused)
        batches = _in_batches(jobs)
        if len(batches) > 1:
            return self._submit_in_turn(batches, len(jobs), sender)
        unknown = self._outside(jobs)
        if unknown:
            return self._enter_after_reading(jobs, unknown, sender)
        return self._enter(jobs, NONE_ENDED, sender)

    @inlineCallbacks
    def _submit_in_turn(
        self, batches: Sequence[Sequence[Sequence[Opcode]]], count: int, sender: str
    ) -> Generator[Any, Any, list[Submitted]]:
        """Makes and commits one batch after another; others are served in between.

        The commits overlap: a batch doesn't wait until the one before is durable, unless its jobs
        depend on some of those. Whatever fails is the error of the jobs of one batch.
        """
        queue = self._queue
        # Relative ids count over the whole request, so that no other job's may come between.
        begin = first = queue.last_id + 1
        queue.last_id += count
        self._promised += count
        commits: list[Deferred[list[Submitted]]] = []
        for batch in batches:
            commit: Deferred[list[Submitted]]
            try:
                if any(begin <= target < first for target in _targets(batch, first)):
                    yield DeferredList([_ended(commit) for commit in commits])
                unknown = self._outside(batch, first)
                ended = (yield self._endings(batch, unknown, first)) if unknown else NONE_ENDED
                if queue.closing:
                    raise _stopping()
            except GenericError:
                commit = fail()
            else:
                commit = self._enter(batch, ended, sender, first)
            commits.append(commit.addBoth(self._kept_promise, len(batch)))
            first += len(batch)
            yield queue.timers.sleep(0)
        outcomes = yield DeferredList(commits, consumeErrors=True)
        if not any(success for success, _ in outcomes):
            return outcomes[0][1]  # type: ignore[no-any-return]  # the failure of all
        results: list[Submitted] = []
        for batch, (success, outcome) in zip(batches, outcomes, strict=True):
            results += outcome if success else [_as_refusal(outcome)] * len(batch)
        return results

    def _kept_promise(self, result: Any, count: int) -> Any:
        self._promised -= count
        return result

    def prepare(self, jobs: Sequence[Sequence[Opcode]]) -> tuple[list[Job], list[Row]]:
        """Gives ids to jobs that an opcode submits; returns them with the rows they need.

        The caller commits both, together with its own change
        (architecture.rst, "How a request travels"); the jobs exist once that is durable.
        """
        refused = self._refusal(len(jobs), True)
        if refused is not None:
            raise refused
        results, made, rows = self._build(jobs, NONE_ENDED)
        for result in results:
            if isinstance(result, OpPrereqError):
                for job in made:
                    self._queue.let_go(job.id)
                raise result
        return made, rows

    def _refusal(self, count: int, even_if_drained: bool) -> Exception | None:
        queue = self._queue
        if queue.closing:
            return _stopping()
        if queue.drained and not even_if_drained:
            return GenericError("Queue drained")
        if len(queue.jobs) + self._promised + count > self._max_jobs:
            return JobQueueFull(
                f"The queue holds {len(queue.jobs)} jobs and may hold {self._max_jobs}; "
                "archive some"
            )
        if queue.journal.backlog > self._max_backlog:
            fault = queue.journal.files_fault
            return JobQueueError(
                f"The queue's files are {queue.journal.backlog} changes behind the journal "
                f"(limit {self._max_backlog}), as "
                + (
                    "more comes in than the disk takes: submit again in a while"
                    if fault is None
                    else f"they can't be written: {fault}"
                )
            )
        return self._refused_elsewhere()

    def _outside(self, jobs: Iterable[Sequence[Opcode]], first: int | None = None) -> set[int]:
        """Returns the ids depended upon that only the archive may know.

        ``first`` is the id of the first job, if it is known; jobs from there on are none of them.
        """
        queue = self._queue
        last = queue.last_id if first is None else first - 1
        return {
            target
            for target in _targets(jobs, first)
            if target <= last and queue.tip(target) is None and queue.endings.of(target) is None
        }

    @inlineCallbacks
    def _enter_after_reading(
        self, jobs: Sequence[Sequence[Opcode]], unknown: set[int], sender: str
    ) -> Generator[Any, Any, list[Submitted]]:
        """Looks in the archive how jobs that are depended upon ended, then enters the new ones."""
        ended = yield self._endings(jobs, unknown)
        results: list[Submitted] = yield self._enter(jobs, ended, sender)
        return results

    @inlineCallbacks
    def _endings(
        self, jobs: Sequence[Sequence[Opcode]], unknown: set[int], first: int | None = None
    ) -> Generator[Any, Any, dict[int, str]]:
        """Returns how jobs in the archive ended that are depended upon."""
        ended: dict[int, str] = {}
        asked: set[int] = set()
        # While some are read, others may be archived.
        while unknown:
            asked |= unknown
            archived = yield self._queue.archived(sorted(unknown))
            ended.update({job.id: job.status for job in archived.values() if job.finished})
            unknown = self._outside(jobs, first) - asked
        return ended

    def _enter(
        self,
        jobs: Sequence[Sequence[Opcode]],
        ended: Mapping[int, str],
        sender: str,
        first: int | None = None,
    ) -> Deferred[list[Submitted]]:
        try:
            results, made, rows = self._build(jobs, ended, sender, first)
        except Exception:
            return fail()
        if len(made) == 1:
            done = self._queue.enter(made[0], rows)
        else:
            done = self._queue.commit(made, rows)
        return done.addCallback(lambda _: results)

    def _build(
        self,
        jobs: Sequence[Sequence[Opcode]],
        ended: Mapping[int, str],
        sender: str = "",
        first: int | None = None,
    ) -> tuple[list[Submitted], list[Job], list[Row]]:
        """Makes jobs, with ids from ``first`` on, which are reserved, or the next ones of all."""
        queue = self._queue
        if sender:
            sender = ";" + sender
        now = queue.timers.now()
        stamp = nanoseconds(now)
        results: list[Submitted] = []
        made: list[Job] = []
        if first is None:
            first = queue.last_id + 1
            queue.last_id += len(jobs)
        opcodes: dict[int, tuple[Opcode, ...]] = {}
        # A refused job keeps its place, so that relative ids of others stay true.
        for job_id, ops in enumerate(jobs, first):
            try:
                ready = self._resolve(job_id, ops, opcodes, ended)
            except OpPrereqError as error:
                results.append(error)
                continue
            entered = []
            for index, op in enumerate(ready):
                source = "gnt:opcode:" + op.op_id[3:].lower()
                own = (source, f"job={job_id};index={index}{sender}", stamp)
                entered.append(replace(op, reason=(*op.reason, own)))
            inputs = [strip_secrets(encode_opcode(op)) for op in entered]
            made.append(new_job(job_id, inputs, now))
            opcodes[job_id] = tuple(entered)
            results.append(job_id)
        for job_id, held in opcodes.items():
            queue.hold(job_id, held, ended)
        rows: list[Row] = []
        if made and queue.last_id > queue.reserved:
            queue.reserved = queue.last_id + SERIAL_BLOCK
            rows.append(SerialRow(queue.reserved))
        return results, made, rows

    def _resolve(
        self, job_id: int, ops: Sequence[Opcode], fresh: Collection[int], ended: Mapping[int, str]
    ) -> tuple[Opcode, ...]:
        if not ops:
            raise prereq("A job needs at least one opcode")
        return tuple(self._resolve_one(job_id, op, fresh, ended) for op in ops)

    def _resolve_one(
        self, job_id: int, op: Opcode, fresh: Collection[int], ended: Mapping[int, str]
    ) -> Opcode:
        dependencies = op.depends
        if not dependencies:
            return op
        resolved = []
        for dependency in dependencies:
            wanted = dependency.job
            target = wanted if wanted > 0 else job_id + wanted
            if target not in ended:
                self._require(job_id, op, target, wanted, fresh)
            resolved.append(Dependency(target, dependency.states))
        return replace(op, depends=tuple(resolved))

    def _require(
        self, job_id: int, op: Opcode, target: int, wanted: int, fresh: Collection[int]
    ) -> None:
        queue = self._queue
        if target == job_id:
            raise prereq(f"{summary(op)}: the job can't depend on itself (job {target})")
        live = queue.tip(target)
        if target in fresh or live is not None:
            return
        if queue.endings.of(target) is not None:
            return
        named = f"job {target}" if wanted > 0 else f"job {target} (given as {wanted})"
        raise prereq(f"{summary(op)}: depends on {named}, which doesn't exist", "unknown_entity")


def _targets(jobs: Iterable[Sequence[Opcode]], first: int | None) -> Iterator[int]:
    """Yields the ids that jobs depend on; relative ones only if the first job's id is known."""
    for index, ops in enumerate(jobs):
        for op in ops:
            for dependency in op.depends or ():
                if dependency.job > 0:
                    yield dependency.job
                elif first is not None and first + index + dependency.job > 0:
                    yield first + index + dependency.job


def _ended(commit: Deferred[Any]) -> Deferred[None]:
    """Returns a Deferred that fires when a commit has, and leaves its result as it is."""
    ended: Deferred[None] = Deferred()

    def settle(result: Any) -> Any:
        ended.callback(None)
        return result

    commit.addBoth(settle)
    return ended


def _as_refusal(failure: Failure) -> GenericError:
    """Returns why the jobs of one batch are not there."""
    if isinstance(failure.value, GenericError):
        return failure.value
    log.failure("Some jobs of a submission could not be made", failure)
    return GenericError(f"The master daemon failed: {failure.value!r}")


def _stopping() -> DaemonStopping:
    return DaemonStopping("The master daemon stops and takes no more jobs")


def _in_batches(jobs: Sequence[Sequence[Opcode]]) -> list[Sequence[Sequence[Opcode]]]:
    """Returns the jobs in parts, each of no more opcodes than :data:`BATCH`, or of a single job."""
    if len(jobs) == 1 or sum(map(len, jobs)) <= BATCH:
        return [jobs]
    batches: list[Sequence[Sequence[Opcode]]] = []
    first = opcodes = 0
    for index, ops in enumerate(jobs):
        if opcodes and opcodes + len(ops) > BATCH:
            batches.append(jobs[first:index])
            first, opcodes = index, 0
        opcodes += len(ops)
    batches.append(jobs[first:])
    return batches
