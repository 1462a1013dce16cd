"""What ``/events`` sends: the shapes of its messages, and their JSON schema.

Each message is one JSON object with its kind in ``event``. A field is never taken away or given
another meaning under the same :data:`VERSION`; new fields and new kinds may come.
``events.schema.json`` beside this module is the schema of all of it.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from ganeti_masterd.query.waits import JobWait

#: The version of the messages, which each full state names.
VERSION = 1


class JobView(Struct, frozen=True, gc=False):
    """A job as viewers see it; never with its parameters. Times are seconds since the epoch.

    ``summary`` has each opcode in short, ``done`` is how many have ended. ``progress`` is how far
    the running one says it is, ``error`` why the job failed, in one sentence. ``user`` is who sent
    the job, by name or as ``uid NUMBER``; ``last`` is the last line that it logged, until it ends.
    """

    id: int
    status: str
    summary: list[str]
    done: int
    received: float | None
    started: float | None
    ended: float | None
    progress: str | None = None
    error: str | None = None
    user: str | None = None
    last: str | None = None


class QueueView(Struct, frozen=True):
    """The queue as a whole; ``jobs`` counts jobs that aren't archived by status.

    ``watcher_paused_until`` is in seconds since the epoch, None while the watcher isn't paused.
    """

    jobs: dict[str, int]
    drained: bool
    watcher_paused_until: int | None
    slots: int
    slots_used: int
    awaiting_locks: int


class CandidateView(Struct, frozen=True):
    """Another master candidate: whether it is up to date, and how many files are on their way."""

    node: str
    current: bool
    waiting: int


class ObjectChange(Struct, frozen=True):
    """What became of one object: ``what`` is ``added``, ``changed`` or ``removed``.

    ``section`` is that of the configuration's file, ``serial`` the object's new one.
    """

    section: str
    name: str
    what: str
    serial: int | None


class Message(Struct, frozen=True, tag_field="event"):
    """Base of all messages; ``seq`` grows from each to the next, over restarts of the daemon."""

    seq: int


class FullState(Message, frozen=True, tag="state"):
    """All that is known now; what a viewer knew before is void.

    ``jobs`` are those that have not ended, up to 2,000, the last 100 that have, and the last 50
    that failed; ``left_out`` is how many have not ended and aren't listed. ``config_serial`` is
    that of the whole configuration.
    """

    schema: int
    version: str
    cluster: str
    master: str
    now: float
    config_serial: int
    queue: QueueView
    jobs: list[JobView]
    left_out: int
    waits: list[JobWait]
    candidates: list[CandidateView]
    faults: list[str]


class JobSeen(Message, frozen=True, tag="job"):
    """A job is new, or something in its view is."""

    job: JobView


class JobGone(Message, frozen=True, tag="archived"):
    """A job left the queue for the archive."""

    id: int


class JobSaid(Message, frozen=True, tag="log"):
    """A job logged a line; ``serial`` counts the lines of the job."""

    id: int
    serial: int
    time: float
    text: str


class QueueChanged(Message, frozen=True, tag="queue"):
    """A count, the drain flag, the watcher's pause or the slots changed."""

    queue: QueueView


class WaitsChanged(Message, frozen=True, tag="waits"):
    """Why jobs wait; replaces what was said of that before."""

    waits: list[JobWait]


class CandidatesChanged(Message, frozen=True, tag="candidates"):
    """The standing of the other master candidates; replaces what was said before."""

    candidates: list[CandidateView]


class FaultsChanged(Message, frozen=True, tag="faults"):
    """What keeps the daemon from its work, as sentences; empty if nothing does."""

    faults: list[str]


class ConfigChanged(Message, frozen=True, tag="config"):
    """The configuration changed; ``left_out`` counts changed objects that aren't listed."""

    serial: int
    changed: list[ObjectChange]
    left_out: int


#: Every message.
StreamMessage = (
    FullState
    | JobSeen
    | JobGone
    | JobSaid
    | QueueChanged
    | WaitsChanged
    | CandidatesChanged
    | FaultsChanged
    | ConfigChanged
)


def schema() -> dict[str, Any]:
    """Returns the JSON schema of a message."""
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Messages of /events, version {VERSION}",
        **msgspec.json.schema(StreamMessage),
    }
    return dict(msgspec.json.decode(msgspec.json.encode(document)))
