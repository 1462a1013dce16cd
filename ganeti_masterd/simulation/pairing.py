"""Pairs of mirror ends: how they connect, compare, sync, and disconnect. Pure.

:class:`Pairs` is the base of :class:`ganeti_masterd.simulation.mirrors.Mirrors`. Anything that
takes time (a sync) is computed when an end is looked at, so no timers are needed.
"""

from __future__ import annotations

from msgspec.structs import replace

from ganeti_masterd.simulation.ends import (
    CONNECTED,
    DISKLESS,
    INCONSISTENT,
    KINSHIP,
    MEETING,
    PRIMARY,
    STANDALONE,
    SYNC_SOURCE,
    SYNC_TARGET,
    SYNCING,
    UP_TO_DATE,
    WAITING,
    Backing,
    End,
    EndStanding,
    Filling,
    Ground,
    Kinship,
    Meeting,
    Metadata,
)
from ganeti_masterd.simulation.shelves import Shelf

PairKey = tuple[str, int]


class Pairs:
    """All ends of all mirrors; ``ends`` by "node/minor", ``metadata`` by node and path."""

    def __init__(self, ends: Shelf[End], metadata: Shelf[Metadata], ground: Ground) -> None:
        self._ends = ends
        self._metadata = metadata
        self._ground = ground
        #: Indexes: ends by their local address, and minors by their node; None until first used.
        self._by_local: dict[str, set[PairKey]] | None = None
        self._by_node: dict[str, set[int]] = {}

    # Changes of state

    def _settle(self, key: PairKey) -> None:
        """Updates an end and its peer to the current time."""
        if self._ends.get(end_name(key)) is None:
            return
        peer = self._peer(key)
        for each in (key, peer):
            if each is not None:
                backing = self._end(each).backing
                if backing is not None and not self._backed(each[0], backing):
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

    def _agree(self, key: PairKey, peer: PairKey) -> bool:
        """Returns whether two ends can be connected; parts them if their settings conflict."""
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

    def _unlink(self, key: PairKey, *, on_purpose: bool = False) -> None:
        """Handles the lack of a peer: the end waits for one, or is StandAlone."""
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

    def _part(self, key: PairKey, *, on_purpose: bool = False) -> None:
        """Ends an end's connection from its own side."""
        peer = self._talking(key)
        if peer is not None:
            self._advance_if_filling(key, peer)
        self._put(key, replace(self._end(key), link=None))
        self._unlink(key, on_purpose=on_purpose)
        if peer is not None:
            self._unlink(peer, on_purpose=on_purpose)

    def _meet(self, key: PairKey, peer: PairKey) -> None:
        """Connects two ends and compares their data."""
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

    def _meet_again(self, key: PairKey) -> None:
        """Compares the data again after that of a connected end has changed."""
        peer = self._talking(key)
        if peer is not None and self._end(key).filling is None:
            self._meet(key, peer)
        self._settle(key)

    def _backed(self, node: str, backing: Backing) -> bool:
        """Returns whether both volumes of an end are still there."""
        return (
            self._ground.volume(node, backing.data) is not None
            and self._ground.volume(node, backing.meta) is not None
        )

    def _compare(self, key: PairKey, peer: PairKey) -> Meeting:
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

    def _standing(self, key: PairKey) -> EndStanding:
        meta = self._meta(key)
        if meta is None:
            return EndStanding.NONE
        if meta.state == UP_TO_DATE:
            return EndStanding.CURRENT
        return EndStanding.FRESH if meta.generation is None else EndStanding.BEHIND

    def _fill(self, source: PairKey, target: PairKey, *, full: bool) -> None:
        """Starts a sync, or continues an interrupted one."""
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

    def _show_sync(self, one: PairKey, other: PairKey) -> bool:
        """Updates both ends with whether a sync is paused; returns that."""
        paused = self._end(one).paused or self._end(other).paused
        for key in (one, other):
            end = self._end(key)
            if end.filling is not None:
                shown = SYNCING[end.filling.source, paused]
                if shown != end.connection:
                    self._put(key, replace(end, connection=shown))
        return paused

    def _advance(self, key: PairKey, peer: PairKey) -> None:
        """Updates a sync to the current time; once done, the target is up to date."""
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

    def _advance_if_filling(self, key: PairKey, peer: PairKey) -> None:
        if self._end(key).filling is not None and self._end(peer).filling is not None:
            self._advance(key, peer)

    def _rest(self, key: PairKey, peer: PairKey) -> None:
        for each in (key, peer):
            self._put(each, replace(self._end(each), connection=CONNECTED, filling=None))

    def _keep_position(self, key: PairKey) -> None:
        """Stores the progress of a sync on the target's meta volume."""
        filling = self._end(key).filling
        if filling is not None and not filling.source and self._meta(key) is not None:
            done = filling.done / filling.length if filling.length else 0.0
            self._write_meta(key, done=min(1.0, done))

    def _lose_disk(self, key: PairKey) -> None:
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

    def _served(self, key: PairKey) -> bool:
        """Returns whether the end is connected with a peer whose data is up to date."""
        peer = self._talking(key)
        return peer is not None and self._state(peer) == UP_TO_DATE

    def _state(self, key: PairKey) -> str:
        meta = self._meta(key)
        return DISKLESS if meta is None else meta.state

    def _meta(self, key: PairKey) -> Metadata | None:
        backing = self._end(key).backing
        return None if backing is None else self._metadata.get(meta_name(key[0], backing.meta))

    def _write_meta(self, key: PairKey, **changes: object) -> None:
        backing, meta = self._end(key).backing, self._meta(key)
        assert backing is not None
        assert meta is not None
        self._metadata[meta_name(key[0], backing.meta)] = replace(meta, **changes)

    def _begin_generation(self, key: PairKey) -> None:
        meta = self._meta(key)
        if meta is not None:
            history = meta.history if meta.generation is None else (*meta.history, meta.generation)
            self._write_meta(key, generation=self._ground.next_generation(), history=history[-16:])

    # The shelves

    def _end(self, key: PairKey) -> End:
        return self._ends[end_name(key)]

    def _peer(self, key: PairKey) -> PairKey | None:
        """Returns the end whose network settings match this one's, or None."""
        link = self._end(key).link
        if link is None:
            return None
        for other in self._index().get(link.remote, ()):
            theirs = self._end(other).link
            if other != key and theirs is not None and theirs.remote == link.local:
                return other
        return None

    def _talking(self, key: PairKey) -> PairKey | None:
        """Returns the peer if the two are connected, else None."""
        return None if self._end(key).connection in (STANDALONE, WAITING) else self._peer(key)

    def _minors(self, node: str) -> list[int]:
        self._index()
        return sorted(self._by_node.get(node, ()))

    def _keys(self) -> list[PairKey]:
        return [end_key(name) for name in self._ends]

    def _index(self) -> dict[str, set[PairKey]]:
        if self._by_local is None:
            self._by_local = {}
            for name, end in self._ends.items():
                node, minor = end_key(name)
                self._by_node.setdefault(node, set()).add(minor)
                if end.link is not None:
                    self._by_local.setdefault(end.link.local, set()).add((node, minor))
        return self._by_local

    def _put(self, key: PairKey, end: End) -> None:
        index = self._index()
        before = self._ends.get(end_name(key))
        if before is not None and before.link is not None:
            index[before.link.local].discard(key)
        if end.link is not None:
            index.setdefault(end.link.local, set()).add(key)
        self._by_node.setdefault(key[0], set()).add(key[1])
        if before != end:
            self._ends[end_name(key)] = end

    def _drop(self, key: PairKey) -> None:
        index = self._index()
        end = self._ends.pop(end_name(key))
        self._by_node[key[0]].discard(key[1])
        if end is not None and end.link is not None:
            index[end.link.local].discard(key)


def end_name(key: PairKey) -> str:
    """Returns the name of an end on its shelf."""
    return f"{key[0]}/{key[1]}"


def end_key(name: str) -> PairKey:
    """Returns node and minor of the end of that name."""
    node, _, minor = name.rpartition("/")
    return node, int(minor)


def meta_name(node: str, path: str) -> str:
    """Returns the name on its shelf of the metadata on a volume."""
    return f"{node}:{path}"
