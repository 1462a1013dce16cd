"""Opcodes that create, change, start, stop and remove instances."""

from __future__ import annotations

from typing import Any

from ganeti_masterd.opcodes.base import Hooks, Opcode
from ganeti_masterd.opcodes.checks import NonEmptyStr, NonNegativeInt, ObjectName
from ganeti_masterd.opcodes.results import AllocatedResult
from ganeti_masterd.opcodes.targets import InstanceOpcode
from ganeti_masterd.opcodes.types import (
    AdminStateSource,
    CreateMode,
    DiskChanges,
    Disks,
    DiskTemplateName,
    FileDriver,
    Hypervisor,
    InnerOpcodes,
    NicChanges,
    Nics,
    ObjectNameOrEmpty,
    ObjectNames,
    ParamValues,
    PositiveInt,
    PrivateParams,
    RebootType,
    SecretParams,
    Tag,
)


class InstanceCreate(Opcode, tag="OP_INSTANCE_CREATE", frozen=True, kw_only=True):
    """Creates an instance: a new one, from an export, or from another cluster (see mode).

    The result lists the names of its nodes. Times are in seconds, sizes in MiB.
    """

    HOOKS = Hooks("instance-add", "INSTANCE")
    SUMMARY = "instance_name"
    RESULT = ObjectNames

    instance_name: ObjectNameOrEmpty
    force_variant: bool = False
    wait_for_sync: bool = True
    name_check: bool = True
    ignore_ipolicy: bool = False
    opportunistic_locking: bool = False
    beparams: ParamValues = {}
    disks: Disks
    disk_template: DiskTemplateName | None = None
    group_name: ObjectName | None = None
    file_driver: FileDriver | None = None
    file_storage_dir: NonEmptyStr | None = None
    hvparams: ParamValues = {}
    hypervisor: Hypervisor | None = None
    iallocator: NonEmptyStr | None = None
    identify_defaults: bool = False
    ip_check: bool = True
    conflicts_check: bool = True
    mode: CreateMode
    nics: Nics
    no_install: bool | None = None
    osparams: ParamValues = {}
    osparams_private: PrivateParams | None = None
    osparams_secret: SecretParams | None = None
    os_type: NonEmptyStr | None = None
    pnode: ObjectName | None = None
    pnode_uuid: NonEmptyStr | None = None
    snode: ObjectName | None = None
    snode_uuid: NonEmptyStr | None = None
    source_handshake: tuple[Any, ...] | None = None
    source_instance_name: ObjectName | None = None
    source_shutdown_timeout: NonNegativeInt = 120
    source_x509_ca: NonEmptyStr | None = None
    src_node: ObjectName | None = None
    src_node_uuid: NonEmptyStr | None = None
    src_path: NonEmptyStr | None = None
    compress: str = "none"
    start: bool = True
    forthcoming: bool = False
    commit: bool = False
    tags: tuple[Tag, ...] = ()
    instance_communication: bool = False
    helper_startup_timeout: int | None = None
    helper_shutdown_timeout: int | None = None


class InstanceMultiAlloc(Opcode, tag="OP_INSTANCE_MULTI_ALLOC", frozen=True, kw_only=True):
    """Finds nodes for many instances at once and submits the jobs that create them.

    Each item of instances is an OP_INSTANCE_CREATE, which is checked when the job runs.
    """

    RESULT = AllocatedResult

    opportunistic_locking: bool = False
    iallocator: NonEmptyStr | None = None
    instances: InnerOpcodes = ()


class InstanceReinstall(InstanceOpcode, tag="OP_INSTANCE_REINSTALL", frozen=True, kw_only=True):
    """Installs an operating system over an instance that is down."""

    HOOKS = Hooks("instance-reinstall", "INSTANCE")

    force_variant: bool = False
    os_type: NonEmptyStr | None = None
    osparams: ParamValues | None = None
    osparams_private: PrivateParams | None = None
    osparams_secret: SecretParams | None = None


