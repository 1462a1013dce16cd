"""Descriptions of each opcode's parameters, derived once from its declaration.

Validation, wording and secrecy all work from :func:`parameters`, so that
a parameter is declared in one place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from msgspec import Struct, inspect

from ganeti_masterd.opcodes.base import COMMON_PARAMETERS, Opcode

#: A place inside a value: keys of objects and indices of lists.
Path = tuple[str | int, ...]


class Parameter(Struct, frozen=True):
    """One parameter of an opcode.

    ``has_default`` is whether it has a default other than None, which a client's null then
    stands for. ``checked`` is whether it has checks beyond msgspec's. ``secrecy`` is
    "private", "secret" or None; ``depth`` is how many levels of objects down its hidden
    values are. ``opcodes`` is whether its value contains opcodes.
    """

    name: str
    type: inspect.Type
    required: bool
    has_default: bool
    checked: bool
    secrecy: str | None
    depth: int
    opcodes: bool


@cache
def parameters(cls: type[Opcode]) -> Mapping[str, Parameter]:
    """Returns an opcode's parameters by name, in the order used in job files.

    That is: its own, in the order of declaration, then the common ones.
    """
    info = inspect.type_info(cls)
    assert isinstance(info, inspect.StructType)
    fields = {field.name: field for field in info.fields}
    own = [name for name in fields if name not in COMMON_PARAMETERS]
    return {name: _parameter(fields[name]) for name in [*own, *COMMON_PARAMETERS]}


@cache
def required_parameters(cls: type[Opcode]) -> tuple[str, ...]:
    """Returns the names of the parameters that must be given."""
    return tuple(name for name, parameter in parameters(cls).items() if parameter.required)


@cache
def checked_parameters(cls: type[Opcode]) -> tuple[Parameter, ...]:
    """Returns the parameters that have checks beyond msgspec's."""
    return tuple(parameter for parameter in parameters(cls).values() if parameter.checked)


def failed_check(kind: inspect.Type, value: Any, path: Path = ()) -> Path | None:
    """Returns the path at which a check of the type fails, or None if all succeed.

    ``value`` has already been accepted by msgspec.
    """
    extra, kind = _unwrap(kind)
    check: Callable[[Any], bool] | None = extra.get("check")
    if check is not None and not check(value):
        return path
    if isinstance(kind, inspect.UnionType):
        if value is None:
            return None
        for member in kind.types:
            if not isinstance(member, inspect.NoneType):
                failed = failed_check(member, value, path)
                if failed is not None:
                    return failed
    elif isinstance(kind, inspect.VarTupleType):
        for index, item in enumerate(value):
            failed = failed_check(kind.item_type, item, (*path, index))
            if failed is not None:
                return failed
    return None


def whole(value: Any) -> Any:
    """Returns a float without a fraction as an integer, anything else unchanged."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def with_integers(kind: inspect.Type, value: Any) -> Any:
    """Returns a value with whole floats made integers wherever the type accepts only integers."""
    kinds = [_unwrap(member)[1] for member in _members(_unwrap(kind)[1])]
    if isinstance(value, float):
        takes = {type(member) for member in kinds}
        return (
            whole(value) if inspect.IntType in takes and inspect.FloatType not in takes else value
        )
    for member in kinds:
        if isinstance(value, list | tuple):
            items = _item_types(member, len(value))
            if items is not None:
                return [with_integers(item, part) for item, part in zip(items, value, strict=True)]
        elif isinstance(value, dict) and isinstance(member, inspect.DictType):
            return {key: with_integers(member.value_type, item) for key, item in value.items()}
    return value


def _item_types(kind: inspect.Type, length: int) -> Sequence[inspect.Type] | None:
    """The types of the items of a list that is ``length`` long, or None if it can't be one."""
    items: Sequence[inspect.Type] | None = None
    if isinstance(kind, inspect.VarTupleType | inspect.ListType):
        items = [kind.item_type] * length
    elif isinstance(kind, inspect.TupleType):
        items = kind.item_types
    elif isinstance(kind, inspect.StructType) and kind.array_like:
        items = [field.type for field in kind.fields]
    return items if items is not None and len(items) == length else None


def _parameter(field: inspect.Field) -> Parameter:
    extras = list(_extras(field.type))
    merged: dict[str, Any] = {key: value for extra in extras for key, value in extra.items()}
    return Parameter(
        name=field.name,
        type=field.type,
        required=field.required,
        has_default=not field.required and field.default is not None,
        checked="check" in merged,
        secrecy=merged.get("secrecy"),
        depth=merged.get("depth", 0),
        opcodes="opcodes" in merged,
    )


def _members(kind: inspect.Type) -> list[inspect.Type]:
    return list(kind.types) if isinstance(kind, inspect.UnionType) else [kind]


def _unwrap(kind: inspect.Type) -> tuple[Mapping[str, Any], inspect.Type]:
    if isinstance(kind, inspect.Metadata):
        return kind.extra or {}, kind.type
    return {}, kind


def _extras(kind: inspect.Type) -> Iterator[Mapping[str, Any]]:
    """The ``extra`` mappings of a parameter's types, down to the items of lists."""
    extra, kind = _unwrap(kind)
    if extra:
        yield extra
    if isinstance(kind, inspect.UnionType):
        for member in kind.types:
            yield from _extras(member)
    elif isinstance(kind, inspect.VarTupleType):
        yield from _extras(kind.item_type)
