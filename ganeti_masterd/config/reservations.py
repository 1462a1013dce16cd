"""What running jobs have reserved: names, addresses, MACs, volumes, ports, minors.

A job reserves what it is about to use, so that no other job takes it before the
change that uses it is committed. Reservations are held in memory and dropped when the
job ends. Pure: each call is given the configuration to compare with (the store's tip, if
there is one).
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Hashable, Mapping, Sequence
from random import Random, SystemRandom
from typing import Any

from msgspec.structs import replace

from ganeti_masterd.config.addresspool import pool_of
from ganeti_masterd.config.indexes import names
from ganeti_masterd.config.kinds import SECTIONS
from ganeti_masterd.config.objects import Cluster, Disk, Instance, Node
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.constants import LAST_DRBD_PORT
from ganeti_masterd.errors import (
    ECODE_EXISTS,
    ECODE_NORES,
    ECODE_NOTUNIQUE,
    AddressPoolError,
    OpPrereqError,
    ProgrammerError,
    ReservationError,
)

_ATTEMPTS = 64


#: The values of one kind that the configuration uses, as keys of a mapping.
Used = Mapping[Any, object]


def _macs_of(instance: Instance) -> list[str]:
    return [nic.mac.lower() for nic in instance.nics]


def _addresses_of_node(node: Node) -> tuple[str, str]:
    return node.primary_ip, node.secondary_ip


def _addresses_of(instance: Instance) -> list[Hashable]:
    return [(nic.network, nic.ip) if nic.network else nic.ip for nic in instance.nics if nic.ip]


def _volumes_of(disk: Disk) -> list[str]:
    found: list[str] = []
    waiting = [disk]
    while waiting:
        each = waiting.pop()
        waiting += each.children
        if each.volume is not None:
            found.append(each.volume)
    return found


def _ports_of(instance: Instance) -> list[int]:
    return [instance.network_port] if instance.network_port else []


def _macs(snapshot: Snapshot) -> Used:
    return snapshot.instances.grouped(_macs_of)


def _of_hosts(snapshot: Snapshot) -> Used:
    """Addresses of the master and of nodes, which no NIC may have on any network."""
    return ChainMap[Any, tuple[str, ...]](
        {snapshot.cluster.master_ip: ()}, snapshot.nodes.grouped(_addresses_of_node)
    )


def _addresses(snapshot: Snapshot) -> Used:
    """Addresses of the master, nodes and NICs; those on a network as (network uuid, address)."""
    return ChainMap[Any, tuple[str, ...]](
        {snapshot.cluster.master_ip: ()},
        snapshot.nodes.grouped(_addresses_of_node),
        snapshot.instances.grouped(_addresses_of),
    )


def _volumes(snapshot: Snapshot) -> Used:
    """Volumes as ``group/volume``, also those under a drbd disk."""
    return snapshot.disks.grouped(_volumes_of)


def _ports(snapshot: Snapshot) -> Used:
    disks = snapshot.disks.grouped(Disk.ports)
    return ChainMap[Any, tuple[str, ...]](disks, snapshot.instances.grouped(_ports_of))


def _minors(snapshot: Snapshot) -> Used:
    """DRBD minors as (node uuid, minor)."""
    return snapshot.disks.grouped(Disk.minors)


def _names(key: str) -> Callable[[Snapshot], Used]:
    return lambda snapshot: snapshot.section(key).grouped(names)


#: What can be reserved: how it is called, and what the configuration has of it.
RESERVED: dict[str, tuple[str, Callable[[Snapshot], Used]]] = {
    **{
        kind.kind: (f"{kind.noun} name", _names(kind.section))
        for kind in SECTIONS.values()
        if kind.unique_names
    },
    "address": ("IP address", _addresses),
    "mac": ("MAC address", _macs),
    "volume": ("logical volume", _volumes),
    "port": ("port", _ports),
    "minor": ("DRBD minor", _minors),
}


class Reservations:
    """All that jobs have reserved. Reactor thread only."""

    def __init__(self, random: Random | None = None) -> None:
        """``random`` is the source of MAC addresses, by default the system's."""
        self._random = random if random is not None else SystemRandom()
        self._owners: dict[tuple[str, Hashable], int] = {}
        self._held: dict[int, set[tuple[str, Hashable]]] = {}
        #: Where jobs are about to make instances (``ganeti_masterd.allocation.desk``), by job.
        self.places: dict[int, Any] = {}

    def reserve(self, job_id: int, kind: str, value: Hashable, snapshot: Snapshot) -> None:
        """Reserves ``value`` for a job; does nothing if the job already has it.

        ``kind`` is a key of :data:`RESERVED`; an address on a network is ``(network
        uuid, address)``, a volume ``group/volume``, a minor ``(node uuid,
        minor)``. Raises ``OpPrereqError`` if the configuration uses it
        (``already_exists`` for a name, else ``resource_not_unique``), and
        ``ReservationError`` if another job has reserved it.
        """
        noun, used = _kind(kind)
        value = _normal(kind, value)
        of_host = kind == "address" and isinstance(value, tuple) and value[1] in _of_hosts(snapshot)
        if of_host or value in used(snapshot):
            code = ECODE_EXISTS if noun.endswith("name") else ECODE_NOTUNIQUE
            raise OpPrereqError(f"{noun} '{_shown(value)}' is already in use in the cluster", code)
        owner = self._owners.get((kind, value))
        if owner is not None and owner != job_id:
            raise ReservationError(f"{noun} '{_shown(value)}' is reserved by job {owner}")
        self._take(job_id, kind, value)

    def owner(self, kind: str, value: Hashable) -> int | None:
        """Returns the id of the job that has reserved ``value``, or None."""
        return self._owners.get((kind, _normal(kind, value)))

    def generate_mac(self, job_id: int, snapshot: Snapshot, prefix: str | None = None) -> str:
        """Reserves and returns a new MAC address.

        ``prefix`` is its first three bytes, by default the cluster's. Raises
        ``OpPrereqError`` if 64 attempts don't find a free one.
        """
        used = _macs(snapshot)
        start = (prefix or snapshot.cluster.mac_prefix).lower()
        for _ in range(_ATTEMPTS):
            end = self._random.getrandbits(24).to_bytes(3, "big").hex(":")
            mac = f"{start}:{end}"
            if mac not in used and ("mac", mac) not in self._owners:
                self._take(job_id, "mac", mac)
                return mac
        raise OpPrereqError(f"no free MAC address found with the prefix {start}", ECODE_NORES)

    def generate_port(self, job_id: int, snapshot: Snapshot) -> int:
        """Reserves and returns a port: one that was given back, else the next unused one.

        The change that uses it applies :func:`with_ports` to the cluster. Raises
        ``OpPrereqError`` if none is left.
        """
        cluster = snapshot.cluster
        used = _ports(snapshot)
        fresh = range(cluster.highest_used_port + 1, LAST_DRBD_PORT + 1)
        for candidates in (sorted(cluster.tcpudp_port_pool), fresh):
            for port in candidates:
                if port not in used and ("port", port) not in self._owners:
                    self._take(job_id, "port", port)
                    return port
        raise OpPrereqError(f"all ports up to {LAST_DRBD_PORT} are in use", ECODE_NORES)

    def generate_minors(self, job_id: int, nodes: Sequence[str], snapshot: Snapshot) -> list[int]:
        """Reserves and returns the lowest free DRBD minor on each of ``nodes`` (uuids)."""
        used = _minors(snapshot)
        minors: list[int] = []
        for node in nodes:
            minor = 0
            while (node, minor) in used or ("minor", (node, minor)) in self._owners:
                minor += 1
            self._take(job_id, "minor", (node, minor))
            minors.append(minor)
        return minors

    def generate_address(self, job_id: int, network: str, snapshot: Snapshot) -> str:
        """Reserves and returns the lowest free address in the pool of a network (its uuid).

        It is never the address of a node or of the master, whatever the pool says.
        For :meth:`reserve` and :meth:`release` it is ``(network uuid, address)``. The
        change that uses it also reserves it in the pool. Raises ``OpPrereqError`` if none
        is left.
        """
        pool = pool_of(snapshot.networks[network])
        taken = {value for kind, value in self._owners if kind == "address"}
        taken.update(_addresses(snapshot))
        besides = {value[1] for value in taken if isinstance(value, tuple) and value[0] == network}
        besides.update(_of_hosts(snapshot))
        try:
            address = pool.first_free(besides)
        except AddressPoolError as error:
            name = snapshot.networks[network].name
            raise OpPrereqError(f"no free address found in network '{name}': {error}", ECODE_NORES)
        self._take(job_id, "address", (network, address))
        return address

    def release(self, job_id: int, kind: str, value: Hashable) -> None:
        """Releases ``value`` if the job has reserved it."""
        key = (kind, _normal(kind, value))
        if self._owners.get(key) == job_id:
            del self._owners[key]
            self._held[job_id].discard(key)

    def drop(self, job_id: int) -> None:
        """Releases everything that a job has reserved; called when the job ends."""
        for key in self._held.pop(job_id, ()):
            del self._owners[key]
        self.places.pop(job_id, None)

    def __len__(self) -> int:
        return len(self._owners) + len(self.places)

    def _take(self, job_id: int, kind: str, value: Hashable) -> None:
        self._owners[kind, value] = job_id
        self._held.setdefault(job_id, set()).add((kind, value))


def with_ports(cluster: Cluster, ports: Sequence[int]) -> Cluster:
    """Returns the cluster with ``ports`` in use."""
    return replace(
        cluster,
        tcpudp_port_pool=tuple(port for port in cluster.tcpudp_port_pool if port not in ports),
        highest_used_port=max([cluster.highest_used_port, *ports]),
    )


def without_ports(cluster: Cluster, ports: Sequence[int]) -> Cluster:
    """Returns the cluster with ``ports`` no longer in use, so that they may be given again."""
    pool = {*cluster.tcpudp_port_pool, *ports}
    return replace(cluster, tcpudp_port_pool=tuple(sorted(pool)))


def _kind(kind: str) -> tuple[str, Callable[[Snapshot], Used]]:
    try:
        return RESERVED[kind]
    except KeyError:
        raise ProgrammerError(f"there are no reservations of the kind '{kind}'")


def _normal(kind: str, value: Hashable) -> Hashable:
    return value.lower() if kind == "mac" and isinstance(value, str) else value


def _shown(value: Hashable) -> str:
    return "/".join(map(str, value)) if isinstance(value, tuple) else str(value)
