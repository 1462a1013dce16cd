"""A small cluster on which opcodes run as they do in the daemon, one call after another.

Locks, reservations, hooks and simulated nodes are the real ones; only threads,
the reactor and the disk are missing, so that everything is done at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import count
from typing import Any, TypeVar
from uuid import UUID

from twisted.internet.task import Clock

from ganeti_masterd.config.candidates import pool
from ganeti_masterd.config.newcluster import new_cluster
from ganeti_masterd.config.reservations import Reservations, with_ports
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.store import ConfigStore
from ganeti_masterd.config.verify import verify
from ganeti_masterd.errors import ECODE_TEMP_NORES, GenericError
from ganeti_masterd.events import Events
from ganeti_masterd.execution.acquiring import Acquisition
from ganeti_masterd.execution.unit import run_unit
from ganeti_masterd.locking.keeper import LockKeeper
from ganeti_masterd.locking.levels import Level
from ganeti_masterd.logical_units.base import LogicalUnit
from ganeti_masterd.logical_units.registry import unit_for
from ganeti_masterd.opcodes import decode_opcode
from ganeti_masterd.rpc.calls import HOOKS_RUNNER
from ganeti_masterd.rpc.declarations import Call
from ganeti_masterd.rpc.interfaces import Arguments, NodeResult, Target
from ganeti_masterd.simulation.cluster import SimulatedNodes
from ganeti_masterd.simulation.description import Description
from ganeti_masterd.testing.context import SynchronousContext
from ganeti_masterd.testing.journal import MemoryJournal
from ganeti_masterd.timing import Timers
from tests.logical_units.cluster import with_instance

P = TypeVar("P")

#: How often an opcode that waits for resources is tried.
MOST_TRIES = 3

#: Where each kind of object is locked, and what its locks are called.
LOCKED: Mapping[Level, Callable[[Snapshot], Iterable[str]]] = {
    Level.INSTANCE: lambda now: [one.name for one in now.instances.values()],
    Level.NODEGROUP: lambda now: now.groups,
    Level.NODE: lambda now: now.nodes,
    Level.NODE_RES: lambda now: now.nodes,
    Level.NETWORK: lambda now: now.networks,
}


class Refused(Exception):
    """An opcode was refused or failed in order; ``error`` says how."""

    def __init__(self, error: GenericError) -> None:
        super().__init__(repr(error))
        self.error = error


class MustWait(Exception):
    """An opcode would have to wait for another one's locks, and was given up."""


class World:
    """The cluster, with one mirrored instance on node2 and node3.

    ``meanwhile`` are functions that run at the next calls to nodes, one each;
    ``kill_after`` kills the next job after so many checkpoints; ``before_second_try``
    runs each time that an opcode lacked resources.
    """

    def __init__(
        self, nodes: int = 4, *, description: Description | None = None, **cluster: Any
    ) -> None:
        self.clock = Clock()
        self.clock.advance(1000.0)
        self.timers = Timers(self.clock)
        self.nodes = SimulatedNodes(self.timers, master="node1", description=description)
        #: Sees what must never be; kept, as tests put other nodes before the simulated ones.
        self.watch = self.nodes.watch
        snapshot = new_cluster("cluster", nodes, 1000.0, uuids=_uuids(), **cluster)
        snapshot = with_instance(snapshot, "web.example.com", ("node2", "node3"), template="drbd")
        used = with_ports(snapshot.cluster, [11000])
        snapshot = snapshot.with_object("cluster", used)
        self.store = ConfigStore(snapshot, MemoryJournal(), self.timers)
        self.locks = LockKeeper(self.timers, Events())
        self.reservations = Reservations()
        self.meanwhile: list[Callable[[], object]] = []
        self.at_hooks: list[Callable[[], object]] = []
        self.before_second_try: Callable[[], object] = lambda: None
        self.kill_after: int | None = None
        #: Below which the files of Ganeti are that opcodes read.
        self.root = ""
        self.lines: list[str] = []
        #: Told of entries of jobs' logs that aren't messages: their kind and value.
        self.on_entry: Callable[[str, Any], object] = lambda kind, value: None
        #: What jobs showed of their progress, besides their log.
        self.progressed: list[str] = []
        self.submitted: list[Any] = []
        self._jobs = 0
        #: The job that ran last, or runs.
        self.last: SynchronousContext | None = None
        for level, names in LOCKED.items():
            self.locks.populate(level, names(self.now))

    @property
    def now(self) -> Snapshot:
        """The configuration."""
        return self.store.snapshot

    def run(self, op_id: str, **parameters: Any) -> Any:
        """Runs an opcode as a job of its own; returns its result.

        Raises :class:`Refused` for any of Ganeti's errors, :class:`MustWait`
        where it runs within another one that holds its locks.
        """
        self._jobs += 1
        attempt = 0
        while True:
            unit = unit_for(decode_opcode({"OP_ID": op_id, **parameters}))
            assert unit is not None
            unit.attempt = attempt
            try:
                unit.expand(self.now)
                self.last = _Job(self, self._jobs, unit)
                return self.last.run()
            except GenericError as error:
                lacks = error.args[1:] == (ECODE_TEMP_NORES,)
                if not (lacks and unit.waits_for_resources) or attempt == MOST_TRIES:
                    raise Refused(error)
            self.before_second_try()
            attempt += 1

    def try_run(self, op_id: str, **parameters: Any) -> Any:
        """Runs an opcode; returns its result, None if it was refused or would have to wait."""
        try:
            return self.run(op_id, **parameters)
        except (Refused, MustWait):
            return None

    def faults(self) -> list[str]:
        """Returns what is wrong with the configuration, or left over after all jobs.

        Too small a pool of candidates is no fault by itself: an administrator may
        demote a node, or take it down, when no other can take its place.
        """
        now = self.now
        found = [text for text in verify(now) if not text.startswith("Not enough master cand")]
        found += [f"lock held: {row}" for row in self.locks.rows()]
        if len(self.reservations):
            found.append(f"{len(self.reservations)} reservations are left")
        if self.nodes.pending:
            found.append(f"{self.nodes.pending} calls are left")
        for level, names in LOCKED.items():
            members = self.locks.members(level)
            if members != frozenset(names(now)):
                found.append(f"locks at level {level.label} are not those of the objects")
        candidates = {node.uuid for node in now.candidates()}
        if candidates != set(now.cluster.candidate_certs):
            found.append("certificates are not those of the candidates")
        return found

    def short(self) -> int:
        """Returns how many master candidates are missing."""
        return pool(self.now).missing


