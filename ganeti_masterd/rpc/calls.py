"""The table of node calls: every call that a node daemon knows, declared once.

Names, argument order and time-outs are noded 3.0.2's
(protocol/rpc.rst, HTTP and protocol/rpc.rst, Objects as arguments), payload
types are those of :mod:`ganeti_masterd.rpc.results`. Look a call up with
``CALLS["node_info"]``; an unknown name raises ``ProgrammerError``.
"""

from __future__ import annotations

from typing import Any

from ganeti_masterd.rpc.declarations import (
    DAY,
    FAST,
    FOUR_HOURS,
    MANY,
    NORMAL,
    ONE,
    SLOW,
    URGENT,
    Call,
    CallTable,
    content,
    entity,
    filelist,
    path,
    paths,
    secret,
    uploaded,
)
from ganeti_masterd.rpc.results import (
    AssembledDevice,
    Console,
    DeviceStatus,
    Dimensions,
    HookResult,
    InstanceInfo,
    LogicalVolume,
    MigrationStatus,
    NodeInfo,
    OSRow,
    ProviderRow,
    RunningInstance,
    SSHFailures,
)

#: The 108 calls of noded 3.0.2, by name.
CALLS = CallTable()

# The node itself
BRIDGES_EXIST: Call[Any] = CALLS.declare("bridges_exist", URGENT, ONE, "bridges_list")
ETC_HOSTS_MODIFY: Call[Any] = CALLS.declare("etc_hosts_modify", NORMAL, ONE, "mode", "name", "ip")
GET_WATCHER_PAUSE: Call[int | None] = CALLS.declare(
    "get_watcher_pause", URGENT, ONE, result=int | None
)
HOOKS_RUNNER: Call[list[HookResult]] = CALLS.declare(
    "hooks_runner", NORMAL, MANY, "hpath", "phase", secret("env"), result=list[HookResult]
)
IALLOCATOR_RUNNER: Call[str] = CALLS.declare(
    "iallocator_runner",
    NORMAL,
    ONE,
    "name",
    secret("idata"),
    "default_iallocator_params",
    result=str,
)
MASTER_NODE_NAME: Call[str] = CALLS.declare("master_node_name", URGENT, MANY, result=str)
NODE_ACTIVATE_MASTER_IP: Call[Any] = CALLS.declare(
    "node_activate_master_ip", FAST, ONE, "master_params", "use_external_mip_script"
)
NODE_CHANGE_MASTER_NETMASK: Call[Any] = CALLS.declare(
    "node_change_master_netmask",
    FAST,
    ONE,
    "old_netmask",
    "netmask",
    "master_ip",
    "master_netdev",
)
NODE_CONFIGURE_OVS: Call[Any] = CALLS.declare(
    "node_configure_ovs", NORMAL, ONE, "ovs_name", "ovs_link"
)
NODE_CRYPTO_TOKENS: Call[list[tuple[str, str]]] = CALLS.declare(
    "node_crypto_tokens", SLOW, ONE, "token_request", result=list[tuple[str, str]]
)
NODE_DEACTIVATE_MASTER_IP: Call[Any] = CALLS.declare(
    "node_deactivate_master_ip", FAST, ONE, "master_params", "use_external_mip_script"
)
NODE_DEMOTE_FROM_MC: Call[Any] = CALLS.declare("node_demote_from_mc", FAST, ONE)
NODE_ENSURE_DAEMON: Call[bool] = CALLS.declare(
    "node_ensure_daemon", URGENT, MANY, "daemon", "run", result=bool
)
NODE_HAS_IP_ADDRESS: Call[bool] = CALLS.declare(
    "node_has_ip_address", FAST, ONE, "address", result=bool
)
NODE_INFO: Call[NodeInfo] = CALLS.declare(
    "node_info", URGENT, MANY, "storage_units", "hv_specs", result=NodeInfo
)
NODE_LEAVE_CLUSTER: Call[Any] = CALLS.declare("node_leave_cluster", NORMAL, ONE, "modify_ssh_setup")
NODE_POWERCYCLE: Call[Any] = CALLS.declare(
    "node_powercycle", NORMAL, ONE, "hypervisor", "hvparams", offline_too=True
)
NODE_SSH_KEY_ADD: Call[SSHFailures] = CALLS.declare(
    "node_ssh_key_add",
    FAST,
    MANY,
    "node_uuid",
    "node_name",
    "potential_master_candidates",
    "to_authorized_keys",
    "to_public_keys",
    "get_public_keys",
    result=SSHFailures,
)
NODE_SSH_KEY_REMOVE: Call[SSHFailures] = CALLS.declare(
    "node_ssh_key_remove",
    FAST,
    MANY,
    "node_uuid",
    "node_name",
    "master_candidate_uuids",
    "potential_master_candidates",
    "from_authorized_keys",
    "from_public_keys",
    "clear_authorized_keys",
    "clear_public_keys",
    "readd",
    result=SSHFailures,
)
NODE_SSH_KEYS_RENEW: Call[Any] = CALLS.declare(
    "node_ssh_keys_renew",
    FOUR_HOURS,
    MANY,
    "node_uuids",
    "node_names",
    "master_candidate_uuids",
    "potential_master_candidates",
    "old_key_type",
    "new_key_type",
    "new_key_bits",
)
NODE_START_MASTER_DAEMONS: Call[Any] = CALLS.declare(
    "node_start_master_daemons", FAST, ONE, "no_voting"
)
NODE_STOP_MASTER: Call[Any] = CALLS.declare("node_stop_master", FAST, ONE)
NODE_VERIFY: Call[dict[str, Any]] = CALLS.declare(
    "node_verify",
    NORMAL,
    MANY,
    filelist("checkdict"),
    "cluster_name",
    "all_hvparams",
    result=dict[str, Any],
)
NODE_VERIFY_LIGHT: Call[dict[str, Any]] = CALLS.declare(
    "node_verify_light",
    NORMAL,
    MANY,
    filelist("checkdict"),
    "cluster_name",
    "hvparams",
    result=dict[str, Any],
)
NODE_VOLUMES: Call[list[dict[str, str]]] = CALLS.declare(
    "node_volumes", FAST, MANY, result=list[dict[str, str]]
)
RESTRICTED_COMMAND: Call[str] = CALLS.declare("restricted_command", SLOW, MANY, "cmd", result=str)
RUN_OOB: Call[Any] = CALLS.declare(
    "run_oob", NORMAL, ONE, "oob_program", "command", "remote_node", "timeout"
)
SET_WATCHER_PAUSE: Call[Any] = CALLS.declare("set_watcher_pause", URGENT, MANY, "until")
TEST_DELAY: Call[Any] = CALLS.declare("test_delay", None, MANY, "duration")
VERSION: Call[int] = CALLS.declare("version", URGENT, MANY, result=int, offline_too=True)
# Files and the job queue
FILE_STORAGE_DIR_CREATE: Call[Any] = CALLS.declare(
    "file_storage_dir_create", FAST, ONE, "file_storage_dir", whole=True
)
FILE_STORAGE_DIR_REMOVE: Call[Any] = CALLS.declare(
    "file_storage_dir_remove", FAST, ONE, "file_storage_dir", whole=True
)
FILE_STORAGE_DIR_RENAME: Call[Any] = CALLS.declare(
    "file_storage_dir_rename", FAST, ONE, "old_file_storage_dir", "new_file_storage_dir", whole=True
)
GET_FILE_INFO: Call[tuple[bool, dict[str, int]]] = CALLS.declare(
    "get_file_info", FAST, ONE, "file_path", result=tuple[bool, dict[str, int]]
)
JOBQUEUE_PURGE: Call[Any] = CALLS.declare("jobqueue_purge", NORMAL, ONE)
JOBQUEUE_RENAME: Call[Any] = CALLS.declare("jobqueue_rename", URGENT, MANY, paths("rename"))
JOBQUEUE_SET_DRAIN_FLAG: Call[Any] = CALLS.declare("jobqueue_set_drain_flag", URGENT, MANY, "flag")
JOBQUEUE_UPDATE: Call[Any] = CALLS.declare(
    "jobqueue_update", URGENT, MANY, path("file_name"), content("content")
)
UPLOAD_FILE: Call[Any] = CALLS.declare("upload_file", NORMAL, MANY, uploaded("file"))
UPLOAD_FILE_SINGLE: Call[Any] = CALLS.declare(
    "upload_file_single",
    NORMAL,
    MANY,
    path("file_name"),
    content("content"),
    "mode",
    "uid",
    "gid",
    "atime",
    "mtime",
)
WRITE_SSCONF_FILES: Call[Any] = CALLS.declare("write_ssconf_files", NORMAL, MANY, "values")
# Instances and hypervisors
ACCEPT_INSTANCE: Call[Any] = CALLS.declare(
    "accept_instance", NORMAL, ONE, entity("instance"), "info", "target"
)
ALL_INSTANCES_INFO: Call[dict[str, RunningInstance]] = CALLS.declare(
    "all_instances_info",
    URGENT,
    MANY,
    "hypervisor_list",
    "all_hvparams",
    result=dict[str, RunningInstance],
)
HOTPLUG_DEVICE: Call[Any] = CALLS.declare(
    "hotplug_device",
    NORMAL,
    ONE,
    entity("instance"),
    "action",
    "dev_type",
    entity("device"),
    "extra",
    "seq",
    whole=True,
)
HOTPLUG_SUPPORTED: Call[Any] = CALLS.declare("hotplug_supported", NORMAL, ONE, entity("instance"))
HYPERVISOR_VALIDATE_PARAMS: Call[Any] = CALLS.declare(
    "hypervisor_validate_params", NORMAL, MANY, "hvname", "hvfull"
)
INSTANCE_BALLOON_MEMORY: Call[Any] = CALLS.declare(
    "instance_balloon_memory", NORMAL, ONE, entity("instance"), "memory", whole=True
)
INSTANCE_CONSOLE_INFO: Call[dict[str, Console]] = CALLS.declare(
    "instance_console_info",
    URGENT,
    MANY,
    entity("instances"),
    result=dict[str, Console],
    bare=True,
)
INSTANCE_FINALIZE_MIGRATION_DST: Call[Any] = CALLS.declare(
    "instance_finalize_migration_dst", NORMAL, ONE, entity("instance"), "info", "success"
)
INSTANCE_FINALIZE_MIGRATION_SRC: Call[Any] = CALLS.declare(
    "instance_finalize_migration_src", SLOW, ONE, entity("instance"), "success", "live"
)
INSTANCE_GET_MIGRATION_STATUS: Call[MigrationStatus] = CALLS.declare(
    "instance_get_migration_status", SLOW, ONE, entity("instance"), result=MigrationStatus
)
INSTANCE_INFO: Call[InstanceInfo] = CALLS.declare(
    "instance_info",
    URGENT,
    ONE,
    "instance",
    "hname",
    "hvparams",
    result=InstanceInfo,
)
INSTANCE_LIST: Call[list[str]] = CALLS.declare(
    "instance_list", URGENT, MANY, "hypervisor_list", "hvparams", result=list[str]
)
INSTANCE_METADATA_MODIFY: Call[Any] = CALLS.declare(
    "instance_metadata_modify", URGENT, ONE, entity("instance")
)
INSTANCE_MIGRATABLE: Call[Any] = CALLS.declare(
    "instance_migratable", NORMAL, ONE, entity("instance")
)
INSTANCE_MIGRATE: Call[Any] = CALLS.declare(
    "instance_migrate", SLOW, ONE, "cluster_name", entity("instance"), "target", "live"
)
INSTANCE_OS_ADD: Call[Any] = CALLS.declare(
    "instance_os_add", DAY, ONE, entity("instance_osp"), "reinstall", "debug"
)
INSTANCE_REBOOT: Call[Any] = CALLS.declare(
    "instance_reboot", NORMAL, ONE, entity("inst"), "reboot_type", "shutdown_timeout", "reason"
)
INSTANCE_RUN_RENAME: Call[Any] = CALLS.declare(
    "instance_run_rename", SLOW, ONE, entity("instance"), "old_name", "debug"
)
INSTANCE_SHUTDOWN: Call[Any] = CALLS.declare(
    "instance_shutdown", NORMAL, ONE, entity("instance"), "timeout", "reason"
)
INSTANCE_START: Call[Any] = CALLS.declare(
    "instance_start", NORMAL, ONE, entity("instance_hvp_bep"), "startup_paused", "reason"
)
MIGRATION_INFO: Call[Any] = CALLS.declare("migration_info", NORMAL, ONE, entity("instance"))
# Operating systems
OS_DIAGNOSE: Call[list[OSRow]] = CALLS.declare("os_diagnose", FAST, MANY, result=list[OSRow])
OS_EXPORT: Call[Any] = CALLS.declare(
    "os_export", FAST, ONE, entity("instance"), secret("override_env")
)
OS_VALIDATE: Call[bool] = CALLS.declare(
    "os_validate",
    FAST,
    MANY,
    "required",
    "name",
    "checks",
    secret("params"),
    "force_variant",
    result=bool,
)
# Block devices and storage
BDEV_SIZES: Call[dict[str, int]] = CALLS.declare(
    "bdev_sizes", URGENT, MANY, "devices", result=dict[str, int]
)
BLOCKDEV_ADDCHILDREN: Call[Any] = CALLS.declare(
    "blockdev_addchildren", NORMAL, ONE, entity("bdev"), entity("ndevs"), whole=True
)
BLOCKDEV_ASSEMBLE: Call[AssembledDevice] = CALLS.declare(
    "blockdev_assemble",
    NORMAL,
    ONE,
    entity("disk"),
    entity("instance"),
    "on_primary",
    "idx",
    result=AssembledDevice,
    whole=True,
)
BLOCKDEV_CLOSE: Call[Any] = CALLS.declare(
    "blockdev_close", NORMAL, ONE, "instance_name", entity("disks"), whole=True
)
BLOCKDEV_CONVERT: Call[Any] = CALLS.declare(
    "blockdev_convert", SLOW, ONE, entity("bdev_src"), entity("bdev_dest"), whole=True
)
BLOCKDEV_CREATE: Call[Any] = CALLS.declare(
    "blockdev_create",
    NORMAL,
    ONE,
    entity("bdev"),
    "size",
    "owner",
    "on_primary",
    "info",
    "exclusive_storage",
    whole=True,
)
BLOCKDEV_FIND: Call[DeviceStatus | None] = CALLS.declare(
    "blockdev_find", NORMAL, ONE, entity("disk"), result=DeviceStatus | None
)
BLOCKDEV_GETDIMENSIONS: Call[list[Dimensions | None]] = CALLS.declare(
    "blockdev_getdimensions", NORMAL, ONE, entity("disks"), result=list[Dimensions | None]
)
BLOCKDEV_GETMIRRORSTATUS: Call[list[DeviceStatus]] = CALLS.declare(
    "blockdev_getmirrorstatus", NORMAL, ONE, entity("disks"), result=list[DeviceStatus]
)
BLOCKDEV_GETMIRRORSTATUS_MULTI: Call[list[tuple[bool, Any]]] = CALLS.declare(
    "blockdev_getmirrorstatus_multi",
    NORMAL,
    MANY,
    entity("node_disks"),
    result=list[tuple[bool, Any]],
)
BLOCKDEV_GROW: Call[Any] = CALLS.declare(
    "blockdev_grow",
    NORMAL,
    ONE,
    entity("cf_bdev"),
    "amount",
    "dryrun",
    "backingstore",
    "es_flag",
    whole=True,
)
BLOCKDEV_IMAGE: Call[Any] = CALLS.declare(
    "blockdev_image", SLOW, ONE, entity("bdev"), "image", "size", whole=True
)
BLOCKDEV_OPEN: Call[Any] = CALLS.declare(
    "blockdev_open", NORMAL, ONE, "instance_name", entity("disks"), "exclusive", whole=True
)
BLOCKDEV_PAUSE_RESUME_SYNC: Call[Any] = CALLS.declare(
    "blockdev_pause_resume_sync", NORMAL, ONE, entity("disks"), "pause", whole=True
)
BLOCKDEV_REMOVE: Call[Any] = CALLS.declare(
    "blockdev_remove", NORMAL, ONE, entity("bdev"), whole=True
)
BLOCKDEV_REMOVECHILDREN: Call[Any] = CALLS.declare(
    "blockdev_removechildren", NORMAL, ONE, entity("bdev"), entity("ndevs"), whole=True
)
BLOCKDEV_RENAME: Call[Any] = CALLS.declare(
    "blockdev_rename", NORMAL, ONE, entity("devlist"), whole=True
)
BLOCKDEV_SETINFO: Call[Any] = CALLS.declare(
    "blockdev_setinfo", NORMAL, ONE, entity("disk"), "info", whole=True
)
BLOCKDEV_SHUTDOWN: Call[Any] = CALLS.declare(
    "blockdev_shutdown", NORMAL, ONE, entity("disk"), whole=True
)
BLOCKDEV_SNAPSHOT: Call[Any] = CALLS.declare(
    "blockdev_snapshot", NORMAL, ONE, entity("cf_bdev"), "snap_name", "snap_size", whole=True
)
BLOCKDEV_WIPE: Call[Any] = CALLS.declare(
    "blockdev_wipe", SLOW, ONE, entity("bdev"), "offset", "size", whole=True
)
DRBD_ATTACH_NET: Call[Any] = CALLS.declare(
    "drbd_attach_net", NORMAL, MANY, entity("disks"), "multimaster", whole=True
)
DRBD_DISCONNECT_NET: Call[Any] = CALLS.declare(
    "drbd_disconnect_net", NORMAL, MANY, entity("disks"), whole=True
)
DRBD_HELPER: Call[str] = CALLS.declare("drbd_helper", URGENT, MANY, result=str)
DRBD_NEEDS_ACTIVATION: Call[list[str]] = CALLS.declare(
    "drbd_needs_activation", NORMAL, ONE, entity("disks"), result=list[str]
)
DRBD_WAIT_SYNC: Call[tuple[bool, float]] = CALLS.declare(
    "drbd_wait_sync", SLOW, MANY, entity("disks"), result=tuple[bool, float]
)
EXTSTORAGE_DIAGNOSE: Call[list[ProviderRow]] = CALLS.declare(
    "extstorage_diagnose", FAST, MANY, result=list[ProviderRow]
)
LV_LIST: Call[dict[str, LogicalVolume]] = CALLS.declare(
    "lv_list", URGENT, MANY, "vg_name", result=dict[str, LogicalVolume]
)
STORAGE_EXECUTE: Call[Any] = CALLS.declare(
    "storage_execute", NORMAL, ONE, "su_name", "su_args", "name", "op"
)
STORAGE_LIST: Call[list[list[Any]]] = CALLS.declare(
    "storage_list", NORMAL, MANY, "su_name", "su_args", "name", "fields", result=list[list[Any]]
)
STORAGE_MODIFY: Call[Any] = CALLS.declare(
    "storage_modify", NORMAL, ONE, "su_name", "su_args", "name", "changes"
)
VG_LIST: Call[dict[str, float]] = CALLS.declare("vg_list", URGENT, MANY, result=dict[str, float])
# Exports and imports
EXPORT_INFO: Call[str] = CALLS.declare("export_info", FAST, ONE, "path", result=str)
EXPORT_LIST: Call[list[str]] = CALLS.declare("export_list", FAST, MANY, result=list[str])
EXPORT_REMOVE: Call[Any] = CALLS.declare("export_remove", FAST, ONE, "export")
EXPORT_START: Call[Any] = CALLS.declare(
    "export_start",
    NORMAL,
    ONE,
    secret("opts"),
    "host",
    "port",
    entity("instance"),
    "component",
    entity("source"),
)
FINALIZE_EXPORT: Call[Any] = CALLS.declare(
    "finalize_export", NORMAL, ONE, entity("instance"), entity("snap_disks")
)
IMPEXP_ABORT: Call[Any] = CALLS.declare("impexp_abort", NORMAL, ONE, "name")
IMPEXP_CLEANUP: Call[Any] = CALLS.declare("impexp_cleanup", NORMAL, ONE, "name")
IMPEXP_STATUS: Call[list[dict[str, Any] | None]] = CALLS.declare(
    "impexp_status", FAST, ONE, "names", result=list[dict[str, Any] | None]
)
IMPORT_START: Call[Any] = CALLS.declare(
    "import_start", NORMAL, ONE, secret("opts"), entity("instance"), "component", entity("dest")
)
X509_CERT_CREATE: Call[Any] = CALLS.declare("x509_cert_create", NORMAL, ONE, "validity")
X509_CERT_REMOVE: Call[Any] = CALLS.declare("x509_cert_remove", NORMAL, ONE, "name")
