"""The request of ``node_verify`` that a verification sends to nodes. Pure.

See protocol/rpc.rst, Payloads.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import cycle
from typing import Any

from ganeti_masterd.config.objects import Instance, Node
from ganeti_masterd.config.parameters import effective
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.logical_units.verification.configuration import hypervisor_parameters
from ganeti_masterd.logical_units.verification.files import MASTER_IP_SCRIPT, VerifiedFiles


def request(
    snapshot: Snapshot,
    nodes: Sequence[Node],
    instances: Sequence[Instance],
    files: VerifiedFiles,
    root: str,
    *,
    clutter: bool = False,
) -> dict[str, Any]:
    """Returns the request for the nodes of a group; ``instances`` are their primary ones.

    ``root`` is the master's. With ``clutter`` nodes also look for superfluous SSH keys.
    """
    cluster = snapshot.cluster
    online = [node for node in nodes if not node.offline]
    candidates = sorted(node.name for node in online if node.master_candidate)
    asked: dict[str, Any] = {
        "filelist": files.paths(root),
        "nodelist": ssh_partners(snapshot, online),
        "hypervisor": list(cluster.enabled_hypervisors),
        "hvparms": [list(row) for row in hypervisor_parameters(snapshot, instances)],
        "node-net-test": [
            [[node.name, node.primary_ip, node.secondary_ip] for node in online],
            candidates,
        ],
        "instancelist": list(cluster.enabled_hypervisors),
        "version": None,
        "hvinfo": cluster.enabled_hypervisors[0],
        "nodesetup": None,
        "time": None,
        "master-ip": [snapshot.master.name, cluster.master_ip, candidates],
        "oslist": None,
        "nonvmnodes": [n.name for n in snapshot.nodes.values() if not n.vm_capable],
        "user-scripts": [root + MASTER_IP_SCRIPT] if cluster.use_external_mip_script else [],
        "client-cert": None,
    }
    if cluster.modify_ssh_setup:
        asked["ssh-setup"] = [_ssh_states(snapshot), cluster.ssh_key_type]
        if clutter:
            asked["ssh-clutter"] = True
    asked |= _storage(snapshot, nodes)
    if bridges := bridges_of(snapshot, instances):
        asked["bridges"] = bridges
    if programs := _programs(snapshot):
        asked["oob-paths"] = programs
    return asked


def bridges_of(snapshot: Snapshot, instances: Collection[Instance]) -> list[str]:
    """Returns the bridges that NICs need: the cluster's default, and those of the instances."""
    used = [dict(snapshot.cluster.nicparams.get("default", {}))]
    used += [effective.of_nic(snapshot.cluster, nic) for one in instances for nic in one.nics]
    return sorted({filled["link"] for filled in used if filled.get("mode") == "bridged"})


def exclusive_storage(snapshot: Snapshot, nodes: Collection[Node]) -> bool:
    """Returns whether any node of a group has exclusive storage."""
    return any(effective.of_node(snapshot, node).get("exclusive_storage") for node in nodes)


def ssh_partners(snapshot: Snapshot, online: Sequence[Node]) -> list[Any]:
    """Returns which nodes try to reach which others by SSH.

    That is: the group's nodes; for each node further ones, one of each other group; and the
    candidates, which are the only ones that try.
    """
    own = {node.group for node in online}
    groups: dict[str, list[str]] = {}
    for node in snapshot.nodes.values():
        if node.group not in own and not node.offline:
            groups.setdefault(node.group, []).append(node.name)
    turns = [cycle(sorted(names)) for _, names in sorted(groups.items())]
    names = sorted(node.name for node in online)
    return [
        names,
        {name: sorted(next(turn) for turn in turns) for name in names},
        sorted(node.name for node in online if node.master_candidate),
    ]


def _ssh_states(snapshot: Snapshot) -> list[list[Any]]:
    """Returns for every node: uuid, name, and whether candidate, potential one, and online."""
    return [
        [node.uuid, node.name, node.master_candidate, True, not node.offline]
        for node in snapshot.nodes.values()
    ]


def _storage(snapshot: Snapshot, nodes: Sequence[Node]) -> dict[str, Any]:
    cluster = snapshot.cluster
    asked: dict[str, Any] = {}
    group = cluster.volume_group_name
    if group is not None:
        asked |= {"vglist": None, "lvlist": group, "pvlist": [group]}
    if "drbd" in cluster.enabled_disk_templates and cluster.drbd_usermode_helper:
        asked |= {
            "drbd-version": None,
            "drbd-list": None,
            "drbd-helper": cluster.drbd_usermode_helper,
        }
    by_template = {
        "file": ("file-storage-path", cluster.file_storage_dir),
        "sharedfile": ("shared-file-storage-path", cluster.shared_file_storage_dir),
    }
    for template, (key, path) in by_template.items():
        if template in cluster.enabled_disk_templates:
            asked["allowed-file-storage-paths"] = snapshot.master.name
            asked[key] = path
    if exclusive_storage(snapshot, nodes):
        asked["exclusive-pvs"] = True
    return asked


def _programs(snapshot: Snapshot) -> list[str]:
    """Returns the out-of-band programs of all nodes, which the master runs for them."""
    found = (effective.of_node(snapshot, n).get("oob_program") for n in snapshot.nodes.values())
    return sorted({path for path in found if path})
