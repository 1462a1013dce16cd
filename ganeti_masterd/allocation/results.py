"""Results of allocators: checking each kind of result and turning it into a value.

The functions raise ``ResultValidationError`` for a result that isn't valid.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct

from ganeti_masterd.errors import ResultValidationError
from ganeti_masterd.opcodes import decode_opcode
from ganeti_masterd.opcodes.base import Opcode

T = TypeVar("T")
Name = Annotated[str, Meta(min_length=1)]

#: The opcodes that an allocator may ask to be run.
MOVING = ("OP_INSTANCE_FAILOVER", "OP_INSTANCE_MIGRATE", "OP_INSTANCE_REPLACE_DISKS")


class Placements(Struct, frozen=True, array_like=True):
    """Where new instances go: (name, nodes) of those placed, and the names of the others."""

    placed: list[tuple[Name, list[Name]]]
    failed: list[Name]


class MovedInstance(Struct, frozen=True, array_like=True):
    """An instance that can move: into which group, onto which nodes (the primary first)."""

    name: Name
    group: Name
    nodes: list[Name]


class Stuck(Struct, frozen=True, array_like=True):
    """An instance that can't move, and why."""

    name: Name
    reason: str | None


class Moves(Struct, frozen=True):
    """How instances move. Each of ``jobs`` is a list of opcodes to run in order."""

    moved: list[MovedInstance]
    failed: list[Stuck]
    jobs: list[list[Opcode]]


def nodes(result: Any, count: int | None = None) -> list[str]:
    """Returns a result that is a list of node names, exactly ``count`` if that is given."""
    found = _read(result, list[Name])
    if count is not None and len(found) != count:
        raise ResultValidationError(
            f"iallocator returned invalid number of nodes ({len(found)}), required {count}"
        )
    return found


def node(result: Any) -> str:
    """Returns a result that is one node's name."""
    name: str = _read(result, Name)
    return name


def placements(result: Any) -> Placements:
    """Returns a result of ``multi-allocate``."""
    return _read(result, Placements)


def moves(result: Any) -> Moves:
    """Returns a result of ``node-evacuate`` or ``change-group``.

    Its jobs may only contain opcodes that move instances.
    """
    moved, failed, jobs = _read(
        result, tuple[list[MovedInstance], list[Stuck], list[list[dict[str, Any]]]]
    )
    return Moves(moved, failed, [[_opcode(plain) for plain in job] for job in jobs])


def check_groups(document: Mapping[str, Any], found: Iterable[str], allowed: Iterable[str]) -> None:
    """Checks that the groups of the nodes ``found`` are among those of the nodes ``allowed``."""
    groups, before = (sorted(_groups(document, names)) for names in (found, allowed))
    if not set(groups) <= set(before):
        raise ResultValidationError(
            f"Groups of nodes returned by iallocator ({', '.join(groups)}) differ from original"
            f" groups ({', '.join(before)})"
        )


def _groups(document: Mapping[str, Any], names: Iterable[str]) -> set[str]:
    """Returns the names of the groups of those nodes that are in the document."""
    uuids = {document["nodes"][name]["group"] for name in names if name in document["nodes"]}
    groups = document["nodegroups"]
    return {groups[uuid]["name"] if uuid in groups else uuid for uuid in uuids}


def _opcode(plain: dict[str, Any]) -> Opcode:
    if plain.get("OP_ID") not in MOVING:
        raise ResultValidationError(
            f"iallocator returned invalid result: {plain.get('OP_ID')!r} is no opcode that moves"
            " instances"
        )
    try:
        return decode_opcode(plain)
    except Exception as error:
        raise ResultValidationError(f"iallocator returned invalid result: {error}")


def _read(result: Any, shape: type[T]) -> T:
    try:
        return msgspec.convert(result, shape)
    except msgspec.ValidationError as error:
        raise ResultValidationError(f"iallocator returned invalid result: {error}")
