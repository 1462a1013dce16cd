"""The context that a running opcode gets: every way from its thread to the reactor."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar, overload

from msgspec import Struct
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ganeti_masterd.allocation.desk import PlacementDesk
from ganeti_masterd.config.changes import Change
from ganeti_masterd.config.reservations import Reservations
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.store import ChangeAuthor, ConfigStore
from ganeti_masterd.constants import ELOG_MESSAGE
from ganeti_masterd.execution.hops import Hops
from ganeti_masterd.execution.killing import KillSwitch
from ganeti_masterd.execution.targets import targets_of
from ganeti_masterd.jobs.devices import NotedDevice
from ganeti_masterd.jobs.queue import JobQueue
from ganeti_masterd.jobs.submission import Submission
from ganeti_masterd.locking.keeper import LockKeeper
from ganeti_masterd.locking.levels import Level
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.opcodes.base import Opcode
from ganeti_masterd.query.engine import QueryEngine
from ganeti_masterd.rpc.declarations import Call
from ganeti_masterd.rpc.door import call_nodes
from ganeti_masterd.rpc.interfaces import Arguments, INodeRPC, NodeResult, Target
from ganeti_masterd.timing import Timers

P = TypeVar("P")
T = TypeVar("T")

log = Logger()


class Services(Struct, frozen=True):
    """What all jobs share; one for the whole daemon, reactor thread only."""

    queue: JobQueue
    submission: Submission
    store: ConfigStore
    locks: LockKeeper
    reservations: Reservations
    nodes: INodeRPC
    engine: QueryEngine
    hops: Hops
    timers: Timers
    desk: PlacementDesk
    root: str = ""


class RunningJob(Protocol):
    """The job that an opcode belongs to, as far as its context needs it. Reactor thread only."""

    job_id: int
    #: Threads may use this one.
    kills: KillSwitch

    def nap(self, seconds: float, /) -> Deferred[None]:
        """Returns a Deferred that fires after that time."""

    def leave_slot(self) -> None:
        """Gives the job's slot to another job."""

    def take_slot(self) -> Deferred[None]:
        """Returns a Deferred that fires once the job has a slot again, or is killed."""

    def log(self, index: int, kind: str, message: Any, /) -> None:
        """Adds an entry to the log of the opcode with that index."""

    def progress(self, index: int, text: str, /) -> None:
        """Shows how far the opcode with that index is."""

    def submit_with_result(self, index: int, jobs: Sequence[Sequence[Opcode]], /) -> list[int]:
        """Gives ids to jobs that come to be with the success of the opcode with that index."""


