"""What ``--debug`` logs: every request and how it ended, status changes of jobs, calls to nodes.

Arguments and results are never logged, as they may contain secrets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ganeti_masterd.events import Events, JobChanged, NodeCalled
from ganeti_masterd.luxi.factory import AnswerFunction
from ganeti_masterd.luxi.messages import LuxiRequest
from ganeti_masterd.luxi.peers import Peer

log = Logger()


def traced(answer: AnswerFunction, seconds: Callable[[], float]) -> AnswerFunction:
    """Returns an answer that logs each request: who sent it, how long it took, how it ended."""

    def answered(request: LuxiRequest, peer: Peer) -> object:
        began = seconds()

        def ended(how: str) -> None:
            log.debug(
                "Request {method} on connection {peer.connection} (uid {peer.uid}, pid "
                "{peer.pid}): {how} after {took:.4f} s",
                method=request.method,
                peer=peer,
                how=how,
                took=seconds() - began,
            )

        try:
            result = answer(request, peer)
        except Exception as error:
            ended(type(error).__name__)
            raise
        if not isinstance(result, Deferred):
            ended("answered")
            return result

        def fired(outcome: Any) -> Any:
            if not isinstance(outcome, Failure):
                ended("answered")
            elif outcome.check(CancelledError):
                ended("the client went away")
            else:
                ended(type(outcome.value).__name__)
            return outcome

        return result.addBoth(fired)

    return answered


def trace(events: Events) -> None:
    """Logs status changes of jobs and calls to nodes as they happen."""
    events.subscribe(JobChanged, _job)
    events.subscribe(NodeCalled, _call)


def _job(event: JobChanged) -> None:
    log.debug(
        "Job {event.job_id}: {before} -> {event.after}", event=event, before=event.before or "new"
    )


def _call(event: NodeCalled) -> None:
    log.debug(
        "Call {event.procedure} to {event.node} took {event.seconds:.4f} s: {how}",
        event=event,
        how=event.error or "done",
    )
