"""The stream of what happens: observed, encoded once for all viewers, and only while one looks.

Jobs that changed are gathered for a moment and then encoded; all else is compared once a second.
A viewer that can't keep up gets nothing until it can, and then a full state. So the memory for
it is bounded by one full state, whatever happens meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Protocol

import msgspec

from ganeti_masterd import __version__
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.constants import STATUS_ERROR
from ganeti_masterd.events import JobArchived, JobShown
from ganeti_masterd.monitoring.parts import Parts
from ganeti_masterd.monitoring.schema import (
    VERSION,
    CandidatesChanged,
    CandidateView,
    ConfigChanged,
    FaultsChanged,
    FullState,
    JobGone,
    JobSaid,
    JobSeen,
    Message,
    QueueChanged,
    QueueView,
    WaitsChanged,
)
from ganeti_masterd.monitoring.status import WAITS, faults
from ganeti_masterd.monitoring.usernames import UserNames
from ganeti_masterd.monitoring.views import changes, job_view, log_lines, log_text, seconds
from ganeti_masterd.query.waits import JobWait
from ganeti_masterd.replication.standing import CandidateStanding
from ganeti_masterd.timing import Timer, Timers

#: Seconds for which changed jobs are gathered, and between looks at everything else.
GATHER, LOOK = 0.2, 1.0
#: Seconds that observing goes on once nobody looks, so that a viewer can come back.
LINGER = 60.0
#: How many messages are kept for viewers that come back.
KEPT = 1000
#: How many jobs that have not ended a full state has, and how many that have.
MOST_OPEN, MOST_ENDED = 2000, 100
#: How many failed ones it has besides, and among how many of the last these are looked for.
MOST_FAILED, LOOKED_THROUGH = 50, 5000
#: How many lines of one job, and how many changed objects, one moment's messages have.
MOST_LINES, MOST_CHANGES = 100, 100

_encode = msgspec.json.Encoder().encode


class Viewer(Protocol):
    """One who looks; ``ready`` is false while it can't take more."""

    ready: bool

    def show(self, messages: list[tuple[int, bytes]]) -> None:
        """Sends messages, each with its number."""


