"""What the nodes say: each collector asks all that matter at once, and never fails.

A node that is offline, silent or makes no sense is a status in the answer. No
node can hold an answer for longer than the time-out given.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from twisted.internet.defer import Deferred, gatherResults

from ganeti_masterd.config.objects import Cluster, Instance, Node
from ganeti_masterd.config.parameters import effective
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.templates import template_named
from ganeti_masterd.query.entries import NO_DATA, OFFLINE, Entry
from ganeti_masterd.query.fields import Need
from ganeti_masterd.query.instances import Running, Sighting
from ganeti_masterd.query.listings import ListedExport
from ganeti_masterd.query.nodes import NodeLive
from ganeti_masterd.query.oses import (
    OperatingSystem,
    Provider,
    operating_systems,
    providers,
)
from ganeti_masterd.query.slices import Slices
from ganeti_masterd.rpc import calls
from ganeti_masterd.rpc.declarations import Call
from ganeti_masterd.rpc.door import call_nodes
from ganeti_masterd.rpc.interfaces import INodeRPC, NodeResult, Target
from ganeti_masterd.rpc.results import Console, NodeInfo, RunningInstance

P = TypeVar("P")

#: What one node answers to ``all_instances_info``.
_Instances = dict[str, RunningInstance]

#: How long one node may hold an answer, in seconds.
PATIENCE = 20.0


def failure(result: NodeResult[Any]) -> Entry:
    """Returns the status that stands for a failed call (luxid 3.0.2)."""
    return OFFLINE if result.offline else NO_DATA


class Collectors:
    """Asks the nodes what queries need; reactor thread only."""

    def __init__(self, nodes: INodeRPC, slices: Slices, patience: float = PATIENCE) -> None:
        self._nodes = nodes
        self._slices = slices
        self._patience = patience

    def collect(
        self, needs: Iterable[Need], snapshot: Snapshot, objects: Sequence[Any]
    ) -> Deferred[dict[Need, Any]]:
        """Brings all that is needed for the rows of ``objects``, at the same time."""
        wanted = set(needs)
        parts: list[Deferred[dict[Need, Any]]] = []
        if wanted & {Need.NODE_INFO, Need.NODE_STORAGE}:
            parts.append(self._node_info(snapshot, objects, Need.NODE_STORAGE in wanted))
        if Need.INSTANCE_INFO in wanted:
            parts.append(self._instance_info(snapshot, objects))
        if Need.CONSOLE in wanted:
            parts.append(self._consoles(snapshot, objects))
        gathered: Deferred[list[dict[Need, Any]]] = gatherResults(parts, consumeErrors=True)
        return gathered.addCallback(
            lambda found: {need: data for part in found for need, data in part.items()}
        )

    def exports(self, nodes: Sequence[Node]) -> Deferred[list[ListedExport]]:
        """Brings the exports of ``nodes``, in their order; one row for a node that can't say."""

        def listed(results: Mapping[str, NodeResult[list[str]]]) -> list[ListedExport]:
            rows = []
            for node in nodes:
                result = results[node.uuid]
                if result.failed:
                    rows.append(ListedExport(node.name, failure(result)))
                else:
                    rows += [ListedExport(node.name, name) for name in result.payload]
            return rows

        return self._call(nodes, calls.EXPORT_LIST).addCallback(listed)

    def operating_systems(self, snapshot: Snapshot) -> Deferred[list[OperatingSystem]]:
        """Brings the operating systems of all nodes that may run instances."""
        called = self._call(_hosts(snapshot), calls.OS_DIAGNOSE)
        return called.addCallback(lambda results: operating_systems(snapshot, _payloads(results)))

    def providers(self, snapshot: Snapshot) -> Deferred[list[Provider]]:
        """Brings the external storage providers of all nodes that may run instances."""
        called = self._call(_hosts(snapshot), calls.EXTSTORAGE_DIAGNOSE)
        return called.addCallback(lambda results: providers(snapshot, _payloads(results)))

    def _call(
        self, nodes: Sequence[Node], call: Call[P], arguments: Any = ()
    ) -> Deferred[Mapping[str, NodeResult[P]]]:
        targets = [Target.of(node) for node in nodes]
        return call_nodes(self._nodes, targets, call, arguments, timeout=self._patience)

    def _node_info(
        self, snapshot: Snapshot, nodes: Sequence[Node], storage: bool
    ) -> Deferred[dict[Need, Any]]:
        cluster = snapshot.cluster
        by_uuid = {node.uuid: node for node in nodes}
        name = next(iter(cluster.enabled_hypervisors), None)
        specs = [] if name is None else [[name, dict(cluster.hvparams.get(name, {}))]]

        def arguments(to: Target) -> list[Any]:
            units = storage_units(snapshot, by_uuid[to.key]) if storage else []
            return [units, specs]

        def read(results: Mapping[str, NodeResult[NodeInfo]]) -> dict[Need, Any]:
            live: dict[str, NodeLive | Entry] = {}
            for uuid, result in results.items():
                live[uuid] = failure(result) if result.failed else _node_live(result.payload)
            return {Need.NODE_INFO: live}

        return self._call(list(by_uuid.values()), calls.NODE_INFO, arguments).addCallback(read)

    def _instance_info(
        self, snapshot: Snapshot, instances: Sequence[Instance]
    ) -> Deferred[dict[Need, Any]]:
        hypervisors = sorted({instance.hypervisor for instance in instances})
        arguments = [hypervisors, _hvparams(snapshot.cluster, hypervisors)]
        primaries = _primaries(snapshot, instances)
        primary_of = {instance.name: instance.primary_node for instance in instances}
        found: dict[str, Sighting] = {}
        failed: dict[str, Entry] = {}

        def read_part(
            results: Sequence[tuple[str, NodeResult[_Instances]]],
        ) -> None:
            for uuid, result in results:
                if result.failed:
                    failed[uuid] = failure(result)
                    continue
                for name, info in result.payload.items():
                    # Where it belongs goes before wherever else it is.
                    if name not in found or primary_of.get(name) == uuid:
                        found[name] = Sighting(uuid, info.memory, info.vcpus, info.state)

        def read(results: Mapping[str, NodeResult[_Instances]]) -> Any:
            each = 1 + len(instances) // (len(results) or 1)
            return self._slices.run(list(results.items()), each, read_part)

        def look_elsewhere(_: Any) -> Any:
            missing = [
                instance
                for instance in instances
                if instance.name not in found and instance.primary_node not in failed
            ]
            others = _other_ends(snapshot, missing, {node.uuid for node in primaries})
            if not others:
                return None
            return self._call(others, calls.ALL_INSTANCES_INFO, arguments).addCallback(read)

        asked = self._call(primaries, calls.ALL_INSTANCES_INFO, arguments)
        looked = asked.addCallback(read).addCallback(look_elsewhere)
        return looked.addCallback(lambda _: {Need.INSTANCE_INFO: Running(found, failed)})

    def _consoles(
        self, snapshot: Snapshot, instances: Sequence[Instance]
    ) -> Deferred[dict[Need, Any]]:
        uuids = {instance.name: instance for instance in instances}
        on_node: dict[str, list[Instance]] = {}
        for instance in instances:
            on_node.setdefault(instance.primary_node, []).append(instance)

        def arguments(to: Target) -> list[Any]:
            return [{one.name: console_request(snapshot, one) for one in on_node[to.key]}]

        def read(results: Mapping[str, NodeResult[dict[str, Console]]]) -> dict[Need, Any]:
            consoles: dict[str, Any] = {}
            for uuid, result in results.items():
                if result.failed:
                    consoles |= dict.fromkeys((one.uuid for one in on_node[uuid]), failure(result))
                    continue
                for name, console in result.payload.items():
                    if name in uuids:
                        shown = msgspec.structs.asdict(console).items()
                        consoles[uuids[name].uuid] = {k: v for k, v in shown if v is not None}
            return {Need.CONSOLE: consoles}

        primaries = _primaries(snapshot, instances)
        return self._call(primaries, calls.INSTANCE_CONSOLE_INFO, arguments).addCallback(read)


