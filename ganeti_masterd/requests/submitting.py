"""LUXI methods that submit jobs."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from ganeti_masterd.errors import GenericError
from ganeti_masterd.jobs.submission import Submitted
from ganeti_masterd.luxi.peers import Peer
from ganeti_masterd.requests.arguments import JobOpcodes, ManyJobs
from ganeti_masterd.requests.daemon import Daemon
from ganeti_masterd.requests.methods import method


def _one(results: list[Submitted]) -> int:
    (result,) = results
    if isinstance(result, GenericError):
        raise result
    return result


@method("SubmitJob", changes=True, largest=None)
def submit_job(daemon: Daemon, peer: Peer, ops: JobOpcodes) -> Deferred[int]:
    """Queues one job; answers its id once the job is durable."""
    return daemon.submission.submit([ops], sender=peer.credentials).addCallback(_one)


@method("SubmitJobToDrainedQueue", changes=True, largest=None)
def submit_job_to_drained_queue(daemon: Daemon, peer: Peer, ops: JobOpcodes) -> Deferred[int]:
    """Queues one job even while the queue is drained."""
    return daemon.submission.submit(
        [ops], even_if_drained=True, sender=peer.credentials
    ).addCallback(_one)


@method("SubmitManyJobs", changes=True, largest=None)
def submit_many_jobs(
    daemon: Daemon, peer: Peer, jobs: ManyJobs
) -> Deferred[list[tuple[bool, Any]]]:
    """Queues several jobs; answers ``[true, id]`` or ``[false, why not]`` for each.

    If one of them can't be decoded, the call fails and no job is queued, as with the real daemon
    3.0.2. If a job is refused for another reason, the others are still queued. What is queued is
    durable by the answer; while it is made, jobs of a large request may begin already.
    """

    def shown(results: list[Submitted]) -> list[tuple[bool, Any]]:
        return [
            (False, str(result.args[0])) if isinstance(result, GenericError) else (True, result)
            for result in results
        ]

    return daemon.submission.submit(jobs, sender=peer.credentials).addCallback(shown)
