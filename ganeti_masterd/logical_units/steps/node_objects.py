"""Objects of the configuration as node daemons take them (protocol/rpc.rst, Objects as arguments).

A node daemon knows nothing of the configuration, so whatever takes effect is
filled in before an object is sent: parameters from the cluster, the group and
the operating system, disks and networks in place of their uuids. Keys that
are null are left out, and so are keys of later versions, which a node
daemon of 3.0 refuses.

All functions are pure and return plain JSON values, which may share parts with
the configuration: they are to be sent, not changed. They hold private
parameters and DRBD's secret as plain text, as they travel; nothing here logs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any

from ganeti_masterd.config.base import ConfigObject, Params, defaults_of
from ganeti_masterd.config.objects import Cluster, Disk, Instance, Nic
from ganeti_masterd.config.parameters import effective
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.templates import template_named
from ganeti_masterd.errors import ConfigurationError

#: Where a hypervisor has plugged in a device: keys that 3.0 knows and keeps with it.
PLUGGED = ("pci", "hvinfo")

#: DRBD's parameters on the wire and the cluster's that they come from.
_DRBD = {
    "c-delay-target": "c-delay-target",
    "c-fill-target": "c-fill-target",
    "c-max-rate": "c-max-rate",
    "c-min-rate": "c-min-rate",
    "c-plan-ahead": "c-plan-ahead",
    "default-metavg": "metavg",
    "disable-meta-flush": "meta-barriers",
    "disabled-barriers": "disk-barriers",
    "disk-custom": "disk-custom",
    "dynamic-resync": "dynamic-resync",
    "net-custom": "net-custom",
    "protocol": "protocol",
    "resync-rate": "resync-rate",
}

#: The parameters of the two volumes below a DRBD disk: data and metadata.
_DRBD_CHILDREN = ({"stripes": "data-stripes"}, {"stripes": "meta-stripes"})


def instance(
    snapshot: Snapshot,
    instance: Instance,
    node: str,
    *,
    disks: Sequence[Disk] | None = None,
    hvparams: Params | None = None,
    beparams: Params | None = None,
    osparams: Params | None = None,
) -> dict[str, Any]:
    """Returns an instance with all that takes effect, for the node of that uuid.

    ``disks`` are its disks where the configuration doesn't hold them yet. The
    parameters given are laid over those that take effect; secret OS parameters
    travel in ``osparams`` (at creation and reinstallation).
    """
    cluster = snapshot.cluster
    held = snapshot.disks_of(instance) if disks is None else disks
    nodes = dict.fromkeys(uuid for disk in held for uuid in disk.all_nodes())
    return {
        **_known(instance),
        "hvparams": {**effective.hypervisor(cluster, instance), **(hvparams or {})},
        "beparams": {**effective.backend(cluster, instance), **(beparams or {})},
        "osparams": {**effective.of_os(cluster, instance), **(osparams or {})},
        "nics": [
            {**nic(snapshot, each), "nicparams": effective.of_nic(cluster, each)}
            for each in instance.nics
        ],
        "secondary_nodes": [uuid for uuid in nodes if uuid != instance.primary_node],
        "disks_info": [disk(snapshot, each, instance, node) for each in held],
    }


def instance_metadata(
    instance: Instance, private: Params | None = None, secret: Params | None = None
) -> dict[str, Any]:
    """Returns an instance for ``instance_metadata_modify``: as configured, nothing filled in.

    ``private`` are the private OS parameters, None for the instance's own;
    ``secret`` those that are never stored.
    """
    return {
        **_known(instance),
        "nics": [_known(each) for each in instance.nics],
        "osparams_private": dict(instance.osparams_private if private is None else private),
        "osparams_secret": dict(secret or {}),
    }


def nic(snapshot: Snapshot, nic: Nic) -> dict[str, Any]:
    """Returns a network interface as it is plugged in: its own parameters, and its network's."""
    plain = _known(nic)
    network = snapshot.networks.get(nic.network) if nic.network else None
    if network is not None:
        plain["netinfo"] = _known(network)
    return plain


