"""DRBD mirrors of a simulated cluster: operations on one end, and the state of both. Pure.

The clock, the volumes and the reachability of nodes come in through
:class:`~ganeti_masterd.simulation.ends.Ground`. An operation on one end changes the state of the
other, as both are stored in one place (:mod:`ganeti_masterd.simulation.pairing`).
"""

from __future__ import annotations

from msgspec.structs import replace

from ganeti_masterd.simulation.ends import (
    DISKLESS,
    PRIMARY,
    SECONDARY,
    STANDALONE,
    SYNC_SOURCE,
    SYNC_TARGET,
    UNKNOWN,
    UNKNOWN_DATA,
    UP_TO_DATE,
    WAITING,
    Backing,
    End,
    EndStatus,
    Link,
    MeetingRefused,
    Metadata,
)
from ganeti_masterd.simulation.pairing import Pairs, end_name, meta_name


class Mirrors(Pairs):
    """All ends of all mirrors: queries, operations, and events on nodes."""

    # Queries

    def get(self, node: str, minor: int) -> End | None:
        """Returns the current state of an end; None if the minor isn't configured."""
        self._settle((node, minor))
        end = self._ends.get(end_name((node, minor)))
        return None if end is None or not end.configured else end

    def of_node(self, node: str) -> dict[int, End]:
        """Returns the current state of a node's configured ends, by minor."""
        ends: dict[int, End] = {}
        for minor in self._minors(node):
            end = self.get(node, minor)
            if end is not None:
                ends[minor] = end
        return ends

    def status(self, node: str, minor: int) -> EndStatus:
        """Returns the status of a configured end."""
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
        end = self._ends.get(end_name(key))
        if end is None or end.connection in (STANDALONE, WAITING):
            return None
        return self._peer(key)

    def users(self, node: str) -> set[str]:
        """Returns the paths of the volumes that ends of a node are attached to."""
        found: set[str] = set()
        for minor in self._minors(node):
            # Not settled, as that costs more the more ends there are: only the loss of a volume
            # changes what an end is attached to.
            end = self._end((node, minor))
            backing = end.backing if end.configured else None
            if backing is not None and self._backed(node, backing):
                found |= {backing.data, backing.meta}
        return found

    # Operations: each is one run of drbdsetup or drbdmeta, and may raise MeetingRefused

    def create_metadata(self, node: str, meta: str) -> None:
        """Writes fresh metadata on a volume."""
        if meta in self.users(node):
            raise MeetingRefused(f"Device '{meta}' is configured!\n", 20)
        self._metadata[meta_name(node, meta)] = Metadata()

    def allocate(self, node: str, minor: int, rate: int) -> None:
        """Makes a minor known to the kernel; does nothing if it is configured."""
        key = (node, minor)
        end = self._ends.get(end_name(key))
        if end is None or not end.configured:
            self._put(key, End(rate=rate))

    def attach(self, node: str, minor: int, backing: Backing) -> None:
        """Attaches an end's disk."""
        key = (node, minor)
        self._settle(key)
        end = self._end(key)
        if end.backing is not None:
            raise MeetingRefused(
                _failure(minor, 124, "Device is attached to a disk (use detach first)")
            )
        data, meta = (self._ground.volume(node, path) for path in (backing.data, backing.meta))
        in_use = not self.users(node).isdisjoint((backing.data, backing.meta))
        if data is None or meta is None or in_use:
            raise MeetingRefused(_failure(minor, 104, "Can not open backing device."))
        if self._metadata.get(meta_name(node, backing.meta)) is None:
            text = "No valid meta-data signature found.\n\n\t==> Use 'drbdadm create-md res' to"
            raise MeetingRefused(_failure(minor, 119, f"{text} initialize meta-data area. <==\n"))
        if not backing.size:
            backing = replace(backing, size=data)
        if backing.size > data:
            raise MeetingRefused(
                _failure(minor, 111, "Low.dev. smaller than requested DRBD-dev. size.")
            )
        self._put(key, replace(end, backing=backing))
        self._meet_again(key)

    def detach(self, node: str, minor: int) -> None:
        """Detaches an end's disk; its peer then serves its reads and writes."""
        key = (node, minor)
        self._settle(key)
        end = self._end(key)
        if end.backing is None:
            return
        if end.role == PRIMARY and not self._served(key):
            raise MeetingRefused(_refusal(minor, -2, "Need access to UpToDate data"), 17)
        self._lose_disk(key)

    def connect(self, node: str, minor: int, link: Link) -> None:
        """Sets an end's network; it connects with its peer, or waits for it."""
        key = (node, minor)
        self._settle(key)
        taken = any(name == node for name, _ in self._index().get(link.local, ()))
        if self._end(key).link is not None or taken:
            raise MeetingRefused(_failure(minor, 102, "Local address(port) already in use."))
        self._put(key, replace(self._end(key), link=link, connection=WAITING))
        self._settle(key)

    def disconnect(self, node: str, minor: int) -> None:
        """Removes an end's network settings."""
        key = (node, minor)
        self._settle(key)
        end = self._end(key)
        if end.link is None:
            raise MeetingRefused(_failure(minor, 162, "Invalid configuration request"))
        if end.role == PRIMARY and self._state(key) == DISKLESS:
            raise MeetingRefused(_refusal(minor, -2, "Need access to UpToDate data"), 17)
        self._part(key, on_purpose=True)

    def promote(self, node: str, minor: int, *, force: bool) -> None:
        """Makes an end Primary; with ``force`` even if its data was never synced."""
        key = (node, minor)
        self._settle(key)
        end = self._end(key)
        if end.role == PRIMARY:
            return
        peer = self._talking(key)
        dual = end.link is not None and end.link.dual
        if peer is not None and self._end(peer).role == PRIMARY and not dual:
            raise MeetingRefused(
                _refusal(minor, -1, "Multiple primaries not allowed by config"), 11
            )
        if self._state(key) != UP_TO_DATE and not self._served(key):
            if not force or self._meta(key) is None:
                raise MeetingRefused(_refusal(minor, -2, "Need access to UpToDate data"), 17)
            self._write_meta(key, state=UP_TO_DATE, done=0.0)
            self._begin_generation(key)
        self._put(key, replace(self._end(key), role=PRIMARY))
        if self._state(key) == UP_TO_DATE and (peer is None or self._meta(peer) is None):
            self._begin_generation(key)
        self._meet_again(key)

    def demote(self, node: str, minor: int, *, held: bool) -> None:
        """Makes an end Secondary; refused if the device is ``held`` open."""
        key = (node, minor)
        self._settle(key)
        end = self._end(key)
        if end.role == PRIMARY and held:
            raise MeetingRefused(_refusal(minor, -12, "Device is held open by someone"), 11)
        self._put(key, replace(end, role=SECONDARY))

    def down(self, node: str, minor: int, *, held: bool) -> None:
        """Unconfigures an end; does nothing if it isn't configured."""
        key = (node, minor)
        if self._ends.get(end_name(key)) is None:
            return
        self._settle(key)
        if held:
            raise MeetingRefused(_refusal(minor, -12, "Device is held open by someone"), 11)
        self.lose(node, minor)

    def resize(self, node: str, minor: int, size: int) -> None:
        """Makes a mirror larger at both ends; the new part is synced."""
        key = (node, minor)
        self._settle(key)
        backing = self._end(key).backing
        if backing is None:
            text = "Requires disk configuration; use attach first"
            raise MeetingRefused(_failure(minor, 123, text))
        peer = self._talking(key)
        if peer is None:
            text = "Sorry, need a connected peer to resize."
            raise MeetingRefused(_failure(minor, 132, text))
        for each in (key, peer):
            under = self._end(each).backing
            if under is not None and size > (self._ground.volume(each[0], under.data) or 0):
                text = "Low.dev. smaller than requested DRBD-dev. size."
                raise MeetingRefused(_failure(minor, 111, text))
        for each in (key, peer):
            under = self._end(each).backing
            if under is not None:
                self._put(each, replace(self._end(each), backing=replace(under, size=size)))
        if self._state(key) == self._state(peer) == UP_TO_DATE:
            self._fill(key, peer, full=False)
            self._settle(key)

    def pause(self, node: str, minor: int, paused: bool) -> None:
        """Pauses or resumes a sync."""
        key = (node, minor)
        self._settle(key)
        self._put(key, replace(self._end(key), paused=paused))
        self._settle(key)

    # Events

    def written(self, node: str, minor: int) -> None:
        """Records a write at an end; if it has no peer, it begins a new generation."""
        key = (node, minor)
        self._settle(key)
        if self._talking(key) is None and self._state(key) == UP_TO_DATE:
            self._begin_generation(key)

    def lose(self, node: str, minor: int) -> None:
        """Unconfigures an end even if it is in use, as a restart of its node does."""
        key = (node, minor)
        if self._ends.get(end_name(key)) is not None:
            self._settle(key)
            # It writes nothing more, so its peer's generation is the newest.
            self._put(key, replace(self._end(key), role=SECONDARY))
            self._part(key)
            self._drop(key)

    def lose_disk(self, node: str, minor: int) -> None:
        """Detaches the disk after an I/O error."""
        self._settle((node, minor))
        self._lose_disk((node, minor))

    def lose_link(self, node: str, minor: int) -> None:
        """Makes an end StandAlone, as after a split brain."""
        self._settle((node, minor))
        if self._end((node, minor)).link is not None:
            self._part((node, minor))

    def forget_volume(self, node: str, path: str) -> None:
        """Forgets the metadata on a removed volume."""
        self._metadata.pop(meta_name(node, path))

    def rename_volume(self, node: str, old: str, new: str) -> None:
        """Updates ends and metadata for a renamed volume."""
        meta = self._metadata.pop(meta_name(node, old))
        if meta is not None:
            self._metadata[meta_name(node, new)] = meta
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
        """Updates every end to the current time; needed before links or power change."""
        for key in self._keys():
            self._settle(key)


def _failure(minor: int, code: int, text: str) -> str:
    return f"{minor}: Failure: ({code}) {text}\n"


def _refusal(minor: int, code: int, text: str) -> str:
    return f"{minor}: State change failed: ({code}) {text}\n"
