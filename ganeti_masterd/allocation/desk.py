"""Placing new instances for several jobs at once, with what each of them chose before in hand.

Finding a place takes two calls to every node. Jobs that ask while another one does that wait for
it; then one of them does it for all that wait, so that the cost of a placement falls as there are
more of them. What nodes answered holds for the jobs that ask within :data:`FRESH` seconds, too. A
place stays pending until its job ends: until its instance is in the configuration and running,
nobody else would know of it.

Called in pool threads. Knows neither nodes nor the configuration; whoever serves does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from threading import Lock

from msgspec import Struct

from ganeti_masterd.allocation.builtin.room import Occupancy
from ganeti_masterd.allocation.document import Descriptions, Questions, same_hosts
from ganeti_masterd.allocation.requests import Allocate
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.rpc.interfaces import NodeResult
from ganeti_masterd.rpc.results import NodeInfo, RunningInstance

#: For how many seconds the answers of nodes are taken to hold. What instances take meanwhile is
#: known, and the job that then holds the locks of the chosen nodes asks these again.
FRESH = 1.0

#: Seconds between looks whether a job that waits for its turn was killed.
LOOK = 0.1


#: An instance on a node: its name, serial number, and the uuids of its nodes.
Resident = tuple[str, int, tuple[str, ...]]


class PendingPlace(Struct, eq=False):
    """Where a job is about to make an instance: uuids of its nodes, the primary first.

    ``known`` are the names of instances whose places were chosen with this one in hand, or
    this one with theirs: those that were pending then, and those that were placed since.
    ``seen`` are the instances that were on its nodes then, see :func:`residents`.
    """

    request: Allocate
    nodes: tuple[str, ...]
    known: set[str]
    seen: frozenset[Resident]

    def holds(self, snapshot: Snapshot) -> bool:
        """Whether nothing has come to its nodes or changed there that wasn't reckoned with."""
        here = residents(snapshot, self.nodes)
        return here is not None and all(
            resident in self.seen or resident[0] in self.known for resident in here
        )


class PlaceWanted(Struct, eq=False):
    """A job that wants a place for an instance; ``settled`` once ``found`` is its answer.

    ``found`` is None if there is no place among what is known without locks.
    """

    job_id: int
    request: Allocate
    settled: bool = False
    found: PendingPlace | None = None
    #: Whether the job has given up: nothing must be noted for it any more.
    gone: bool = False


class NodeAnswers(Struct, frozen=True):
    """What all nodes answered to the questions before a placement, by uuid.

    ``first`` is the request that they were asked for, ``before`` the configuration then, and
    ``asked_at`` the time, in seconds of any steady clock.
    """

    first: Allocate
    before: Snapshot
    asked_at: float
    asked: Questions
    info: Mapping[str, NodeResult[NodeInfo]]
    running: Mapping[str, NodeResult[dict[str, RunningInstance]]]

    def serve(self, request: Allocate, snapshot: Snapshot, now: float) -> bool:
        """Whether they hold for a request, with this configuration at this time. Pure."""
        return (
            now - self.asked_at < FRESH
            and same_questions(request, self.first)
            and same_hosts(self.before, snapshot)
        )


#: Settles requests that agree in hypervisor and disk template: finds a place for each.
PlaceFinder = Callable[[Sequence[PlaceWanted]], None]


class PlacementDesk:
    """Where jobs ask for places. Any thread."""

    def __init__(self, pending: MutableMapping[int, PendingPlace]) -> None:
        """``pending`` are the places by job; jobs that end are taken out of it elsewhere."""
        self._pending = pending
        self._turn = Lock()
        self._guard = Lock()
        self._waiting: list[PlaceWanted] = []
        # Used by the job that finds places, one at a time.
        self.descriptions = Descriptions()
        self.occupancy = Occupancy()
        #: The answers of nodes that were given last, None before the first.
        self.answers: NodeAnswers | None = None

    def place(
        self, wanted: PlaceWanted, find: PlaceFinder, checkpoint: Callable[[], object]
    ) -> PendingPlace | None:
        """Returns a place that is pending from now on, None if none was found.

        ``find`` is called in this thread unless another job's call has settled the request
        meanwhile; it may be given further jobs' requests. What it raises comes through, and
        the other jobs then do it themselves. ``checkpoint`` is called while waiting; if it
        raises, the request is withdrawn.
        """
        with self._guard:
            self._waiting.append(wanted)
        try:
            while not self._turn.acquire(timeout=LOOK):
                checkpoint()
            try:
                if not wanted.settled:
                    self._serve(wanted, find)
            finally:
                self._turn.release()
        except BaseException:
            with self._guard:
                wanted.gone = True
                if wanted in self._waiting:
                    self._waiting.remove(wanted)
                self._pending.pop(wanted.job_id, None)
            raise
        return wanted.found

    def _serve(self, first: PlaceWanted, find: PlaceFinder) -> None:
        with self._guard:
            batch = [one for one in self._waiting if same_questions(one.request, first.request)]
            self._waiting = [one for one in self._waiting if one not in batch]
        try:
            find(batch)
        finally:
            with self._guard:
                self._waiting += [
                    one for one in batch if not (one.settled or one.gone or one is first)
                ]

    def others(self) -> list[PendingPlace]:
        """Returns all places that are pending."""
        return list(self._pending.values())

    def settle(self, wanted: PlaceWanted, nodes: Sequence[str], snapshot: Snapshot) -> None:
        """Notes the answer to a request: the nodes' uuids, none if there is no place."""
        with self._guard:
            if wanted.gone:
                return
            seen = residents(snapshot, nodes)
            if nodes and seen is not None:
                others = list(self._pending.values())
                for other in others:
                    other.known.add(wanted.request.name)
                known = {other.request.name for other in others}
                wanted.found = PendingPlace(wanted.request, tuple(nodes), known, seen)
                self._pending[wanted.job_id] = wanted.found
            wanted.settled = True


def residents(snapshot: Snapshot, nodes: Sequence[str]) -> frozenset[Resident] | None:
    """Returns the instances on nodes (uuids); None if a node can't take instances."""
    found: set[Resident] = set()
    for uuid in nodes:
        node = snapshot.nodes.get(uuid)
        if node is None or node.offline or node.drained or not node.vm_capable:
            return None
        here = (*snapshot.instances_on(node), *snapshot.secondaries_on(node))
        found.update((each.name, each.serial_no, snapshot.nodes_of(each)) for each in here)
    return frozenset(found)


def same_questions(one: Allocate, other: Allocate) -> bool:
    """Whether nodes are asked the same for both."""
    return (one.hypervisor, one.disk_template) == (other.hypervisor, other.disk_template)
