"""Stops the daemon as the table of :mod:`.shutdown` says: runs its timers and calls its parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ganeti_masterd.startup.shutdown import (
    BOUND,
    CHECK_INTERVAL,
    DISK_BOUND,
    LINGER,
    Act,
    Happening,
    ShutdownState,
    step,
)
from ganeti_masterd.timing import Timer, Timers

log = Logger()

#: Seconds between two checks whether a client is still connected, while they collect results.
_LOOK_FOR_CLIENTS = 0.1


class Stoppable(Protocol):
    """What is to be stopped."""

    def refuse_jobs(self) -> None:
        """Starts and accepts no more jobs; may be called again."""

    def running_jobs(self) -> int:
        """Returns how many jobs run."""

    def when_idle(self) -> Deferred[None]:
        """Fires once no job runs."""

    def disk_hangs(self, patience: float, *, commits: bool) -> Sequence[object]:
        """Returns what has hung on the disk for longer than ``patience`` seconds.

        ``commits``: only what keeps jobs from being recorded.
        """

    def clients(self) -> int:
        """Returns how many clients are connected."""

    def stop_listening(self) -> None:
        """Accepts no more clients."""

    def tear_down(self, abandon: bool) -> Deferred[None]:
        """Ends every part; with ``abandon`` also jobs that run, as a hard kill would."""

    def cut_short(self) -> None:
        """Ends the process at once, after cleaning up what can be cleaned up."""


class Stopping:
    """One shutdown, from the first signal on. Reactor thread only.

    ``timers`` is used for nothing else: the daemon's other timers end with its parts.
    ``stop_timeout``: seconds after which running jobs are no longer waited for (None: never).
    A disk that doesn't answer is waited for no longer than :data:`~.shutdown.DISK_BOUND`.
    ``finished`` fires when every part has ended.
    """

    def __init__(self, parts: Stoppable, timers: Timers, stop_timeout: float | None = None) -> None:
        self.state = ShutdownState.RUNNING
        self.finished: Deferred[None] = Deferred()
        self._parts = parts
        self._timers = timers
        self._timeout = stop_timeout
        self._check: Timer | None = None
        self._abandon = False
        self._bounded = False
        self._acts: dict[Act, Callable[[], object]] = {
            Act.REFUSE_JOBS: parts.refuse_jobs,
            Act.CHECK: self._first_look,
            Act.CHECK_LATER: self._look_later,
            Act.START_TIMEOUT: self._start_timeout,
            Act.STOP_LISTENING: parts.stop_listening,
            Act.LINGER: self._linger,
            Act.ABANDON_JOBS: self._abandon_jobs,
            Act.TEAR_DOWN: self._tear_down,
            Act.BOUND: self._bound,
            Act.CUT_SHORT: self._cut_short,
            Act.END: self._end,
        }

    def signal(self) -> None:
        """Asks the daemon to stop; if it is stopping already, to stop at once."""
        if self.state in (ShutdownState.DRAINING, ShutdownState.LINGERING):
            log.info("Asked to stop once more: it stops at once")
        self._happens(Happening.SIGNAL)

    def _happens(self, happening: Happening) -> None:
        self.state, acts = step(self.state, happening)
        for act in acts:
            self._acts[act]()

    def _look(self) -> None:
        # A job may have begun to wait for locks that it can no longer get.
        self._parts.refuse_jobs()
        self._happens(Happening.BUSY if self._parts.running_jobs() else Happening.IDLE)

    def _first_look(self) -> None:
        self._look()
        if self.state is ShutdownState.DRAINING:
            self._timers.later(CHECK_INTERVAL, self._watch_disk)
            self._parts.when_idle().addBoth(lambda _: self._happens(Happening.IDLE))

    def _watch_disk(self) -> None:
        before = self.state
        hangs = self._parts.disk_hangs(DISK_BOUND, commits=before is ShutdownState.DRAINING)
        if hangs and before is not ShutdownState.LINGERING:
            log.error(
                "The disk does not answer, the daemon stops without that: {hang}",
                hang=str(hangs[0]),
            )
            self._happens(Happening.DISK_HANGS)
        if self.state is before:
            self._timers.later(CHECK_INTERVAL, self._watch_disk)

    def _look_later(self) -> None:
        log.info("Waiting for {jobs} running jobs to end", jobs=self._parts.running_jobs())
        self._check = self._timers.later(CHECK_INTERVAL, self._look)

    def _start_timeout(self) -> None:
        if self._timeout is not None:
            self._timers.later(self._timeout, self._happens, Happening.OUT_OF_TIME)

    def _linger(self) -> None:
        if self._check is not None:
            self._check.cancel()
        log.info(
            "No job runs any more; {clients} clients have {seconds:g} s to collect results",
            clients=self._parts.clients(),
            seconds=LINGER,
        )
        self._timers.later(LINGER, self._happens, Happening.LINGERED)
        self._look_for_clients()

    def _look_for_clients(self) -> None:
        if self._parts.clients():
            self._timers.later(_LOOK_FOR_CLIENTS, self._look_for_clients)
        else:
            self._happens(Happening.CLIENTS_GONE)

    def _abandon_jobs(self) -> None:
        log.warn("Giving up {jobs} running jobs", jobs=self._parts.running_jobs())
        self._abandon = True

    def _tear_down(self) -> None:
        self._timers.cancel_all()
        self._timers.later(CHECK_INTERVAL, self._watch_disk)

        def failed(failure: Failure) -> None:
            log.failure("Not every part could be ended in order", failure)

        done = self._parts.tear_down(self._abandon).addErrback(failed)
        done.addBoth(lambda _: self._happens(Happening.TORN_DOWN))

    def _bound(self) -> None:
        if not self._bounded:
            self._bounded = True
            self._timers.later(BOUND, self._happens, Happening.OUT_OF_PATIENCE)

    def _cut_short(self) -> None:
        log.critical("The last steps hang: the process ends without them")
        self._parts.cut_short()

    def _end(self) -> None:
        self._timers.cancel_all()
        self.finished.callback(None)
