"""Bases of the opcodes that work on one instance or one node."""

from __future__ import annotations

from typing import ClassVar

from ganeti_masterd.opcodes.base import Opcode
from ganeti_masterd.opcodes.checks import NonEmptyStr, ObjectName
from ganeti_masterd.opcodes.types import ObjectNameOrEmpty


class InstanceOpcode(Opcode, frozen=True, kw_only=True, tag="OP_ON_INSTANCE"):
    """Works on one instance, given by its uuid or, if that is None, by its name."""

    SUMMARY: ClassVar[str | None] = "instance_name"

    instance_name: ObjectNameOrEmpty
    instance_uuid: NonEmptyStr | None = None


class NodeOpcode(Opcode, frozen=True, kw_only=True, tag="OP_ON_NODE"):
    """Works on one node, given by its uuid or, if that is None, by its name."""

    SUMMARY: ClassVar[str | None] = "node_name"

    node_name: ObjectName
    node_uuid: NonEmptyStr | None = None
