"""OP_NODE_QUERYVOLS: lists the logical volumes on nodes, and the instances that own them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ganeti_masterd.config.objects import Disk, Node
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import prereq
from ganeti_masterd.locking.levels import Level, WantedLocks, all_shared, shared
from ganeti_masterd.logical_units.base import LogicalUnit
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.nodes.finding import by_name, nodes_of
from ganeti_masterd.opcodes.os_storage import NodeQueryVols
from ganeti_masterd.rpc import calls

Volume = Mapping[str, str]

#: The value of each field, from the node's name, the volume in the node's answer, and its owner.
FIELDS: Mapping[str, Callable[[str, Volume, str], str]] = {
    "node": lambda node, volume, owner: node,
    "phys": lambda node, volume, owner: volume["dev"],
    "vg": lambda node, volume, owner: volume["vg"],
    "name": lambda node, volume, owner: volume["name"],
    "size": lambda node, volume, owner: str(int(float(volume["size"]))),
    "instance": lambda node, volume, owner: owner,
}


def is_volume(volume: Volume) -> bool:
    """Returns whether a volume in a node's answer is complete. Pure."""
    try:
        float(volume["size"])
    except (KeyError, ValueError):
        return False
    return volume.keys() >= {"dev", "vg", "name"}


def volume_owners(snapshot: Snapshot) -> dict[tuple[str, str], str]:
    """Returns the instance that owns each volume, by node uuid and ``group/volume``. Pure."""
    owners: dict[tuple[str, str], str] = {}

    def collect(disk: Disk, nodes: tuple[str, ...], name: str) -> None:
        if disk.volume is not None:
            owners.update(((node, disk.volume), name) for node in nodes)
        for child in disk.children:
            collect(child, nodes, name)

    for instance in snapshot.instances.values():
        for disk in snapshot.disks_of(instance):
            collect(disk, disk.all_nodes() or (instance.primary_node,), instance.name)
    return owners


class ListVolumes(LogicalUnit[NodeQueryVols], runs=NodeQueryVols):
    """Lists volumes, in natural order of nodes, each node's by physical device."""

    nodes: tuple[Node, ...] | None

    def expand(self, snapshot: Snapshot) -> None:
        """Refuses unknown fields; finds the nodes."""
        unknown = [field for field in self.op.output_fields if field not in FIELDS]
        if unknown:
            raise prereq(f"Unknown output fields selected: {','.join(unknown)}")
        self.nodes = nodes_of(snapshot, self.op.nodes) if self.op.nodes else None

    def locks(self, level: Level, snapshot: Snapshot) -> WantedLocks:
        """Shares the nodes, or all of them."""
        if level is Level.NODE:
            return all_shared if self.nodes is None else shared(n.uuid for n in self.nodes)
        return super().locks(level, snapshot)

    def exec(self, ctx: Context) -> list[list[Any]]:
        """Returns a row of texts for each volume; nodes that fail are only named in the log."""
        snapshot = ctx.snapshot()
        nodes = by_name(snapshot.nodes[uuid] for uuid in ctx.owned(Level.NODE))
        answers = ctx.call([node.uuid for node in nodes], calls.NODE_VOLUMES)
        owners = volume_owners(snapshot)
        rows: list[list[Any]] = []
        for node in nodes:
            answer = answers[node.uuid]
            if answer.failed or not all(map(is_volume, answer.payload)):
                if not answer.offline:
                    fault = answer.error or "what it says makes no sense"
                    ctx.warning(f"Can't compute volume data on node {node.name}: {fault}")
                continue
            for volume in sorted(answer.payload, key=lambda volume: str(volume["dev"])):
                owner = owners.get((node.uuid, f"{volume['vg']}/{volume['name']}"), "-")
                rows.append([FIELDS[f](node.name, volume, owner) for f in self.op.output_fields])
        return rows
