"""Both ends of a mirror as values: what an end has, what its data is, what follows when two meet.

The data of an end is known by its *generation*: a Primary that loses its peer
begins a new one and remembers the old, as whoever has it open may write. One that
is disconnected on purpose does so with the first write. Two ends that meet compare
these (:data:`MEETING`, :data:`KINSHIP`), and the one that is behind is filled.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Protocol

from msgspec import Struct

from ganeti_masterd.constants import CLASSIC_DRBD_SYNC_SPEED

STANDALONE = "StandAlone"
WAITING = "WFConnection"
CONNECTED = "Connected"
SYNC_SOURCE = "SyncSource"
SYNC_TARGET = "SyncTarget"
PAUSED_SOURCE = "PausedSyncS"
PAUSED_TARGET = "PausedSyncT"

PRIMARY = "Primary"
SECONDARY = "Secondary"
UNKNOWN = "Unknown"

UP_TO_DATE = "UpToDate"
INCONSISTENT = "Inconsistent"
DISKLESS = "Diskless"
UNKNOWN_DATA = "DUnknown"

#: What a short break leaves to be filled, in MiB, for the time that it takes.
SHORT_PART = 64


class EndStanding(Enum):
    """How the data of one end stands."""

    NONE = "no disk"
    FRESH = "never filled"
    BEHIND = "filled in part"
    CURRENT = "up to date"


class Kinship(Enum):
    """How the generations of two ends are related, seen from the first."""

    SAME = "same"
    OURS_NEWER = "theirs is in our history"
    THEIRS_NEWER = "ours is in their history"
    STRANGERS = "unrelated"


class Meeting(Enum):
    """What follows when two ends meet, seen from the first."""

    REST = "nothing to fill"
    SOURCE = "fills the other"
    TARGET = "is filled"
    SPLIT = "split brain: both stand alone"


#: What two ends do by how their data stands; None: their generations decide.
MEETING: Mapping[tuple[EndStanding, EndStanding], Meeting | None] = {
    **{(EndStanding.NONE, other): Meeting.REST for other in EndStanding},
    **{(other, EndStanding.NONE): Meeting.REST for other in EndStanding},
    (EndStanding.FRESH, EndStanding.FRESH): Meeting.REST,
    (EndStanding.FRESH, EndStanding.BEHIND): Meeting.REST,
    (EndStanding.BEHIND, EndStanding.FRESH): Meeting.REST,
    (EndStanding.BEHIND, EndStanding.BEHIND): Meeting.REST,
    (EndStanding.FRESH, EndStanding.CURRENT): Meeting.TARGET,
    (EndStanding.BEHIND, EndStanding.CURRENT): Meeting.TARGET,
    (EndStanding.CURRENT, EndStanding.FRESH): Meeting.SOURCE,
    (EndStanding.CURRENT, EndStanding.BEHIND): Meeting.SOURCE,
    (EndStanding.CURRENT, EndStanding.CURRENT): None,
}

KINSHIP: Mapping[Kinship, Meeting] = {
    Kinship.SAME: Meeting.REST,
    Kinship.OURS_NEWER: Meeting.SOURCE,
    Kinship.THEIRS_NEWER: Meeting.TARGET,
    Kinship.STRANGERS: Meeting.SPLIT,
}

#: What an end that is being filled, or fills, shows: (it is the source, paused).
SYNCING: Mapping[tuple[bool, bool], str] = {
    (True, False): SYNC_SOURCE,
    (True, True): PAUSED_SOURCE,
    (False, False): SYNC_TARGET,
    (False, True): PAUSED_TARGET,
}


class MeetingRefused(Exception):
    """The kernel refuses; ``output`` is what drbdsetup prints, ``code`` how it exits."""

    def __init__(self, output: str, code: int = 10) -> None:
        super().__init__(output)
        self.output = output
        self.code = code


class Backing(Struct, frozen=True):
    """What an end stands on: two volumes by path, and the size in MiB that it uses."""

    data: str
    meta: str
    size: int


class Link(Struct, frozen=True):
    """The network settings of an end; addresses are "IP:port"."""

    local: str
    remote: str
    secret: str | None
    dual: bool = False


class Filling(Struct, frozen=True):
    """A sync under way at one end; in seconds of its whole length, since a point in time."""

    source: bool
    length: float
    done: float
    since: float


class End(Struct, frozen=True):
    """One minor of one node; ``rate`` is its resync rate in KiB/s.

    One with neither disk nor network is known to the kernel, but unconfigured.
    """

    backing: Backing | None = None
    link: Link | None = None
    role: str = SECONDARY
    connection: str = STANDALONE
    paused: bool = False
    filling: Filling | None = None
    rate: int = CLASSIC_DRBD_SYNC_SPEED

    @property
    def configured(self) -> bool:
        """Whether it has a disk or a network."""
        return self.backing is not None or self.link is not None


class Metadata(Struct, frozen=True):
    """What the meta volume remembers; ``done`` is the part of a sync that a break kept."""

    generation: str | None = None
    history: tuple[str, ...] = ()
    state: str = INCONSISTENT
    done: float = 0.0
    full: bool = True


class SyncPace(Struct, frozen=True):
    """How fast mirrors fill: at ``speed`` MiB/s (None: at once), or in a fixed time.

    With ``seconds`` a whole sync takes that long whatever its size, one after a
    short break ``quick_seconds``.
    """

    speed: float | None = None
    seconds: float | None = None
    quick_seconds: float = 0.0

    def length(self, size: int, rate: int, *, full: bool) -> float:
        """Returns how long a sync of that many MiB takes at that resync rate (KiB/s)."""
        if self.seconds is not None:
            return self.seconds if full else min(self.seconds, self.quick_seconds)
        if self.speed is None:
            return 0.0
        return (size if full else min(size, SHORT_PART)) / min(self.speed, rate / 1024)


class EndStatus(Struct, frozen=True):
    """An end as /proc/drbd shows it; percent and seconds left are None unless it syncs."""

    connection: str
    role: str
    peer_role: str
    data: str
    peer_data: str
    percent: float | None = None
    left: float | None = None

    @property
    def connected(self) -> bool:
        """Whether both ends are connected and nothing is being filled."""
        return self.connection == CONNECTED

    @property
    def syncing(self) -> bool:
        """Whether one end is being filled from the other."""
        return self.connection in SYNCING.values()


class Ground(Protocol):
    """What mirrors stand on."""

    def now(self) -> float:
        """Seconds since the epoch."""

    def joined(self, one: str, other: str) -> bool:
        """Whether packets pass between two nodes."""

    def volume(self, node: str, path: str) -> int | None:
        """The size in MiB of a volume; None if it isn't there."""

    def copy(self, source: tuple[str, str], target: tuple[str, str]) -> None:
        """Copies the content of a volume (node, path) to another."""

    def pace(self) -> SyncPace:
        """How fast mirrors fill now."""

    def next_generation(self) -> str:
        """A generation that was never before."""
