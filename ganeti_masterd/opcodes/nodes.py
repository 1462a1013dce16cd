"""Opcodes of nodes, and commands for several nodes at once."""

from __future__ import annotations

from typing import Any

from ganeti_masterd.opcodes.base import Hooks, Opcode
from ganeti_masterd.opcodes.checks import NonEmptyStr, ObjectName
from ganeti_masterd.opcodes.results import JobsResult, ResultStatus
from ganeti_masterd.opcodes.targets import NodeOpcode
from ganeti_masterd.opcodes.types import (
    EvacuationMode,
    MigrationMode,
    ObjectNames,
    OobAction,
    ParamValues,
)


class NodeAdd(Opcode, tag="OP_NODE_ADD", frozen=True, kw_only=True):
    """Adds a node to the cluster, or with readd set, a known one again."""

    HOOKS = Hooks("node-add", "NODE")
    SUMMARY = "node_name"

    node_name: ObjectName
    hv_state: ParamValues | None = None
    disk_state: ParamValues | None = None
    primary_ip: NonEmptyStr | None = None
    secondary_ip: NonEmptyStr | None = None
    readd: bool = False
    group: ObjectName | None = None
    master_capable: bool | None = None
    vm_capable: bool | None = None
    ndparams: ParamValues | None = None
    node_setup: bool = False


class NodeRemove(NodeOpcode, tag="OP_NODE_REMOVE", frozen=True, kw_only=True):
    """Removes a node that has no instances."""

    HOOKS = Hooks("node-remove", "NODE")


class NodeSetParams(NodeOpcode, tag="OP_NODE_SET_PARAMS", frozen=True, kw_only=True):
    """Changes a node's parameters or its role; the result lists what changed."""

    HOOKS = Hooks("node-modify", "NODE")
    RESULT = list[tuple[NonEmptyStr, Any]]

    force: bool = False
    hv_state: ParamValues | None = None
    disk_state: ParamValues | None = None
    master_candidate: bool | None = None
    offline: bool | None = None
    drained: bool | None = None
    auto_promote: bool = False
    master_capable: bool | None = None
    vm_capable: bool | None = None
    secondary_ip: NonEmptyStr | None = None
    ndparams: ParamValues | None = None
    powered: bool | None = None


class NodePowercycle(NodeOpcode, tag="OP_NODE_POWERCYCLE", frozen=True, kw_only=True):
    """Makes a node reboot at once, without shutting down; the result is its answer."""

    RESULT = NonEmptyStr | None

    force: bool = False


class NodeEvacuate(NodeOpcode, tag="OP_NODE_EVACUATE", frozen=True, kw_only=True):
    """Submits the jobs that move a node's primary or secondary instances, or both, away."""

    RESULT = JobsResult

    early_release: bool = False
    remote_node: ObjectName | None = None
    remote_node_uuid: NonEmptyStr | None = None
    iallocator: NonEmptyStr | None = None
    mode: EvacuationMode
    ignore_soft_errors: bool | None = None


class NodeMigrate(NodeOpcode, tag="OP_NODE_MIGRATE", frozen=True, kw_only=True):
    """Submits the jobs that migrate a node's primary instances away."""

    HOOKS = Hooks("node-migrate", "NODE")
    RESULT = JobsResult

    mode: MigrationMode | None = None
    live: bool | None = None
    target_node: ObjectName | None = None
    target_node_uuid: NonEmptyStr | None = None
    allow_runtime_changes: bool = True
    ignore_ipolicy: bool = False
    iallocator: NonEmptyStr | None = None


class OobCommand(Opcode, tag="OP_OOB_COMMAND", frozen=True, kw_only=True):
    """Runs an out-of-band action, such as power-off, for nodes (all if none are given).

    Times are in seconds. Nodes are powered on one after the other, power_delay apart.
    """

    RESULT = list[list[tuple[ResultStatus, Any]]]

    node_names: ObjectNames = ()
    node_uuids: ObjectNames | None = None
    command: OobAction
    timeout: int = 60
    ignore_status: bool = False
    power_delay: float = 2.0


class RestrictedCommand(Opcode, tag="OP_RESTRICTED_COMMAND", frozen=True, kw_only=True):
    """Runs a command on nodes; it must be one that the nodes' administrator has allowed."""

    RESULT = list[tuple[bool, str]]

    use_locking: bool = False
    nodes: ObjectNames
    node_uuids: ObjectNames | None = None
    command: NonEmptyStr
