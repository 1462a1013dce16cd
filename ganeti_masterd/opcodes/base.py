"""What every opcode is: parameters that all have, and facts of its class.

An opcode is a frozen value. Its own parameters are the fields of its class;
their types are in ``types``. What it *does* is a logical unit's affair.
"""

from __future__ import annotations

from typing import Any, ClassVar

from msgspec import Struct

from ganeti_masterd.opcodes.checks import NonNegativeInt
from ganeti_masterd.opcodes.types import Dependency, Priority, Reason


class Hooks(Struct, frozen=True):
    """Where an opcode's hooks lie (``hooks/PATH-pre.d``) and what they are about."""

    path: str
    object_type: str


class Opcode(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="OP_ID", tag="OP"
):
    """An operation on the cluster, with its parameters.

    ``dry_run`` stops before anything changes. ``debug_level`` is 0 or more.
    ``priority`` is -20 (most urgent) to 19. ``depends`` are the jobs to wait
    for. ``reason`` is the trail of [source, text, nanoseconds] of whoever
    asked.

    Facts of a class: ``HOOKS`` (null: it runs none), ``SUMMARY`` (the
    parameter that stands in its one-line summary), ``RESULT`` (the type that
    its result has).
    """

    HOOKS: ClassVar[Hooks | None] = None
    SUMMARY: ClassVar[str | None] = None
    RESULT: ClassVar[Any] = None

    dry_run: bool | None = None
    debug_level: NonNegativeInt | None = None
    priority: Priority = 0
    depends: tuple[Dependency, ...] | None = None
    comment: str | None = None
    reason: tuple[Reason, ...] = ()

    @property
    def op_id(self) -> str:
        """The opcode's name on the wire, such as ``OP_TAGS_SET``."""
        return str(self.__struct_config__.tag)

    def __repr__(self) -> str:
        # Parameters may be secret, and a repr ends up in logs.
        return f"<{self.op_id}>"


COMMON_PARAMETERS: tuple[str, ...] = Opcode.__struct_fields__
