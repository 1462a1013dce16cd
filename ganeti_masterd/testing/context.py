"""A context that does everything at once, for trying a logical unit by itself."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from ganeti_masterd.allocation.desk import PlacementDesk
from ganeti_masterd.config.changes import Change
from ganeti_masterd.config.reservations import Reservations
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.store import ConfigStore
from ganeti_masterd.execution.targets import targets_of
from ganeti_masterd.jobs.devices import NotedDevice
from ganeti_masterd.locking.levels import Level
from ganeti_masterd.logical_units.context import Context, JobKilled
from ganeti_masterd.opcodes.base import Opcode
from ganeti_masterd.rpc.declarations import Call
from ganeti_masterd.rpc.door import call_nodes
from ganeti_masterd.rpc.interfaces import Arguments, INodeRPC, NodeResult, Target
from ganeti_masterd.testing.journal import MemoryJournal
from ganeti_masterd.timing import Timers

P = TypeVar("P")

#: Seconds after which a call to simulated nodes was surely given up.
LONGEST_WAIT = 1e6
#: Seconds for which the clock goes on one by one, so that what takes time is met half-way.
FINE_WAIT = 7200.0


class SynchronousContext(Context):
    """A context with a configuration of its own, in which nobody waits but the clock.

    What the unit did is in ``lines`` (its log), ``locks`` (held, by level), ``submitted``,
    ``devices`` (as noted), ``slept`` (seconds; ``off_slot`` are those slept without a slot) and
    ``hooks_early`` (names of nodes). ``kill_after`` lets a kill arrive after so many checkpoints;
    ``engine`` answers :meth:`ask`; ``clock`` moves on by what is slept.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        nodes: INodeRPC,
        *,
        job_id: int = 1,
        engine: Any = None,
        kill_after: int | None = None,
        root: str = "",
        clock: Clock | None = None,
    ) -> None:
        self.job_id = job_id
        self.root = root
        self.journal = MemoryJournal()
        self.clock = Clock() if clock is None else clock
        self.store = ConfigStore(snapshot, self.journal, Timers(self.clock))
        self.nodes = nodes
        self.engine = engine
        self.kill_after = kill_after
        self.reservations = Reservations()
        self.locks: dict[Level, set[str]] = {}
        self.lines: list[Any] = []
        self.devices: list[NotedDevice] = []
        self.submitted: list[list[Opcode]] = []
        self.progressed: list[str] = []
        self.slept: list[float] = []
        self.off_slot: list[float] = []
        self._has_slot = True
        self.hooks_early: list[str] = []

    def snapshot(self) -> Snapshot:
        """Returns the configuration as it is by now."""
        return self.store.snapshot

    def change(self, uuid: str, function: Callable[[Any], Any], serial: int | None = None) -> Any:
        """Changes one object."""
        self.checkpoint()
        found = _now(self.store.change(uuid, function, serial)).locate(uuid)
        return found[1] if found is not None else None

    def change_all(self, changes: Sequence[Change]) -> Snapshot:
        """Makes several changes."""
        self.checkpoint()
        snapshot: Snapshot = _now(self.store.apply(changes))
        return snapshot

    def _send(
        self,
        nodes: Iterable[str | Target],
        call: Call[P],
        arguments: Arguments,
        timeout: float | None,
    ) -> Mapping[str, NodeResult[P]]:
        """Calls nodes; the clock goes on until they have answered."""
        targets = targets_of(self.snapshot(), nodes)
        called = call_nodes(self.nodes, targets, call, arguments, timeout=timeout)
        waited = 0.0
        while not called.called and waited < LONGEST_WAIT:
            step = 1.0 if waited < FINE_WAIT else FINE_WAIT
            self.clock.advance(step)
            waited += step
        answers: Mapping[str, NodeResult[P]] = _now(called)
        return answers

    def note_devices(self, devices: Sequence[NotedDevice]) -> None:
        """Writes down the devices."""
        self.checkpoint()
        self.devices += devices

    def forget_devices(self, devices: Sequence[NotedDevice]) -> None:
        """Forgets devices."""
        self.checkpoint()
        self.devices = [device for device in self.devices if device not in devices]

    def forget_surely(self, devices: Sequence[NotedDevice]) -> None:
        """Forgets devices."""
        self.forget_devices(devices)

    def run_hooks_early(self, node: Target) -> None:
        """Writes down the node's name."""
        self.hooks_early.append(node.name)

    def ask(self, question: Callable[[Any], Any]) -> Any:
        """Puts a question to ``engine``."""
        self.checkpoint()
        answer = question(self.engine)
        return _now(answer) if isinstance(answer, Deferred) else answer

    def reserve(self, kind: str, value: Hashable) -> None:
        """Reserves a value."""
        self.reservations.reserve(self.job_id, kind, value, self.snapshot())

    @property
    def desk(self) -> PlacementDesk:
        """A desk with the places among the reservations."""
        return PlacementDesk(self.reservations.places)

    def new_mac(self, prefix: str | None = None) -> str:
        """Reserves a MAC address."""
        return self.reservations.generate_mac(self.job_id, self.snapshot(), prefix)

    def new_address(self, network: str) -> str:
        """Reserves an address of a network."""
        return self.reservations.generate_address(self.job_id, network, self.snapshot())

    def new_port(self) -> int:
        """Reserves a port."""
        return self.reservations.generate_port(self.job_id, self.snapshot())

    def new_minors(self, nodes: Sequence[str]) -> list[int]:
        """Reserves minors."""
        return self.reservations.generate_minors(self.job_id, nodes, self.snapshot())

    def owned(self, level: Level) -> frozenset[str]:
        """Returns the names that the test gave to ``locks``."""
        return frozenset(self.locks.get(level, ()))

    def release(self, level: Level, keep: Iterable[str] = ()) -> None:
        """Gives back locks."""
        self.locks[level] = self.locks.get(level, set()) & set(keep)

    def downgrade(self, level: Level, names: Iterable[str] | None = None) -> None:
        """Changes nothing that could be seen here."""

    def add_lock(self, level: Level, name: str) -> None:
        """Adds a lock."""
        self.locks.setdefault(level, set()).add(name)

    def remove_lock(self, level: Level, name: str) -> None:
        """Removes a lock."""
        self.locks.setdefault(level, set()).discard(name)

    def submit(self, jobs: Sequence[Sequence[Opcode]]) -> list[int]:
        """Writes down the jobs; ids count on from this job's."""
        self.checkpoint()
        first = self.job_id + len(self.submitted) + 1
        self.submitted += [list(ops) for ops in jobs]
        return list(range(first, first + len(jobs)))

    def feedback(self, text: str, *, kind: str = "message", value: Any = None) -> None:
        """Writes down a line (of another kind: kind and value)."""
        self.lines.append(text if kind == "message" else (kind, value))
        self.checkpoint()

    def seconds(self) -> float:
        """Returns the clock's time."""
        return self.clock.seconds()

    def progress(self, text: str) -> None:
        """Writes down how far the opcode is, in ``progressed``."""
        self.progressed.append(text)
        self.checkpoint()

    def sleep(self, seconds: float) -> None:
        """Writes down how long it would have slept."""
        self.slept.append(seconds)
        if not self._has_slot:
            self.off_slot.append(seconds)
        self.clock.advance(seconds)
        self.checkpoint()

    @contextmanager
    def without_slot(self) -> Iterator[None]:
        """Notes which sleeps are without a slot."""
        self.checkpoint()
        self._has_slot = False
        try:
            yield
        finally:
            self._has_slot = True
        self.checkpoint()

    def checkpoint(self) -> None:
        """Raises ``JobKilled`` once it is time."""
        if self.kill_after is not None and not self._shields:
            self.kill_after -= 1
            if self.kill_after < 0:
                raise JobKilled(f"Job {self.job_id} was killed")

    @property
    def killed(self) -> bool:
        """Whether the kill has arrived."""
        return self.kill_after is not None and self.kill_after < 0

    def call_unattended(
        self, nodes: Iterable[str | Target], call: Call[Any], arguments: Arguments = ()
    ) -> None:
        """Calls nodes, whether the job was killed or not, and forgets their answers."""
        with self.shielded():
            self.call(nodes, call, arguments)


def _now(done: Deferred[Any]) -> Any:
    results: list[Any] = []
    done.addBoth(results.append)
    if not results:
        raise AssertionError("This was to be answered at once")
    if isinstance(results[0], Failure):
        results[0].raiseException()
    return results[0]
