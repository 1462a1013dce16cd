"""All simulated nodes of a cluster: :class:`SimulatedNodes`.

A call goes through the same steps as one to a real node: it waits for the node's latency, may be
hit by a fault, runs, and is answered before its time-out or not at all. Without latency and faults,
a call that doesn't wait for anything is answered at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorProcess
from zope.interface import implementer

from ganeti_masterd.errors import ProgrammerError
from ganeti_masterd.events import Events
from ganeti_masterd.rpc import results
from ganeti_masterd.rpc.calls import CALLS
from ganeti_masterd.rpc.declarations import Call
from ganeti_masterd.rpc.gathering import Gathering
from ganeti_masterd.rpc.interfaces import (
    Arguments,
    FixedArguments,
    INodeRPC,
    NodeResult,
    Target,
)
from ganeti_masterd.simulation import (
    backups,
    files,
    hypervisor,
    mirroring,
    reshaping,
    storage,
    system,
    systems,
    units,
    verify,
)
from ganeti_masterd.simulation.calllog import CallLog, CallLogMode
from ganeti_masterd.simulation.description import Description
from ganeti_masterd.simulation.exchange import SimulatedExchange, at_once
from ganeti_masterd.simulation.faults import Faults
from ganeti_masterd.simulation.node import BootImage, Finished, NodeFailure, SimulatedNode
from ganeti_masterd.simulation.programs import Programs
from ganeti_masterd.simulation.state import NodeState
from ganeti_masterd.simulation.store import CLUSTER, NodeStore, StoredChange
from ganeti_masterd.simulation.volumes import make as make_volume
from ganeti_masterd.simulation.watching import Watch
from ganeti_masterd.simulation.world import World
from ganeti_masterd.timing import Timer, Timers

#: The functions that answer calls, by the name of the call.
BUILT: Mapping[str, Callable[..., Any]] = {
    **system.calls.functions,
    **verify.calls.functions,
    **files.calls.functions,
    **hypervisor.calls.functions,
    **storage.calls.functions,
    **reshaping.calls.functions,
    **mirroring.calls.functions,
    **backups.calls.functions,
    **systems.calls.functions,
    **units.calls.functions,
}


@implementer(INodeRPC)
class SimulatedNodes:
    """Every node of a simulated cluster; an :class:`INodeRPC`.

    - ``timers``: the clock of delays and time-outs.
    - ``root``: the daemon's root (None: nothing is stored or read). The nodes' state, ``calls.log``
      and ``faults.json`` are in its folder ``simulation``; real files of node N (hooks, restricted
      commands) are in ``simulation/N``.
    - ``master``: the name of the node whose files are the root itself.
    - ``names``: the nodes that exist; None: every name answers.
    - ``description``: the nodes' hardware and what is installed on them.
    - ``latency``: seconds before each call begins, for all nodes or by name.
    - ``log``: the mode of the call log (:mod:`ganeti_masterd.simulation.calllog`).
    - ``in_disk_thread``: runs ``(function, *args)`` in the disk thread; needed
      with ``root``.
    - ``processes``: starts scripts; without it existing scripts fail.

    Fire :meth:`start` before the first call if there is a root.
    """

    def __init__(
        self,
        timers: Timers,
        *,
        root: str | None = None,
        master: str | None = None,
        names: Collection[str] | None = None,
        description: Description | None = None,
        latency: float | Mapping[str, float] = 0.0,
        log: CallLogMode = "off",
        faults: Faults | None = None,
        in_disk_thread: Callable[..., Deferred[Any]] | None = None,
        processes: IReactorProcess | None = None,
        events: Events | None = None,
    ) -> None:
        if root is not None and in_disk_thread is None:
            raise ProgrammerError("Simulated nodes that are kept need a disk thread")
        self.master = master
        folder = None if root is None else os.path.join(root, "simulation")
        path = None if folder is None else os.path.join(folder, "faults.json")
        self.faults = faults if faults is not None else Faults(path)
        self.timers = timers
        self._root = root
        self._folder = folder
        self._names = names
        self.world = World(description or Description(), timers.now, self.node)
        self.cluster = self.world.cluster
        self.mirrors = self.world.mirrors
        self.transfers = self.world.transfers
        self.watch = Watch()
        self.providers = self.world.description.providers
        self.images: Mapping[str, BootImage] = {
            image.place: image for image in self.world.description.images
        }
        self.shared_paths = self.world.description.shared_paths
        self._latency = latency
        self.events = events
        self._in_disk_thread = in_disk_thread
        self._programs = None if processes is None else Programs(processes)
        self._nodes: dict[str, SimulatedNode] = {}
        self.exchanges: dict[SimulatedExchange, None] = {}
        self._waiting: set[Timer] = set()
        #: The last arguments by call that nobody changes any more, and the same as decoded JSON.
        self._fixed: dict[str, tuple[FixedArguments, list[Any]]] = {}
        self.closed = False
        self._store = None
        if folder is not None:
            self._store = NodeStore(os.path.join(folder, "nodes.sqlite"), synced=log == "synced")
        self._started = self._store is None
        self.log = CallLog(
            None if folder is None else os.path.join(folder, "calls.log"),
            log,
            self._store,
            self._take_changes,
            self.in_disk_thread,
            timers,
        )

    # The door

    @property
    def pending(self) -> int:
        """See :attr:`INodeRPC.pending`."""
        return len(self.exchanges)

    def start(self) -> Deferred[None]:
        """Reads the stored state; fails with ``sqlite3.Error`` or ``OSError``."""
        if self._store is None:
            return succeed(None)

        def loaded(rows: list[tuple[str, str, str, bytes]]) -> None:
            for name, kind, key, value in rows:
                state = self.cluster if name == CLUSTER else self.node(name).state
                state.restore(kind, key, value)
            self._started = True
            for node in list(self._nodes.values()):
                self._furnish(node)

        return self.in_disk_thread(self._store.load).addCallback(loaded)

    def call(
        self,
        targets: Sequence[Target],
        procedure: str,
        arguments: Arguments = (),
        *,
        timeout: float | None = None,
    ) -> Deferred[Mapping[str, NodeResult[Any]]]:
        """See :meth:`INodeRPC.call`."""
        if not self._started:
            raise ProgrammerError("Simulated nodes are called before they are started")
        call = CALLS[procedure]
        called = targets if call.offline_too else [each for each in targets if not each.offline]
        # All arguments are encoded first, so that nothing is sent if one can't be.
        given: list[list[Any]]
        if callable(arguments):
            given = [self._plain(call, arguments(target)) for target in called]
        else:
            given = [self._plain(call, arguments)] * len(called)
        gathering = Gathering(targets)
        if len(called) < len(targets):
            for target in targets:
                if target.offline:
                    gathering.put(target.key, results.offline(target, procedure))
        for target, values in zip(called, given, strict=True):
            if self.closed:
                gathering.put(target.key, results.given_up(target, procedure))
                continue
            answer = at_once(self, target, call, values)
            if isinstance(answer, NodeResult):
                gathering.put(target.key, answer)
            else:
                self._exchange(gathering, target, call, values, timeout, answer)
        return gathering.ready(procedure, self._abandon)

    def _plain(self, call: Call[Any], arguments: Sequence[Any]) -> list[Any]:
        if not isinstance(arguments, FixedArguments):
            return _plain(call, arguments)
        known = self._fixed.get(call.name)
        if known is None or known[0] is not arguments:
            known = self._fixed[call.name] = arguments, _plain(call, arguments)
        return known[1]

    def _abandon(self, gathering: Gathering) -> list[str]:
        """Ends calls without a result; returns the names of the nodes that still run them."""
        return [
            exchange.abandon()
            for exchange in list(self.exchanges)
            if exchange.is_part_of(gathering)
        ]

    def _exchange(
        self,
        gathering: Gathering,
        target: Target,
        call: Call[Any],
        arguments: list[Any],
        timeout: float | None,
        answer: Deferred[Any] | None,
    ) -> None:
        """Begins a call, or awaits the ``answer`` of one that has begun at the node."""
        seconds = call.seconds(arguments) if timeout is None else timeout
        exchange = SimulatedExchange(self, gathering, target, call, arguments, seconds)
        if answer is None:
            exchange.begin()
        else:
            exchange.wait_for(answer)

    def close(self) -> Deferred[None]:
        """See :meth:`INodeRPC.close`; writes everything to disk first."""
        if self.closed:
            return succeed(None)
        self.closed = True
        for exchange in list(self.exchanges):
            exchange.give_up()
        for timer in self._waiting:
            timer.cancel()
        self._waiting.clear()
        if self._programs is not None:
            self._programs.stop()
        if self._in_disk_thread is None or not self._started:
            return succeed(None)
        return self.log.close()

    # The nodes, and their surroundings

    def node(self, name: str) -> SimulatedNode:
        """Returns the node of that name; creates it at its first call."""
        node = self._nodes.get(name)
        if node is None:
            described = self.world.description.node(name)
            node = self._nodes[name] = SimulatedNode(
                name,
                described.hardware,
                NodeState(),
                self,
                systems=self.world.description.systems,
                root=None if self._folder is None else os.path.join(self._folder, _folder(name)),
                master_root=self._root,
            )
            if self._started:
                self._furnish(node)
        node.is_master = name == self.master
        return node

    def _furnish(self, node: SimulatedNode) -> None:
        """Gives a new node its initial volumes."""
        if node.state.facts.get("furnished"):
            return
        described = self.world.description.node(node.name)
        if described.volumes:
            node.state.facts["furnished"] = True
            for volume in described.volumes:
                make_volume(node, volume.group, volume.name, volume.size)

    def nodes(self) -> list[SimulatedNode]:
        """Returns all nodes that have been called."""
        return list(self._nodes.values())

    def joined(self, one: str, other: str) -> bool:
        """Returns whether two nodes can reach each other."""
        return self.world.joined(one, other)

    def migration_speed(self) -> float | None:
        """MiB of an instance's memory in a second; None: a migration takes no time."""
        return self.world.description.migration_speed

    def now(self) -> float:
        """Seconds since the epoch."""
        return self.timers.now()

    def wait(self, seconds: float) -> Deferred[None]:
        """Fires after that time."""
        done: Deferred[None] = Deferred()
        self.later(seconds, lambda: done.callback(None))
        return done

    def later(self, seconds: float, function: Callable[[], object]) -> None:
        """Calls a function after that time, unless all is closed before."""

        def run() -> None:
            self._waiting.discard(timer)
            function()

        timer = self.timers.later(seconds, run)
        self._waiting.add(timer)

    def reachable(self, name: str) -> bool:
        """Returns whether a node of that name exists and has power."""
        there = self._names is None or name in self._names
        return there and self.world.powered(name)

    def holds_address(self, address: str) -> bool:
        """Returns whether some node has that address up as the master's."""
        return any(system.master_address(node) == address for node in self._nodes.values())

    def in_disk_thread(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """Runs a blocking function in the disk thread."""
        if self._in_disk_thread is None:
            raise ProgrammerError("Simulated nodes have no disk thread")
        return self._in_disk_thread(function, *args)

    def run(
        self, argv: Sequence[str], environment: Mapping[str, str], directory: str = "/"
    ) -> Deferred[Finished]:
        """Runs a program with exactly that environment."""
        if self._programs is None:
            raise NodeFailure("simulated node: no programs can be run here")
        return self._programs.run(argv, environment, directory)

    def implementation(self, name: str) -> Callable[..., Any] | None:
        """Returns the function that answers a call, or None if none is built."""
        return BUILT.get(name)

    def _take_changes(self) -> list[StoredChange]:
        """Returns all changes of nodes, and marks them as written."""
        changes: list[StoredChange] = [(CLUSTER, *change) for change in self.cluster.take_changes()]
        for name, node in self._nodes.items():
            if node.state.changes:
                changes += [(name, *change) for change in node.state.take_changes()]
        return changes

    def delay(self, name: str) -> float:
        """Returns the seconds that a request takes to a node."""
        latency = self._latency
        return latency if isinstance(latency, (int, float)) else latency.get(name, 0.0)


def _plain(call: Call[Any], arguments: Sequence[Any]) -> list[Any]:
    """Returns the arguments as decoded JSON; raises ``ProgrammerError`` if they aren't JSON."""
    call.check(arguments)
    try:
        plain: list[Any] = msgspec.to_builtins(list(arguments), str_keys=True)
    except (TypeError, ValueError) as error:
        raise ProgrammerError(f"Call {call.name}: arguments are no JSON: {error}")
    return plain


def _folder(name: str) -> str:
    """Returns the folder of a node's real files, which is always inside the simulation's."""
    return name.replace("/", "_").lstrip(".") or "_"
