"""DRBD mirrors of a simulated cluster: each end on its node, the link and the data of both.

Pure: the clock, the volumes and the reachability of nodes come in through
:class:`Ground`. What one end does changes what the other end shows, as both
are held in one place. Whatever goes by time (a sync) is computed when an end
is looked at, so nothing has to run in between.

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
from msgspec.structs import replace

from ganeti_masterd.simulation.shelves import Shelf

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


class Standing(Enum):
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
MEETING: Mapping[tuple[Standing, Standing], Meeting | None] = {
    **{(Standing.NONE, other): Meeting.REST for other in Standing},
    **{(other, Standing.NONE): Meeting.REST for other in Standing},
    (Standing.FRESH, Standing.FRESH): Meeting.REST,
    (Standing.FRESH, Standing.BEHIND): Meeting.REST,
    (Standing.BEHIND, Standing.FRESH): Meeting.REST,
    (Standing.BEHIND, Standing.BEHIND): Meeting.REST,
    (Standing.FRESH, Standing.CURRENT): Meeting.TARGET,
    (Standing.BEHIND, Standing.CURRENT): Meeting.TARGET,
    (Standing.CURRENT, Standing.FRESH): Meeting.SOURCE,
    (Standing.CURRENT, Standing.BEHIND): Meeting.SOURCE,
    (Standing.CURRENT, Standing.CURRENT): None,
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


class Refused(Exception):
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
    rate: int = 61440

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


class Pace(Struct, frozen=True):
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

    def pace(self) -> Pace:
        """How fast mirrors fill now."""

    def next_generation(self) -> str:
        """A generation that was never before."""


Key = tuple[str, int]


class Mirrors:
    """All ends of all mirrors; ``ends`` by "node/minor", ``metadata`` by node and path."""

    def __init__(self, ends: Shelf[End], metadata: Shelf[Metadata], ground: Ground) -> None:
        self._ends = ends
        self._metadata = metadata
        self._ground = ground
        #: Ends by their local address, and minors by their node; None until first used.
        self._by_local: dict[str, set[Key]] | None = None
        self._by_node: dict[str, set[int]] = {}

    # Looking

    def get(self, node: str, minor: int) -> End | None:
        """Returns an end as it is now; None where the minor isn't configured."""
        self._settle((node, minor))
        end = self._ends.get(_name((node, minor)))
        return None if end is None or not end.configured else end

    def of_node(self, node: str) -> dict[int, End]:
        """Returns the configured ends of a node by their minor, as they are now."""
        ends: dict[int, End] = {}
        for minor in self._minors(node):
            end = self.get(node, minor)
            if end is not None:
                ends[minor] = end
        return ends

    def status(self, node: str, minor: int) -> EndStatus:
        """Returns how a configured end stands."""
        key = (node, minor)
        self._settle(key)
        end = self._end(key)
        peer = self._peer(key) if end.connection not in (STANDALONE, WAITING) else None
        percent = left = None
        if end.filling is not None:
            filling = end.filling
            percent = 99.9
            if filling.length:
                percent = min(percent, round(100.0 * filling.done / filling.length, 1))
            if end.connection in (SYNC_SOURCE, SYNC_TARGET):
                left = float(round(max(0.0, filling.length - filling.done)))
        return EndStatus(
            end.connection,
            end.role,
            UNKNOWN if peer is None else self._end(peer).role,
            self._state(key),
            UNKNOWN_DATA if peer is None else self._state(peer),
            percent,
            left,
        )

    def peer(self, node: str, minor: int) -> tuple[str, int] | None:
        """Returns node and minor of the end that this one talks to, or None."""
        key = (node, minor)
        self._settle(key)
        end = self._ends.get(_name(key))
        if end is None or end.connection in (STANDALONE, WAITING):
            return None
        return self._peer(key)

    def users(self, node: str) -> set[str]:
        """Returns the paths of the volumes that ends of a node are attached to."""
        found: set[str] = set()
        for end in self.of_node(node).values():
            if end.backing is not None:
                found |= {end.backing.data, end.backing.meta}
        return found

    # Doing: each is one run of drbdsetup or drbdmeta, and may raise Refused

    def create_metadata(self, node: str, meta: str) -> None:
        """Writes fresh metadata on a volume."""
        if meta in self.users(node):
            raise Refused(f"Device '{meta}' is configured!\n", 20)
        self._metadata[_place(node, meta)] = Metadata()

    def allocate(self, node: str, minor: int, rate: int) -> None:
        """Makes a minor known to the kernel; one that is configured is left as it is."""
        key = (node, minor)
        end = self._ends.get(_name(key))
        if end is None or not end.configured:
            self._put(key, End(rate=rate))

    def attach(self, node: str, minor: int, backing: Backing) -> None:
        """Gives an end its disk."""
        key = (node, minor)
        self._settle(key)
        end = self._end(key)
        if end.backing is not None:
            raise Refused(_failure(minor, 124, "Device is attached to a disk (use detach first)"))
        data = self._ground.volume(node, backing.data)
        used = self.users(node)
        if (
            data is None
            or self._ground.volume(node, backing.meta) is None
            or used
            & {
                backing.data,
                backing.meta,
            }
        ):
            raise Refused(_failure(minor, 104, "Can not open backing device."))
        if self._metadata.get(_place(node, backing.meta)) is None:
            text = "No valid meta-data signature found.\n\n\t==> Use 'drbdadm create-md res' to"
            raise Refused(_failure(minor, 119, f"{text} initialize meta-data area. <==\n"))
        if not backing.size:
            backing = replace(backing, size=data)
        if backing.size > data:
            raise Refused(_failure(minor, 111, "Low.dev. smaller than requested DRBD-dev. size."))
        self._put(key, replace(end, backing=backing))
        self._meet_again(key)

    def detach(self, node: str, minor: int) -> None:
        """Takes the disk away from an end, which its peer then serves."""
        key = (node, minor)
        self._settle(key)
        end = self._end(key)
        if end.backing is None:
            return
        if end.role == PRIMARY and not self._served(key):
            raise Refused(_refusal(minor, -2, "Need access to UpToDate data"), 17)
        self._lose_disk(key)

    def connect(self, node: str, minor: int, link: Link) -> None:
        """Gives an end its network settings; it waits for its peer, or meets it."""
        key = (node, minor)
        self._settle(key)
        taken = any(name == node for name, _ in self._index().get(link.local, ()))
        if self._end(key).link is not None or taken:
            raise Refused(_failure(minor, 102, "Local address(port) already in use."))
        self._put(key, replace(self._end(key), link=link, connection=WAITING))
        self._settle(key)

    def disconnect(self, node: str, minor: int) -> None:
        """Takes the network settings away from an end."""
        key = (node, minor)
        self._settle(key)
        end = self._end(key)
        if end.link is None:
            raise Refused(_failure(minor, 162, "Invalid configuration request"))
        if end.role == PRIMARY and self._state(key) == DISKLESS:
            raise Refused(_refusal(minor, -2, "Need access to UpToDate data"), 17)
        self._part(key, on_purpose=True)

    def promote(self, node: str, minor: int, *, force: bool) -> None:
        """Makes an end Primary; ``force``: also with data that was never filled."""
        key = (node, minor)
        self._settle(key)
        end = self._end(key)
        if end.role == PRIMARY:
            return
        peer = self._talking(key)
        dual = end.link is not None and end.link.dual
        if peer is not None and self._end(peer).role == PRIMARY and not dual:
            raise Refused(_refusal(minor, -1, "Multiple primaries not allowed by config"), 11)
        if self._state(key) != UP_TO_DATE and not self._served(key):
            if not force or self._meta(key) is None:
                raise Refused(_refusal(minor, -2, "Need access to UpToDate data"), 17)
            self._write_meta(key, state=UP_TO_DATE, done=0.0)
            self._begin_generation(key)
        self._put(key, replace(self._end(key), role=PRIMARY))
        if self._state(key) == UP_TO_DATE and (peer is None or self._meta(peer) is None):
            self._begin_generation(key)
        self._meet_again(key)

    def demote(self, node: str, minor: int, *, held: bool) -> None:
        """Makes an end Secondary; ``held``: something has the device open."""
        key = (node, minor)
        self._settle(key)
        end = self._end(key)
        if end.role == PRIMARY and held:
            raise Refused(_refusal(minor, -12, "Device is held open by someone"), 11)
        self._put(key, replace(end, role=SECONDARY))

    def down(self, node: str, minor: int, *, held: bool) -> None:
        """Unconfigures an end; one that isn't configured is fine."""
        key = (node, minor)
        if self._ends.get(_name(key)) is None:
            return
        self._settle(key)
        if held:
            raise Refused(_refusal(minor, -12, "Device is held open by someone"), 11)
        self.lose(node, minor)

    def resize(self, node: str, minor: int, size: int) -> None:
        """Makes a mirror larger, at both ends; the new part is filled."""
        key = (node, minor)
        self._settle(key)
        backing = self._end(key).backing
        if backing is None:
            text = "Requires disk configuration; use attach first"
            raise Refused(_failure(minor, 123, text))
        peer = self._talking(key)
        if peer is None:
            text = "Sorry, need a connected peer to resize."
            raise Refused(_failure(minor, 132, text))
        for each in (key, peer):
            under = self._end(each).backing
            if under is not None and size > (self._ground.volume(each[0], under.data) or 0):
                text = "Low.dev. smaller than requested DRBD-dev. size."
                raise Refused(_failure(minor, 111, text))
        for each in (key, peer):
            under = self._end(each).backing
            if under is not None:
                self._put(each, replace(self._end(each), backing=replace(under, size=size)))
        if self._state(key) == self._state(peer) == UP_TO_DATE:
            self._fill(key, peer, full=False)
            self._settle(key)

    def pause(self, node: str, minor: int, paused: bool) -> None:
        """Holds up a sync, or lets it go on."""
        key = (node, minor)
        self._settle(key)
        self._put(key, replace(self._end(key), paused=paused))
        self._settle(key)

    # What happens to ends

    def written(self, node: str, minor: int) -> None:
        """Notes that an end was written to: alone, it goes on in a generation of its own."""
        key = (node, minor)
        self._settle(key)
        if self._talking(key) is None and self._state(key) == UP_TO_DATE:
            self._begin_generation(key)

    def lose(self, node: str, minor: int) -> None:
        """Unconfigures an end whatever uses it, as a restart of its node does."""
        key = (node, minor)
        if self._ends.get(_name(key)) is not None:
            self._settle(key)
            # It writes no more: the generation that its peer has is the newest.
            self._put(key, replace(self._end(key), role=SECONDARY))
            self._part(key)
            self._drop(key)

    def lose_disk(self, node: str, minor: int) -> None:
        """Takes the disk away after an I/O error."""
        self._settle((node, minor))
        self._lose_disk((node, minor))

    def lose_link(self, node: str, minor: int) -> None:
        """Makes an end stand alone, as after a split brain."""
        self._settle((node, minor))
        if self._end((node, minor)).link is not None:
            self._part((node, minor))

    def forget_volume(self, node: str, path: str) -> None:
        """Forgets the metadata on a volume that is gone."""
        self._metadata.pop(_place(node, path))

    def rename_volume(self, node: str, old: str, new: str) -> None:
        """Follows a volume to its new name."""
        meta = self._metadata.pop(_place(node, old))
        if meta is not None:
            self._metadata[_place(node, new)] = meta
        for minor in self._minors(node):
            end = self._end((node, minor))
            if end.backing is not None and old in (end.backing.data, end.backing.meta):
                names = {old: new}
                backing = replace(
                    end.backing,
                    data=names.get(end.backing.data, end.backing.data),
                    meta=names.get(end.backing.meta, end.backing.meta),
                )
                self._put((node, minor), replace(end, backing=backing))

    def settle(self) -> None:
        """Brings every end up to now: needed before what joins nodes changes."""
        for key in self._keys():
            self._settle(key)

    # The machine

    def _settle(self, key: Key) -> None:
        """Brings an end and its peer up to now."""
        if self._ends.get(_name(key)) is None:
            return
        peer = self._peer(key)
        for each in (key, peer):
            if each is not None:
                backing = self._end(each).backing
                if backing is not None and (
                    self._ground.volume(each[0], backing.data) is None
                    or self._ground.volume(each[0], backing.meta) is None
                ):
                    self._lose_disk(each)
        if peer is None or not self._agree(key, peer):
            for each in (key, peer):
                if each is not None:
                    self._unlink(each)
            return
        if WAITING in (self._end(key).connection, self._end(peer).connection):
            self._meet(key, peer)
        if self._end(key).filling is not None and self._end(peer).filling is not None:
            self._advance(key, peer)

    def _agree(self, key: Key, peer: Key) -> bool:
        """Whether two ends that point at each other are, or come, together."""
        ours, theirs = self._end(key), self._end(peer)
        if ours.link is None or theirs.link is None:
            return False
        if not self._ground.joined(key[0], peer[0]):
            return False
        both = ours.role == theirs.role == PRIMARY
        if (
            ours.link.dual != theirs.link.dual
            or ours.link.secret != theirs.link.secret
            or (both and not ours.link.dual)
        ):
            for each in (key, peer):
                self._part(each)
            return False
        return True

    def _unlink(self, key: Key, *, on_purpose: bool = False) -> None:
        """An end has no peer (any more): it waits, or stands alone."""
        end = self._end(key)
        connection = STANDALONE if end.link is None else WAITING
        if end.connection == connection and end.filling is None:
            return
        talked = end.connection not in (STANDALONE, WAITING)
        self._keep_position(key)
        end = self._end(key)
        self._put(key, replace(end, connection=connection, filling=None))
        if talked and not on_purpose and end.role == PRIMARY and self._state(key) == UP_TO_DATE:
            self._begin_generation(key)

    def _part(self, key: Key, *, on_purpose: bool = False) -> None:
        """Ends an end's connection from its own side."""
        peer = self._talking(key)
        if peer is not None:
            self._advance_if_filling(key, peer)
        self._put(key, replace(self._end(key), link=None))
        self._unlink(key, on_purpose=on_purpose)
        if peer is not None:
            self._unlink(peer, on_purpose=on_purpose)

    def _meet(self, key: Key, peer: Key) -> None:
        """Two ends that agree compare what they have."""
        meeting = self._compare(key, peer)
        if meeting is Meeting.SPLIT:
            for each in (key, peer):
                self._put(each, replace(self._end(each), connection=CONNECTED))
                self._part(each)
            return
        if meeting is Meeting.REST:
            for each in (key, peer):
                self._put(each, replace(self._end(each), connection=CONNECTED, filling=None))
            return
        source, target = (key, peer) if meeting is Meeting.SOURCE else (peer, key)
        meta = self._meta(target)
        full = meta is None or meta.generation is None or (meta.done > 0 and meta.full)
        self._fill(source, target, full=full)

    def _meet_again(self, key: Key) -> None:
        """An end that talks to its peer has other data: it is compared anew."""
        peer = self._talking(key)
        if peer is not None and self._end(key).filling is None:
            self._meet(key, peer)
        self._settle(key)

    def _compare(self, key: Key, peer: Key) -> Meeting:
        meeting = MEETING[self._standing(key), self._standing(peer)]
        if meeting is not None:
            return meeting
        ours, theirs = self._meta(key), self._meta(peer)
        assert ours is not None
        assert theirs is not None
        if ours.generation == theirs.generation:
            kin = Kinship.SAME
        elif theirs.generation in ours.history:
            kin = Kinship.OURS_NEWER
        elif ours.generation in theirs.history:
            kin = Kinship.THEIRS_NEWER
        else:
            kin = Kinship.STRANGERS
        return KINSHIP[kin]

    def _standing(self, key: Key) -> Standing:
        meta = self._meta(key)
        if meta is None:
            return Standing.NONE
        if meta.state == UP_TO_DATE:
            return Standing.CURRENT
        return Standing.FRESH if meta.generation is None else Standing.BEHIND

    def _fill(self, source: Key, target: Key, *, full: bool) -> None:
        """Begins a sync, or goes on with one that was broken off."""
        ours, theirs = self._end(source), self._end(target)
        size = 0 if theirs.backing is None else theirs.backing.size
        rate = min(ours.rate, theirs.rate)
        length = self._ground.pace().length(size, rate, full=full)
        meta = self._meta(target)
        done = 0.0 if meta is None else meta.done * length
        now = self._ground.now()
        self._put(source, replace(ours, filling=Filling(True, length, done, now)))
        self._put(target, replace(theirs, filling=Filling(False, length, done, now)))
        self._write_meta(target, state=INCONSISTENT, full=full)
        self._show_sync(source, target)

    def _show_sync(self, one: Key, other: Key) -> bool:
        """Shows whether a sync is paused, at both ends; returns that."""
        paused = self._end(one).paused or self._end(other).paused
        for key in (one, other):
            end = self._end(key)
            if end.filling is not None:
                shown = SYNCING[end.filling.source, paused]
                if shown != end.connection:
                    self._put(key, replace(end, connection=shown))
        return paused

    def _advance(self, key: Key, peer: Key) -> None:
        """Brings a sync up to now; one that is done makes the target up to date."""
        filling = self._end(key).filling
        assert filling is not None
        source, target = (key, peer) if filling.source else (peer, key)
        now = self._ground.now()
        going = self._end(key).connection in (SYNC_SOURCE, SYNC_TARGET)
        done = filling.done + (max(0.0, now - filling.since) if going else 0.0)
        origin, filled = self._meta(source), self._meta(target)
        if origin is None or filled is None:
            self._rest(key, peer)
            return
        for each in (key, peer):
            end = self._end(each)
            if end.filling is not None and (end.filling.done, end.filling.since) != (done, now):
                shown = replace(end.filling, done=done, since=now)
                self._put(each, replace(end, filling=shown))
        if not self._show_sync(key, peer) and done >= filling.length:
            ours, theirs = self._end(source).backing, self._end(target).backing
            assert ours is not None
            assert theirs is not None
            self._ground.copy((source[0], ours.data), (target[0], theirs.data))
            self._write_meta(
                target,
                generation=origin.generation,
                history=origin.history,
                state=UP_TO_DATE,
                done=0.0,
            )
            self._rest(key, peer)

    def _advance_if_filling(self, key: Key, peer: Key) -> None:
        if self._end(key).filling is not None and self._end(peer).filling is not None:
            self._advance(key, peer)

    def _rest(self, key: Key, peer: Key) -> None:
        for each in (key, peer):
            self._put(each, replace(self._end(each), connection=CONNECTED, filling=None))

    def _keep_position(self, key: Key) -> None:
        """Remembers on the target's meta volume how far a sync came."""
        filling = self._end(key).filling
        if filling is not None and not filling.source and self._meta(key) is not None:
            done = filling.done / filling.length if filling.length else 0.0
            self._write_meta(key, done=min(1.0, done))

    def _lose_disk(self, key: Key) -> None:
        end = self._end(key)
        if end.backing is None:
            return
        peer = self._talking(key)
        if peer is not None:
            self._advance_if_filling(key, peer)
            self._keep_position(key)
            self._keep_position(peer)
        end = self._end(key)
        self._put(key, replace(end, backing=None, filling=None))
        if peer is not None:
            self._rest(key, peer)
            roles = (self._end(key).role, self._end(peer).role)
            if PRIMARY in roles and self._state(peer) == UP_TO_DATE:
                self._begin_generation(peer)

    def _served(self, key: Key) -> bool:
        """Whether the peer has data that is up to date, and talks to this end."""
        peer = self._talking(key)
        return peer is not None and self._state(peer) == UP_TO_DATE

    def _state(self, key: Key) -> str:
        meta = self._meta(key)
        return DISKLESS if meta is None else meta.state

    def _meta(self, key: Key) -> Metadata | None:
        backing = self._end(key).backing
        return None if backing is None else self._metadata.get(_place(key[0], backing.meta))

    def _write_meta(self, key: Key, **changes: object) -> None:
        backing, meta = self._end(key).backing, self._meta(key)
        assert backing is not None
        assert meta is not None
        self._metadata[_place(key[0], backing.meta)] = replace(meta, **changes)

    def _begin_generation(self, key: Key) -> None:
        meta = self._meta(key)
        if meta is not None:
            history = meta.history if meta.generation is None else (*meta.history, meta.generation)
            self._write_meta(key, generation=self._ground.next_generation(), history=history[-16:])

    # The shelves

    def _end(self, key: Key) -> End:
        return self._ends[_name(key)]

    def _peer(self, key: Key) -> Key | None:
        """Returns the end whose network settings mirror those of this one."""
        link = self._end(key).link
        if link is None:
            return None
        for other in self._index().get(link.remote, ()):
            theirs = self._end(other).link
            if other != key and theirs is not None and theirs.remote == link.local:
                return other
        return None

    def _talking(self, key: Key) -> Key | None:
        """The same, if the two are connected."""
        return None if self._end(key).connection in (STANDALONE, WAITING) else self._peer(key)

    def _minors(self, node: str) -> list[int]:
        self._index()
        return sorted(self._by_node.get(node, ()))

    def _keys(self) -> list[Key]:
        return [_key(name) for name in self._ends]

    def _index(self) -> dict[str, set[Key]]:
        if self._by_local is None:
            self._by_local = {}
            for name, end in self._ends.items():
                node, minor = _key(name)
                self._by_node.setdefault(node, set()).add(minor)
                if end.link is not None:
                    self._by_local.setdefault(end.link.local, set()).add((node, minor))
        return self._by_local

    def _put(self, key: Key, end: End) -> None:
        index = self._index()
        before = self._ends.get(_name(key))
        if before is not None and before.link is not None:
            index[before.link.local].discard(key)
        if end.link is not None:
            index.setdefault(end.link.local, set()).add(key)
        self._by_node.setdefault(key[0], set()).add(key[1])
        if before != end:
            self._ends[_name(key)] = end

    def _drop(self, key: Key) -> None:
        index = self._index()
        end = self._ends.pop(_name(key))
        self._by_node[key[0]].discard(key[1])
        if end is not None and end.link is not None:
            index[end.link.local].discard(key)


def _name(key: Key) -> str:
    return f"{key[0]}/{key[1]}"


def _key(name: str) -> Key:
    node, _, minor = name.rpartition("/")
    return node, int(minor)


def _place(node: str, path: str) -> str:
    return f"{node}:{path}"


def _failure(minor: int, code: int, text: str) -> str:
    return f"{minor}: Failure: ({code}) {text}\n"


def _refusal(minor: int, code: int, text: str) -> str:
    return f"{minor}: State change failed: ({code}) {text}\n"
