"""Whether an earlier configuration can come back, and what of it. Pure.

A configuration describes a world that it doesn't make: nodes, their roles and addresses, disks,
running instances. What describes the world's present state is kept as it is now; where
the earlier version contradicts the rest of it, nothing is restored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from ganeti_masterd.config.objects import Cluster, Disk, Instance, Node
from ganeti_masterd.config.section import Section
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.verify import verify

#: What is kept of the cluster: who the master is, its address, and which candidates are known.
KEPT_OF_CLUSTER = (
    *("master_node", "master_ip", "master_netdev", "master_netmask", "primary_ip_family"),
    *("cluster_name", "candidate_certs", "rsahostkeypub", "dsahostkeypub"),
)
#: What is kept of nodes: their addresses and roles.
KEPT_OF_NODES = (
    *("name", "primary_ip", "secondary_ip", "master_candidate", "offline", "drained", "powered"),
    *("master_capable", "vm_capable"),
)


class DiskClaim(Struct, frozen=True):
    """A disk, or a volume below one, on a node: whether it is there, and of this size.

    ``child`` is the index of the volume below the disk, None for the disk itself; ``node`` a uuid;
    ``size`` in MiB. ``wanted``: the restored configuration says that it is there; else only the
    present one does, and it must not be.
    """

    instance: Instance
    disk: Disk
    child: int | None
    node: str
    size: int
    wanted: bool


class PlannedRestore(Struct, frozen=True):
    """What restoring a version would do.

    ``goal`` is the configuration to be. ``refusals`` say why it can't be; ``kept`` what isn't
    restored though it differs; ``claims`` are to be compared with what nodes have.
    """

    goal: Snapshot
    refusals: list[str]
    kept: list[str]
    claims: list[DiskClaim]


def plan_restore(current: Snapshot, earlier: Snapshot) -> PlannedRestore:
    """Compares an earlier configuration with the present one."""
    refusals = list(_foreign(current, earlier))
    if refusals:
        return PlannedRestore(earlier, refusals, [], [])
    refusals += _nodes(current, earlier)
    kept: list[str] = []
    goal = _goal(current, earlier, kept)
    if not refusals:
        known = set(verify(current))
        refusals += [fault for fault in verify(goal) if fault not in known]
    return PlannedRestore(goal, refusals, kept, list(_claims(current, goal)))


def disks_contradict(claim: DiskClaim, node: str, size: int | None) -> str | None:
    """Returns what contradicts a claim, None if nothing does.

    ``node`` is the node's name, ``size`` (MiB) what it says that the disk has, None without one.
    """
    what = f"disk {claim.disk.iv_name or claim.disk.uuid} of instance {claim.instance.name}"
    if claim.wanted and size is None:
        return f"{what} doesn't exist on node {node} any more"
    if claim.wanted and size != claim.size:
        return f"{what} has {size} MiB on node {node} now, it had {claim.size}"
    if not claim.wanted and size is not None:
        return f"{what}, which that version doesn't have, is on node {node}"
    return None


def instances_contradict(
    current: Snapshot, goal: Snapshot, node: str, running: Mapping[str, Any]
) -> Iterator[str]:
    """Yields what contradicts the configuration to be among what runs on a node (a uuid)."""
    name = current.nodes[node].name
    for instance in sorted(running):
        wanted, known = goal.instances.named(instance), current.instances.named(instance)
        if wanted is None and known is not None:
            yield f"instance {instance}, which that version doesn't have, runs on node {name}"
        elif wanted is not None and wanted.primary_node != node and known is not None:
            other = goal.nodes[wanted.primary_node].name
            yield f"instance {instance} runs on node {name}, it was on node {other} then"


def _foreign(current: Snapshot, earlier: Snapshot) -> Iterator[str]:
    if current.cluster.uuid != earlier.cluster.uuid:
        yield f"it is of cluster {earlier.cluster.uuid}, this one is {current.cluster.uuid}"
    if current.header.version != earlier.header.version:
        yield (
            f"it has the format {earlier.header.version}, the configuration now has "
            f"{current.header.version}"
        )


def _nodes(current: Snapshot, earlier: Snapshot) -> Iterator[str]:
    for node in earlier.nodes.values():
        if node.uuid not in current.nodes:
            yield f"node {node.name} was removed from the cluster since"
    for node in current.nodes.values():
        if node.uuid not in earlier.nodes:
            yield f"node {node.name} was added to the cluster since: remove it first"


def _goal(current: Snapshot, earlier: Snapshot, kept: list[str]) -> Snapshot:
    cluster = _cluster(current.cluster, earlier.cluster, kept)
    nodes = {
        uuid: node if uuid not in current.nodes else _node(current.nodes[uuid], node, kept)
        for uuid, node in earlier.nodes.items()
    }
    sections: dict[str, Section[Any]] = {
        "nodes": Section(nodes),
        "nodegroups": earlier.groups,
        "instances": earlier.instances,
        "networks": earlier.networks,
        "disks": earlier.disks,
        "filters": earlier.filters,
    }
    return Snapshot(earlier.header, cluster, sections, earlier.order)


def _cluster(current: Cluster, earlier: Cluster, kept: list[str]) -> Cluster:
    values = _kept(current, earlier, KEPT_OF_CLUSTER, "the cluster", kept)
    # Ports are counted upwards: those given since are free again, in the pool.
    highest = max(current.highest_used_port, earlier.highest_used_port)
    freed = range(earlier.highest_used_port + 1, highest + 1)
    pool = (*earlier.tcpudp_port_pool, *freed)
    return replace(earlier, highest_used_port=highest, tcpudp_port_pool=pool, **values)


def _node(current: Node, earlier: Node, kept: list[str]) -> Node:
    values = _kept(current, earlier, KEPT_OF_NODES, f"node {current.name}", kept)
    return replace(earlier, **values)


def _kept(
    current: Any, earlier: Any, names: tuple[str, ...], what: str, kept: list[str]
) -> dict[str, Any]:
    values = {name: getattr(current, name) for name in names}
    differing = [name for name, value in values.items() if getattr(earlier, name) != value]
    if differing:
        kept.append(f"{what}: {', '.join(name.replace('_', ' ') for name in differing)}")
    return values


def _claims(current: Snapshot, goal: Snapshot) -> Iterator[DiskClaim]:
    """Yields what must be looked at: disks that differ in where they are, or how large."""
    now, then = dict(_places(current)), dict(_places(goal))
    for place, (instance, disk, child, size) in then.items():
        if place not in now or now[place][3] != size:
            yield DiskClaim(instance, disk, child, place[2], size, wanted=True)
    for place, (instance, disk, child, size) in now.items():
        if place not in then:
            yield DiskClaim(instance, disk, child, place[2], size, wanted=False)


_Place = tuple[str, str, str]


def _places(
    snapshot: Snapshot,
) -> Iterator[tuple[_Place, tuple[Instance, Disk, int | None, int]]]:
    """Yields each disk that has its own device on a node, by what it is there called."""
    for instance in snapshot.instances.values():
        if instance.forthcoming:
            continue
        for disk in snapshot.disks_of(instance):
            parts: list[tuple[int | None, Disk]] = [*enumerate(disk.children)] or [(None, disk)]
            for node in disk.all_nodes() or (instance.primary_node,):
                for child, part in parts:
                    key = (part.dev_type, str(part.logical_id), node)
                    yield key, (instance, disk, child, part.size)