def _uuids() -> Callable[[], str]:
    """Returns what makes uuids, the same each time."""
    numbers = count(1)
    return lambda: str(UUID(int=next(numbers)))


class _Job(SynchronousContext):
    """A job with one opcode: an applicant for locks, and the opcode's context."""

    def __init__(self, world: World, job_id: int, unit: LogicalUnit[Any]) -> None:
        super().__init__(
            world.now,
            world.nodes,
            job_id=job_id,
            kill_after=world.kill_after,
            root=world.root,
            clock=world.clock,
        )
        world.kill_after = None
        self.world = world
        self.store = world.store
        self.reservations = world.reservations
        self.unit = unit
        self.wrote_config = False
        self.hooks_early_on: Callable[[Target], object] = lambda node: None
        self._held = False
        self._error: BaseException | None = None

    def run(self) -> Any:
        acquisition = Acquisition(self, self.unit, self.world.locks, self.world.store)
        try:
            if self.unit.prepares:
                self.unit.prepare(self)
            acquisition.begin()
            if self._error is not None:
                raise self._error
            if not self._held:
                acquisition.give_up()
                raise MustWait
            return run_unit(self.unit, self, "/data")  # type: ignore[arg-type]
        finally:
            self.world.locks.release_all(self.job_id)
            self.reservations.drop(self.job_id)
            self.world.lines += [line for line in self.lines if isinstance(line, str)]
            self.world.progressed += self.progressed
            self.world.submitted += self.submitted
            seen, self.world.watch.seen = self.world.watch.seen, []
            assert not seen, seen

    # As an applicant

    def priority(self) -> int:
        return 0

    def locks_held(self) -> None:
        self._held = True

    def locks_refused(self, error: BaseException) -> None:
        self._error = error

    def locks_awaited(self) -> None:
        pass

    def locks_granted(self) -> None:
        raise AssertionError("nothing is waited for here")

    # As a context

    def change(self, uuid: str, function: Callable[[Any], Any], serial: int | None = None) -> Any:
        self.wrote_config = True
        return super().change(uuid, function, serial)

    def change_all(self, changes: Any) -> Snapshot:
        self.wrote_config = True
        return super().change_all(changes)

    def call(
        self,
        nodes: Iterable[str | Target],
        call: Call[P],
        arguments: Arguments = (),
        *,
        timeout: float | None = None,
    ) -> Mapping[str, NodeResult[P]]:
        answers = super().call(nodes, call, arguments, timeout=timeout)
        happens = self.world.at_hooks if call is HOOKS_RUNNER else self.world.meanwhile
        if happens:
            happens.pop(0)()
        return answers

    def feedback(self, text: str, *, kind: str = "message", value: Any = None) -> None:
        super().feedback(text, kind=kind, value=value)
        if kind != "message":
            self.world.on_entry(kind, value)

    @property  # type: ignore[override]
    def hooks_early(self) -> Callable[[Target], object]:
        return self.hooks_early_on

    @hooks_early.setter
    def hooks_early(self, run: Any) -> None:
        if callable(run):
            self.hooks_early_on = run

    def run_hooks_early(self, node: Target) -> None:
        self.hooks_early_on(node)

    def owned(self, level: Level) -> frozenset[str]:
        return self.world.locks.owned(self.job_id, level)

    def release(self, level: Level, keep: Iterable[str] = ()) -> None:
        self.world.locks.release(self.job_id, level, frozenset(keep))

    def downgrade(self, level: Level, names: Iterable[str] | None = None) -> None:
        self.world.locks.downgrade(self.job_id, level, names)

    def add_lock(self, level: Level, name: str) -> None:
        self.world.locks.add_lock(level, name, self.job_id)

    def remove_lock(self, level: Level, name: str) -> None:
        self.world.locks.remove_lock(self.job_id, level, name)