def disk(snapshot: Snapshot, disk: Disk, instance: Instance, node: str) -> dict[str, Any]:
    """Returns an instance's disk with the parameters that take effect, for the node of that uuid.

    Raises ``ConfigurationError`` if a DRBD disk names a node that isn't there.
    """
    own = _group_parameters(snapshot, instance).get(disk.dev_type, {})
    plain = _plain(disk)
    if disk.template.port_and_minors:
        plain["params"] = {**_chosen(_DRBD, own), **disk.params}
        for child, names in zip(plain.get("children", ()), _DRBD_CHILDREN, strict=False):
            child["params"] = {**_chosen(names, own), **child["params"]}
    elif disk.dev_type != "diskless":
        plain["params"] = {**own, **disk.params}
    _set_dynamic(plain, snapshot, node)
    return plain


def disk_child(
    snapshot: Snapshot, parent: Disk, index: int, instance: Instance, node: str
) -> dict[str, Any]:
    """Returns a volume below a disk for a call about it alone; otherwise as :func:`disk`."""
    child: dict[str, Any] = disk(snapshot, parent, instance, node)["children"][index]
    return {**child, "dynamic_params": {}}


def plain_disk(disk: Disk) -> dict[str, Any]:
    """Returns a disk as configured: what ``finalize_export`` and ``blockdev_rename`` take."""
    return _plain(disk)


def master_network(cluster: Cluster) -> dict[str, Any]:
    """Returns the parameters of the master's address for (de)activating it.

    Raises ``ConfigurationError`` if the address is none.
    """
    try:
        version = ip_address(cluster.master_ip).version
    except ValueError:
        raise ConfigurationError(f"the master's address {cluster.master_ip!r} is no IP address")
    return master_address(cluster, cluster.master_node, 2 if version == 4 else 10)


def master_address(cluster: Cluster, node: str, family: int) -> dict[str, Any]:
    """Returns the parameters of the master's address on a node, given by its uuid.

    ``family`` is 2 or 10, as the socket interface numbers AF_INET and AF_INET6.
    """
    return {
        "uuid": node,
        "ip": cluster.master_ip,
        "netmask": cluster.master_netmask,
        "netdev": cluster.master_netdev,
        "ip_family": family,
    }


def _known(obj: ConfigObject) -> dict[str, Any]:
    """Returns what an object holds of the keys that node daemons know."""
    plain = {
        name: value for name in defaults_of(type(obj)) if (value := getattr(obj, name)) is not None
    }
    for name in PLUGGED:
        if obj.rest.get(name) is not None:
            plain[name] = obj.rest[name]
    return plain


def _plain(disk: Disk) -> dict[str, Any]:
    plain = _known(disk)
    plain["children"] = [_plain(child) for child in disk.children]
    if not disk.ctime:
        # It isn't in the configuration yet.
        for name in ("serial_no", "ctime", "mtime"):
            plain.pop(name, None)
        if not disk.children:
            del plain["children"]
    return plain


def _group_parameters(snapshot: Snapshot, instance: Instance) -> Mapping[str, Params]:
    node = snapshot.nodes.get(instance.primary_node)
    if node is None:
        raise ConfigurationError(
            f"the primary node '{instance.primary_node}' of instance '{instance.name}' is not in "
            "the configuration"
        )
    return effective.of_disks(snapshot.cluster, snapshot.group_of(node))


def _chosen(names: Mapping[str, str], values: Params) -> dict[str, Any]:
    return {name: values[origin] for name, origin in names.items() if origin in values}


def _set_dynamic(plain: dict[str, Any], snapshot: Snapshot, node: str) -> None:
    """Adds what depends on the node that a disk is sent to, also to the disks below it."""
    for child in plain.get("children", ()):
        _set_dynamic(child, snapshot, node)
    plain["dynamic_params"] = {}
    logical_id = plain.get("logical_id")
    minors = template_named(plain["dev_type"]).port_and_minors
    if not minors or logical_id is None or node not in logical_id[:2]:
        return
    ends = []
    for uuid, minor in ((logical_id[0], logical_id[3]), (logical_id[1], logical_id[4])):
        end = snapshot.nodes.get(uuid)
        if end is None:
            raise ConfigurationError(
                f"disk '{plain['uuid']}' is on node '{uuid}', which is not in the configuration"
            )
        ends.append((uuid, end.secondary_ip, minor))
    local, remote = ends if ends[0][0] == node else reversed(ends)
    plain["dynamic_params"] = {
        "local-ip": local[1],
        "remote-ip": remote[1],
        "local-minor": local[2],
        "remote-minor": remote[2],
    }
