"""LUXI methods about existing jobs."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from ganeti_masterd.errors import GenericError, JobLost
from ganeti_masterd.jobs.control import ControlAnswer
from ganeti_masterd.luxi.peers import Peer
from ganeti_masterd.query.resources import refuse_if_too_many
from ganeti_masterd.requests.arguments import JobId, JobIds
from ganeti_masterd.requests.daemon import Daemon
from ganeti_masterd.requests.methods import OWN_METHODS, method

#: The most bytes of a request that names jobs: all that a full queue may have.
LARGEST_LIST = 4 << 20


@method("WaitForJobChange")
def wait_for_job_change(
    daemon: Daemon,
    peer: Peer,
    job_id: JobId,
    fields: list[str],
    previous: Any,
    log_serial: int | None,
    timeout: float,
) -> Any:
    """Answers ``[values, log entries]`` once they differ from what the client already has."""
    refuse_if_too_many(fields, "WaitForJobChange: argument fields")
    job = daemon.queue.jobs.get(job_id)
    if job is None:
        raise JobLost(f"Job {job_id} is archived or was never there")
    return daemon.queue.watch.wait(job, fields, previous, log_serial, timeout)


@method("CancelJob", changes=True)
def cancel_job(
    daemon: Daemon, peer: Peer, job_id: JobId, kill: bool = False
) -> Deferred[ControlAnswer]:
    """Cancels a job that has not begun, or ends a running one (kill)."""
    return daemon.control.cancel(job_id, kill=kill)


@method("ChangeJobPriority", changes=True)
def change_job_priority(
    daemon: Daemon, peer: Peer, job_id: JobId, priority: int
) -> Deferred[ControlAnswer]:
    """Changes the priority of a job's opcodes that have not begun to run."""
    return daemon.control.change_priority(job_id, priority)


@method("ArchiveJob", changes=True)
def archive_job(daemon: Daemon, peer: Peer, job_id: JobId) -> Deferred[bool]:
    """Archives a job that has ended."""
    return daemon.control.archive(job_id)


@method("AutoArchiveJobs", changes=True)
def auto_archive_jobs(
    daemon: Daemon, peer: Peer, age: float, timeout: float
) -> Deferred[tuple[int, int]]:
    """Archives the jobs that ended ``age`` seconds ago or earlier."""
    return daemon.control.auto_archive(age, timeout)


@method("QueryJobs", largest=LARGEST_LIST)
def query_jobs(
    daemon: Daemon, peer: Peer, job_ids: JobIds, fields: list[str], *, null_rows: bool = False
) -> Any:
    """Answers a row of field values for each job; ``null_rows``: null for a missing one."""
    if null_rows:
        return daemon.engine.query_jobs(job_ids, fields, null_rows)
    return daemon.engine.answer_jobs(job_ids, fields)


@method("QueryJobWait", table=OWN_METHODS)
def query_job_wait(daemon: Daemon, peer: Peer, job_id: JobId) -> dict[str, Any]:
    """Answers why a job waits: a sentence, what kind of wait it is, and for which jobs.

    ``kind`` is null for a job that doesn't wait.
    """
    wait = daemon.waits.of(job_id)
    sentence = daemon.waits.why_not(job_id) if wait is None else wait.sentence
    if sentence is None:
        raise JobLost(f"Job {job_id} is archived or was never there")
    return {
        "id": job_id,
        "sentence": sentence,
        "kind": None if wait is None else wait.kind,
        "jobs": [] if wait is None else list(wait.jobs),
    }


@method("PickupJob", changes=True)
def pickup_job(daemon: Daemon, peer: Peer, job_id: JobId) -> Any:
    """For luxid's internal use; refused, as by luxid."""
    raise GenericError("Luxi call 'PickupJob' is for internal use only")
