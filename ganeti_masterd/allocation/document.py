"""The document sent to an allocator: the request, the cluster, its groups, nodes and instances.

The format is version 2 of the iallocator protocol (real daemon 3.0.2): objects by name,
groups by uuid, sizes in MiB. Live data of nodes is passed in as their answers to
``node_info`` and ``all_instances_info``. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from ganeti_masterd.allocation.requests import AllocationRequest, taken_by, template_of
from ganeti_masterd.config.objects import Cluster, Instance, Node, NodeGroup
from ganeti_masterd.config.parameters import effective
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.templates import template_named
from ganeti_masterd.errors import OpExecError
from ganeti_masterd.query.collectors import storage_units
from ganeti_masterd.rpc.interfaces import NodeResult
from ganeti_masterd.rpc.results import NodeInfo, RunningInstance

#: The version of the format.
VERSION = 2


class Questions(Struct, frozen=True):
    """What to ask the nodes before a request is sent: the arguments of two node calls."""

    nodes: tuple[str, ...]
    template: str
    hypervisor: str
    info: Mapping[str, list[Any]]
    instances: list[Any]


class Descriptions:
    """Descriptions of nodes and instances, kept for the next document while nothing has changed.

    A document then costs what has changed since the last one. Not to be used by two threads at
    once. The descriptions must not be changed.
    """

    def __init__(self) -> None:
        self._before: Snapshot | None = None
        self._instances: dict[str, dict[str, Any]] = {}
        #: By uuid: the template, the two answers and the description made from them.
        self._nodes: dict[str, tuple[str, Any, Any, dict[str, Any]]] = {}

    def of(self, snapshot: Snapshot) -> dict[str, dict[str, Any]]:
        """Returns the description of each instance, by name."""
        self._follow(snapshot)
        return dict(self._instances)

    def node(
        self,
        snapshot: Snapshot,
        node: Node,
        template: str,
        info: NodeResult[NodeInfo] | None,
        running: NodeResult[dict[str, RunningInstance]] | None,
    ) -> dict[str, Any]:
        """Returns the description of a node that gave these answers, None for one not asked.

        Raises as :func:`document`.
        """
        self._follow(snapshot)
        kept = self._nodes.get(node.uuid)
        if kept is not None and kept[0] == template and kept[1] is info and kept[2] is running:
            return kept[3]
        live = {}
        if info is not None and running is not None:
            live = _live(snapshot, node, template, info, running)
        described = {**live, **_static(snapshot, node)}
        self._nodes[node.uuid] = template, info, running, described
        return described

    def _follow(self, snapshot: Snapshot) -> None:
        """Forgets what has changed since the last snapshot, and describes instances anew."""
        before = self._before
        if before is snapshot:
            return
        # If describing fails, everything is described anew the next time.
        self._before = None
        if before is None or not same_hosts(before, snapshot):
            self._nodes.clear()
            self._instances = {
                each.name: _instance(snapshot, each) for each in snapshot.instances.values()
            }
        else:
            self._change(before, snapshot)
        self._before = snapshot

    def _change(self, before: Snapshot, snapshot: Snapshot) -> None:
        come = _changed_instances(snapshot, before)
        for each in _changed_instances(before, snapshot):
            self._nodes.pop(each.primary_node, None)
            self._instances.pop(each.name, None)
        for each in come:
            self._nodes.pop(each.primary_node, None)
            self._instances[each.name] = _instance(snapshot, each)


def same_hosts(before: Snapshot, after: Snapshot) -> bool:
    """Whether nodes, groups and the cluster's parameters are the same in two snapshots. Pure.

    Ports that instances take from the cluster don't count.
    """
    return (
        before.nodes is after.nodes
        and before.groups is after.groups
        and (before.cluster is after.cluster or _settled(before) == _settled(after))
    )


def _settled(snapshot: Snapshot) -> Cluster:
    """Returns the cluster without what changes as instances are made."""
    return replace(snapshot.cluster, highest_used_port=0, tcpudp_port_pool=(), serial_no=0, mtime=0)


def _changed_instances(there: Snapshot, other: Snapshot) -> list[Instance]:
    """Returns the instances of one snapshot that are not the same, with their disks, in another."""
    uuids = dict.fromkeys(there.instances.differing(other.instances))
    for disk in there.disks.differing(other.disks):
        found = there.disks.get(disk)
        owner = None if found is None else there.owner_of(found)
        if owner is not None:
            uuids[owner.uuid] = None
    return [there.instances[uuid] for uuid in uuids if uuid in there.instances]


def questions(snapshot: Snapshot, request: AllocationRequest) -> Questions:
    """Returns what to ask the nodes for a request.

    ``info`` are the arguments of ``node_info`` by node (uuid), ``instances`` those of
    ``all_instances_info``, the same for all nodes. Nodes that can't run instances
    aren't asked.
    """
    cluster = snapshot.cluster
    template = request.template_for(snapshot) or cluster.enabled_disk_templates[0]
    hypervisor = request.hypervisor_for(snapshot) or cluster.enabled_hypervisors[0]
    hosts = [node for node in snapshot.nodes.values() if node.vm_capable]
    specs = [[hypervisor, dict(cluster.hvparams.get(hypervisor, {}))]]
    return Questions(
        nodes=tuple(node.uuid for node in hosts),
        template=template,
        hypervisor=hypervisor,
        info={node.uuid: [_units(snapshot, node, template), specs] for node in hosts},
        instances=[
            list(cluster.enabled_hypervisors),
            {name: dict(params) for name, params in cluster.hvparams.items()},
        ],
    )


def document(
    snapshot: Snapshot,
    request: AllocationRequest,
    asked: Questions,
    info: Mapping[str, NodeResult[NodeInfo]],
    instances: Mapping[str, NodeResult[dict[str, RunningInstance]]],
    descriptions: Descriptions | None = None,
) -> dict[str, Any]:
    """Returns the document, given the nodes' answers (by uuid) to the questions ``asked``.

    Raises ``OpExecError`` if a node that isn't marked offline didn't answer, or its answer
    is malformed, and ``OpPrereqError`` like :meth:`AllocationRequest.plain`. ``descriptions``
    are those of earlier documents.
    """
    cluster = snapshot.cluster
    descriptions = descriptions or Descriptions()
    nodes = {}
    for node in snapshot.nodes.values():
        said = None if node.offline else info.get(node.uuid)
        running = None if said is None else instances[node.uuid]
        nodes[node.name] = descriptions.node(snapshot, node, asked.template, said, running)
    return {
        "version": VERSION,
        "cluster_name": cluster.cluster_name,
        "cluster_tags": list(cluster.tags),
        "enabled_hypervisors": list(cluster.enabled_hypervisors),
        "ipolicy": dict(cluster.ipolicy),
        "nodegroups": {group.uuid: _group(cluster, group) for group in snapshot.groups.values()},
        "nodes": nodes,
        "instances": descriptions.of(snapshot),
        "request": request.plain(snapshot),
    }


def _units(snapshot: Snapshot, node: Node, template: str) -> list[list[Any]]:
    """Returns the node's storage units for a template, and spindles with exclusive storage."""
    wanted = {template_named(template).storage}
    if "lvm-vg" in wanted and effective.of_node(snapshot, node).get("exclusive_storage"):
        wanted.add("lvm-pv")
    return [unit for unit in storage_units(snapshot, node) if unit[0] in wanted]


