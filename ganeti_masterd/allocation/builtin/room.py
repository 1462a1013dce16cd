"""The room left on nodes, while instances are tentatively added, moved and removed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any

from msgspec import Struct, convert
from msgspec.structs import force_setattr

from ganeti_masterd.config.parameters.policy import PolicyDemand as Limited
from ganeti_masterd.config.parameters.policy import violations
from ganeti_masterd.config.ssconf import natural_key
from ganeti_masterd.config.templates import template_named


class GroupRoom(Struct, frozen=True):
    """A node group of the document."""

    name: str
    alloc_policy: str
    ipolicy: dict[str, Any]
    networks: list[str] = []


class RoomDemand(Struct, frozen=True):
    """An instance: the resources that it takes (MiB), and its nodes, the primary first."""

    name: str
    memory: int
    vcpus: int
    disk_space_total: int
    disk_template: str
    spindle_use: int = 1
    admin_state: str = "up"
    nodes: Sequence[str] = ()
    disks: Sequence[Mapping[str, Any]] = ()
    nics: Sequence[Mapping[str, Any]] = ()
    #: How much its disks take of a node's own storage, in MiB; follows from the others.
    local_disk: int = 0

    def __post_init__(self) -> None:
        local = 0 if self.reached_anywhere else self.disk_space_total
        force_setattr(self, "local_disk", local)

    @property
    def mirrored_internally(self) -> bool:
        """Whether its disk template has a secondary node."""
        return template_named(self.disk_template).internal

    @property
    def reached_anywhere(self) -> bool:
        """Whether every node reaches its data."""
        return template_named(self.disk_template).external


class HostRoom(Struct):
    """A node and the room left on it, which changes with :meth:`Rooms.put` and ``take``."""

    name: str
    group: str
    offline: bool
    drained: bool
    vm_capable: bool
    ndparams: dict[str, Any] = {}
    total_memory: int = 0
    free_memory: int = 0
    total_disk: int | None = 0
    free_disk: int | None = 0
    total_cpus: int = 0
    vcpus: int = 0
    spindles: int = 0
    #: MiB of memory that it needs if a node fails whose secondary it is, by that node (N+1).
    stands_in: dict[str, int] = {}
    #: The most memory (MiB) that it needs if any one other node fails.
    needed_for_others: int = 0
    #: The memory (MiB) of all instances whose secondary it is.
    mirrored: int = 0
    #: What its name is sorted by.
    rank: list[tuple[int, int, str]] = []

    def __post_init__(self) -> None:
        self.rank = natural_key(self.name)

    @property
    def unusable(self) -> str | None:
        """Why it can't take any instance; None if it can."""
        if self.offline:
            return "offline"
        if self.drained:
            return "drained"
        return None if self.vm_capable else "not able to run instances"

    def stand_in(self, primary: str, memory: int) -> None:
        """Adds to the memory (MiB) that it needs if ``primary`` fails; less if negative."""
        left = self.stands_in.get(primary, 0) + memory
        self.set_stands_in({**self.stands_in, primary: left})

    def set_stands_in(self, memory: dict[str, int]) -> None:
        """Sets what it needs if another node fails, by that node; the dictionary isn't changed."""
        self.stands_in = memory
        self.needed_for_others = max(memory.values(), default=0)
        self.mirrored = sum(memory.values())


class HostLoad(Struct):
    """What all instances of a host take, except for free memory and disk, which nodes report."""

    vcpus: int = 0
    spindles: int = 0
    stands_in: dict[str, int] = {}

    def add(self, demand: RoomDemand, host: str, sign: int) -> None:
        """Adds an instance of the host of that name, or takes it away (``sign`` -1)."""
        primary = demand.nodes[0]
        if primary == host:
            self.vcpus += sign * demand.vcpus
            self.spindles += sign * demand.spindle_use
            return
        left = self.stands_in.get(primary, 0) + sign * demand.memory
        # A new dictionary: hosts that were made from this load share the one before.
        self.stands_in = {**self.stands_in, primary: left}


