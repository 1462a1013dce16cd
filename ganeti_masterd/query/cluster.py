"""The cluster's own fields, and the answers to QueryClusterInfo and QueryConfigValues."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Protocol

from ganeti_masterd import constants
from ganeti_masterd.config.objects import Cluster
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.query.fields import (
    Matching,
    View,
    declare,
    fields,
    flag,
    other,
    text,
    timestamp,
)

#: The address family of IPv4, as the configuration has it.
_AF_INET = 2


class ClusterFlags(Protocol):
    """The state of the cluster that isn't in the configuration."""

    @property
    def drained(self) -> bool:
        """Whether the queue takes no new jobs."""

    @property
    def watcher_pause(self) -> int | None:
        """Until when the watcher is paused (seconds since the epoch); None if it isn't."""


@cache
def architecture() -> tuple[str, str]:
    """Returns the word size of this machine and its name, as ``("64bits", "x86_64")``."""
    return platform.architecture()[0] + "s", platform.machine()


#: Constant fields: name, title, kind, value and description.
_VERSIONS: tuple[tuple[str, str, str, Any, str], ...] = (
    (
        "software_version",
        "SoftwareVersion",
        "text",
        constants.RELEASE_VERSION,
        "The version of Ganeti that this daemon implements.",
    ),
    (
        "protocol_version",
        "ProtocolVersion",
        "number",
        constants.PROTOCOL_VERSION,
        "The version of the node calls.",
    ),
    (
        "config_version",
        "ConfigVersion",
        "number",
        constants.CONFIG_VERSION,
        "The version of the configuration.",
    ),
    (
        "os_api_version",
        "OsApiVersion",
        "number",
        constants.OS_API_VERSION,
        "The version of the OS interface.",
    ),
    (
        "export_version",
        "ExportVersion",
        "number",
        constants.EXPORT_VERSION,
        "The version of exports.",
    ),
    ("vcs_version", "VCSVersion", "text", constants.VCS_VERSION, "The version as built."),
)


def master_name(snapshot: Snapshot) -> str | None:
    """Returns the master's name, None for a configuration without one."""
    node = snapshot.nodes.get(snapshot.cluster.master_node)
    return None if node is None else node.name


def _constant(value: Any) -> Callable[[Any], Any]:
    return lambda cluster: value


def _of_state(attribute: str) -> Callable[[View, Cluster], Any]:
    return lambda view, cluster: getattr(view.memo["state"], attribute)


CLUSTER_FIELDS = fields(
    *(
        text(
            name,
            "Name",
            of=lambda cluster: cluster.cluster_name,
            matching=Matching.HOST_NAME,
            doc="The cluster's name.",
        )
        for name in ("name", "cluster_name")
    ),
    text(
        "master_node",
        "Master",
        given=lambda view, cluster: master_name(view.snapshot),
        matching=Matching.HOST_NAME,
        doc="The name of the master node.",
    ),
    text(
        "volume_group_name",
        "VgName",
        of=lambda cluster: cluster.volume_group_name,
        doc="The LVM volume group of instances' disks.",
    ),
    flag(
        "drain_flag",
        "QueueDrained",
        given=_of_state("drained"),
        doc="Whether the queue takes no new jobs.",
    ),
    timestamp(
        "watcher_pause",
        "WatcherPause",
        given=_of_state("watcher_pause"),
        doc="Until when the watcher is paused.",
    ),
    other(
        "architecture",
        "ArchInfo",
        of=lambda cluster: architecture(),
        doc="Word size and kind of the master's machine.",
    ),
    *(
        declare(name, title, kind, of=_constant(value), doc=doc)
        for name, title, kind, value, doc in _VERSIONS
    ),
    timestamp("ctime", "CTime", of=lambda cluster: cluster.ctime, doc="When the cluster was made."),
    timestamp("mtime", "MTime", of=lambda cluster: cluster.mtime, doc="When it changed last."),
    other("tags", "Tags", of=lambda cluster: sorted(cluster.tags), doc="The cluster's tags."),
)


