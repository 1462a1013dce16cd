"""Effective parameters: the cluster's, overridden by those of groups, nodes and instances.

Every function returns a new plain dictionary.
"""

from __future__ import annotations

from typing import Any

from ganeti_masterd.config.objects import Cluster, Instance, Nic, Node, NodeGroup
from ganeti_masterd.config.snapshot import Snapshot

#: Hypervisor parameters that apply to a whole node, never to a single instance.
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
    """The instance policy in a group, whose standard sizes may override some of the cluster's."""
    policy = {**cluster.ipolicy, **group.ipolicy}
    if "std" in group.ipolicy:
        policy["std"] = {**cluster.ipolicy.get("std", {}), **group.ipolicy["std"]}
    return policy


def of_disks(cluster: Cluster, group: NodeGroup) -> dict[str, Any]:
    """Disk parameters in a group, for each template.

    A group's parameters of a template override single ones of the cluster's. (luxid 3.0.2
    shows only the group's own, although both are in effect.)
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
    """All hypervisor parameters of an instance, including those of the whole node."""
    name = instance.hypervisor
    return {
        **cluster.hvparams.get(name, {}),
        **cluster.os_hvp.get(instance.os, {}).get(name, {}),
        **instance.hvparams,
    }


def own_hypervisor(cluster: Cluster, instance: Instance) -> dict[str, Any]:
    """The effective values of the hypervisor parameters that an instance can set."""
    merged = hypervisor(cluster, instance)
    return {name: value for name, value in merged.items() if name not in NODE_WIDE}


def of_os(cluster: Cluster, instance: Instance) -> dict[str, Any]:
    """Public OS parameters of an instance: those of its OS, of the variant, and its own."""
    base = instance.os.partition("+")[0]
    return {
        **cluster.osparams.get(base, {}),
        **cluster.osparams.get(instance.os, {}),
        **instance.osparams,
    }


def of_nic(cluster: Cluster, nic: Nic) -> dict[str, Any]:
    """Parameters of a network interface: mode, link, VLAN."""
    return {**cluster.nicparams.get("default", {}), **nic.nicparams}
