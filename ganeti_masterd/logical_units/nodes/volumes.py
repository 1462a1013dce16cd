"""OP_NODE_QUERYVOLS: lists the logical volumes on nodes, and the instances that own them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ganeti_masterd.config.objects import Disk
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.locking.levels import Level
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.nodes.finding import by_name
from ganeti_masterd.logical_units.nodes.listing import NodesListing
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


class ListVolumes(NodesListing[NodeQueryVols], runs=NodeQueryVols):
    """Lists volumes, in natural order of nodes, each node's by physical device."""

    known = FIELDS

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
