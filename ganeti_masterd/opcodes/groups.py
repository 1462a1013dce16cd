"""Opcodes of node groups."""

from __future__ import annotations

from typing import Any

from ganeti_masterd.opcodes.base import Hooks, Opcode
from ganeti_masterd.opcodes.checks import NonEmptyStr, ObjectName
from ganeti_masterd.opcodes.results import JobsResult
from ganeti_masterd.opcodes.types import AllocPolicy, ObjectNames, ParamsByTemplate, ParamValues


class GroupAdd(Opcode, tag="OP_GROUP_ADD", frozen=True, kw_only=True):
    """Adds a node group."""

    HOOKS = Hooks("group-add", "GROUP")
    SUMMARY = "group_name"
    RESULT = JobsResult | None

    group_name: ObjectName
    alloc_policy: AllocPolicy | None = None
    ndparams: ParamValues | None = None
    diskparams: ParamsByTemplate | None = None
    hv_state: ParamValues | None = None
    disk_state: ParamValues | None = None
    ipolicy: ParamValues | None = None


class GroupAssignNodes(Opcode, tag="OP_GROUP_ASSIGN_NODES", frozen=True, kw_only=True):
    """Puts nodes into a group."""

    SUMMARY = "group_name"

    group_name: ObjectName
    force: bool = False
    nodes: ObjectNames
    node_uuids: ObjectNames | None = None


class GroupSetParams(Opcode, tag="OP_GROUP_SET_PARAMS", frozen=True, kw_only=True):
    """Changes a node group's parameters; the result lists what changed."""

    HOOKS = Hooks("group-modify", "GROUP")
    SUMMARY = "group_name"
    RESULT = list[tuple[NonEmptyStr, Any]]

    group_name: ObjectName
    alloc_policy: AllocPolicy | None = None
    ndparams: ParamValues | None = None
    diskparams: ParamsByTemplate | None = None
    hv_state: ParamValues | None = None
    disk_state: ParamValues | None = None
    ipolicy: ParamValues | None = None


class GroupRemove(Opcode, tag="OP_GROUP_REMOVE", frozen=True, kw_only=True):
    """Removes a node group that has no nodes."""

    HOOKS = Hooks("group-remove", "GROUP")
    SUMMARY = "group_name"

    group_name: ObjectName


class GroupRename(Opcode, tag="OP_GROUP_RENAME", frozen=True, kw_only=True):
    """Gives a node group a new name; the result is that name."""

    HOOKS = Hooks("group-rename", "GROUP")
    RESULT = NonEmptyStr

    group_name: ObjectName
    new_name: ObjectName


class GroupEvacuate(Opcode, tag="OP_GROUP_EVACUATE", frozen=True, kw_only=True):
    """Submits the jobs that move all instances out of a group."""

    HOOKS = Hooks("group-evacuate", "GROUP")
    SUMMARY = "group_name"
    RESULT = JobsResult

    group_name: ObjectName
    early_release: bool = False
    iallocator: NonEmptyStr | None = None
    target_groups: ObjectNames | None = None
    sequential: bool = False
    force_failover: bool = False
