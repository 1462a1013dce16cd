"""The ssconf files: the few values of the configuration that every node holds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec.structs import replace

from ganeti_masterd.config.section import Section
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.constants import RELEASE_VERSION

#: Hypervisors whose parameters each have a file.
HYPERVISORS = ("chroot", "fake", "kvm", "lxc", "xen-hvm", "xen-pvm")

_DIGITS = re.compile(r"(\d+)")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def ssconf_values(snapshot: Snapshot) -> dict[str, list[str]]:
    """Returns the lines of all 34 files by key, as ``write_ssconf_files`` takes them.

    See protocol/rpc.rst, Objects as arguments.

    Lists of nodes and instances are in natural order; candidates, as in the
    real files, by uuid. Don't change the lists: the next call may return them again.
    """
    values = {
        **_of_cluster(snapshot),
        **_of_nodes(snapshot),
        "instance_list": snapshot.instances.ordered(natural_key).names,
        "networks": _named(snapshot.networks),
        "nodegroups": _named(snapshot.groups),
    }
    return dict(sorted(values.items()))


def one_line(text: str) -> str:
    """Returns a value as it stands in a file: control characters, which end lines, as blanks."""
    return text if text.isprintable() else _CONTROL.sub(" ", text)


def same_ssconf(before: Snapshot, after: Snapshot) -> bool:
    """Whether two configurations surely have the same values, because they share their objects.

    Takes constant time, however many objects there are. False doesn't mean that values
    differ: only comparing :func:`ssconf_values` can tell.
    """
    return (
        before.cluster is after.cluster
        and before.nodes is after.nodes
        and before.networks is after.networks
        and before.groups is after.groups
        and before.instances.ordered(natural_key) is after.instances.ordered(natural_key)
    )


def touched(before: Snapshot, after: Snapshot) -> bool:
    """Whether the cluster's serial has grown and nothing else of the cluster has changed.

    That is how Ganeti asks for everything to be sent to all nodes again (``redist-conf``).
    """
    old, new = before.cluster, after.cluster
    return (
        old is not new
        and old.serial_no < new.serial_no
        and replace(old, serial_no=new.serial_no, mtime=new.mtime) == new
    )


def _of_cluster(snapshot: Snapshot) -> dict[str, list[str]]:
    cluster = snapshot.cluster
    values = {
        "cluster_name": [cluster.cluster_name],
        "cluster_tags": list(cluster.tags),
        "enabled_user_shutdown": [str(cluster.enabled_user_shutdown)],
        "file_storage_dir": [cluster.file_storage_dir],
        "gluster_storage_dir": [cluster.gluster_storage_dir],
        "hypervisor_list": list(cluster.enabled_hypervisors),
        "maintain_node_health": [str(cluster.maintain_node_health)],
        "master_candidates_certs": [
            f"{uuid}={digest}" for uuid, digest in sorted(cluster.candidate_certs.items())
        ],
        "master_ip": [cluster.master_ip],
        "master_netdev": [cluster.master_netdev],
        "master_netmask": [str(cluster.master_netmask)],
        "master_node": [snapshot.master.name],
        "primary_ip_family": [str(cluster.primary_ip_family)],
        "release_version": [RELEASE_VERSION],
        "shared_file_storage_dir": [cluster.shared_file_storage_dir],
        "uid_pool": [
            str(low) if low == high else f"{low}-{high}" for low, high in cluster.uid_pool
        ],
    }
    for hypervisor in HYPERVISORS:
        params = cluster.hvparams.get(hypervisor, {})
        values[f"hvparams_{hypervisor}"] = [f"{key}={params[key]}" for key in sorted(params)]
    return {key: list(map(one_line, lines)) for key, lines in values.items()}


def _of_nodes(snapshot: Snapshot) -> dict[str, list[str]]:
    """The values that depend on nodes; cached with the section, and valid for the same groups."""
    groups, params = snapshot.groups, snapshot.cluster.ndparams
    known = snapshot.nodes.cached("ssconf", lambda: (groups, params, _nodes_lines(snapshot)))
    return known[2] if known[0] is groups and known[1] is params else _nodes_lines(snapshot)


def _nodes_lines(snapshot: Snapshot) -> dict[str, list[str]]:
    nodes = [snapshot.nodes[uuid] for uuid in snapshot.nodes.ordered(natural_key).uuids]
    candidates = snapshot.candidates()
    port = _ssh_port(snapshot.cluster.ndparams, 22)
    ports = {uuid: _ssh_port(group.ndparams, port) for uuid, group in snapshot.groups.items()}
    return {
        "master_candidates": [node.name for node in candidates],
        "master_candidates_ips": [node.primary_ip for node in candidates],
        "node_list": [node.name for node in nodes],
        "node_primary_ips": [f"{node.name} {node.primary_ip}" for node in nodes],
        "node_secondary_ips": [f"{node.name} {node.secondary_ip}" for node in nodes],
        "node_vm_capable": [f"{node.name}={node.vm_capable}" for node in nodes],
        "offline_nodes": [node.name for node in nodes if node.offline],
        "online_nodes": [node.name for node in nodes if not node.offline],
        "ssh_ports": [
            f"{node.name}={_ssh_port(node.ndparams, ports.get(node.group, port))}" for node in nodes
        ],
    }


def _ssh_port(params: Mapping[str, Any], default: Any) -> Any:
    return params.get("ssh_port", default)


def _named(section: Section[Any]) -> list[str]:
    return natural(one_line(f"{obj.uuid} {obj.name}") for obj in section.values())


def file_content(lines: Iterable[str]) -> bytes:
    """Returns a file's content: each line with a newline; empty if there are no lines."""
    return "".join(f"{line}\n" for line in lines).encode()


def natural(names: Iterable[str]) -> list[str]:
    """Returns names in natural order: instance2 before instance10."""
    return sorted(names, key=natural_key)


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Returns a sort key that compares groups of digits as numbers and the rest as text."""
    return [
        (0, int(part), part) if part.isdecimal() else (1, 0, part)
        for part in _DIGITS.split(name)
        if part
    ]
