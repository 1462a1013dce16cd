"""What simulated nodes hold, compared with what the configuration says that they hold."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from os.path import dirname

from msgspec import Struct

from ganeti_masterd.config.objects import Disk, Instance
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.simulation.cluster import SimulatedNodes
from ganeti_masterd.simulation.devices import device_path
from ganeti_masterd.simulation.pairing import end_key
from tests.logical_units.world import World

#: In place of a node's name, for storage that all nodes share.
SHARED = "shared storage"

#: What a warning says where the disks of an instance that is down are left ready, in few words.
LEFT_READY = "Not shutting down the disk"

#: What a warning says of a disk that could not be removed, wherever it is.
NOT_REMOVED = "Could not remove"

#: What a warning says where an instance is forgotten that a node may still run.
LEFT_RUNNING = "can't shutdown instance"


class Difference(Struct, frozen=True, order=True):
    """One thing that is not as configured: at which node, what it is, and whose (or of nobody).

    ``kind`` is one of ``stray``, ``missing`` (devices and directories), ``assembled``,
    ``unassembled`` (ends of mirrors), ``runs``, ``stopped`` (instances).
    """

    kind: str
    node: str
    what: str
    instance: str = ""

    def is_told_in(self, lines: Collection[str]) -> bool:
        """Whether a line tells of it.

        One with the node's name; for an instance, and what that lacks, with the instance's name.
        """
        said = {"assembled": LEFT_READY, "runs": LEFT_RUNNING}.get(self.kind)
        if self.node == SHARED:
            said = NOT_REMOVED
        if said is not None and any(said in line for line in lines):
            return True
        named = (self.node, self.what)
        if self.kind in ("runs", "stopped"):
            named = (self.instance,)
        elif self.kind == "missing":
            named = (self.node, self.what, self.instance)
        return any(name and name in line for line in lines for name in named)


def differences(world: World, *, spared: Collection[str] = ()) -> set[Difference]:
    """Returns all differences; ``spared`` are paths of devices that belong to nobody by intent."""
    nodes, now = world.nodes, world.now
    nodes.world.settle()
    return {
        each
        for each in (*_devices(nodes, now), *_directories(nodes, now), *_ends(nodes, now))
        if each.what not in spared
    } | set(_running(nodes, now))


def leaks(now: Snapshot) -> list[str]:
    """Returns ports that are neither free nor used, and addresses of networks without a NIC."""
    cluster = now.cluster
    used = {port for disk in now.disks.values() for port in disk.ports()}
    used |= {one.network_port for one in now.instances.values() if one.network_port}
    known = set(range(11000, cluster.highest_used_port + 1))
    found = [
        f"port {port} is lost" for port in sorted(known - used - set(cluster.tcpudp_port_pool))
    ]
    found += [
        f"port {port} is free and used" for port in sorted(used & set(cluster.tcpudp_port_pool))
    ]
    for network in now.networks.values():
        held = sum(
            nic.network == network.uuid and nic.ip is not None
            for one in now.instances.values()
            for nic in one.nics
        )
        taken = (network.reservations or "").count("1")
        if held != taken:
            found.append(f"network {network.name}: {taken} addresses taken, {held} used")
    owned = {uuid for one in now.instances.values() for uuid in one.disks}
    found += [f"disk {uuid} is detached" for uuid in sorted(set(now.disks) - owned)]
    return found


def _owned(now: Snapshot) -> Iterator[tuple[Instance, Disk]]:
    for instance in now.instances.values():
        if not instance.forthcoming:
            for disk in now.disks_of(instance):
                yield instance, disk


def _expected(nodes: SimulatedNodes, now: Snapshot) -> dict[tuple[str, str], str]:
    """Returns the devices that are to be there: (node, path) and the instance."""
    found = {}
    for instance, disk in _owned(now):
        if disk.template.only_adopts:
            continue
        for part in disk.children or (disk,):
            for uuid in disk.all_nodes() or (instance.primary_node,):
                node = nodes.node(now.nodes[uuid].name)
                sent = {"dev_type": part.dev_type, "logical_id": part.logical_id}
                local = part.template.lvm or part.dev_type == "file"
                path = device_path(node, sent)  # type: ignore[arg-type]
                found[node.name if local else SHARED, path] = instance.name
    return found


def _devices(nodes: SimulatedNodes, now: Snapshot) -> Iterator[Difference]:
    expected = _expected(nodes, now)
    there = {(SHARED, path) for path, _ in nodes.cluster.volumes.items()}
    for node in now.nodes.values():
        there |= {(node.name, path) for path, _ in nodes.node(node.name).state.devices.items()}
    for name, path in there - set(expected):
        yield Difference("stray", name, path)
    for (name, path), instance in expected.items():
        if (name, path) not in there:
            yield Difference("missing", name, path, instance)


def _directories(nodes: SimulatedNodes, now: Snapshot) -> Iterator[Difference]:
    used = {
        (
            now.nodes[instance.primary_node].name if disk.dev_type == "file" else SHARED,
            dirname(str(disk.logical_id[1])),
        )
        for instance, disk in _owned(now)
        if disk.template.directory and disk.logical_id
    }
    shelves = [(node.name, nodes.node(node.name).state.directories) for node in now.nodes.values()]
    for name, shelf in (*shelves, (SHARED, nodes.cluster.directories)):
        for path, _ in shelf.items():
            if (name, path) not in used and path.count("/") > 3:
                yield Difference("stray", name, path)


def _ends(nodes: SimulatedNodes, now: Snapshot) -> Iterator[Difference]:
    expected = {
        (now.nodes[uuid].name, minor): instance
        for instance, disk in _owned(now)
        for uuid, minor in disk.minors()
    }
    names = {node.name for node in now.nodes.values()}
    there = set()
    for key, end in nodes.cluster.ends.items():
        if end.configured and end_key(key)[0] in names:
            there.add(end_key(key))
    for name, minor in there:
        owner = expected.get((name, minor))
        if owner is None or not owner.disks_active:
            of = owner.name if owner is not None else ""
            yield Difference("assembled", name, f"minor {minor}", of)
    for (name, minor), instance in expected.items():
        if instance.disks_active and (name, minor) not in there:
            yield Difference("unassembled", name, f"minor {minor}", instance.name)


def _running(nodes: SimulatedNodes, now: Snapshot) -> Iterator[Difference]:
    for node in now.nodes.values():
        for name, _ in nodes.node(node.name).state.instances.items():
            owner = now.instances.named(name)
            if owner is None or owner.primary_node != node.uuid or owner.admin_state != "up":
                yield Difference("runs", node.name, name, name)
    for instance in now.instances.values():
        node = now.nodes[instance.primary_node]
        running = nodes.node(node.name).state.instances.get(instance.name) is not None
        if instance.admin_state == "up" and not running:
            yield Difference("stopped", node.name, instance.name, instance.name)
