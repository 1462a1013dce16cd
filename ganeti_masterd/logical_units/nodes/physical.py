"""Checks the physical volumes of the cluster's volume group on a new node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ganeti_masterd.config.objects import Node
from ganeti_masterd.config.parameters import effective
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import ECODE_ENVIRON, prereq
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.rpc import calls
from ganeti_masterd.rpc.interfaces import Target

#: The largest allowed relative difference of volume sizes on a node with exclusive storage.
MARGIN = 0.01


def check_physical_volumes(ctx: Context, snapshot: Snapshot, node: Node) -> None:
    """Refuses a node whose volumes can't be used, if the cluster has a volume group.

    Raises ``OpPrereqError`` with ``environment_error``.
    """
    cluster = snapshot.cluster
    if not cluster.volume_group_name:
        return
    exclusive = bool(effective.of_node(snapshot, node).get("exclusive_storage"))
    checks: dict[str, Any] = {"pvlist": [cluster.volume_group_name]}
    if exclusive:
        checks["exclusive-pvs"] = True
    arguments = (checks, cluster.cluster_name, cluster.hvparams)
    answer = ctx.call_one(Target.anyway(node), calls.NODE_VERIFY_LIGHT, arguments)
    payload = answer.require(f"Can't verify storage of node {node.name}", prereq=True)
    found = faults(payload, exclusive=exclusive)
    if found:
        raise prereq(f"Checks on node PVs failed: {'; '.join(found)}", ECODE_ENVIRON)


def faults(verified: Mapping[str, Any], *, exclusive: bool) -> list[str]:
    """Returns what is wrong with a node's physical volumes, given its ``pvlist`` answer. Pure."""
    volumes: Sequence[Mapping[str, Any]] | None = verified.get("pvlist")
    if volumes is None:
        return ["Can't get PV list from node"]
    found = [
        f"Invalid character ':' in PV '{volume['name']}' of VG '{volume['vg_name']}'"
        for volume in volumes
        if ":" in volume["name"]
    ]
    if not exclusive:
        return found
    sizes = [float(volume["size"]) for volume in volumes]
    if sizes and min(sizes) * (1 + MARGIN) < max(sizes) * (1 - MARGIN):
        found.append(f"Sizes of PVs are too different: min={min(sizes):.0f} max={max(sizes):.0f}")
    for name, logical in verified.get("exclusive-pvs") or ():
        found.append(f"PV {name} is shared among unrelated LVs ({', '.join(logical)})")
    return found
