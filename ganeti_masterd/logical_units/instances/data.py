"""OP_INSTANCE_QUERY_DATA: all about instances, for ``gnt-instance info``.

The form of the result is that of real daemon 3.0.2. Configuration is read off one snapshot, so
that no locks are needed; nodes are asked all at once (docs/differences.rst, Instances).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from msgspec import Struct

from ganeti_masterd.config.objects import Disk, Instance, Nic, hide_secret
from ganeti_masterd.config.parameters import effective
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.ssconf import natural
from ganeti_masterd.config.templates import summary_name
from ganeti_masterd.logical_units.base import LogicalUnit
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.instances.base import SHUT_DOWN
from ganeti_masterd.logical_units.instances.power import stopped_by_user
from ganeti_masterd.logical_units.steps import node_objects
from ganeti_masterd.opcodes.instances import InstanceQueryData
from ganeti_masterd.rpc import calls
from ganeti_masterd.rpc.interfaces import Target
from ganeti_masterd.rpc.results import DeviceStatus, InstanceInfo, RunningInstance

#: Seconds for a node to say how one device is.
PATIENCE = 60.0


class ShownDevice(NamedTuple):
    """A disk of an instance, or one of the volumes below it (``child`` is its index)."""

    instance: Instance
    disk: Disk
    child: int | None

    @property
    def uuid(self) -> str:
        """What its statuses are kept by."""
        found = self.disk if self.child is None else self.disk.children[self.child]
        return found.uuid


class Observed(Struct):
    """What nodes say of instances and devices.

    ``running`` maps nodes (uuids) to what runs there; those that said nothing are missing.
    ``devices`` maps (uuid of the disk, of the node) to a status, None where a node hasn't got
    it. Of a static description both are empty.
    """

    running: dict[str, Mapping[str, RunningInstance]] = {}
    devices: dict[tuple[str, str], DeviceStatus | None] = {}


class DescribeInstances(LogicalUnit[InstanceQueryData], runs=InstanceQueryData):
    """Tells all about instances. Holds no locks: what is described is one state."""

    #: The uuids of the instances that were asked for by name.
    named: tuple[str, ...]

    def expand(self, snapshot: Snapshot) -> None:
        """Finds the instances."""
        found = [snapshot.instance(name).uuid for name in self.op.instances]
        self.named = tuple(dict.fromkeys(found))

    def exec(self, ctx: Context) -> dict[str, dict[str, Any]]:
        """Returns a description of each instance by its name."""
        snapshot = ctx.snapshot()
        chosen = [snapshot.find("instance", uuid) for uuid in self.named]
        if not self.op.instances:
            by_name = {instance.name: instance for instance in snapshot.instances.values()}
            chosen = [by_name[name] for name in natural(by_name)]
        observed = Observed() if self.op.static else observe(ctx, snapshot, chosen)
        return {instance.name: describe(snapshot, instance, observed) for instance in chosen}


def observe(ctx: Context, snapshot: Snapshot, instances: Sequence[Instance]) -> Observed:
    """Asks the nodes of instances what runs there, and how their disks are.

    All nodes at once. One that fails is warned of and left out; so is a device that it can't
    tell of.
    """
    made = [instance for instance in instances if not instance.forthcoming]
    for instance in made:
        primary = snapshot.nodes[instance.primary_node]
        if primary.offline:
            ctx.warning(
                f"Primary node {primary.name} is marked offline, returning static information "
                f"only for instance {instance.name}"
            )
    observed = Observed(running=_running(ctx, snapshot, made))
    for instance in made:
        _warn_if_elsewhere(ctx, snapshot, instance, observed)
    wanted: dict[str, list[ShownDevice]] = {node: [] for node in observed.running}
    for instance in made:
        for device in _devices(snapshot, instance):
            for node in _nodes_of(instance, device.disk):
                if node in wanted:
                    wanted[node].append(device)
    for turn in range(max(map(len, wanted.values()), default=0)):
        _find(
            ctx,
            snapshot,
            {n: asked[turn] for n, asked in wanted.items() if turn < len(asked)},
            observed,
        )
    return observed


def _running(
    ctx: Context, snapshot: Snapshot, instances: Iterable[Instance]
) -> dict[str, Mapping[str, RunningInstance]]:
    hypervisors: dict[str, list[str]] = {}
    for instance in instances:
        for node in snapshot.nodes_of(instance):
            known = hypervisors.setdefault(node, [])
            if not snapshot.nodes[node].offline and instance.hypervisor not in known:
                known.append(instance.hypervisor)

    def arguments(target: Target) -> tuple[Any, Any]:
        names = hypervisors[target.key]
        return names, {name: dict(snapshot.cluster.hvparams.get(name, {})) for name in names}

    asked = [node for node, names in hypervisors.items() if names]
    found: dict[str, Mapping[str, RunningInstance]] = {}
    for node, answer in ctx.call(asked, calls.ALL_INSTANCES_INFO, arguments).items():
        if answer.failed:
            ctx.warning(
                f"Error checking node {answer.node}, nothing live is told from there: "
                f"{answer.error}"
            )
        else:
            found[node] = answer.payload
    return found


def _warn_if_elsewhere(
    ctx: Context, snapshot: Snapshot, instance: Instance, observed: Observed
) -> None:
    """Warns of an instance that another node runs, and its primary node doesn't know."""
    if instance.name in observed.running.get(instance.primary_node, {instance.name: None}):
        return
    for node in snapshot.nodes_of(instance)[1:]:
        if instance.name in observed.running.get(node, ()):
            ctx.warning(
                f"Instance {instance.name} runs on node {snapshot.nodes[node].name}, which is not "
                f"its primary node {snapshot.nodes[instance.primary_node].name}"
            )


