"""Opcodes of the cluster as a whole: its parameters, its name, its master IP."""

from __future__ import annotations

from typing import Any

from ganeti_masterd.opcodes.base import Hooks, Opcode
from ganeti_masterd.opcodes.checks import NicParams, NonEmptyStr, NonNegativeInt, ObjectName
from ganeti_masterd.opcodes.results import JobsResult
from ganeti_masterd.opcodes.types import (
    DiskTemplateName,
    Hypervisor,
    ObjectNames,
    OsStatusChange,
    ParamsByTemplate,
    ParamValues,
    PositiveInt,
    PrivateParamsByOs,
    SshKeyType,
    UidRange,
)


class ClusterPostInit(Opcode, tag="OP_CLUSTER_POST_INIT", frozen=True, kw_only=True):
    """Runs the hooks of a cluster that has just been initialised."""

    HOOKS = Hooks("cluster-init", "CLUSTER")
    RESULT = bool


class ClusterDestroy(Opcode, tag="OP_CLUSTER_DESTROY", frozen=True, kw_only=True):
    """Destroys an empty cluster; the result is the master node's uuid."""

    HOOKS = Hooks("cluster-destroy", "CLUSTER")
    RESULT = NonEmptyStr


class ClusterQuery(Opcode, tag="OP_CLUSTER_QUERY", frozen=True, kw_only=True):
    """Returns the cluster's version, parameters and policies."""

    RESULT = ParamValues


class ClusterConfigQuery(Opcode, tag="OP_CLUSTER_CONFIG_QUERY", frozen=True, kw_only=True):
    """Returns single values of the cluster, in the order of the fields asked for."""

    RESULT = list[Any]

    output_fields: ObjectNames


class ClusterRename(Opcode, tag="OP_CLUSTER_RENAME", frozen=True, kw_only=True):
    """Gives the cluster a new name, and with it a new master IP."""

    HOOKS = Hooks("cluster-rename", "CLUSTER")
    SUMMARY = "name"
    RESULT = NonEmptyStr

    name: ObjectName


class ClusterSetParams(Opcode, tag="OP_CLUSTER_SET_PARAMS", frozen=True, kw_only=True):
    """Changes the cluster's parameters; leaves those that are null as they are."""

    HOOKS = Hooks("cluster-modify", "CLUSTER")
    RESULT = JobsResult | None

    force: bool = False
    hv_state: ParamValues | None = None
    disk_state: ParamValues | None = None
    vg_name: str | None = None
    enabled_hypervisors: tuple[Hypervisor, ...] | None = None
    hvparams: dict[str, ParamValues] | None = None
    beparams: ParamValues | None = None
    os_hvp: dict[str, ParamValues] | None = None
    osparams: dict[str, ParamValues] | None = None
    osparams_private_cluster: PrivateParamsByOs | None = None
    diskparams: ParamsByTemplate | None = None
    candidate_pool_size: PositiveInt | None = None
    max_running_jobs: PositiveInt | None = None
    max_tracked_jobs: PositiveInt | None = None
    uid_pool: tuple[UidRange, ...] | None = None
    add_uids: tuple[UidRange, ...] | None = None
    remove_uids: tuple[UidRange, ...] | None = None
    maintain_node_health: bool | None = None
    prealloc_wipe_disks: bool | None = None
    nicparams: NicParams | None = None
    ndparams: ParamValues | None = None
    ipolicy: ParamValues | None = None
    drbd_helper: str | None = None
    default_iallocator: str | None = None
    default_iallocator_params: ParamValues | None = None
    mac_prefix: NonEmptyStr | None = None
    master_netdev: str | None = None
    master_netmask: NonNegativeInt | None = None
    reserved_lvs: ObjectNames | None = None
    hidden_os: tuple[OsStatusChange, ...] | None = None
    blacklisted_os: tuple[OsStatusChange, ...] | None = None
    use_external_mip_script: bool | None = None
    enabled_disk_templates: tuple[DiskTemplateName, ...] | None = None
    modify_etc_hosts: bool | None = None
    file_storage_dir: str | None = None
    shared_file_storage_dir: str | None = None
    gluster_storage_dir: str | None = None
    install_image: str | None = None
    instance_communication_network: str | None = None
    zeroing_image: str | None = None
    compression_tools: ObjectNames | None = None
    enabled_user_shutdown: bool | None = None
    enabled_data_collectors: dict[str, bool] | None = None
    data_collector_interval: dict[str, int] | None = None


class ClusterRedistConf(Opcode, tag="OP_CLUSTER_REDIST_CONF", frozen=True, kw_only=True):
    """Writes the configuration to all nodes again."""


class ClusterActivateMasterIp(
    Opcode, tag="OP_CLUSTER_ACTIVATE_MASTER_IP", frozen=True, kw_only=True
):
    """Brings the master IP up on the master node."""


class ClusterDeactivateMasterIp(
    Opcode, tag="OP_CLUSTER_DEACTIVATE_MASTER_IP", frozen=True, kw_only=True
):
    """Takes the master IP down on the master node."""


class ClusterRenewCrypto(Opcode, tag="OP_CLUSTER_RENEW_CRYPTO", frozen=True, kw_only=True):
    """Makes new node certificates, and new SSH keys, as asked."""

    node_certificates: bool = False
    renew_ssh_keys: bool = False
    ssh_key_type: SshKeyType | None = None
    ssh_key_bits: PositiveInt | None = None
    verbose: bool = False
    debug: bool = False
