"""The changes that OP_CLUSTER_SET_PARAMS makes to the cluster. Pure.

:func:`changed` makes the whole change. It is tried when the opcode is checked, and applied to the
then current cluster when the change is made. Checks against other objects and on nodes are in
``consistency`` and ``node_checks``.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from ganeti_masterd.config.base import Params
from ganeti_masterd.config.defaults import HVPARAMS
from ganeti_masterd.config.objects import Cluster
from ganeti_masterd.config.parameters import limits, merging
from ganeti_masterd.config.parameters.devices import check_nic, disk_parameters
from ganeti_masterd.config.parameters.hypervisors import check_hypervisor, is_url
from ganeti_masterd.config.parameters.policy import check_policy_templates, updated_policy
from ganeti_masterd.config.parameters.types import BACKEND, HYPERVISOR, NIC, NODE, enforce
from ganeti_masterd.errors import prereq
from ganeti_masterd.opcodes.cluster import ClusterSetParams
from ganeti_masterd.opcodes.types import OsStatusChange
from ganeti_masterd.patterns import BadPattern, Pattern

#: Parameters of the opcode that are copied unchanged, if they are given.
_PLAIN = (
    "candidate_pool_size",
    "max_running_jobs",
    "max_tracked_jobs",
    "maintain_node_health",
    "modify_etc_hosts",
    "prealloc_wipe_disks",
    "default_iallocator",
    "default_iallocator_params",
    "reserved_lvs",
    "use_external_mip_script",
    "enabled_user_shutdown",
    "install_image",
    "zeroing_image",
    "instance_communication_network",
    "compression_tools",
)

#: Paths of storage, which are set in their normal form; an empty one unsets the path.
STORAGE_FOLDERS = ("file_storage_dir", "shared_file_storage_dir", "gluster_storage_dir")

#: Parameters that are copied unless they are an empty string, an empty list or zero.
_PLAIN_IF_SET = ("enabled_disk_templates", "master_netdev", "master_netmask")

#: The most patterns of reserved volumes; each verification compiles all of them.
MAX_RESERVED = 1000

_TOOL = re.compile(r"[-_a-zA-Z0-9]+")


class Changed(Struct, frozen=True):
    """The cluster after the change, and messages about it."""

    cluster: Cluster
    notes: tuple[str, ...] = ()


def check_arguments(op: ClusterSetParams, family: int) -> None:
    """Checks everything that depends on nothing in the configuration except its address family.

    Raises ``OpPrereqError``, ``TypeEnforcementError``.
    """
    for ranges in (op.uid_pool, op.add_uids, op.remove_uids):
        limits.check_uids(ranges or ())
    if op.mac_prefix:
        limits.normal_mac_prefix(op.mac_prefix)
    if op.master_netmask is not None:
        limits.check_netmask(op.master_netmask, family)
    disk_parameters(op.diskparams or {})
    for what, image in (("Install", op.install_image), ("Zeroing", op.zeroing_image)):
        if image is not None and not (image.startswith("/") or is_url(image)):
            raise prereq(f"{what} image must be an absolute path or a URL")
    _check_paths(op)
    _check_lists(op)


def changed(cluster: Cluster, op: ClusterSetParams) -> Changed:
    """Returns the cluster with all of the opcode's parameters.

    The opcode must have passed :func:`check_arguments`. Raises the error of the first parameter
    that this cluster can't have: ``OpPrereqError``, ``TypeEnforcementError``, ``HypervisorError``,
    ``ConfigurationError``.
    """
    new: dict[str, Any] = {
        name: value for name in _PLAIN if (value := getattr(op, name)) is not None
    }
    new.update({name: value for name in _PLAIN_IF_SET if (value := getattr(op, name))})
    new.update(storage_folders(op))
    if op.vg_name is not None:
        new["volume_group_name"] = op.vg_name or None
    if op.drbd_helper is not None:
        new["drbd_usermode_helper"] = op.drbd_helper or None
    if op.mac_prefix:
        new["mac_prefix"] = limits.normal_mac_prefix(op.mac_prefix)
    new.update(_defaults(cluster, op))
    new.update(_hypervisors(cluster, op))
    new.update(_systems(cluster, op))
    if op.uid_pool is not None or op.add_uids or op.remove_uids:
        new["uid_pool"] = _uid_pool(cluster, op)
    if op.enabled_data_collectors or op.data_collector_interval:
        new["data_collectors"] = _collectors(cluster, op)
    notes: list[str] = []
    if op.hidden_os:
        new["hidden_os"] = _os_list(cluster.hidden_os, op.hidden_os, "hidden", notes)
    if op.blacklisted_os:
        new["blacklisted_os"] = _os_list(
            cluster.blacklisted_os, op.blacklisted_os, "blacklisted", notes
        )
    after = replace(cluster, **{k: v for k, v in new.items() if v != getattr(cluster, k)})
    check_policy_templates(after.ipolicy, after.enabled_disk_templates)
    return Changed(after, tuple(notes))


def storage_folders(op: ClusterSetParams) -> dict[str, str]:
    """Returns the paths of storage that the opcode gives, each in its normal form."""
    return {
        name: normal_path(path)
        for name in STORAGE_FOLDERS
        if (path := getattr(op, name)) is not None
    }


def normal_path(path: str) -> str:
    """Returns a path without ``..``, double and trailing slashes; an empty one stays empty."""
    return path and re.sub("^//", "/", posixpath.normpath(path))


def _check_paths(op: ClusterSetParams) -> None:
    for name, path in storage_folders(op).items():
        if path and not path.startswith("/"):
            raise prereq(f"'{name}' must be an absolute path, not '{path}'")


def _check_lists(op: ClusterSetParams) -> None:
    if op.enabled_hypervisors is not None and not op.enabled_hypervisors:
        raise prereq("At least one hypervisor must be enabled")
    if op.reserved_lvs and len(op.reserved_lvs) > MAX_RESERVED:
        raise prereq(
            f"There are {len(op.reserved_lvs)} patterns of reserved volumes, and may be"
            f" {MAX_RESERVED}"
        )
    for pattern in op.reserved_lvs or ():
        try:
            Pattern(pattern)
        except BadPattern as error:
            raise prereq(f"Invalid pattern of reserved volumes '{pattern}': {error}")
    for action, _ in (*(op.hidden_os or ()), *(op.blacklisted_os or ())):
        if action not in ("add", "remove"):
            raise prereq(f"Invalid modification '{action}' of a list of operating systems")
    if op.compression_tools:
        _check_tools(op.compression_tools)


def _check_tools(tools: Iterable[str]) -> None:
    tools = tuple(tools)
    if wrong := [tool for tool in tools if not _TOOL.fullmatch(tool)]:
        raise prereq(
            f"The tools '{', '.join(wrong)}' contain illegal characters: only alphanumeric values,"
            " dashes, and underscores are allowed"
        )
    if "gzip" not in tools:
        raise prereq(
            "For compatibility reasons, the gzip utility must be present among the compression"
            " tools"
        )
    if "none" in tools:
        raise prereq(
            "none is a reserved value used for no compression, and cannot be used as the name of"
            " a tool"
        )


def _defaults(cluster: Cluster, op: ClusterSetParams) -> dict[str, Any]:
    """Returns the defaults of instances, NICs, nodes and disks, the policy, and stated sizes."""
    new: dict[str, Any] = {}
    if op.beparams:
        given = enforce(limits.split_memory(op.beparams), BACKEND)
        filled = {**cluster.beparams.get("default", {}), **given}
        limits.check_backend(filled)
        new["beparams"] = {**cluster.beparams, "default": filled}
    if op.ndparams:
        new["ndparams"] = {**cluster.ndparams, **enforce(op.ndparams, NODE)}
        limits.check_node(new["ndparams"])
    if op.hv_state:
        new["hv_state_static"] = merging.hypervisor_state(cluster.hv_state_static, op.hv_state)
    if op.disk_state:
        new["disk_state_static"] = merging.disk_state(cluster.disk_state_static, op.disk_state)
    if op.ipolicy:
        new["ipolicy"] = updated_policy(cluster.ipolicy, op.ipolicy)
    if op.nicparams:
        # None means that the parameter isn't given
        given = {name: value for name, value in op.nicparams.items() if value is not None}
        filled = {**cluster.nicparams.get("default", {}), **enforce(given, NIC)}
        check_nic(filled)
        new["nicparams"] = {**cluster.nicparams, "default": filled}
    if op.diskparams:
        new["diskparams"] = _overlaid(cluster.diskparams, disk_parameters(op.diskparams))
    return new


def _hypervisors(cluster: Cluster, op: ClusterSetParams) -> dict[str, Any]:
    """Returns hypervisors and their parameters; checks each changed set as a whole."""
    new: dict[str, Any] = {}
    hvparams = {name: dict(values) for name, values in cluster.hvparams.items()}
    for name, given in (op.hvparams or {}).items():
        _known_hypervisor(name)
        hvparams[name] = {**HVPARAMS[name], **hvparams.get(name, {}), **enforce(given, HYPERVISOR)}
    for name in op.enabled_hypervisors or ():
        hvparams[name] = {**HVPARAMS[name], **hvparams.get(name, {})}
    for name in checked_hypervisors(op):
        check_hypervisor(name, hvparams[name])
    if checked_hypervisors(op):
        new["hvparams"] = hvparams
    if op.enabled_hypervisors is not None:
        new["enabled_hypervisors"] = op.enabled_hypervisors
    if op.os_hvp:
        new["os_hvp"] = systems = _os_hypervisors(cluster, op.os_hvp)
        for by_hypervisor in systems.values():
            for name, values in by_hypervisor.items():
                check_hypervisor(name, {**HVPARAMS[name], **hvparams.get(name, {}), **values})
    return new


def checked_hypervisors(op: ClusterSetParams) -> tuple[str, ...]:
    """Returns the hypervisors whose parameters have to be checked again."""
    return tuple(dict.fromkeys((*(op.hvparams or ()), *(op.enabled_hypervisors or ()))))


def _os_hypervisors(cluster: Cluster, given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns hypervisor parameters of operating systems; None removes a hypervisor's set."""
    new: dict[str, Any] = {name: dict(sets) for name, sets in cluster.os_hvp.items()}
    for system, sets in given.items():
        own = new.setdefault(system, {})
        for name, values in sets.items():
            _known_hypervisor(name)
            if values is None:
                own.pop(name, None)
            else:
                own[name] = {**own.get(name, {}), **enforce(values, HYPERVISOR)}
    return {system: sets for system, sets in new.items() if sets}