class OpcodeContext(Context):
    """The context of one opcode that runs in a pool thread."""

    def __init__(self, services: Services, run: RunningJob, index: int) -> None:
        self.job_id = run.job_id
        self.root = services.root
        self._services = services
        self._run = run
        self._index = index
        #: Runs the hooks after the opcode on a node that leaves; set with the hooks.
        self.hooks_early: Callable[[Target], object] = lambda node: None
        #: Whether the opcode changed the configuration.
        self.wrote_config = False

    # Configuration

    def snapshot(self) -> Snapshot:
        """See ``Context.snapshot``. The published value is one reference: no hop."""
        return self._services.store.snapshot

    def change(self, uuid: str, function: Callable[[Any], Any], serial: int | None = None) -> Any:
        """See ``Context.change``."""
        self.checkpoint()
        self.wrote_config = True
        author = ChangeAuthor(job=self.job_id)
        snapshot = self._services.hops.wait(
            self._services.store.change, uuid, function, serial, author
        )
        found = snapshot.locate(uuid)
        return found[1] if found is not None else None

    def change_all(self, changes: Sequence[Change]) -> Snapshot:
        """See ``Context.change_all``."""
        self.checkpoint()
        self.wrote_config = True
        author = ChangeAuthor(job=self.job_id)
        return self._services.hops.wait(self._services.store.apply, changes, author)

    # Nodes

    def _send(
        self,
        nodes: Iterable[str | Target],
        call: Call[P],
        arguments: Arguments,
        timeout: float | None,
    ) -> Mapping[str, NodeResult[P]]:
        """See ``Context._send``."""
        targets = targets_of(self.snapshot(), nodes)

        def begin() -> Deferred[Mapping[str, NodeResult[P]]]:
            return call_nodes(self._services.nodes, targets, call, arguments, timeout=timeout)

        return self._wait(begin)

    def note_devices(self, devices: Sequence[NotedDevice]) -> None:
        """See ``Context.note_devices``."""
        self.checkpoint()
        self._services.hops.wait(self._services.queue.note_devices, self.job_id, devices)

    def forget_devices(self, devices: Sequence[NotedDevice]) -> None:
        """See ``Context.forget_devices``."""
        self.checkpoint()
        self._services.hops.wait(self._services.queue.forget_devices, self.job_id, devices)

    def forget_surely(self, devices: Sequence[NotedDevice]) -> None:
        """See ``Context.forget_surely``."""
        self.checkpoint()
        self._services.hops.wait(self._services.queue.forget_surely, self.job_id, devices)

    def call_unattended(
        self, nodes: Iterable[str | Target], call: Call[Any], arguments: Arguments = ()
    ) -> None:
        """Calls nodes without waiting for their answers; what fails is only logged."""
        targets = targets_of(self.snapshot(), nodes)

        def note(answers: Mapping[str, NodeResult[Any]]) -> None:
            for answer in answers.values():
                if answer.failed and not answer.offline:
                    log.warn(
                        "Call {call} of job {job} to node {node} failed: {error}",
                        call=call.name,
                        job=self.job_id,
                        node=answer.node,
                        error=answer.error,
                    )

        def failed(failure: Failure) -> None:
            log.failure(
                "Call {call} of job {job} failed on this side",
                failure,
                call=call.name,
                job=self.job_id,
            )

        def send() -> None:
            if not self._services.hops.closed:
                answers = call_nodes(self._services.nodes, targets, call, arguments)
                answers.addCallback(note).addErrback(failed)

        self._services.hops.tell(send)

    @overload
    def _wait(self, begin: Callable[..., Deferred[T]], *args: Any) -> T: ...

    @overload
    def _wait(self, begin: Callable[..., T], *args: Any) -> T: ...

    def _wait(self, begin: Callable[..., Any], *args: Any) -> Any:
        """Runs something in the reactor and waits for it, no longer than until a kill.

        Within :meth:`shielded` a kill doesn't end the wait.
        """
        if self._shields:
            return self._services.hops.wait(begin, *args)
        return self._services.hops.wait(self._run.kills.wait, begin, *args)

    def run_hooks_early(self, node: Target) -> None:
        """See ``Context.run_hooks_early``."""
        self.hooks_early(node)

    # Reservations and locks

    def reserve(self, kind: str, value: Hashable) -> None:
        """See ``Context.reserve``."""
        self._reserving(lambda kept, now: kept.reserve(self.job_id, kind, value, now))

    @property
    def desk(self) -> PlacementDesk:
        """See ``Context.desk``."""
        return self._services.desk

    def new_mac(self, prefix: str | None = None) -> str:
        """See ``Context.new_mac``."""
        return self._reserving(lambda kept, now: kept.generate_mac(self.job_id, now, prefix))

    def new_address(self, network: str) -> str:
        """See ``Context.new_address``."""
        return self._reserving(lambda kept, now: kept.generate_address(self.job_id, network, now))

    def new_port(self) -> int:
        """See ``Context.new_port``."""
        return self._reserving(lambda kept, now: kept.generate_port(self.job_id, now))

    def new_minors(self, nodes: Sequence[str]) -> list[int]:
        """See ``Context.new_minors``."""
        return self._reserving(lambda kept, now: kept.generate_minors(self.job_id, nodes, now))

    def _reserving(self, take: Callable[[Reservations, Snapshot], T]) -> T:
        self.checkpoint()
        services = self._services
        return services.hops.wait(lambda: take(services.reservations, services.store.tip))

    def owned(self, level: Level) -> frozenset[str]:
        """See ``Context.owned``."""
        return self._services.hops.wait(self._services.locks.owned, self.job_id, level)

    def release(self, level: Level, keep: Iterable[str] = ()) -> None:
        """See ``Context.release``. Not waited for: what follows in the reactor comes after it."""
        self._services.hops.tell(self._services.locks.release, self.job_id, level, frozenset(keep))

    def downgrade(self, level: Level, names: Iterable[str] | None = None) -> None:
        """See ``Context.downgrade``."""
        chosen = None if names is None else frozenset(names)
        self._services.hops.tell(self._services.locks.downgrade, self.job_id, level, chosen)

    def add_lock(self, level: Level, name: str) -> None:
        """See ``Context.add_lock``."""
        self._services.hops.wait(self._services.locks.add_lock, level, name, self.job_id)

    def remove_lock(self, level: Level, name: str) -> None:
        """See ``Context.remove_lock``."""
        self._services.hops.wait(self._services.locks.remove_lock, self.job_id, level, name)

    # Jobs and people

    def submit(self, jobs: Sequence[Sequence[Opcode]]) -> list[int]:
        """See ``Context.submit``."""
        self.checkpoint()
        return self._services.hops.wait(self._run.submit_with_result, self._index, jobs)

    def feedback(self, text: str, *, kind: str = ELOG_MESSAGE, value: Any = None) -> None:
        """See ``Context.feedback``."""
        message = text if kind == ELOG_MESSAGE else value
        self._services.hops.tell(self._run.log, self._index, kind, message)
        self.checkpoint()

    def progress(self, text: str) -> None:
        """See ``Context.progress``."""
        self._services.hops.tell(self._run.progress, self._index, text)
        self.checkpoint()

    def ask(self, question: Callable[[QueryEngine], Any]) -> Any:
        """See ``Context.ask``."""
        self.checkpoint()
        return self._wait(question, self._services.engine)

    # Waiting and being killed

    def seconds(self) -> float:
        """See ``Context.seconds``."""
        return self._services.timers.seconds()

    def sleep(self, seconds: float) -> None:
        """See ``Context.sleep``."""
        self.checkpoint()
        self._wait(self._run.nap, seconds)
        self.checkpoint()

    @contextmanager
    def without_slot(self) -> Iterator[None]:
        """See ``Context.without_slot``."""
        self.checkpoint()
        hops = self._services.hops
        hops.wait(self._run.leave_slot)
        try:
            yield
        finally:
            hops.wait(self._run.take_slot)
        self.checkpoint()

    def checkpoint(self) -> None:
        """See ``Context.checkpoint``."""
        if self.killed and not self._shields:
            raise self._run.kills.error()

    @property
    def killed(self) -> bool:
        """Whether the job was killed, also where that is put off."""
        return self._run.kills.killed
