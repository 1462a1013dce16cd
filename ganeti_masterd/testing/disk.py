"""A disk that forgets what was not synced, a matching store, and a thread run in steps.

:class:`Power` is shared by disk and store: it fails at a chosen effect of either, in the middle of
whatever runs (:class:`PowerCut`). After ``crash`` the disk has a content that a real disk might
have then; the caller chooses which.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

from zope.interface import implementer

from ganeti_masterd.journal.examination import Examined, judge
from ganeti_masterd.journal.interfaces import IDisk
from ganeti_masterd.journal.progress import DiskProgress
from ganeti_masterd.journal.states import first_after
from ganeti_masterd.journal.store import Entries, IStore, JournalHeader
from ganeti_masterd.journal.thread import DiskAnswer, IDiskThread, Steps, Work, WorkOrder
from ganeti_masterd.journal.tip import Tip

# What a disk writes as one, here: small, as the contents in tests are.
_BLOCK = 16

#: Given n, returns a number from 0 to n - 1.
Choice = Callable[[int], int]


class PowerCut(BaseException):
    """The power is out: a ``BaseException``, so that no ``except Exception`` catches it."""


class Power:
    """Counts effects; from the chosen one on there is no power, until :meth:`restore`."""

    def __init__(self) -> None:
        self.effects = 0
        self._left: int | None = None
        self._out = False
        self._failing: tuple[int, OSError] | None = None

    def fail_after(self, effects: int, error: OSError | None) -> None:
        """Lets the effect after this many more fail, once, and nothing of it happen; None: none."""
        self._failing = None if error is None else (self.effects + effects, error)

    def cut_after(self, effects: int | None) -> None:
        """Lets this many more effects happen and no further ones; None: all."""
        self._left = effects

    def restore(self) -> None:
        """Turns the power on again, for good."""
        self._left, self._out, self._failing = None, False, None

    def check(self) -> None:
        """Raises :class:`PowerCut` while there is no power."""
        if self._out:
            raise PowerCut

    def check_after(self) -> None:
        """Counts the moment after an effect: the power may go then, nothing else fails."""
        failing, self._failing = self._failing, None
        self.spend()
        self._failing = failing

    def spend(self) -> None:
        """Counts an effect that is about to happen, or raises."""
        self.check()
        if self._failing is not None and self._failing[0] <= self.effects:
            error, self._failing = self._failing[1], None
            raise error
        if self._left is not None:
            if self._left == 0:
                self._out = True
                raise PowerCut
            self._left -= 1
        self.effects += 1


class Lie(Enum):
    """What a disk makes of a write that it says has succeeded."""

    WRONG = "other bytes than were written"
    OLD = "what stood there before"
    SHORT = "a part of what was written"

    def told(self, written: bytes, old: bytes) -> bytes:
        """Returns what is there instead."""
        if self is Lie.WRONG:
            return written[:-1] + bytes([(written[-1] if written else 0) ^ 0x20])
        return old if self is Lie.OLD else written[: len(written) // 2]


class _File:
    """A file's contents since the last sync; the first is durable."""

    def __init__(self) -> None:
        self.versions: list[bytes] = [b""]


class _Directory:
    """For each name the files it referred to since the last sync; the first is durable."""

    def __init__(self) -> None:
        self.names: dict[str, list[_File | _Directory | None]] = {}

    def now(self, name: str) -> _File | _Directory | None:
        return self.names.get(name, [None])[-1]

    def set(self, name: str, target: _File | _Directory | None) -> None:
        self.names.setdefault(name, [None]).append(target)