def _systems(cluster: Cluster, op: ClusterSetParams) -> dict[str, Any]:
    """Returns parameters of operating systems, public and private."""
    new: dict[str, Any] = {}
    for name, given in (
        ("osparams", op.osparams),
        ("osparams_private_cluster", op.osparams_private_cluster),
    ):
        if given:
            merged = dict(getattr(cluster, name))
            for system, values in given.items():
                merged[system] = merging.updated(merged.get(system, {}), values, null=True)
            new[name] = {system: values for system, values in merged.items() if values}
    return new


def _uid_pool(cluster: Cluster, op: ClusterSetParams) -> tuple[tuple[int, int], ...]:
    if op.uid_pool is not None:
        return op.uid_pool
    pool = sorted({*cluster.uid_pool, *(op.add_uids or ())})
    for wanted in op.remove_uids or ():
        if wanted not in pool:
            raise prereq(
                f"User-id range to be removed is not found in the current user-id pool: {wanted}"
            )
        pool.remove(wanted)
    return tuple(pool)


def _collectors(cluster: Cluster, op: ClusterSetParams) -> dict[str, Any]:
    new = {name: dict(values) for name, values in cluster.data_collectors.items()}
    for key, given in (
        ("active", op.enabled_data_collectors or {}),
        ("interval", op.data_collector_interval or {}),
    ):
        for name, value in given.items():
            if name not in new:
                raise prereq(f"Unknown data collector '{name}'")
            if key == "interval" and value <= 0:
                raise prereq(f"The interval of data collector '{name}' must be above zero")
            new[name][key] = value
    return new


def _os_list(
    listed: tuple[str, ...], changes: Iterable[OsStatusChange], what: str, notes: list[str]
) -> tuple[str, ...]:
    new = list(listed)
    for action, name in changes:
        if action == "add" and name in new:
            notes.append(f"OS {name} already in {what} OS list, ignoring")
        elif action == "add":
            new.append(name)
        elif name in new:
            new.remove(name)
        else:
            notes.append(f"OS {name} not found in {what} OS list, ignoring")
    return tuple(new)


def _overlaid(old: Mapping[str, Params], given: Mapping[str, Params]) -> dict[str, Any]:
    return {**old, **{name: {**old.get(name, {}), **values} for name, values in given.items()}}


def _known_hypervisor(name: str) -> None:
    if name not in HVPARAMS:
        raise prereq(f"Unknown hypervisor '{name}'")