class Occupancy:
    """Hosts and instances of documents, kept for the next one while nothing has changed.

    :class:`Rooms` then cost what has changed since the last document. A description of a node or
    an instance that is the very same object as before must be unchanged. Not to be used by two
    threads at once.
    """

    def __init__(self) -> None:
        self._instances: dict[str, tuple[Any, RoomDemand]] = {}
        self._empty: dict[str, tuple[Any, HostRoom]] = {}
        self._loads: dict[str, HostLoad] = {}

    def instances(self, described: Mapping[str, Any]) -> dict[str, RoomDemand]:
        """Returns the instances of a document by name; they are counted from now on.

        Raises ``msgspec.ValidationError`` if the document is malformed.
        """
        kept = self._instances
        come = {
            name: (about, convert({**about, "name": name}, RoomDemand))
            for name, about in described.items()
            if name not in kept or kept[name][0] is not about
        }
        gone = [name for name in kept if name in come or name not in described]
        for name in gone:
            self._count(kept.pop(name)[1], -1)
        for name, (about, demand) in come.items():
            kept[name] = about, demand
            self._count(demand, 1)
        return {name: demand for name, (_, demand) in kept.items()}

    def hosts(self, described: Mapping[str, Any]) -> dict[str, HostRoom]:
        """Returns the hosts of a document by name, with the load of all instances counted.

        They may be changed. Raises ``msgspec.ValidationError`` if the document is malformed.
        """
        before, now = self._empty, {}
        found: dict[str, HostRoom] = {}
        for name, about in described.items():
            kept = before.get(name)
            if kept is None or kept[0] is not about:
                kept = about, convert({**about, "name": name}, HostRoom)
            now[name] = kept
            host = found[name] = copy(kept[1])
            load = self._loads.get(name)
            if load is not None:
                host.vcpus, host.spindles = load.vcpus, load.spindles
                host.set_stands_in(load.stands_in)
        self._empty = now
        return found

    def _count(self, demand: RoomDemand, sign: int) -> None:
        for node in dict.fromkeys(demand.nodes):
            load = self._loads.get(node)
            if load is None:
                load = self._loads[node] = HostLoad()
            load.add(demand, node, sign)


