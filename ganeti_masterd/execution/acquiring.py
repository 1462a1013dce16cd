"""How an opcode gets its locks: level by level, checked again after each wait.

Waiting takes no thread. A level is asked for, and the answer either is there
at once or comes by Deferred; meanwhile the job's slot goes to another. The
world may move during a wait, also as to what was taken before it: so all
levels taken are checked then, not only the last one. So too if a lock is removed
while it is waited for: who still wants it then is told by the unit what is missing.
"""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.store import ConfigStore
from ganeti_masterd.errors import LockError, OpExecError
from ganeti_masterd.locking.keeper import LockKeeper
from ganeti_masterd.locking.levels import Level, WantedLocks, nothing
from ganeti_masterd.logical_units.base import LogicalUnit

#: How often the locks of a level are asked for anew because the world moved meanwhile.
MOVING_WORLD_TRIES = 20

_LEVELS = tuple(Level)


class Applicant(Protocol):
    """Who wants the locks."""

    job_id: int

    def priority(self) -> int:
        """Returns the priority with which it waits."""

    def locks_held(self) -> None:
        """All locks are there."""

    def locks_refused(self, error: BaseException) -> None:
        """They can't be had."""

    def locks_awaited(self) -> None:
        """A wait begins: the slot is not needed."""

    def locks_granted(self) -> None:
        """The wait is over: :meth:`Acquisition.resume` once there is a slot again.

        What was waited for need not be held: it may have been removed.
        """


class Acquisition:
    """One opcode's way through the levels. Reactor thread only."""

    def __init__(
        self,
        applicant: Applicant,
        unit: LogicalUnit[Any],
        locks: LockKeeper,
        store: ConfigStore,
    ) -> None:
        self._applicant = applicant
        self._unit = unit
        self._locks = locks
        self._store = store
        self._level = Level.CLUSTER
        self._taken: dict[Level, WantedLocks] = {}
        self._planned: object = None
        self._tries = 0
        self._waiting_for: Deferred[Any] | None = None
        self._removed: LockError | None = None

    def begin(self, first: Level = Level.CLUSTER) -> None:
        """Asks for the locks of ``first`` and of the levels below it."""
        unit, snapshot = self._unit, self._store.snapshot
        try:
            for level in _LEVELS[first:]:
                wanted = unit.locks(level, snapshot)
                if wanted is nothing or wanted.empty:
                    continue
                if not self._ask(level, wanted, snapshot):
                    self._applicant.locks_awaited()
                    assert self._waiting_for is not None
                    self._waiting_for.addCallbacks(self._granted, self._denied)
                    return
        except Exception as error:
            self._applicant.locks_refused(error)
            return
        self._applicant.locks_held()

    def _ask(self, level: Level, wanted: WantedLocks, snapshot: Snapshot) -> bool:
        """Asks for one level; returns whether it is held, false for a wait."""
        self._level, self._planned = level, snapshot
        self._taken[level] = wanted
        job_id, priority = self._applicant.job_id, self._applicant.priority()
        answer = self._locks.acquire(job_id, level, wanted, priority)
        if isinstance(answer, Deferred):
            self._waiting_for = answer
            return False
        self._unit.held[level] = answer
        return True

    def resume(self) -> None:
        """Goes on after a wait, from the first level where what is wanted has changed."""
        removed, self._removed = self._removed, None
        if self._store.snapshot is not self._planned and self._moved():
            return
        if removed is not None:
            self._applicant.locks_refused(removed)
        elif self._level is Level.NETWORK:
            self._applicant.locks_held()
        else:
            self.begin(Level(self._level + 1))

    def _moved(self) -> bool:
        """Takes locks anew if the world moved; returns whether it did."""
        try:
            level = self._first_changed()
        except Exception as error:
            self._applicant.locks_refused(error)
            return True
        if level is None:
            return False
        for below in reversed(Level):
            if below >= level and self._taken.pop(below, None) is not None:
                self._unit.held.pop(below, None)
                self._locks.release(self._applicant.job_id, below)
        self._tries += 1
        if self._tries > MOVING_WORLD_TRIES:
            self._applicant.locks_refused(
                OpExecError(f"What to lock at level {level.label} kept changing")
            )
        else:
            self.begin(level)
        return True

    def _first_changed(self) -> Level | None:
        """Returns the first level, of those up to the last asked for, to be taken anew."""
        for level in Level:
            if level > self._level:
                break
            wanted = self._unit.locks(level, self._store.snapshot)
            taken = self._taken.get(level)
            if wanted != taken and not (taken is None and wanted.empty):
                return level
        return None

    def give_up(self) -> None:
        """Ends the wait, if there is one, without a word to the applicant."""
        waiting, self._waiting_for = self._waiting_for, None
        if waiting is not None:
            waiting.cancel()

    def _granted(self, names: frozenset[str]) -> None:
        self._waiting_for = None
        self._unit.held[self._level] = names
        self._applicant.locks_granted()

    def _denied(self, failure: Failure) -> None:
        given_up, self._waiting_for = self._waiting_for is None, None
        if given_up and failure.check(CancelledError):
            return
        if isinstance(failure.value, LockError):
            self._removed = failure.value
            self._applicant.locks_granted()
            return
        assert failure.value is not None
        self._applicant.locks_refused(failure.value)
