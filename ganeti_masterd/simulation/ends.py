"""The ends of a mirror as values: their disk, network and data, and what happens when two meet.

The data of an end is identified by its *generation*. A Primary that loses its peer begins a new
generation and remembers the old one, because it may be written to from then on; one that is
disconnected on purpose does so at the first write. Two ends that meet compare their generations
(:data:`MEETING`, :data:`KINSHIP`), and the one that is behind is synced.
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

#: MiB to sync after a short break; determines how long that takes.
SHORT_PART = 64


class EndStanding(Enum):
    """The state of the data at one end."""

    NONE = "no disk"
    FRESH = "never filled"
    BEHIND = "filled in part"
    CURRENT = "up to date"


class Kinship(Enum):
    """The relation between the generations of two ends, seen from the first."""

    SAME = "same"
    OURS_NEWER = "theirs is in our history"
    THEIRS_NEWER = "ours is in their history"
    STRANGERS = "unrelated"


class Meeting(Enum):
    """What happens when two ends meet, seen from the first."""

    REST = "nothing to fill"
    SOURCE = "fills the other"
    TARGET = "is filled"
    SPLIT = "split brain: both stand alone"


#: What two ends do, by the states of their data; None: their generations decide.
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

#: The state that a syncing end shows, by (it is the source, paused).
SYNCING: Mapping[tuple[bool, bool], str] = {
    (True, False): SYNC_SOURCE,
    (True, True): PAUSED_SOURCE,
    (False, False): SYNC_TARGET,
    (False, True): PAUSED_TARGET,
}


class MeetingRefused(Exception):
    """The kernel refuses; has drbdsetup's ``output`` and its exit ``code``."""

    def __init__(self, output: str, code: int = 10) -> None:
        super().__init__(output)
        self.output = output
        self.code = code


class Backing(Struct, frozen=True):
    """The disk of an end: the paths of two volumes, and the size in MiB that it uses."""

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
    """A sync in progress at one end: its total length in seconds, and when it began."""

    source: bool
    length: float
    done: float
    since: float


class End(Struct, frozen=True):
    """One minor of one node; ``rate`` is its resync rate in KiB/s.

    An end without disk and network is known to the kernel, but unconfigured.
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
    """The content of the meta volume; ``done`` is how much of an interrupted sync is done."""

    generation: str | None = None
    history: tuple[str, ...] = ()
    state: str = INCONSISTENT
    done: float = 0.0
    full: bool = True


class SyncPace(Struct, frozen=True):
    """How fast mirrors sync: at ``speed`` MiB/s (None: at once), or in a fixed time.

    With ``seconds`` a full sync takes that long whatever its size; one after a short break takes
    ``quick_seconds``.
    """

    speed: float | None = None
    seconds: float | None = None
    quick_seconds: float = 0.0

    def length(self, size: int, rate: int, *, full: bool) -> float:
        """Returns the seconds that a sync of that many MiB takes at that resync rate (KiB/s)."""
        if self.seconds is not None:
            return self.seconds if full else min(self.seconds, self.quick_seconds)
        if self.speed is None:
            return 0.0
        return (size if full else min(size, SHORT_PART)) / min(self.speed, rate / 1024)


class EndStatus(Struct, frozen=True):
    """An end as /proc/drbd shows it; percent and seconds left are None unless it is syncing."""

    connection: str
    role: str
    peer_role: str
    data: str
    peer_data: str
    percent: float | None = None
    left: float | None = None

    @property
    def connected(self) -> bool:
        """Whether both ends are connected and not syncing."""
        return self.connection == CONNECTED

    @property
    def syncing(self) -> bool:
        """Whether one end is syncing from the other."""
        return self.connection in SYNCING.values()


class Ground(Protocol):
    """What mirrors need: the clock, links and volumes."""

    def now(self) -> float:
        """Seconds since the epoch."""

    def joined(self, one: str, other: str) -> bool:
        """Returns whether two nodes can reach each other."""

    def volume(self, node: str, path: str) -> int | None:
        """The size in MiB of a volume; None if it isn't there."""

    def copy(self, source: tuple[str, str], target: tuple[str, str]) -> None:
        """Copies the content of a volume (node, path) to another."""

    def pace(self) -> SyncPace:
        """Returns the current speed of syncs."""

    def next_generation(self) -> str:
        """Returns a new generation."""