def _devices(snapshot: Snapshot, instance: Instance) -> list[ShownDevice]:
    return [
        ShownDevice(instance, disk, child)
        for disk in snapshot.disks_of(instance)
        for child in (None, *range(len(disk.children)))
    ]


def _nodes_of(instance: Instance, disk: Disk) -> tuple[str, ...]:
    """The primary node, and of a mirror the other one."""
    secondary = _secondary(instance, disk)
    return (instance.primary_node,) if secondary is None else (instance.primary_node, secondary)


def _secondary(instance: Instance, disk: Disk) -> str | None:
    ends = disk.all_nodes() if disk.template.internal else ()
    return next((node for node in ends if node != instance.primary_node), None)


def _find(
    ctx: Context, snapshot: Snapshot, wanted: Mapping[str, ShownDevice], observed: Observed
) -> None:
    """Asks each node for one device."""

    def arguments(target: Target) -> tuple[Any]:
        instance, disk, child = wanted[target.key]
        if child is None:
            return (node_objects.disk(snapshot, disk, instance, target.key),)
        return (node_objects.disk_child(snapshot, disk, child, instance, target.key),)

    answers = ctx.call(wanted, calls.BLOCKDEV_FIND, arguments, timeout=PATIENCE)
    for node, answer in answers.items():
        device = wanted[node]
        if answer.failed:
            ctx.warning(
                f"Can't compute disk status for {device.instance.name} ({device.disk.iv_name}) on "
                f"node {answer.node}: {answer.error}"
            )
        else:
            observed.devices[device.uuid, node] = answer.payload