class Rooms:
    """All hosts, groups and instances of a document.

    If any one node fails, every other node is to have the memory to start the instances whose
    primary is the one and whose secondary is the other (N+1).
    """

    def __init__(
        self,
        document: Mapping[str, Any],
        *,
        ignore_ratios: bool = False,
        occupancy: Occupancy | None = None,
    ) -> None:
        """Reads the document; raises ``msgspec.ValidationError`` if it is malformed.

        ``ignore_ratios``: processors and spindles may be overcommitted without limit.
        ``occupancy`` is that of earlier documents.
        """
        occupancy = Occupancy() if occupancy is None else occupancy
        self._ignore_ratios = ignore_ratios
        self._spare = True
        self.groups: dict[str, GroupRoom] = convert(document["nodegroups"], dict[str, GroupRoom])
        self.instances: dict[str, RoomDemand] = occupancy.instances(document["instances"])
        self.hosts: dict[str, HostRoom] = occupancy.hosts(document["nodes"])

    @contextmanager
    def without_spare(self) -> Iterator[None]:
        """Within it a host need not keep memory for the failure of another."""
        self._spare = False
        try:
            yield
        finally:
            self._spare = True

    def members(self, group: str) -> list[HostRoom]:
        """Returns the hosts of a group (its uuid)."""
        return [host for host in self.hosts.values() if host.group == group]

    def refusal(self, host: HostRoom, demand: RoomDemand, primary: str | None = None) -> str | None:
        """Returns why an instance can't be on a host; None if it can.

        ``primary`` is the instance's primary node if the host is to be its secondary.
        """
        if (fault := host.unusable) is not None:
            return fault
        if host.name == primary:
            return "the primary node itself"
        if demand.local_disk and demand.local_disk > (host.free_disk or 0):
            return "too little disk"
        if primary is not None:
            stood_in = host.stands_in.get(primary, 0) + demand.memory
            lacking = self._spare and stood_in > host.free_memory
            return "too little memory to stand in" if lacking else None
        if demand.memory > host.free_memory:
            return "too little memory"
        if self._spare and host.needed_for_others > host.free_memory - demand.memory:
            return "memory that others need if a node fails"
        return None if self._ignore_ratios else self._overcommitted(host, demand)

    def _overcommitted(self, host: HostRoom, demand: RoomDemand) -> str | None:
        ratios = self.groups[host.group].ipolicy
        if host.total_cpus and host.vcpus + demand.vcpus > host.total_cpus * ratios["vcpu-ratio"]:
            return "too many virtual processors"
        units = host.ndparams.get("spindle_count", 0)
        most = units * ratios["spindle-ratio"]
        if demand.local_disk and units and host.spindles + demand.spindle_use > most:
            return "too few spindles"
        return None

    def put(self, demand: RoomDemand, nodes: Sequence[str]) -> None:
        """Takes an instance's room on ``nodes``, the primary first."""
        self._shift(demand, nodes, 1, demand.memory)

    def take(self, demand: RoomDemand) -> None:
        """Gives back an instance's room on its nodes; without memory if the instance is down."""
        self._shift(demand, demand.nodes, -1, demand.memory if demand.admin_state == "up" else 0)

    def reserve(self, nodes: Sequence[str], *, memory: int = 0, disk: int = 0) -> None:
        """Takes memory and disk (MiB) on each of these nodes."""
        for name in nodes:
            if (host := self.hosts.get(name)) is not None:
                host.free_memory -= memory
                host.free_disk = (host.free_disk or 0) - disk

    def _shift(self, demand: RoomDemand, nodes: Sequence[str], sign: int, memory: int) -> None:
        for place, name in enumerate(nodes):
            host = self.hosts.get(name)
            if host is None:
                continue
            host.free_disk = (host.free_disk or 0) - sign * demand.local_disk
            if place == 0:
                host.free_memory -= sign * memory
                host.vcpus += sign * demand.vcpus
                host.spindles += sign * demand.spindle_use
            else:
                host.stand_in(nodes[0], sign * demand.memory)


def score(host: HostRoom, demand: RoomDemand, ratio: float, *, secondary: bool = False) -> float:
    """Returns how full a host would be with an instance: the lower, the better. Pure.

    It is the sum of the squares of the used fractions of memory, disk and virtual
    processors (0 to 1 each), so that the scarcest counts most. For a secondary, the memory
    and processors are counted that it would need as the primary, and the memory of all
    instances that it mirrors: mirrors are spread, although it may be enough for N+1 if
    it has the memory for those of one node (so their share may exceed 1).
    """
    memory = host.free_memory - demand.memory - (host.mirrored if secondary else 0)
    disk = (host.free_disk or 0) - demand.local_disk
    most = host.total_cpus * ratio
    shares = (
        1 - memory / host.total_memory if host.total_memory else 0.0,
        1 - disk / host.total_disk if host.total_disk else 0.0,
        (host.vcpus + demand.vcpus) / most if most else 0.0,
    )
    return sum(share * share for share in shares)


def policy_faults(demand: RoomDemand, policy: Mapping[str, Any]) -> list[str]:
    """Returns the ways in which an instance violates a group's policy."""
    return violations(
        policy,
        Limited(
            memory=demand.memory,
            cpus=demand.vcpus,
            disk_sizes=[disk["size"] for disk in demand.disks],
            disk_types=[demand.disk_template] * len(demand.disks),
            nics=len(demand.nics),
            spindles=demand.spindle_use,
        ),
    )