def _group(cluster: Cluster, group: NodeGroup) -> dict[str, Any]:
    return {
        "name": group.name,
        "alloc_policy": group.alloc_policy,
        "networks": list(group.networks),
        "ipolicy": effective.instance_policy(cluster, group),
        "tags": list(group.tags),
    }


def _static(snapshot: Snapshot, node: Node) -> dict[str, Any]:
    return {
        "tags": list(node.tags),
        "primary_ip": node.primary_ip,
        "secondary_ip": node.secondary_ip,
        "offline": node.offline,
        "drained": node.drained,
        "master_candidate": node.master_candidate,
        "group": node.group,
        "master_capable": node.master_capable,
        "vm_capable": node.vm_capable,
        "ndparams": effective.of_node(snapshot, node),
    }


def _live(
    snapshot: Snapshot, node: Node, template: str, info: NodeResult[Any], instances: NodeResult[Any]
) -> dict[str, Any]:
    said = info.require(f"Can't get data for node {node.name}")
    running = instances.require(f"Can't get node instance info from node {node.name}")
    if not said.hypervisors:
        raise OpExecError(f"Node '{node.name}' returned no information about its hypervisor")
    room = said.hypervisors[0]
    memory = _memory(snapshot, node, running)
    return {
        "total_memory": room.memory_total,
        "reserved_memory": room.memory_dom0,
        "free_memory": room.memory_free - memory["missing"],
        **_storage(node, template, said),
        "total_cpus": room.cpu_total,
        "reserved_cpus": room.cpu_dom0,
        "i_pri_memory": memory["all"],
        "i_pri_up_memory": memory["up"],
    }