def cluster_info(snapshot: Snapshot) -> dict[str, Any]:
    """Returns the answer to QueryClusterInfo, with luxid's keys in luxid's order."""
    cluster = snapshot.cluster
    collectors = cluster.data_collectors
    return {
        **{name: value for name, _, _, value, _ in _VERSIONS},
        "architecture": architecture(),
        "name": cluster.cluster_name,
        "master": master_name(snapshot),
        "default_hypervisor": next(iter(cluster.enabled_hypervisors), None),
        "enabled_hypervisors": cluster.enabled_hypervisors,
        "hvparams": dict(cluster.hvparams),
        "os_hvp": dict(cluster.os_hvp),
        "beparams": dict(cluster.beparams),
        "osparams": dict(cluster.osparams),
        "ipolicy": dict(cluster.ipolicy),
        "nicparams": dict(cluster.nicparams),
        "ndparams": dict(cluster.ndparams),
        "diskparams": dict(cluster.diskparams),
        "candidate_pool_size": cluster.candidate_pool_size,
        "max_running_jobs": cluster.max_running_jobs,
        "max_tracked_jobs": cluster.max_tracked_jobs,
        "mac_prefix": cluster.mac_prefix,
        "master_netdev": cluster.master_netdev,
        "master_netmask": cluster.master_netmask,
        "use_external_mip_script": cluster.use_external_mip_script,
        "volume_group_name": cluster.volume_group_name,
        "drbd_usermode_helper": cluster.drbd_usermode_helper,
        "file_storage_dir": cluster.file_storage_dir,
        "shared_file_storage_dir": cluster.shared_file_storage_dir,
        "gluster_storage_dir": cluster.gluster_storage_dir,
        "maintain_node_health": cluster.maintain_node_health,
        "ctime": cluster.ctime,
        "mtime": cluster.mtime,
        "uuid": cluster.uuid,
        "tags": sorted(cluster.tags),
        "uid_pool": cluster.uid_pool,
        "default_iallocator": cluster.default_iallocator,
        "default_iallocator_params": dict(cluster.default_iallocator_params),
        "reserved_lvs": cluster.reserved_lvs,
        "primary_ip_version": 4 if cluster.primary_ip_family == _AF_INET else 6,
        "prealloc_wipe_disks": cluster.prealloc_wipe_disks,
        "hidden_os": cluster.hidden_os,
        "blacklisted_os": cluster.blacklisted_os,
        "enabled_disk_templates": cluster.enabled_disk_templates,
        "install_image": cluster.install_image,
        "instance_communication_network": cluster.instance_communication_network,
        "zeroing_image": cluster.zeroing_image,
        "compression_tools": cluster.compression_tools,
        "enabled_user_shutdown": cluster.enabled_user_shutdown,
        "enabled_data_collectors": {
            name: one.get("active", True) for name, one in collectors.items()
        },
        "data_collector_interval": {name: one.get("interval") for name, one in collectors.items()},
        "modify_ssh_setup": cluster.modify_ssh_setup,
        "ssh_key_type": cluster.ssh_key_type,
        "ssh_key_bits": cluster.ssh_key_bits,
    }


#: The values that QueryConfigValues returns, by name.
_VALUES: dict[str, Callable[[Snapshot, ClusterFlags], Any]] = {
    "cluster_name": lambda snapshot, state: snapshot.cluster.cluster_name,
    "master_node": lambda snapshot, state: master_name(snapshot),
    "volume_group_name": lambda snapshot, state: snapshot.cluster.volume_group_name,
    "modify_ssh_setup": lambda snapshot, state: snapshot.cluster.modify_ssh_setup,
    "ssh_key_type": lambda snapshot, state: snapshot.cluster.ssh_key_type,
    "ssh_key_bits": lambda snapshot, state: snapshot.cluster.ssh_key_bits,
    "drain_flag": lambda snapshot, state: state.drained,
    "watcher_pause": lambda snapshot, state: state.watcher_pause,
}


def config_values(names: Sequence[str], snapshot: Snapshot, state: ClusterFlags) -> list[Any]:
    """Returns the answer to QueryConfigValues; the value of an unknown name is None."""
    return [
        None if (value := _VALUES.get(name)) is None else value(snapshot, state) for name in names
    ]