class EventStream:
    """What happens to the ``parts``, for viewers.

    ``counts`` are jobs by status, kept up to date by whoever counts them.
    """

    def __init__(self, parts: Parts, counts: Callable[[], Mapping[str, int]]) -> None:
        self._parts = parts
        self._timers: Timers = parts.timers
        self._counts = counts
        self._users = UserNames(parts.users_file)
        #: Viewers, and whether each has missed messages and needs a full state.
        self._viewers: dict[Viewer, bool] = {}
        # Numbers go on from the time of the start, so that they grow over restarts, too.
        self._seq = int(parts.timers.now() * 1000)
        self._kept: deque[tuple[int, bytes]] = deque(maxlen=KEPT)
        #: The state that was encoded last, as long as nothing came after it.
        self._state: tuple[int, bytes] | None = None
        self._changed: dict[int, None] = {}
        self._gone: dict[int, None] = {}
        #: The serial of the last line that was sent of each job that has not ended.
        self._said: dict[int, int] = {}
        self._gathering: Timer | None = None
        self._looking: Timer | None = None
        self._lingering: Timer | None = None
        self._ends: list[Callable[[], None]] = []
        self._snapshot: Snapshot | None = None
        self._last: dict[str, object] = {}

    def __len__(self) -> int:
        return len(self._viewers)

    @property
    def observing(self) -> bool:
        """Whether anything is observed at all."""
        return bool(self._ends)

    def add(self, viewer: Viewer, since: int | None = None) -> None:
        """Shows a viewer what happens: first the messages after ``since``, or the full state."""
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        if not self._ends:
            self._begin()
        self._flush()
        self._viewers[viewer] = False
        if since is not None and self._oldest() <= since + 1 <= self._seq + 1:
            if missed := [each for each in self._kept if each[0] > since]:
                viewer.show(missed)
        else:
            viewer.show([self._full()])

    def remove(self, viewer: Viewer) -> None:
        """A viewer went away."""
        if self._viewers.pop(viewer, None) is not None and not self._viewers:
            self._lingering = self._timers.later(LINGER, self.end)

    def ready(self, viewer: Viewer) -> None:
        """A viewer that could not take more can again; if it missed something it gets it all."""
        if self._viewers.get(viewer):
            self._flush()
            self._viewers[viewer] = False
            viewer.show([self._full()])

    def end(self) -> None:
        """Stops observing, and forgets everything."""
        for timer in (self._gathering, self._looking, self._lingering):
            if timer is not None:
                timer.cancel()
        self._gathering = self._looking = self._lingering = None
        while self._ends:
            self._ends.pop()()
        for store in (self._viewers, self._changed, self._gone, self._said, self._last):
            store.clear()
        self._kept.clear()
        self._state = self._snapshot = None

    def _oldest(self) -> int:
        """The number of the oldest message from which a viewer can go on."""
        return self._kept[0][0] if self._kept else self._seq + 1

    # Observing

    def _begin(self) -> None:
        self._seq += 1  # what was before can't be gone on from
        events = self._parts.events
        self._ends = [
            events.subscribe(JobShown, self._job_shown),
            events.subscribe(JobArchived, self._job_archived),
        ]
        self._said = {
            job.id: job.log_serial for job in self._parts.queue.jobs.values() if not job.finished
        }
        self._snapshot = self._parts.snapshot()
        self._last = self._looked()
        self._looking = self._timers.every(LOOK, self._look)

    def _job_shown(self, event: JobShown) -> None:
        self._changed[event.job_id] = None
        self._gather()

    def _job_archived(self, event: JobArchived) -> None:
        self._gone[event.job_id] = None
        self._gather()

    def _gather(self) -> None:
        if self._gathering is None:
            self._gathering = self._timers.later(GATHER, self._flush)

    def _flush(self) -> None:
        """Tells viewers of the jobs that changed."""
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        changed, self._changed = self._changed, {}
        gone, self._gone = self._gone, {}
        messages: list[tuple[int, bytes]] = []
        for job_id in changed:
            job = self._parts.queue.jobs.get(job_id)
            if job is None:
                continue
            messages.append(self._message(JobSeen(self._next(), job_view(job, self._users))))
            lines = list(log_lines(job, self._said.get(job_id, 0)))
            for entry in lines[-MOST_LINES:]:
                time = seconds(entry.time) or 0.0
                said = JobSaid(self._next(), job_id, entry.serial, time, log_text(entry))
                messages.append(self._message(said))
            if job.finished:
                self._said.pop(job_id, None)
            else:
                self._said[job_id] = job.log_serial
        for job_id in gone:
            self._said.pop(job_id, None)
            messages.append(self._message(JobGone(self._next(), job_id)))
        self._show(messages)

    def _look(self) -> None:
        """Tells viewers of everything else that changed since the last look."""
        messages: list[tuple[int, bytes]] = []
        before, self._snapshot = self._snapshot, self._parts.snapshot()
        if before is not None and before is not self._snapshot:
            changed, left = changes(before, self._snapshot, MOST_CHANGES)
            serial = self._snapshot.header.serial_no
            if changed:
                messages.append(self._message(ConfigChanged(self._next(), serial, changed, left)))
        last, self._last = self._last, self._looked()
        makers: dict[str, Callable[..., Message]] = {
            "queue": QueueChanged,
            "waits": WaitsChanged,
            "candidates": CandidatesChanged,
            "faults": FaultsChanged,
        }
        for name, make in makers.items():
            if last[name] != self._last[name]:
                messages.append(self._message(make(self._next(), self._last[name])))
        self._show(messages)

    def _looked(self) -> dict[str, object]:
        return {
            "queue": self._queue(),
            "waits": self._waits(),
            "candidates": self._candidates(),
            "faults": faults(self._parts),
        }

    # Messages

    def _next(self) -> int:
        self._seq += 1
        return self._seq

    def _message(self, message: Message) -> tuple[int, bytes]:
        encoded = (message.seq, _encode(message))
        self._kept.append(encoded)
        self._state = None
        return encoded

    def _show(self, messages: list[tuple[int, bytes]]) -> None:
        if not messages:
            return
        for viewer in list(self._viewers):
            if not viewer.ready:
                self._viewers[viewer] = True
            elif viewer in self._viewers:
                viewer.show(messages)

    def _full(self) -> tuple[int, bytes]:
        """Returns the full state; its number is that of the last message before it."""
        if self._state is None:
            parts, snapshot = self._parts, self._parts.snapshot()
            jobs = parts.queue.jobs
            waiting = sorted(job_id for job_id, job in jobs.items() if not job.finished)
            scheduler = parts.queue.scheduler
            under_way = [job_id for job_id in waiting if scheduler.under_way(job_id)]
            listed = list(dict.fromkeys([*under_way, *waiting]))[:MOST_OPEN]
            ended = sorted((job_id for job_id, job in jobs.items() if job.finished), reverse=True)
            failed = (
                job_id for job_id in ended[:LOOKED_THROUGH] if jobs[job_id].status == STATUS_ERROR
            )
            shown = sorted({*listed, *ended[:MOST_ENDED], *islice(failed, MOST_FAILED)})
            state = FullState(
                seq=self._seq,
                schema=VERSION,
                version=__version__,
                cluster=snapshot.cluster.cluster_name,
                master=snapshot.master.name,
                now=self._timers.now(),
                config_serial=snapshot.header.serial_no,
                queue=self._queue(),
                jobs=[job_view(jobs[n], self._users) for n in shown],
                left_out=len(waiting) - len(listed),
                waits=self._waits(),
                candidates=self._candidates(),
                faults=faults(parts),
            )
            self._state = self._seq, _encode(state)
        return self._state

    def _queue(self) -> QueueView:
        queue = self._parts.queue
        return QueueView(
            jobs=dict(self._counts()),
            drained=queue.drained,
            watcher_paused_until=self._parts.watcher_pause(),
            slots=queue.scheduler.limit,
            slots_used=len(queue.scheduler.running),
            awaiting_locks=len(queue.scheduler.blocked),
        )

    def _waits(self) -> list[JobWait]:
        return self._parts.waits(WAITS)

    def _candidates(self) -> list[CandidateView]:
        return [
            CandidateView(each.node, each.standing is CandidateStanding.CURRENT, each.waiting)
            for each in self._parts.replicas()
        ]
