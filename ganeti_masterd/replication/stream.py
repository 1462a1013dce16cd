"""The ordered stream of states to one master candidate: decides what to send next. Pure.

Publications are numbered by the caller. The watermark is the highest number up to which the
candidate holds everything (or something newer).

The rules of the order (replication.rst):

- config.data goes before the final state of the job that changed it;
- a job's ``running`` goes before a config.data that the job changed;
- the serial goes before jobs with ids of its block;
- a job goes before its move to the archive, one job's states in their order.

A state that was not sent yet is replaced by a newer one where the rules allow it. The newer one
usually takes the older one's place, so none is postponed for ever.

config.data may be large, so while one is in flight the next must wait (:attr:`Stream.held`). States
that may go before the waiting one are then put before it, so that it collects all changes made
meanwhile.
"""

from __future__ import annotations

from collections import deque

from ganeti_masterd.replication.states import (
    ArchiveMove,
    ConfigFile,
    DrainFlag,
    JobFile,
    ReplicatedState,
    SerialFile,
)

#: How many job files are sent to a candidate at once. noded does most of the work of a call (fork,
#: TLS) in parallel to others; a higher number gains little (protocol/rpc.rst, Cost of a call).
WIDTH = 4

#: How many moves to the archive are sent in one call.
MOVES = 500


class _Entry:
    """A waiting state; ``since`` is the number of the oldest publication that it covers.

    ``ahead`` has states that were offered later but are sent before it.
    """

    __slots__ = ("ahead", "place", "since", "state")

    def __init__(self, place: int, since: int, state: ReplicatedState) -> None:
        self.place = place
        self.since = since
        self.state: ReplicatedState | None = state
        self.ahead: deque[_Entry] = deque()


