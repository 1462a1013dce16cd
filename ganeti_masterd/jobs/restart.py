"""What becomes of the jobs that a stopped daemon left behind.

See protocol/startup.rst, Stop and protocol/queue.rst, Restart, take-over, hand-back.

Jobs that were queued or waited for locks are queued again. One that was
running, or being cancelled, ends in error: what it had done by then is not
known, and nothing runs twice. If it had noted devices on nodes, it ends once these
are cleared away.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from ganeti_masterd.constants import (
    STATUS_CANCELING,
    STATUS_RUNNING,
    STATUS_WAITING,
)
from ganeti_masterd.errors import GenericError, OpExecError, encode_error, prereq
from ganeti_masterd.jobs import model
from ganeti_masterd.jobs.devices import by_hand
from ganeti_masterd.jobs.files import LoadedJobs
from ganeti_masterd.jobs.model import Job
from ganeti_masterd.jobs.queue import JobQueue
from ganeti_masterd.opcodes import Opcode, lacks_secrets, load_opcode

log = Logger()

STOPPED_UNCLEANLY = (
    "The master daemon stopped uncleanly while this opcode ran; what it had done by then "
    "is not known"
)
SECRETS_GONE = (
    "The secret parameters of this job are not kept on disk, so it can't go on after a "
    "restart; submit it again"
)


def after_restart(job: Job, now: float) -> Job:
    """Returns the state in which a job found on disk goes on; itself if unchanged.

    The error of one that was cut off names the devices that it may have left on nodes.
    """
    index = cut_off(job)
    if index is not None:
        text = STOPPED_UNCLEANLY
        if job.devices:
            text += f". What no disk has of the following is to be removed: {by_hand(job.devices)}"
        return model.fail(job, index, encode_error(OpExecError(text)), now)
    if any(lacks_secrets(op.input) for op in job.ops[job.current :] if not op.finished):
        error = encode_error(prereq(SECRETS_GONE, "wrong_state"))
        return model.fail(job, job.current, error, now)
    if any(op.status == STATUS_WAITING for op in job.ops):
        return model.requeue(job)
    return job


def cut_off(job: Job) -> int | None:
    """Returns the index of the opcode that ran, or was being cancelled; None if none did."""
    for index, op in enumerate(job.ops):
        if op.status in (STATUS_RUNNING, STATUS_CANCELING):
            return index
    return None


def _opcodes_of(job: Job) -> tuple[Opcode, ...]:
    return tuple(load_opcode(op.input) for op in job.ops)


def restore(queue: JobQueue, loaded: LoadedJobs, *, own: bool) -> Deferred[None]:
    """Fills an empty queue with what was found on disk; fires once it is durable.

    ``own``: the jobs are as this machine's own journal has left them, and so is the
    configuration. Then a job that was cut off while it had devices on nodes in the making still
    runs, and is among ``queue.cut_off``, for whoever clears these away. Otherwise, as on a new
    master or from a backup, the configuration may be older than what was done on the nodes,
    and a device that no disk has may be the only copy: it is named, and stays.

    Ids go on above every id ever seen: the serial file, the journal's
    reservation, the queue and the archive.
    """
    now = queue.timers.now()
    changed: list[Job] = []
    for job_id in sorted(loaded.jobs):
        found = loaded.jobs[job_id]
        if own and found.devices and cut_off(found) is not None:
            queue.cut_off.append(job_id)
            continue
        job = after_restart(found, now)
        if not job.finished:
            try:
                queue.hold(job_id, _opcodes_of(job))
            except GenericError as error:
                job = model.fail(job, job.current, encode_error(error), now)
        if job is not found:
            log.info(
                "Job {job} was {before} when the daemon stopped, it is {after} now",
                job=job_id,
                before=found.status,
                after=job.status,
            )
            changed.append(job)
        loaded.jobs[job_id] = job
    queue.last_id = max(
        queue.folder.read_serial(),
        queue.journal.reserved,
        queue.folder.highest_archived(),
        max(loaded.jobs, default=0),
        max(loaded.corrupt, default=0),
        max(loaded.strange, default=0),
    )
    queue.reserved = queue.journal.reserved
    queue.drained = queue.folder.drained()
    changed += _without_their_dependencies(queue, loaded)
    queue.adopt(loaded.jobs.values())
    # What filter rules or dependencies have ended by now is committed as that.
    changed = [job for job in changed if queue.tip(job.id) is job]
    return queue.commit(changed) if changed else succeed(None)


def _without_their_dependencies(queue: JobQueue, loaded: LoadedJobs) -> list[Job]:
    """Fails the jobs that depend on jobs which are gone; looks the archived ones up."""
    failed = []
    wanted = {dep for job_id in queue.opcodes for dep in queue.wanted_by(job_id)}
    archived = queue.folder.read_archived(sorted(wanted - set(loaded.jobs)))
    for job in archived.values():
        if job.finished:
            queue.endings.note(job.id, job.status)
    for job_id in list(queue.opcodes):
        lost = [
            dep
            for dep in queue.wanted_by(job_id)
            if dep not in loaded.jobs and queue.endings.of(dep) is None
        ]
        if lost:
            queue.let_go(job_id)
            job = loaded.jobs[job_id]
            error = prereq(f"Job {lost[0]}, on which this one depends, is gone", "unknown_entity")
            job = model.fail(job, job.current, encode_error(error), queue.timers.now())
            loaded.jobs[job_id] = job
            failed.append(job)
    return failed