def describe(snapshot: Snapshot, instance: Instance, observed: Observed) -> dict[str, Any]:
    """Returns all about an instance, private and secret OS parameters left out. Pure."""
    cluster = snapshot.cluster
    disks = snapshot.disks_of(instance)
    nodes = [snapshot.nodes[uuid] for uuid in snapshot.nodes_of(instance) if uuid]
    groups = [snapshot.group_of(node) for node in nodes]
    return {
        "name": instance.name,
        "config_state": instance.admin_state,
        "run_state": run_state(snapshot, instance, observed),
        "pnode": nodes[0].name if nodes else None,
        "pnode_group_uuid": groups[0].uuid if groups else None,
        "pnode_group_name": groups[0].name if groups else None,
        "snodes": [node.name for node in nodes[1:]],
        "snodes_group_uuids": [group.uuid for group in groups[1:]],
        "snodes_group_names": [group.name for group in groups[1:]],
        "os": instance.os,
        "nics": [_nic(snapshot, nic) for nic in instance.nics],
        "disk_template": summary_name(disk.dev_type for disk in disks),
        "disks": [_disk(snapshot, instance, disk, None, observed) for disk in disks],
        "hypervisor": instance.hypervisor,
        "network_port": instance.network_port,
        "hv_instance": dict(instance.hvparams),
        "hv_actual": effective.own_hypervisor(cluster, instance),
        "be_instance": dict(instance.beparams),
        "be_actual": effective.backend(cluster, instance),
        "os_instance": dict(instance.osparams),
        "os_actual": effective.of_os(cluster, instance),
        "serial_no": instance.serial_no,
        "mtime": instance.mtime,
        "ctime": instance.ctime,
        "uuid": instance.uuid,
    }


def run_state(snapshot: Snapshot, instance: Instance, observed: Observed) -> str | None:
    """Returns what an instance does: up, down, user down or offline; None if unknown. Pure."""
    running = observed.running.get(instance.primary_node)
    if running is None:
        return None
    found = running.get(instance.name)
    if found is None:
        if instance.admin_state == "down" and instance.admin_state_source == "user":
            return "user down"
        return "offline" if instance.admin_state == "offline" else "down"
    if found.state != SHUT_DOWN:
        return "up"
    info = InstanceInfo(found.memory, found.vcpus, found.state, found.time)
    allowed = snapshot.cluster.enabled_user_shutdown
    return "user down" if allowed and stopped_by_user(snapshot, instance, info) else "down"


def _nic(snapshot: Snapshot, nic: Nic) -> list[Any]:
    filled = effective.of_nic(snapshot.cluster, nic)
    parameters = [filled.get(name) for name in ("mode", "link", "vlan")]
    network = node_objects.nic(snapshot, nic).get("netinfo")
    return [nic.name, nic.uuid, nic.ip, nic.mac, *parameters, nic.network, network]


def _disk(
    snapshot: Snapshot, instance: Instance, disk: Disk, parent: Disk | None, observed: Observed
) -> dict[str, Any]:
    secondary = _secondary(instance, disk if parent is None else parent)
    logical_id = None if disk.logical_id is None else list(disk.logical_id)
    mirror = None
    if disk.template.port_and_minors and logical_id is not None:
        minors = {logical_id[0]: logical_id[3], logical_id[1]: logical_id[4]}
        mirror = {
            "primary_node": _name(snapshot, instance.primary_node),
            "primary_minor": minors.get(instance.primary_node),
            "secondary_node": _name(snapshot, secondary),
            "secondary_minor": minors.get(secondary),
            "port": logical_id[2],
        }
        logical_id = hide_secret(logical_id, None)
    return {
        "iv_name": disk.iv_name,
        "dev_type": disk.dev_type,
        "logical_id": logical_id,
        "drbd_info": mirror,
        "pstatus": _status(observed, disk, instance.primary_node),
        "sstatus": _status(observed, disk, secondary),
        "children": [_disk(snapshot, instance, child, disk, observed) for child in disk.children],
        "mode": disk.mode,
        "size": disk.size,
        "spindles": disk.spindles,
        "name": disk.name,
        "uuid": disk.uuid,
    }


def _name(snapshot: Snapshot, node: str | None) -> str | None:
    return None if node is None else snapshot.nodes[node].name


def _status(observed: Observed, disk: Disk, node: str | None) -> list[Any] | None:
    found = None if node is None else observed.devices.get((disk.uuid, node))
    if found is None:
        return None
    return [
        found.dev_path,
        found.major,
        found.minor,
        found.sync_percent,
        found.estimated_time,
        found.is_degraded,
        found.ldisk_status,
    ]