class Stream:
    """The states to be sent to one candidate, in order."""

    def __init__(self, *, width: int = WIDTH, moves: int = MOVES) -> None:
        self._width = width
        self._moves = moves
        self._waiting: deque[_Entry] = deque()
        self._sent: list[_Entry] = []
        self._newest: dict[object, _Entry] = {}
        self._places = 0
        self._left_out = 0
        self._ahead = 0
        #: Whether config.data must wait: from when one is taken until it is delivered, or with
        #: ``hold`` until :meth:`release`.
        self.held = False
        # Entries whose ``since`` is lower than that of an entry before them.
        self._late: list[_Entry] = []
        # The places of the last states of each kind, which newer states may not overtake.
        self._last_open = 0
        self._last_ended = 0
        self._last_config = 0
        self._last_serial = 0
        self.head = 0

    def __len__(self) -> int:
        """The number of states that the candidate does not hold yet."""
        return len(self._waiting) - self._left_out + self._ahead + len(self._sent)

    @property
    def watermark(self) -> int:
        """The number of the publication up to which the candidate holds everything."""
        self._skip()
        if self._sent:
            oldest = self._sent[0].since
        elif self._waiting:
            oldest = self._waiting[0].since
        else:
            return self.head
        return min([oldest, *(entry.since for entry in self._late)]) - 1

    def offer(self, number: int, state: ReplicatedState) -> None:
        """Adds a state of publication ``number``, which must not be lower than any before."""
        self.head = number
        key = _key(state)
        older = self._newest.get(key)
        if older is not None and self._in_its_place(older, state):
            older.state = state
            return
        config = self._newest.get(ConfigFile)
        if older is None and config is not None and self._may_go_before(config, state):
            # It gets the config's place, so that it isn't dropped for a later state of the job.
            entry = _Entry(config.place, min(number, config.since), state)
            config.ahead.append(entry)
            self._ahead += 1
            self._newest[key] = entry
            return
        since = number
        if older is not None and self._after_it(older, state):
            older.state = None
            self._left_out += 1
            since = older.since
            if older in self._late:
                self._late.remove(older)
        self._places += 1
        entry = _Entry(self._places, since, state)
        if since != number:
            self._late.append(entry)
        self._waiting.append(entry)
        self._newest[key] = entry
        if isinstance(state, JobFile):
            if state.ended:
                self._last_ended = entry.place
            else:
                self._last_open = entry.place
        elif isinstance(state, ConfigFile):
            self._last_config = entry.place
        elif isinstance(state, SerialFile):
            self._last_serial = entry.place

    def published(self, number: int) -> None:
        """Records a publication, which may have no states for candidates."""
        self.head = number

    def _may_go_before(self, config: _Entry, newer: ReplicatedState) -> bool:
        """Returns whether the newer state may go just before a config.data that has to wait."""
        match newer:
            case JobFile():
                # Its id may be of a block whose serial is sent after the config.data.
                return self.held and not newer.ended and self._last_serial < config.place
            case SerialFile() | DrainFlag():
                return self.held
            case _:
                return False

    def _in_its_place(self, older: _Entry, newer: ReplicatedState) -> bool:
        """Returns whether the newer state may take the older one's place."""
        match newer:
            case SerialFile():
                return True
            case JobFile(ended=False):
                return True
            case ConfigFile():
                return self._last_open < older.place
            case _:
                return False

    def _after_it(self, older: _Entry, newer: ReplicatedState) -> bool:
        """Returns whether the older state may be dropped although others are between the two."""
        match newer:
            case DrainFlag():
                return True
            case JobFile():
                return max(self._last_config, self._last_ended) < older.place
            case ConfigFile():
                return self._last_ended < older.place
            case _:
                return False

    def take(self) -> list[ReplicatedState]:
        """Returns the states to send now, all at once; none while some are in flight.

        Returns none either if the next is a config.data and that is :attr:`held`. Job files sent
        together are of different jobs, and either all or none of the jobs have ended. Moves to the
        archive are for one call.
        """
        if self._sent:
            return []
        self._skip()
        waiting = self._waiting
        if not waiting:
            return []
        first = self._first().state
        match first:
            case ConfigFile() if self.held:
                return []
            case JobFile():
                limit = self._width
            case ArchiveMove():
                limit = self._moves
            case _:
                limit = 1
        self.held = self.held or isinstance(first, ConfigFile)
        keys: set[object] = set()
        while waiting and len(self._sent) < limit:
            entry = self._first()
            state = entry.state
            if state is not None:
                key = _key(state)
                if key in keys or (self._sent and not _go_together(first, state)):
                    break
                keys.add(key)
                self._sent.append(entry)
                if self._newest.get(key) is entry:
                    del self._newest[key]
            else:
                self._left_out -= 1
            self._remove_first()
        return [entry.state for entry in self._sent if entry.state is not None]

    def delivered(self, *, hold: bool = False) -> None:
        """Records that the candidate holds what :meth:`take` returned last.

        With ``hold`` no config.data is sent before :meth:`release`.
        """
        if any(isinstance(entry.state, ConfigFile) for entry in self._sent):
            self.held = hold
        if self._late:
            self._late = [entry for entry in self._late if entry not in self._sent]
        self._sent.clear()

    def unsent(self) -> list[ReplicatedState]:
        """Returns the waiting states, of which none is in flight."""
        return [entry.state for entry in self._waiting if entry.state is not None]

    def release(self) -> None:
        """Allows config.data to be sent again."""
        self.held = False

    def clear(self) -> None:
        """Forgets all states, waiting or in flight."""
        self._waiting.clear()
        self._sent.clear()
        self._late.clear()
        self._newest.clear()
        self._left_out = 0
        self._ahead = 0
        self.held = False

    def _first(self) -> _Entry:
        entry = self._waiting[0]
        return entry.ahead[0] if entry.ahead else entry

    def _remove_first(self) -> None:
        entry = self._waiting[0]
        if entry.ahead:
            entry.ahead.popleft()
            self._ahead -= 1
        else:
            self._waiting.popleft()

    def _skip(self) -> None:
        while self._waiting and self._first().state is None:
            self._remove_first()
            self._left_out -= 1


def _key(state: ReplicatedState) -> object:
    """Returns the key of a state: a newer state with the same key may replace it."""
    match state:
        case JobFile():
            return state.job_id
        case ArchiveMove():
            return (ArchiveMove, state.job_id)
        case _:
            return type(state)


def _go_together(first: ReplicatedState | None, other: ReplicatedState) -> bool:
    if isinstance(first, JobFile):
        return isinstance(other, JobFile) and other.ended == first.ended
    return isinstance(first, ArchiveMove) and isinstance(other, ArchiveMove)
