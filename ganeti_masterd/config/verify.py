"""Consistency checks of a whole configuration.

Faults are logged when the configuration is loaded, and reported by
``OP_CLUSTER_VERIFY_CONFIG``. A configuration with faults is still used; it is for the
operator to mend it.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from ganeti_masterd.config.changes import describe
from ganeti_masterd.config.kinds import SECTIONS
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.tags import check_tag
from ganeti_masterd.constants import MAX_TAGS_PER_OBJ
from ganeti_masterd.errors import TagError

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)

#: Node parameters that only a group or the cluster may set.
_GLOBAL_NODE_PARAMETERS = frozenset({"exclusive_storage"})


def verify(snapshot: Snapshot) -> list[str]:
    """Returns a description of each fault of the configuration; empty if there are none."""
    return [fault for check in CHECKS for fault in check(snapshot)]


def candidate_counts(snapshot: Snapshot) -> tuple[int, int]:
    """Returns how many master candidates there are, and how many there should be.

    There should be ``candidate_pool_size``, or all nodes that can be one (capable,
    neither offline nor drained) if these are fewer.
    """
    now = sum(node.master_candidate for node in snapshot.nodes.values())
    possible = sum(
        node.master_capable and not node.offline and not node.drained
        for node in snapshot.nodes.values()
    )
    return now, min(snapshot.cluster.candidate_pool_size, max(possible, now))


def _everything(snapshot: Snapshot) -> Iterator[tuple[str, Any]]:
    yield "cluster", snapshot.cluster
    for key in SECTIONS:
        for obj in snapshot.section(key).values():
            yield key, obj


def _objects(snapshot: Snapshot) -> Iterator[str]:
    """Serials, tags and uuids of every object."""
    seen: Counter[str] = Counter()
    for key, obj in _everything(snapshot):
        what = describe(key, obj)
        seen[obj.uuid] += 1
        if getattr(obj, "serial_no", 1) < 1:
            yield f"{what} has the serial number {obj.serial_no}"
        tags = getattr(obj, "tags", ())
        if len(tags) > MAX_TAGS_PER_OBJ:
            yield f"{what} has {len(tags)} tags, {MAX_TAGS_PER_OBJ} are allowed"
        for tag in tags:
            try:
                check_tag(tag)
            except TagError as error:
                yield f"{what} has the invalid tag '{tag}': {error}"
    if snapshot.header.serial_no < 1:
        yield f"the configuration has the serial number {snapshot.header.serial_no}"
    for uuid, count in seen.items():
        if count > 1:
            yield f"the uuid '{uuid}' is used by {count} objects"
        if not uuid:
            yield "an object has an empty uuid"


def _names(snapshot: Snapshot) -> Iterator[str]:
    for key in (key for key, kind in SECTIONS.items() if kind.unique_names):
        counts = Counter(obj.name for obj in snapshot.section(key).values())
        for name, count in counts.items():
            if count > 1:
                yield f"the name '{name}' is used by {count} objects in '{key}'"
            if not name:
                yield f"an object in '{key}' has an empty name"


def _nodes(snapshot: Snapshot) -> Iterator[str]:
    for node in snapshot.nodes.values():
        if node.group not in snapshot.groups:
            yield f"node '{node.name}' is in group '{node.group}', which does not exist"
        if [node.master_candidate, node.drained, node.offline].count(True) > 1:
            yield (
                f"node '{node.name}' has more than one of the states master candidate"
                f" ({node.master_candidate}), drained ({node.drained}), offline ({node.offline})"
            )
        if wrong := _GLOBAL_NODE_PARAMETERS.intersection(node.ndparams):
            yield f"node '{node.name}' sets parameters of its group: {', '.join(sorted(wrong))}"


def _candidates(snapshot: Snapshot) -> Iterator[str]:
    master = snapshot.nodes.get(snapshot.cluster.master_node)
    if master is None:
        yield f"the master node '{snapshot.cluster.master_node}' does not exist"
    elif not master.master_candidate:
        yield "Master node is not a master candidate"
    now, wanted = candidate_counts(snapshot)
    if now < wanted:
        # The real daemon's words: gnt-node shows them while the pool is too small.
        yield f"Not enough master candidates: actual {now}, target {wanted}"


def _groups(snapshot: Snapshot) -> Iterator[str]:
    if not snapshot.groups:
        yield "there is no node group"
    for group in snapshot.groups.values():
        if _UUID.fullmatch(group.name):
            yield f"node group '{group.name}' has a name that looks like a uuid"
        for uuid in group.networks:
            if uuid not in snapshot.networks:
                yield f"node group '{group.name}' has network '{uuid}', which does not exist"


def _instances(snapshot: Snapshot) -> Iterator[str]:
    for instance in snapshot.instances.values():
        what = f"instance '{instance.name}'"
        if instance.primary_node not in snapshot.nodes and not (
            instance.forthcoming and not instance.primary_node
        ):
            yield f"{what} has primary node '{instance.primary_node}', which does not exist"
        for uuid in instance.disks:
            if uuid not in snapshot.disks:
                yield f"{what} has disk '{uuid}', which does not exist"
        for uuid in snapshot.nodes_of(instance)[1:]:
            if uuid not in snapshot.nodes:
                yield f"{what} has secondary node '{uuid}', which does not exist"
        for index, nic in enumerate(instance.nics):
            if nic.network and nic.network not in snapshot.networks:
                yield f"{what} has NIC {index} on network '{nic.network}', which does not exist"
        for index, disk in enumerate(snapshot.disks_of(instance)):
            if disk.iv_name != f"disk/{index}":
                yield f"{what} has a disk {index} that is named '{disk.iv_name}'"


def _disks(snapshot: Snapshot) -> Iterator[str]:
    owners: dict[str, list[str]] = defaultdict(list)
    for instance in snapshot.instances.values():
        for uuid in instance.disks:
            owners[uuid].append(instance.name)
    for uuid, names in owners.items():
        if len(names) > 1:
            yield f"disk '{uuid}' is attached more than once: {', '.join(names)}"
    for disk in snapshot.disks.values():
        if disk.size < 0:
            yield f"disk '{disk.uuid}' has the size {disk.size}"


def _macs(snapshot: Snapshot) -> Iterator[str]:
    owners: dict[str, list[str]] = defaultdict(list)
    for instance in snapshot.instances.values():
        for nic in instance.nics:
            owners[nic.mac.lower()].append(instance.name)
    for mac, names in owners.items():
        if len(names) > 1:
            yield f"MAC address {mac} is used more than once: {', '.join(names)}"


def _ports(snapshot: Snapshot) -> Iterator[str]:
    cluster = snapshot.cluster
    owners: dict[int, list[str]] = defaultdict(list)
    for port in cluster.tcpudp_port_pool:
        owners[port].append("the pool of free ports")
    for instance in snapshot.instances.values():
        if instance.network_port:
            owners[instance.network_port].append(f"instance '{instance.name}'")
    for disk in snapshot.disks.values():
        for port in disk.ports():
            owners[port].append(f"disk '{disk.uuid}'")
    for port, names in sorted(owners.items()):
        if len(names) > 1:
            yield f"port {port} is used more than once: {', '.join(names)}"
    if owners and max(owners) > cluster.highest_used_port:
        yield f"port {max(owners)} is in use, the highest is said to be {cluster.highest_used_port}"


def _minors(snapshot: Snapshot) -> Iterator[str]:
    owners: dict[tuple[str, int], list[str]] = defaultdict(list)
    for disk in snapshot.disks.values():
        for pair in disk.minors():
            owners[pair].append(disk.uuid)
    for (node, minor), uuids in owners.items():
        if len(uuids) > 1:
            yield f"DRBD minor {minor} of node '{node}' is used by disks {', '.join(uuids)}"


def _addresses(snapshot: Snapshot) -> Iterator[str]:
    owners: dict[str, list[str]] = defaultdict(list)
    owners[snapshot.cluster.master_ip].append("the cluster")
    for node in snapshot.nodes.values():
        for address in {node.primary_ip, node.secondary_ip}:
            owners[address].append(f"node '{node.name}'")
    defaults = snapshot.cluster.nicparams.get("default", {})
    for instance in snapshot.instances.values():
        for index, nic in enumerate(instance.nics):
            if nic.ip:
                params = {**defaults, **nic.nicparams}
                # The same address may occur on several links, or in several networks.
                place = f"{params.get('mode')}:{params.get('link')}/{nic.ip}/{nic.network or '-'}"
                owners[place].append(f"instance '{instance.name}' NIC {index}")
    for address, names in owners.items():
        if len(names) > 1:
            yield f"IP address {address} is used more than once: {', '.join(names)}"


#: Each checks one aspect and yields its faults; :func:`verify` runs all of them in this order.
CHECKS: tuple[Callable[[Snapshot], Iterator[str]], ...] = (
    _objects,
    _names,
    _nodes,
    _candidates,
    _groups,
    _instances,
    _disks,
    _macs,
    _ports,
    _minors,
    _addresses,
)
