"""The live configuration: the published state, pending changes, and observers.

Changes apply to the tip; readers see only what is committed (architecture.rst, journal
rule 1). Reactor thread only; the snapshots themselves may be used in any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct
from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ganeti_masterd.config.base import ConfigObject
from ganeti_masterd.config.changes import Add, Change, Remove, Update, draft
from ganeti_masterd.config.document import ConfigImage
from ganeti_masterd.config.pages import Pages
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.journal.interfaces import IJournal
from ganeti_masterd.journal.rows import ConfigRow
from ganeti_masterd.observers import Observers
from ganeti_masterd.timing import Timers

Observer = Callable[[Snapshot, Snapshot], object]


class ChangeAuthor(Struct, frozen=True):
    """Who changed the configuration: a user, a job; what else is to be said of the change.

    ``uid`` and ``job`` are None where that isn't known, or nobody's.
    """

    uid: int | None = None
    job: int | None = None
    note: str = ""


NOBODY = ChangeAuthor()

#: Called with what is published by a change, its rows, and who made it.
Recorder = Callable[[Snapshot, Sequence[ConfigRow], ChangeAuthor], object]


class Planned:
    """Changes that are on the tip and still have to be committed.

    Commit ``rows`` with ``publish`` in the same turn of the reactor, because later
    changes build on these: ``journal.commit([*rows, *others], publish)``. If you can't
    commit them, call :meth:`ConfigStore.withdraw` at once. ``publish`` may also be called
    from within another function passed to the journal.
    """

    __slots__ = ("_publish", "after", "before", "rows")

    def __init__(
        self,
        before: Snapshot,
        after: Snapshot,
        rows: Sequence[ConfigRow],
        publish: Callable[[Snapshot], None],
    ) -> None:
        self.before = before
        self.after = after
        self.rows = rows
        self._publish = publish

    def publish(self) -> None:
        """Makes the changes visible to readers; called once they are durable."""
        self._publish(self.after)


class _WaitingChange:
    """A change that waits until the configuration is no longer held."""

    __slots__ = ("author", "changes", "done")

    def __init__(
        self, changes: Sequence[Change], author: ChangeAuthor, waiting: list[_WaitingChange]
    ) -> None:
        self.changes = changes
        self.author = author
        self.done: Deferred[Snapshot] = Deferred(lambda _: self._give_up(waiting))
        waiting.append(self)

    def _give_up(self, waiting: list[_WaitingChange]) -> None:
        if self in waiting:
            waiting.remove(self)

    def over(self, result: Snapshot | Failure) -> None:
        """Tells what became of the change, unless it was given up after it had begun."""
        if not self.done.called:
            self.done.callback(result)


class ConfigStore:
    """The cluster's configuration, changed through the journal."""

    def __init__(self, snapshot: Snapshot, journal: IJournal, timers: Timers) -> None:
        """Starts from what config.data holds after recovery."""
        self._published = snapshot
        self._tip = snapshot
        self._journal = journal
        self._timers = timers
        self._observers: Observers[Snapshot, Snapshot] = Observers("a change of the configuration")
        self._recorders: Observers[Snapshot, Sequence[ConfigRow], ChangeAuthor] = Observers(
            "a change of the configuration that is recorded"
        )
        self._pages = Pages()
        #: Changes that wait while the configuration is held, in order; None while it isn't.
        self._waiting: list[_WaitingChange] | None = None
        self._on_wait: Callable[[], object] = lambda: None
        journal.on_rollback(self._rollback)

    @property
    def snapshot(self) -> Snapshot:
        """The published configuration: only what is committed."""
        return self._published

    @property
    def tip(self) -> Snapshot:
        """The configuration with pending changes; for planning changes, not for readers."""
        return self._tip

    def image(self) -> ConfigImage:
        """Returns config.data of the published configuration, to be encoded in any thread."""
        return ConfigImage(self._published, self._pages)

    def change(
        self,
        uuid: str,
        function: Callable[[Any], ConfigObject],
        serial: int | None = None,
        author: ChangeAuthor = NOBODY,
    ) -> Deferred[Snapshot]:
        """Changes one object (see :class:`Update`); fires as :meth:`apply` does."""
        return self.apply([Update(uuid, function, serial)], author)

    def add(self, section: str, obj: ConfigObject) -> Deferred[Snapshot]:
        """Adds one object (see :class:`Add`); fires as :meth:`apply` does."""
        return self.apply([Add(section, obj)])

    def remove(
        self,
        section: str,
        uuid: str,
        serial: int | None = None,
        author: ChangeAuthor = NOBODY,
    ) -> Deferred[Snapshot]:
        """Removes one object (see :class:`Remove`); fires as :meth:`apply` does."""
        return self.apply([Remove(section, uuid, serial)], author)

    def apply(self, changes: Sequence[Change], author: ChangeAuthor = NOBODY) -> Deferred[Snapshot]:
        """Makes changes in one transaction, all or nothing.

        Fires with the configuration that includes them, once it is published. Fails with
        the errors of :func:`ganeti_masterd.config.changes.draft`, or with
        ``JobQueueError`` if the journal can't be written. While the configuration is held
        (:meth:`hold`) the changes wait; until they begin they can be cancelled.
        """
        if self._waiting is None:
            return self.apply_held(changes, author)
        waiting = _WaitingChange(changes, author, self._waiting)
        self._on_wait()
        return waiting.done

    def hold(self, on_wait: Callable[[], object]) -> Deferred[None]:
        """Has changes wait from now on; fires once those begun before are published, or failed.

        Not while it is held already. ``on_wait`` is called for each change that has to wait.
        """
        assert self._waiting is None
        self._waiting, self._on_wait = [], on_wait
        settled: Deferred[None] = self._journal.commit(())
        return settled.addErrback(lambda _: None)

    def let_go(self) -> None:
        """Ends :meth:`hold`: the changes that wait are made, in order."""
        waiting, self._waiting = self._waiting or [], None
        while waiting:
            # Those that fail at once may have others cancelled.
            each = waiting.pop(0)
            self.apply_held(each.changes, each.author).addBoth(each.over)

    @property
    def changes_waiting(self) -> int:
        """The number of changes that wait because the configuration is held."""
        return len(self._waiting or ())

    def apply_held(
        self, changes: Sequence[Change], author: ChangeAuthor = NOBODY
    ) -> Deferred[Snapshot]:
        """Makes changes as :meth:`apply` does, for the one who holds the configuration."""
        try:
            planned = self.plan(changes)
        except Exception:
            return defer.fail(Failure())

        def published() -> None:
            planned.publish()
            if planned.rows:
                self._recorders.call(planned.after, planned.rows, author)

        done = self._journal.commit(planned.rows, published)

        def failed(failure: Failure) -> Failure:
            self.withdraw(planned)
            return failure

        return done.addCallbacks(lambda _: planned.after, failed)

    def plan(self, changes: Sequence[Change]) -> Planned:
        """Puts changes on the tip, for a caller that commits them together with other rows.

        Raises the errors of :func:`ganeti_masterd.config.changes.draft`, which leave the
        tip unchanged.
        """
        before = self._tip
        self._tip, rows = draft(before, changes, self._timers.now())
        return Planned(before, self._tip, rows, self._publish)

    def withdraw(self, planned: Planned) -> None:
        """Takes planned changes off the tip again.

        Only before they are committed and before other changes are planned on them.
        """
        if self._tip is planned.after:
            self._tip = planned.before

    def on_change(self, observer: Observer) -> Callable[[], None]:
        """Calls ``observer(before, after)`` after each publication; returns a function to stop."""
        return self._observers.add(observer)

    def on_publication(self, recorder: Recorder) -> Callable[[], None]:
        """Calls ``recorder`` after each change that is published; returns a function to stop."""
        return self._recorders.add(recorder)

    def _publish(self, after: Snapshot) -> None:
        before, self._published = self._published, after
        if before is after:
            return
        self._observers.call(before, after)

    def _rollback(self) -> None:
        self._tip = self._published
