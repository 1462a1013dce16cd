"""Opcodes of operating systems and of the storage that nodes have."""

from __future__ import annotations

from typing import Any

from ganeti_masterd.opcodes.base import Opcode
from ganeti_masterd.opcodes.checks import ObjectName
from ganeti_masterd.opcodes.targets import NodeOpcode
from ganeti_masterd.opcodes.types import ObjectNames, ParamValues, StorageType


class OsDiagnose(Opcode, tag="OP_OS_DIAGNOSE", frozen=True, kw_only=True):
    """Returns which operating systems the nodes have, and whether they are valid."""

    RESULT = list[list[Any]]

    output_fields: ObjectNames
    names: ObjectNames = ()


class ExtStorageDiagnose(Opcode, tag="OP_EXT_STORAGE_DIAGNOSE", frozen=True, kw_only=True):
    """Returns which external storage providers the nodes have, and whether they are valid."""

    RESULT = list[list[Any]]

    output_fields: ObjectNames
    names: ObjectNames = ()


class NodeQueryVols(Opcode, tag="OP_NODE_QUERYVOLS", frozen=True, kw_only=True):
    """Lists the logical volumes on nodes (on all if none are given)."""

    RESULT = list[Any]

    output_fields: ObjectNames
    nodes: ObjectNames = ()


class NodeQueryStorage(Opcode, tag="OP_NODE_QUERY_STORAGE", frozen=True, kw_only=True):
    """Lists the storage units of a type on nodes (on all if none are given)."""

    RESULT = list[list[Any]]

    output_fields: ObjectNames
    storage_type: StorageType | None = None
    nodes: ObjectNames = ()
    name: ObjectName | None = None


class NodeModifyStorage(NodeOpcode, tag="OP_NODE_MODIFY_STORAGE", frozen=True, kw_only=True):
    """Changes a storage unit of a node, such as whether a physical volume may be used."""

    storage_type: StorageType
    name: ObjectName | None = None
    changes: ParamValues


class RepairNodeStorage(NodeOpcode, tag="OP_REPAIR_NODE_STORAGE", frozen=True, kw_only=True):
    """Makes a node repair a volume group."""

    storage_type: StorageType
    name: ObjectName | None = None
    ignore_consistency: bool = False
