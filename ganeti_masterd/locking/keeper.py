"""The lock table with Deferreds and timers.

:class:`LockKeeper` grants locks at once if it can, else returns a Deferred that fires when
they become free. It retries opportunistic requests and makes requests more urgent as they
wait. Reactor thread only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final

from msgspec import Struct
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ganeti_masterd.errors import DaemonStopping, LockError
from ganeti_masterd.events import Events, LockWaited
from ganeti_masterd.locking.ageing import STEP
from ganeti_masterd.locking.decisions import (
    Granted,
    LockDecision,
    LockFailed,
    LockOutcome,
    LockState,
    NotEnough,
)
from ganeti_masterd.locking.levels import Level, WantedLocks
from ganeti_masterd.locking.listing import LockRow, lock_rows
from ganeti_masterd.locking.table import LockTable
from ganeti_masterd.timing import Timer, Timers

log = Logger()

#: Seconds between attempts of an opportunistic request (protocol/queue.rst, Running an opcode).
RETRY: Final = 2.0

#: Seconds after which an opportunistic request becomes one for all the locks that it named.
PATIENCE: Final = float(STEP)

#: Seconds between checks of how long requests have waited.
AGEING_INTERVAL: Final = 60.0


class _Waiter(Struct, eq=False):
    """A request whose Deferred has not fired yet, and its outcome, once the table has decided."""

    job_id: int
    level: Level
    wanted: WantedLocks
    priority: int
    since: float
    deferred: Deferred[frozenset[str]]
    outcome: LockOutcome | None = None
    retry: Timer | None = None


class LockKeeper:
    """Gives locks to jobs.

    Deferreds fire only after the table is consistent again, in the order of waiting;
    their callbacks may call any method of the keeper.
    """

    def __init__(self, timers: Timers, events: Events) -> None:
        self._timers = timers
        self._events = events
        self._on_aged: Callable[[int, int], object] = lambda job_id, priority: None
        self._table = LockTable()
        self._waiters: dict[int, _Waiter] = {}
        self._settled: deque[_Waiter] = deque()
        self._firing = False
        self._closed = False
        self._ageing: Timer | None = None

    def on_aged(self, function: Callable[[int, int], object]) -> None:
        """Sets what is called with a job's id and its new priority once it has aged.

        A job ages when its request has waited for long; whoever keeps the job writes
        the priority to the opcode.
        """
        self._on_aged = function

    # Asking

    def acquire(
        self, job_id: int, level: Level, wanted: WantedLocks, priority: int = 0
    ) -> frozenset[str] | Deferred[frozenset[str]]:
        """Takes the locks wanted at one level.

        Returns the names now held if they are granted at once, else a Deferred
        that fires with them. Cancelling the Deferred withdraws the request. It
        fails with ``LockError`` if one of the locks is removed, and with
        ``DaemonStopping`` if the daemon stops. An opportunistic request that
        finds too few free locks is retried every 2 s, and after half an hour waits for
        all locks that it named. Raises ``LockError`` for misuse (see the table's rules)
        and ``DaemonStopping`` if the keeper is closed.
        """
        if self._closed:
            raise DaemonStopping("The daemon is stopping, no lock is given")
        if job_id in self._waiters:
            raise LockError(f"Job {job_id} is already waiting for locks")
        now = self._timers.seconds()
        decision = self._table.request(job_id, level, wanted, priority, now)
        if isinstance(decision, Granted):
            self._tell(job_id, level, 0.0)
            return decision.names
        deferred: Deferred[frozenset[str]] = Deferred(lambda it: self._give_up(job_id, it))
        waiter = _Waiter(job_id, level, wanted, priority, now, deferred)
        self._waiters[job_id] = waiter
        self._wait(waiter, decision)
        return deferred

    def set_priority(self, job_id: int, priority: int) -> None:
        """Changes the priority of the job's waiting request, if any, and restarts its ageing."""
        waiter = self._waiters.get(job_id)
        if waiter is not None:
            waiter.priority = priority
            self._settle(self._table.set_priority(job_id, priority, self._timers.seconds()))

    # Giving back

    def release(self, job_id: int, level: Level, keep: Collection[str] = ()) -> None:
        """Frees what the job holds at a level, except the names in ``keep``."""
        self._settle(self._table.release(job_id, level, keep))

    def release_all(self, job_id: int) -> None:
        """Frees everything that the job holds, and cancels its waiting request, if any."""
        waiter = self._waiters.get(job_id)
        if waiter is not None:
            waiter.deferred.cancel()
        outcomes = self._table.release_all(job_id)
        if outcomes:
            self._settle(outcomes)

    def downgrade(self, job_id: int, level: Level, names: Iterable[str] | None = None) -> None:
        """Makes locks that the job holds alone shared; all at this level if ``names`` is None."""
        self._settle(self._table.downgrade(job_id, level, names))

    # Members

    def populate(self, level: Level, names: Iterable[str]) -> None:
        """Adds the locks of existing objects; called at the start, from the configuration."""
        self._table.add(level, names)

    def add_lock(self, level: Level, name: str, job_id: int | None = None) -> None:
        """Adds a new lock, held alone by ``job_id`` if given; see :meth:`LockTable.add`."""
        self._table.add(level, [name], job_id)

    def remove_lock(self, job_id: int, level: Level, name: str) -> None:
        """Removes a lock that the job holds alone; requests waiting for it fail."""
        self._settle(self._table.remove(job_id, level, name))

    # Looking

    def members(self, level: Level) -> frozenset[str]:
        """Returns the names of all locks of a level."""
        return self._table.members(level)

    def owned(self, job_id: int, level: Level) -> frozenset[str]:
        """Returns the names of the locks that the job holds at a level."""
        return self._table.owned(job_id, level)

    def owned_alone(self, job_id: int, level: Level) -> frozenset[str]:
        """Returns the names of the locks that the job holds alone at a level."""
        return self._table.owned_alone(job_id, level)

    @property
    def waiting(self) -> int:
        """How many jobs wait for locks."""
        return len(self._waiters)

    @property
    def longest_wait(self) -> float:
        """For how many seconds the job has waited that waits longest for locks; 0 if none does."""
        first = next(iter(self._waiters.values()), None)  # they are in the order of asking
        return 0.0 if first is None else max(0.0, self._timers.seconds() - first.since)

    def wanted(self, job_id: int) -> tuple[Level, WantedLocks] | None:
        """Returns what a job that waits asks for; None if it doesn't wait."""
        waiter = self._waiters.get(job_id)
        return None if waiter is None else (waiter.level, waiter.wanted)

    def states(self) -> Iterator[LockState]:
        """Returns each lock that is held or waited for; see :meth:`LockTable.states`."""
        return self._table.states()

    def rows(self) -> list[LockRow]:
        """Returns the rows of the lock query."""
        return lock_rows(self._table.states())

    def close(self) -> None:
        """Fails all waiting requests with ``DaemonStopping``, and refuses new ones.

        Jobs that hold locks keep them, and can still release them.
        """
        self._closed = True
        if self._ageing is not None:
            self._ageing.cancel()
        failing = []
        while self._waiters:
            waiter = next(reversed(self._waiters.values()))
            failing.append(waiter)
            self._record(self._withdraw(waiter))
        for waiter in reversed(failing):
            # An errback called earlier in this loop may have cancelled it.
            if not waiter.deferred.called:
                error = DaemonStopping("The daemon is stopping, no lock is given")
                waiter.deferred.errback(Failure(error))

    # Within

    def _wait(self, waiter: _Waiter, decision: LockDecision) -> None:
        if isinstance(decision, NotEnough):
            waiter.retry = self._timers.later(RETRY, self._try_again, waiter)
        elif self._ageing is None or not self._ageing.active:
            self._ageing = self._timers.later(AGEING_INTERVAL, self._age)

    def _try_again(self, waiter: _Waiter) -> None:
        wanted = waiter.wanted
        if self._timers.seconds() - waiter.since >= PATIENCE:
            wanted = wanted.for_certain()
        try:
            decision = self._table.request(
                waiter.job_id, waiter.level, wanted, waiter.priority, waiter.since
            )
        except LockError as error:
            self._settle([LockFailed(waiter.job_id, waiter.level, error)])
            return
        if isinstance(decision, Granted):
            self._settle([decision])
        else:
            self._wait(waiter, decision)

    def _age(self) -> None:
        changes, outcomes = self._table.age(self._timers.seconds())
        if self._table.waiting:
            self._ageing = self._timers.later(AGEING_INTERVAL, self._age)
        self._record(outcomes)
        for change in changes:
            try:
                self._on_aged(change.owner, change.priority)
            except Exception:
                log.failure("The new priority of job {job} was lost", job=change.owner)
        self._fire()

    def _withdraw(self, waiter: _Waiter) -> list[LockOutcome]:
        del self._waiters[waiter.job_id]
        if waiter.retry is not None:
            waiter.retry.cancel()
        if isinstance(waiter.outcome, Granted):
            return self._table.release(waiter.job_id, waiter.level)
        return self._table.cancel(waiter.job_id)

    def _give_up(self, job_id: int, deferred: Deferred[frozenset[str]]) -> None:
        waiter = self._waiters.get(job_id)
        if waiter is not None and waiter.deferred is deferred:
            self._settle(self._withdraw(waiter))

    def _settle(self, outcomes: list[LockOutcome]) -> None:
        self._record(outcomes)
        self._fire()

    def _record(self, outcomes: list[LockOutcome]) -> None:
        for outcome in outcomes:
            waiter = self._waiters[outcome.owner]
            waiter.outcome = outcome
            self._settled.append(waiter)

    def _fire(self) -> None:
        if self._firing:
            return
        self._firing = True
        try:
            while self._settled:
                waiter = self._settled.popleft()
                if self._waiters.get(waiter.job_id) is not waiter:
                    continue  # withdrawn since the decision
                del self._waiters[waiter.job_id]
                if isinstance(waiter.outcome, Granted):
                    self._tell(waiter.job_id, waiter.level, self._timers.seconds() - waiter.since)
                    waiter.deferred.callback(waiter.outcome.names)
                elif waiter.outcome is not None:
                    waiter.deferred.errback(Failure(waiter.outcome.error))
        finally:
            self._firing = False

    def _tell(self, job_id: int, level: Level, seconds: float) -> None:
        if self._events.observed(LockWaited):
            self._events.publish(LockWaited(job_id, level.label, seconds))