def _storage(node: Node, template: str, said: NodeInfo) -> dict[str, Any]:
    """Returns the space on a template's storage; zeros if the storage doesn't report it."""
    found: dict[str, Any] = dict.fromkeys(
        ("total_disk", "free_disk", "total_spindles", "free_spindles"), 0
    )
    facts = template_named(template)
    if not facts.reports_room:
        return found
    for unit in said.storage or ():
        if unit.type == facts.storage:
            found |= {"total_disk": unit.storage_size, "free_disk": unit.storage_free}
            break
    else:
        raise OpExecError(
            f"Node '{node.name}' didn't return space info for disk template '{template}'"
        )
    for unit in said.storage or ():
        if unit.type == "lvm-pv":
            found |= {"total_spindles": unit.storage_size, "free_spindles": unit.storage_free}
    return found


def _memory(
    snapshot: Snapshot, node: Node, running: Mapping[str, RunningInstance]
) -> dict[str, int]:
    """Returns the memory of a node's primary instances in MiB: ``all``, ``up`` and ``missing``.

    ``up`` is that of the instances that should be running. ``missing`` is the difference
    between what these may use and what they use now; the node reports it as free.
    """
    found = {"all": 0, "up": 0, "missing": 0}
    for instance in snapshot.instances_on(node):
        most = effective.backend(snapshot.cluster, instance)["maxmem"]
        found["all"] += most
        if instance.admin_state == "up" and not instance.forthcoming:
            found["up"] += most
            here = running.get(instance.name)
            found["missing"] += max(0, most - (here.memory if here is not None else 0))
    return found


def _instance(snapshot: Snapshot, instance: Instance) -> dict[str, Any]:
    backend = effective.backend(snapshot.cluster, instance)
    disks = snapshot.disks_of(instance)
    nics = []
    for nic in instance.nics:
        params = effective.of_nic(snapshot.cluster, nic)
        described = {
            "mac": nic.mac,
            "ip": nic.ip,
            "mode": params["mode"],
            "link": params["link"],
        }
        if params["mode"] == "bridged":
            described["bridge"] = params["link"]
        if nic.network is not None:
            described["network"] = nic.network
        nics.append(described)
    return {
        "tags": list(instance.tags),
        "admin_state": instance.admin_state,
        "vcpus": backend["vcpus"],
        "memory": backend["maxmem"],
        "spindle_use": backend["spindle_use"],
        "os": instance.os,
        "nodes": [
            snapshot.nodes[uuid].name
            for uuid in snapshot.nodes_of(instance)
            if uuid in snapshot.nodes
        ],
        "nics": nics,
        "disks": [
            {"type": disk.dev_type, "size": disk.size, "mode": disk.mode, "spindles": disk.spindles}
            for disk in disks
        ],
        "disk_template": template_of(snapshot, instance),
        "disks_active": instance.disks_active,
        "hypervisor": instance.hypervisor,
        "disk_space_total": taken_by(disks),
    }