@implementer(IDisk)
class ForgetfulDisk:
    """An :class:`IDisk` in memory that loses at :meth:`crash` what was not synced.

    A file's unsynced content may survive completely, in part or not at all; the parts may be of
    several writes, in any order. Each name in an
    unsynced directory may refer to any file to which it referred since the last sync, independently
    of other names; this is harsher than a real file system, which keeps the order of changes.
    ``faults`` maps the name of a method ("write", "sync_directory", ...) to the ``OSError`` that it
    raises; a write that fails leaves half of the content. ``lies`` are told by the next
    writes, one each (None: the truth); these don't fail. ``directories`` exist from the start.
    """

    def __init__(self, directories: Sequence[str] = (), power: Power | None = None) -> None:
        self.power = power if power is not None else Power()
        self.faults: dict[str, OSError] = {}
        self.lies: list[Lie | None] = []
        self._root = _Directory()
        for path in directories:
            parent = self._root
            for part in path.strip("/").split("/"):
                below = parent.now(part)
                if not isinstance(below, _Directory):
                    below = _Directory()
                    parent.names[part] = [below]
                parent = below

    def read(self, path: str) -> bytes | None:
        """See :meth:`IDisk.read`."""
        self.power.check()
        parent, name = self._place(path)
        target = parent.now(name) if parent is not None else None
        return target.versions[-1] if isinstance(target, _File) else None

    def names(self, directory: str) -> list[str]:
        """See :meth:`IDisk.names`."""
        self.power.check()
        target = self._directory(directory)
        return sorted(name for name in target.names if target.now(name)) if target else []

    def write(self, path: str, content: bytes, mode: int) -> None:
        """See :meth:`IDisk.write`."""
        self.power.spend()
        parent, name = self._place(path)
        if parent is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        target = parent.now(name)
        if not isinstance(target, _File):
            target = _File()
            parent.set(name, target)
        if "write" in self.faults:
            target.versions.append(content[: len(content) // 2])
            raise self.faults["write"]
        lie = self.lies.pop(0) if self.lies else None
        if lie is not None:
            content = lie.told(content, target.versions[-1])
        target.versions.append(content)

    def sync(self, path: str) -> None:
        """See :meth:`IDisk.sync`."""
        self._begin("sync")
        file = self._existing(path)
        assert isinstance(file, _File), path
        file.versions = file.versions[-1:]

    def rename(self, old: str, new: str) -> None:
        """See :meth:`IDisk.rename`."""
        self._begin("rename")
        target = self._existing(old)
        parent, name = self._place(new)
        if parent is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), new)
        parent.set(name, target)
        source, before = self._place(old)
        assert source is not None
        source.set(before, None)

    def unlink(self, path: str) -> None:
        """See :meth:`IDisk.unlink`."""
        self._begin("unlink")
        parent, name = self._place(path)
        if parent is not None and parent.now(name) is not None:
            parent.set(name, None)

    def make_directory(self, path: str, mode: int) -> None:
        """See :meth:`IDisk.make_directory`."""
        self._begin("make_directory")
        parent, name = self._place(path)
        if parent is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        if parent.now(name) is None:
            parent.set(name, _Directory())

    def sync_directory(self, path: str) -> None:
        """See :meth:`IDisk.sync_directory`."""
        self._begin("sync_directory")
        directory = self._directory(path)
        if directory is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        directory.names = {
            name: states[-1:] for name, states in directory.names.items() if states[-1] is not None
        }

    def crash(self, choose: Choice) -> None:
        """Forgets what was not synced, as ``choose`` decides; then turns the power on."""
        self._forget(self._root, choose)
        self.power.restore()
        self.faults.clear()
        self.lies.clear()

    def _begin(self, method: str) -> None:
        self.power.spend()
        if method in self.faults:
            raise self.faults[method]

    def _directory(self, path: str) -> _Directory | None:
        directory = self._root
        for part in path.strip("/").split("/"):
            below = directory.now(part)
            if not isinstance(below, _Directory):
                return None
            directory = below
        return directory

    def _place(self, path: str) -> tuple[_Directory | None, str]:
        above, _, name = path.rpartition("/")
        return self._directory(above), name

    def _existing(self, path: str) -> _File | _Directory:
        parent, name = self._place(path)
        target = parent.now(name) if parent is not None else None
        if target is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return target

    def _forget(self, directory: _Directory, choose: Choice) -> None:
        survivors: dict[str, list[_File | _Directory | None]] = {}
        for name, states in directory.names.items():
            state = states[choose(len(states))] if len(states) > 1 else states[0]
            if state is None:
                continue
            survivors[name] = [state]
            if isinstance(state, _Directory):
                self._forget(state, choose)
            elif len(state.versions) > 1:
                kept = state.versions[choose(len(state.versions))]
                if kept is not state.versions[0]:
                    kept = kept[: choose(len(kept) + 1)]
                    kept = _reordered(kept, state.versions, choose)
                state.versions = [kept]
        directory.names = survivors


def _reordered(kept: bytes, versions: Sequence[bytes], choose: Choice) -> bytes:
    """Returns a content of whose blocks each may be of another write."""
    if len(kept) <= _BLOCK or not choose(2):
        return kept
    return b"".join(
        versions[choose(len(versions))][start : start + _BLOCK] or kept[start : start + _BLOCK]
        for start in range(0, len(kept), _BLOCK)
    )


