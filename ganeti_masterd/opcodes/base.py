"""The base of all opcodes: the common parameters, and facts that each class states.

An opcode is a frozen value. Its own parameters are the fields of its class;
their types are in ``types``. What it *does* is implemented by its logical unit.
"""

from __future__ import annotations

from typing import Any, ClassVar

from msgspec import Struct

from ganeti_masterd.opcodes.checks import NonNegativeInt
from ganeti_masterd.opcodes.types import Dependency, Priority, Reason


class Hooks(Struct, frozen=True):
    """Which hooks an opcode runs (those in ``hooks/PATH-pre.d``), and on what kind of object."""

    path: str
    object_type: str


class Opcode(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="OP_ID", tag="OP"
):
    """An operation on the cluster, with its parameters.

    ``dry_run`` stops before anything is changed. ``debug_level`` is 0 or more.
    ``priority`` is -20 (most urgent) to 19. ``depends`` are the jobs to wait
    for. ``reason`` is a trail of [source, text, nanoseconds] that says who asked for
    the operation and why.

    Each class states ``HOOKS`` (None if it runs no hooks), ``SUMMARY`` (the
    parameter shown in its one-line summary) and ``RESULT`` (the type of its result).
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
        # Without parameters, which may be secret: a repr ends up in logs.
        return f"<{self.op_id}>"


COMMON_PARAMETERS: tuple[str, ...] = Opcode.__struct_fields__