def storage_units(snapshot: Snapshot, node: Node) -> list[list[Any]]:
    """Returns the storage units that a node is asked for: [type, name, parameters].

    One for each kind that the enabled disk templates use, in their order, and
    the volume group's physical volumes, which count spindles.
    """
    cluster = snapshot.cluster
    group = cluster.volume_group_name
    merged = effective.of_node(snapshot, node)
    exclusive = [bool(merged.get("exclusive_storage", False))]
    units: dict[str, list[Any]] = {}
    for name in cluster.enabled_disk_templates:
        facts = template_named(name)
        if not facts.reports_room:
            continue
        if facts.directory is not None:
            units[facts.storage] = [facts.storage, getattr(cluster, facts.directory), []]
        elif group is not None:
            units[facts.storage] = [facts.storage, group, exclusive]
    if group is not None:
        units["lvm-pv"] = ["lvm-pv", group, exclusive]
    return list(units.values())


def _node_live(info: NodeInfo) -> NodeLive:
    storage = info.storage or []
    return NodeLive(
        boot_id=info.boot_id,
        hypervisor=next(iter(info.hypervisors or ()), None),
        storage=next((one for one in storage if one.type != "lvm-pv"), None),
        spindles=next((one for one in storage if one.type == "lvm-pv"), None),
    )


def _hvparams(cluster: Cluster, names: Iterable[str]) -> dict[str, Any]:
    return {name: dict(cluster.hvparams.get(name, {})) for name in names}


def _primaries(snapshot: Snapshot, instances: Iterable[Instance]) -> list[Node]:
    uuids = dict.fromkeys(instance.primary_node for instance in instances)
    return [snapshot.nodes[uuid] for uuid in uuids if uuid in snapshot.nodes]


def _other_ends(
    snapshot: Snapshot, instances: Iterable[Instance], asked: Collection[str]
) -> list[Node]:
    """Returns the secondary nodes of instances, without those that were asked (uuids)."""
    if len(asked) >= len(snapshot.nodes):
        return []
    ends = dict.fromkeys(
        uuid
        for instance in instances
        for disk in snapshot.disks_of(instance)
        if disk.template.internal
        for uuid in disk.all_nodes()
    )
    return [snapshot.nodes[uuid] for uuid in ends if uuid not in asked and uuid in snapshot.nodes]


def _hosts(snapshot: Snapshot) -> list[Node]:
    return [node for node in snapshot.nodes.values() if node.vm_capable and not node.offline]


def _payloads(results: Mapping[str, NodeResult[P]]) -> dict[str, P]:
    """Returns the payloads of the nodes that gave one."""
    return {uuid: result.payload for uuid, result in results.items() if not result.failed}


def console_request(snapshot: Snapshot, instance: Instance) -> dict[str, Any]:
    """Returns what a node must know to say where an instance's console is.

    The group's node parameters are filled in from the cluster: a node reads the port of SSH
    there.
    """
    node = snapshot.nodes[instance.primary_node]
    group = snapshot.group_of(node)
    return {
        "instance": msgspec.json.decode(instance.encoded),
        "node": msgspec.json.decode(node.encoded),
        "group": {
            **msgspec.json.decode(group.encoded),
            "ndparams": effective.node_group(snapshot.cluster, group),
        },
        "hvParams": effective.hypervisor(snapshot.cluster, instance),
        "beParams": effective.backend(snapshot.cluster, instance),
    }