class InstanceRemove(InstanceOpcode, tag="OP_INSTANCE_REMOVE", frozen=True, kw_only=True):
    """Removes an instance with its disks."""

    HOOKS = Hooks("instance-remove", "INSTANCE")

    shutdown_timeout: NonNegativeInt = 120
    ignore_failures: bool = False


class InstanceRename(InstanceOpcode, tag="OP_INSTANCE_RENAME", frozen=True, kw_only=True):
    """Renames an instance that is down; the result is the new name."""

    HOOKS = Hooks("instance-rename", "INSTANCE")
    SUMMARY = None
    RESULT = NonEmptyStr

    new_name: ObjectName
    name_check: bool = True
    ip_check: bool = True


class InstanceStartup(InstanceOpcode, tag="OP_INSTANCE_STARTUP", frozen=True, kw_only=True):
    """Starts an instance; hvparams and beparams apply to this start only."""

    HOOKS = Hooks("instance-start", "INSTANCE")

    force: bool = False
    ignore_offline_nodes: bool = False
    hvparams: ParamValues = {}
    beparams: ParamValues = {}
    no_remember: bool = False
    startup_paused: bool = False
    shutdown_timeout: NonNegativeInt = 120


class InstanceShutdown(InstanceOpcode, tag="OP_INSTANCE_SHUTDOWN", frozen=True, kw_only=True):
    """Stops an instance, by force after timeout seconds."""

    HOOKS = Hooks("instance-stop", "INSTANCE")

    force: bool = False
    ignore_offline_nodes: bool = False
    timeout: NonNegativeInt = 120
    no_remember: bool = False
    admin_state_source: AdminStateSource | None = None


class InstanceReboot(InstanceOpcode, tag="OP_INSTANCE_REBOOT", frozen=True, kw_only=True):
    """Reboots an instance, inside its hypervisor or by stopping and starting it."""

    HOOKS = Hooks("instance-reboot", "INSTANCE")

    shutdown_timeout: NonNegativeInt = 120
    ignore_secondaries: bool = False
    reboot_type: RebootType


class InstanceSetParams(InstanceOpcode, tag="OP_INSTANCE_SET_PARAMS", frozen=True, kw_only=True):
    """Changes an instance, its NICs, disks or disk template; the result lists what changed."""

    HOOKS = Hooks("instance-modify", "INSTANCE")
    RESULT = list[tuple[NonEmptyStr, Any]]

    force: bool = False
    force_variant: bool = False
    ignore_ipolicy: bool = False
    nics: NicChanges = ()
    disks: DiskChanges = ()
    beparams: ParamValues = {}
    runtime_mem: PositiveInt | None = None
    hvparams: ParamValues = {}
    disk_template: DiskTemplateName | None = None
    ext_params: ParamValues = {}
    file_driver: FileDriver | None = None
    file_storage_dir: NonEmptyStr | None = None
    pnode: ObjectName | None = None
    pnode_uuid: NonEmptyStr | None = None
    remote_node: ObjectName | None = None
    remote_node_uuid: NonEmptyStr | None = None
    iallocator: NonEmptyStr | None = None
    os_name: NonEmptyStr | None = None
    osparams: ParamValues = {}
    osparams_private: PrivateParams | None = None
    wait_for_sync: bool = True
    offline: bool | None = None
    conflicts_check: bool = True
    hotplug: bool = False
    hotplug_if_possible: bool = False
    instance_communication: bool | None = None


class InstanceQueryData(Opcode, tag="OP_INSTANCE_QUERY_DATA", frozen=True, kw_only=True):
    """Returns all about instances (all if none are given), with live data unless static is set.

    No locks are needed, so use_locking changes nothing.
    """

    RESULT = dict[str, ParamValues]

    use_locking: bool = False
    instances: ObjectNames = ()
    static: bool = False


class InstanceConsole(InstanceOpcode, tag="OP_INSTANCE_CONSOLE", frozen=True, kw_only=True):
    """Returns how to reach an instance's console."""

    RESULT = ParamValues