@implementer(IStore)
class MemoryStore:
    """An :class:`IStore` in memory: each change is atomic and durable at once.

    The power may fail just before a change, or just after it but before the call returns. ``fault``
    is raised by each change while it is set. To reopen it after a crash, use the same object.
    """

    def __init__(self, path: str = "/masterd/journal.db", power: Power | None = None) -> None:
        self.path = path
        self.power = power if power is not None else Power()
        self.fault: Exception | None = None
        self._held = Entries()
        self._header: JournalHeader | None = None
        self._tip = Tip()

    def examined(self) -> Examined:
        """Returns what :func:`~ganeti_masterd.journal.examination.examine` would return."""
        self.power.check()
        return judge(self._header, self.load(), self._tip)

    def header(self) -> JournalHeader | None:
        """See :meth:`IStore.header`."""
        return self._header

    def adopt(self, header: JournalHeader) -> None:
        """See :meth:`IStore.adopt`."""
        self._change(self._held, header)

    def append(self, entries: Entries) -> None:
        """See :meth:`IStore.append`."""
        held = self._held
        self._change(
            Entries(
                held.jobs + entries.jobs,
                held.logs + entries.logs,
                held.config + entries.config,
                held.serials + entries.serials,
                held.edits + entries.edits,
            ),
            self._header,
        )

    def expect(self, config: bytes | None, serial: bytes | None) -> None:
        """See :meth:`IStore.expect`."""
        header = self._header
        assert header is not None
        self._change(
            self._held,
            JournalHeader(
                header.cluster,
                header.master,
                header.config if config is None else (*header.config, config),
                header.serial if serial is None else (*header.serial, serial),
                header.reason,
                header.followed,
            ),
        )

    def followed(
        self,
        seq: int,
        logs: Sequence[tuple[int, int]],
        config: bytes | None,
        serial: bytes | None,
    ) -> None:
        """See :meth:`IStore.followed`."""
        held, header = self._held, self._header
        assert header is not None
        before = dict(logs)
        whole = {entry.seq: entry for entry in first_after(held, seq)}
        jobs = sorted((*held.jobs, *whole.values()), key=lambda entry: entry.seq)
        edits = [edit for edit in held.edits if edit.seq not in whole]
        self._change(
            Entries(
                [entry for entry in jobs if entry.seq > seq],
                [line for line in held.logs if line.seq >= before.get(line.job_id, 0)],
                [entry for entry in held.config if entry.seq > seq],
                [entry for entry in held.serials if entry.seq > seq],
                [edit for edit in edits if edit.seq > seq],
            ),
            JournalHeader(
                header.cluster,
                header.master,
                header.config if config is None else (config,),
                header.serial if serial is None else (serial,),
                header.reason,
                max(header.followed, seq),
            ),
        )

    def load(self) -> Entries:
        """See :meth:`IStore.load`."""
        self.power.check()
        held = self._held
        return Entries([*held.jobs], [*held.logs], [*held.config], [*held.serials], [*held.edits])

    def close(self) -> None:
        """Does nothing."""

    def _change(self, held: Entries, header: JournalHeader | None) -> None:
        self.power.spend()
        if self.fault is not None:
            raise self.fault
        self._held, self._header = held, header
        self.power.check_after()
        followed = header.followed if header is not None else 0
        reached = max(self._tip.reached, held.last_seq, followed)
        self._tip = Tip(reached, self._tip.empty if len(held) else reached)


@implementer(IDiskThread)
class SteppedThread:
    """An :class:`IDiskThread` that works in the caller's thread, in :meth:`step`."""

    def __init__(self) -> None:
        self.started = False
        self.progress = DiskProgress("work in the queue's folder")
        self._order = WorkOrder()
        self._items: deque[Callable[[WorkOrder], tuple[DiskAnswer, Any] | None]] = deque()

    def start(self) -> None:
        """See :meth:`IDiskThread.start`."""
        self.started = True

    def do(self, work: Work, answer: DiskAnswer) -> None:
        """See :meth:`IDiskThread.do`."""
        self._items.append(lambda order: order.work(work, answer))

    def follow(self, steps: Steps, answer: DiskAnswer) -> None:
        """See :meth:`IDiskThread.follow`."""
        self._items.append(lambda order: order.take_round(steps, answer))

    def hurry(self, steps: int) -> None:
        """See :meth:`IDiskThread.hurry`."""
        self._items.append(lambda order: order.steps(steps))

    def resume(self) -> None:
        """See :meth:`IDiskThread.resume`."""
        self._items.append(WorkOrder.resume)

    def stop(self, answer: DiskAnswer) -> None:
        """See :meth:`IDiskThread.stop`."""
        self._items.append(lambda order: order.take_stop(answer))

    def step(self) -> bool:
        """Does the next piece of work and answers at once; returns False if there is none."""
        order = self._order
        if not self.started or order.closed:
            return False
        if self._items:
            ended = self._items.popleft()(order)
        elif order.between:
            ended = order.step()
        else:
            return False
        if ended is not None:
            answer, result = ended
            answer(result)
        return True

    def run(self) -> None:
        """Steps until there is no work."""
        while self.step():
            pass
