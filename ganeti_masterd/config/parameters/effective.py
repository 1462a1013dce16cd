"""Parameters as they take effect: the cluster's, overlaid by those of narrower objects.

Every function returns a new plain dictionary.
"""

from __future__ import annotations

from typing import Any

from ganeti_masterd.config.objects import Cluster, Instance, Nic, Node, NodeGroup
from ganeti_masterd.config.snapshot import Snapshot

#: Hypervisor parameters that hold for a whole node, never for one instance.
NODE_WIDE = frozenset({"migration_bandwidth", "migration_mode", "migration_port", "xen_cmd"})


def node_group(cluster: Cluster, group: NodeGroup) -> dict[str, Any]:
    """Node parameters in a group."""
    return {**cluster.ndparams, **group.ndparams}


def of_node(snapshot: Snapshot, node: Node) -> dict[str, Any]:
    """Node parameters of a node."""
    group = snapshot.groups.get(node.group)
    inherited = group.ndparams if group is not None else {}
    return {**snapshot.cluster.ndparams, **inherited, **node.ndparams}


def instance_policy(cluster: Cluster, group: NodeGroup) -> dict[str, Any]:
    """The instance policy in a group; a group's standard sizes may be a part of them."""
    policy = {**cluster.ipolicy, **group.ipolicy}
    if "std" in group.ipolicy:
        policy["std"] = {**cluster.ipolicy.get("std", {}), **group.ipolicy["std"]}
    return policy


def of_disks(cluster: Cluster, group: NodeGroup) -> dict[str, Any]:
    """Disk parameters in a group, for each template.

    A group's set of a template is laid over the cluster's. (luxid 3.0.2 shows
    only the group's own in its place, though both are in force.)
    """
    templates = dict.fromkeys((*cluster.diskparams, *group.diskparams))
    return {
        name: {**cluster.diskparams.get(name, {}), **group.diskparams.get(name, {})}
        for name in templates
    }


def backend(cluster: Cluster, instance: Instance) -> dict[str, Any]:
    """Backend parameters (memory, processors, ...) of an instance."""
    return {**cluster.beparams.get("default", {}), **instance.beparams}


def hypervisor(cluster: Cluster, instance: Instance) -> dict[str, Any]:
    """All hypervisor parameters of an instance, those of the whole node included."""
    name = instance.hypervisor
    return {
        **cluster.hvparams.get(name, {}),
        **cluster.os_hvp.get(instance.os, {}).get(name, {}),
        **instance.hvparams,
    }


def own_hypervisor(cluster: Cluster, instance: Instance) -> dict[str, Any]:
    """Hypervisor parameters that an instance can set, as they take effect."""
    merged = hypervisor(cluster, instance)
    return {name: value for name, value in merged.items() if name not in NODE_WIDE}


def of_os(cluster: Cluster, instance: Instance) -> dict[str, Any]:
    """Public OS parameters of an instance: of its OS, of the variant, its own."""
    base = instance.os.partition("+")[0]
    return {
        **cluster.osparams.get(base, {}),
        **cluster.osparams.get(instance.os, {}),
        **instance.osparams,
    }


def of_nic(cluster: Cluster, nic: Nic) -> dict[str, Any]:
    """Parameters of a network interface: mode, link, VLAN."""
    return {**cluster.nicparams.get("default", {}), **nic.nicparams}
