"""What opcodes have in common that work on one instance or one node."""

from __future__ import annotations

from typing import ClassVar

from ganeti_masterd.opcodes.base import Opcode
from ganeti_masterd.opcodes.checks import NonEmptyStr


class InstanceOpcode(Opcode, frozen=True, kw_only=True, tag="OP_ON_INSTANCE"):
    """Works on one instance: the one with the uuid if there is one, else with the name."""

    SUMMARY: ClassVar[str | None] = "instance_name"

    instance_name: str
    instance_uuid: NonEmptyStr | None = None


class NodeOpcode(Opcode, frozen=True, kw_only=True, tag="OP_ON_NODE"):
    """Works on one node: the one with the uuid if there is one, else with the name."""

    SUMMARY: ClassVar[str | None] = "node_name"

    node_name: NonEmptyStr
    node_uuid: NonEmptyStr | None = None
