"""Killing a running job: :class:`KillSwitch`, and :class:`Stretch` for what has no thread yet.

A thread can't be killed. What a kill ends is the wait that the thread is in: the thread
gets :class:`~ganeti_masterd.logical_units.context.JobKilled` out of it at once, and what
it waited for is cancelled. Between two waits it meets the kill at its next checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, FirstError
from twisted.logger import Logger
from twisted.python.failure import Failure

from ganeti_masterd.logical_units.context import JobKilled
from ganeti_masterd.rpc.interfaces import CallAbandoned

log = Logger()


class KillSwitch:
    """Whether one job was killed, and the wait of its thread that a kill ends.

    Reactor thread only, but for ``killed`` and :meth:`error`, which threads use too.
    ``warn`` is called with a text if nodes may go on with a call that was abandoned.
    """

    def __init__(self, job_id: int, warn: Callable[[str], object]) -> None:
        self.killed = False
        self._job_id = job_id
        self._warn = warn
        self._under_way = ""
        #: What the thread waits for, and what it is given instead: None if it doesn't wait.
        self._awaited: Deferred[Any] | None = None
        self._done: Deferred[Any] | None = None

    def error(self) -> JobKilled:
        """Returns what the thread of the killed job raises; names calls still under way."""
        text = f"Job {self._job_id} was killed while this opcode ran"
        return JobKilled(f"{text}; {self._under_way}" if self._under_way else text)

    def wait(self, begin: Callable[..., Any], *args: Any) -> Any:
        """Returns what ``begin(*args)`` does; a Deferred among it fails early if the job is killed.

        Raises ``JobKilled`` without a call of ``begin`` if it was killed already.
        """
        if self.killed:
            raise self.error()
        value = begin(*args)
        if not isinstance(value, Deferred) or (value.called and not value.paused):
            return value
        done: Deferred[Any] = Deferred(lambda _: value.cancel())
        self._awaited, self._done = value, done
        value.addBoth(self._over, done)
        return done

    def kill(self) -> None:
        """Ends the wait that the thread is in, if any, and all that begin after it."""
        if self.killed:
            return
        self.killed = True
        awaited, done = self._awaited, self._done
        self._awaited = self._done = None
        if awaited is None or done is None:
            return
        awaited.cancel()
        if self._under_way:
            self._warn(self._under_way)
        if not done.called:
            done.errback(self.error())

    def _over(self, result: Any, done: Deferred[Any]) -> None:
        """What was awaited is there, or its wait has been ended."""
        if self._done is done:
            self._awaited = self._done = None
            if not done.called:
                done.callback(result)
            return
        if isinstance(result, Failure):
            cause = _root(result)
            if isinstance(cause, CallAbandoned):
                self._under_way = cause.still_under_way()
                return
            if isinstance(cause, CancelledError):
                return
        log.debug(
            "What job {job} waited for as it was killed came late: {result}",
            job=self._job_id,
            result=result.value if isinstance(result, Failure) else type(result).__name__,
        )


def _root(failure: Failure) -> BaseException | None:
    while isinstance(failure.value, FirstError):
        failure = failure.value.subFailure
    return failure.value


class Stretch:
    """What an opcode does in a pool thread; it can be called off until a thread begins it.

    A job may wait for a thread after the limit of running jobs was lowered.
    """

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self._function = function
        self._args = args
        self._claim = Lock()

    def run(self) -> Any:
        """Runs it, in the thread; returns None if it was called off."""
        if self._claim.acquire(blocking=False):
            return self._function(*self._args)
        return None

    def call_off(self) -> bool:
        """Makes sure that it doesn't begin; false if it has."""
        return self._claim.acquire(blocking=False)
