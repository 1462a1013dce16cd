"""What an opcode may reach while it runs: the :class:`Context`, complete.

A logical unit gets one for its blocking stretch and uses nothing else of the
daemon. Every method may be called in the pool thread only; each hops to the
reactor where it has to. All but ``feedback`` raise ``DaemonStopping`` when the
daemon ends, and ``JobKilled`` where the text says so: at once, if the job is killed
while such a method waits. Only changes of the configuration, locks, reservations and
jobs submitted are never broken off: they happen, and the opcode learns that they did.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, TypeVar

from ganeti_masterd.allocation import scripts
from ganeti_masterd.allocation.desk import PlacementDesk
from ganeti_masterd.config.changes import Change
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import OpExecError
from ganeti_masterd.jobs.devices import NotedDevice
from ganeti_masterd.locking.levels import Level
from ganeti_masterd.opcodes.base import Opcode
from ganeti_masterd.query.engine import QueryEngine
from ganeti_masterd.rpc.calls import IALLOCATOR_RUNNER
from ganeti_masterd.rpc.declarations import Call
from ganeti_masterd.rpc.interfaces import Arguments, NodeResult, Target

P = TypeVar("P")


class JobKilled(OpExecError):
    """The job was killed while this opcode ran. Travels as ``OpExecError``."""


class Context(Protocol):
    """One opcode's way to the rest of the daemon.

    What can be made of other methods is made of them here, for all implementations.
    """

    #: The job that runs.
    job_id: int
    #: Below which Ganeti's files lie on the master; empty for the system's own paths.
    root: str = ""
    #: How many :meth:`shielded` blocks the thread is in.
    _shields: int = 0

    def snapshot(self) -> Snapshot:
        """Returns the published configuration; it stays as it is while it is held."""
        ...

    def change(self, uuid: str, function: Callable[[Any], Any], serial: int | None = None) -> Any:
        """Changes one object; returns it as it is now published, thus durable.

        ``function`` gets the object's current value and returns the new one; it
        runs in the reactor and must be pure and short. Fails if the object is
        gone, or its serial isn't ``serial`` any more.
        """
        ...

    def change_all(self, changes: Sequence[Change]) -> Snapshot:
        """Makes several changes (updates, additions, removals) in one transaction."""
        ...

    def call(
        self,
        nodes: Iterable[str | Target],
        call: Call[P],
        arguments: Arguments = (),
        *,
        timeout: float | None = None,
    ) -> Mapping[str, NodeResult[P]]:
        """Makes a call (one of :mod:`ganeti_masterd.rpc.calls`) to nodes, all at once.

        Nodes are given by uuid; one that isn't configured yet as a ``Target``. Returns
        the results by uuid, with payloads of the type that the call declares. Never
        raises because of a node; see ``INodeRPC.call``.

        A checkpoint before and after it. A kill ends the wait: the ``JobKilled`` names
        the nodes that have not answered, as these may go on with the call. One that is
        declared ``whole`` is never broken off: the kill is put off until all have answered,
        and there is no checkpoint after it, so the answers are never lost.
        """
        self.checkpoint()
        if call.whole:
            with self.shielded():
                return self._send(nodes, call, arguments, timeout)
        answers = self._send(nodes, call, arguments, timeout)
        self.checkpoint()
        return answers

    def _send(
        self,
        nodes: Iterable[str | Target],
        call: Call[P],
        arguments: Arguments,
        timeout: float | None,
    ) -> Mapping[str, NodeResult[P]]:
        """Sends a call to nodes and waits, as :meth:`call` without its checkpoints."""
        ...

    def call_one(
        self,
        node: str | Target,
        call: Call[P],
        arguments: Arguments = (),
        *,
        timeout: float | None = None,
    ) -> NodeResult[P]:
        """Makes a call to one node; returns its result. Otherwise as :meth:`call`."""
        (answer,) = self.call((node,), call, arguments, timeout=timeout).values()
        return answer

    def note_devices(self, devices: Sequence[NotedDevice]) -> None:
        """Notes durably what the opcode is about to make, rename or remove on nodes, in order.

        To be called before any of them is touched. If the daemon dies while the opcode runs,
        the next start clears away what no disk of the configuration has of them, last first
        (:class:`ganeti_masterd.execution.aftermath.Aftermath`); an opcode that ends in any
        other way answers for them itself. Raises ``JobQueueError`` if the disk refuses.
        """
        ...

    def forget_devices(self, devices: Sequence[NotedDevice]) -> None:
        """Forgets durably some of what was noted, which no start after a crash is to see to.

        Raises ``JobQueueError`` if the disk refuses: it is noted still.
        """
        ...

    def forget_surely(self, devices: Sequence[NotedDevice]) -> None:
        """As :meth:`forget_devices`, but waits until the disk takes it, however long that is.

        For what does harm if a start after a crash sees to it. No kill ends the wait, only the
        end of the daemon does.
        """
        ...

    def run_hooks_early(self, node: Target) -> None:
        """Runs the opcode's hooks after it on a node that will not be there then.

        What fails is only logged; a kill is put off meanwhile.
        """
        ...

    def run_allocator(
        self,
        name: str,
        document: Mapping[str, Any],
        options: Mapping[str, str | None] | None = None,
    ) -> str:
        """Runs an allocator script on the master; returns what it wrote. As :meth:`call`.

        With the cluster's options for allocators, and ``options`` before them (None:
        one without a value). Raises ``AllocatorMissing`` where there is no such
        script, ``OpExecError`` where it can't be run. Opcodes that place instances
        use ``steps.allocating``, which chooses, asks and reads.
        """
        snapshot = self.snapshot()
        defaults = snapshot.cluster.default_iallocator_params
        arguments = scripts.arguments(name, document, defaults, options or {})
        return scripts.output(
            name, self.call_one(snapshot.master.uuid, IALLOCATOR_RUNNER, arguments)
        )

    def ask(self, question: Callable[[QueryEngine], Any]) -> Any:
        """Puts a question to the query engine, in the reactor; returns its answer.

        An answer that comes by Deferred is waited for; a kill ends that wait.
        """
        ...

    def reserve(self, kind: str, value: Hashable) -> None:
        """Reserves a name, address or the like for this job until it ends.

        ``kind`` is one of ``ganeti_masterd.config.reservations``. Raises
        ``ReservationError`` for what the configuration or another job has.
        """
        ...

    @property
    def desk(self) -> PlacementDesk:
        """Where jobs ask for places of new instances."""
        ...

    def new_mac(self, prefix: str | None = None) -> str:
        """Returns a free MAC address, reserved."""
        ...

    def new_address(self, network: str) -> str:
        """Returns a free IPv4 address of a network (its uuid), reserved."""
        ...

    def new_port(self) -> int:
        """Returns a free TCP port of the cluster's, reserved."""
        ...

    def new_minors(self, nodes: Sequence[str]) -> list[int]:
        """Returns a free DRBD minor on each node (uuids, in order), reserved."""
        ...

    def owned(self, level: Level) -> frozenset[str]:
        """Returns the names of the locks that the job holds at a level."""
        ...

    def release(self, level: Level, keep: Iterable[str] = ()) -> None:
        """Gives back locks of a level, all but those in ``keep``."""
        ...

    def downgrade(self, level: Level, names: Iterable[str] | None = None) -> None:
        """Shares from now on what was held exclusively (None: all of the level)."""
        ...

    def add_lock(self, level: Level, name: str) -> None:
        """Adds the lock of an object that was made; the job holds it."""
        ...

    def remove_lock(self, level: Level, name: str) -> None:
        """Removes the lock of an object that is gone; whoever waits for it fails."""
        ...

    def submit(self, jobs: Sequence[Sequence[Opcode]]) -> list[int]:
        """Submits jobs that come to be together with this opcode's result, or not at all.

        They inherit priority, debug level and reason. Raises ``OpPrereqError`` if
        one can't be taken.
        """
        ...

    def feedback(self, text: str, *, kind: str = "message", value: Any = None) -> None:
        """Adds a line to the job's log (of another kind: with ``value`` for its message).

        A checkpoint.
        """
        ...

    def progress(self, text: str) -> None:
        """Shows how far the opcode is, in place of what this said before.

        Clients that follow the job see each; the log keeps the last, and a crash may
        forget it. So it costs no disk, and may be called every second. A checkpoint.
        """
        ...

    def info(self, text: str) -> None:
        """Adds a line that begins with INFO."""
        self.feedback(f" - INFO: {text}")

    def warning(self, text: str, hint: str | None = None) -> None:
        """Adds a line that begins with WARNING, and one with what may be done."""
        self.feedback(f" - WARNING: {text}")
        if hint is not None:
            self.feedback(f"      Hint: {hint}")

    def seconds(self) -> float:
        """Returns the seconds of a clock that never goes back, for how long something took."""
        ...

    def sleep(self, seconds: float) -> None:
        """Waits; a kill ends the wait with ``JobKilled``."""
        ...

    def without_slot(self) -> AbstractContextManager[None]:
        """Within it the job doesn't count against the limit of running jobs.

        For what takes long and is only looked at now and then, such as the synchronization
        of disks. The job keeps its locks, its reservations and its thread. The end of the
        block waits until there is a slot again; a kill ends that wait.
        """
        ...

    def checkpoint(self) -> None:
        """Raises ``JobKilled`` if the job was killed meanwhile."""
        ...

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """Within it a kill is put off: for clean-up that must be finished.

        What hangs in it ends with the time-out of the call, not before.
        """
        self._shields += 1
        try:
            yield
        finally:
            self._shields -= 1
