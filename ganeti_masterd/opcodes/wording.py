"""Messages for wrong parameter values: what was expected, where, and what was found.

msgspec stops at the first fault and reports its path; the message is made from
the declared type at that path and the value found there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from msgspec import inspect

from ganeti_masterd.opcodes.parameters import Parameter, Path

#: How many characters of a wrong value a message shows.
SHOWN = 60

_LOCATION = re.compile(r" - at (?P<key>`key` in )?`(?P<path>\$[^`]*)`$")
_STEP = re.compile(r"\.(?P<name>\w+)|\[(?P<index>\d+)\]|(?P<some>\[\.\.\.\])")


def parameter_at_fault(error: msgspec.ValidationError) -> str:
    """Returns the name of the parameter that msgspec's error is about, or ""."""
    location = _LOCATION.search(str(error))
    step = _STEP.match(location["path"], 1) if location else None
    return (step["name"] or "") if step else ""


def fault_of_value(parameter: Parameter, value: Any, error: msgspec.ValidationError) -> str:
    """Returns a message such as "nics[0].ip: expected a string or null, not 5".

    ``value`` is the parameter's whole value, and ``error`` is msgspec's. Private and
    secret values are not shown.
    """
    text = str(error)
    location = _LOCATION.search(text)
    steps = list(_STEP.finditer(location["path"]))[1:] if location else []
    kind, path = parameter.type, list[str | int]()
    for step in steps:
        kind = _member_for(kind, value)
        if step["some"]:
            kind, key, value = _unfit_entry(kind, value)
            path.append(key)
        elif step["index"] is not None and isinstance(value, list | tuple):
            index = int(step["index"])
            kind, value = _item_type(kind, index), value[index]
            path.append(index)
        else:
            break
    if location and location["key"]:
        return _fault_of_key(parameter, _member_for(kind, value), value, tuple(path))
    return fault(parameter, tuple(path), expected(kind), value)


def fault_of_check(parameter: Parameter, value: Any, path: Path) -> str:
    """Returns the message for a value that a check refused at ``path``."""
    kind = parameter.type
    for step in path:
        kind = _member_for(kind, value)
        assert isinstance(step, int)
        kind, value = _item_type(kind, step), value[step]
    return fault(parameter, path, expected(kind), value)


def fault(parameter: Parameter, path: Path, wanted: str, value: Any) -> str:
    """Returns "PARAMETER.PATH: expected WANTED, not VALUE"."""
    hidden = parameter.secrecy or parameter.opcodes
    shown = _kind_of(value) if hidden else _shown(value)
    return f"{place(parameter.name, path)}: expected {wanted}, not {shown}"


def place(name: str, path: Path) -> str:
    """Returns a parameter and a path inside it as text, such as "nics[0].ip"."""
    return name + "".join(
        f"[{step}]"
        if isinstance(step, int)
        else f".{step}"
        if step.isidentifier()
        else f"[{_shown(step)}]"
        for step in path
    )


def expected(kind: inspect.Type) -> str:
    """Returns a description of the values that a type accepts."""
    words = _WORDS.get(type(kind))
    return words(kind) if words else "another kind of value"


def _fault_of_key(parameter: Parameter, kind: inspect.Type, value: Any, path: Path) -> str:
    assert isinstance(kind, inspect.DictType)
    key = next((key for key in value if not _fits(kind.key_type, key)), "")
    shown = "another" if parameter.secrecy else _shown(key)
    wanted = expected(kind.key_type)
    return f"{place(parameter.name, path)}: expected keys to be {wanted}, not {shown}"


def _member_for(kind: inspect.Type, value: Any) -> inspect.Type:
    """Returns the member of a union type that a fault inside ``value`` is about."""
    if isinstance(kind, inspect.Metadata):
        return _member_for(kind.type, value)
    if isinstance(kind, inspect.UnionType):
        wanted = inspect.DictType if isinstance(value, dict) else _LISTS
        for member in kind.types:
            inner = _member_for(member, value)
            if isinstance(inner, wanted):
                return inner
    return kind


def _item_type(kind: inspect.Type, index: int) -> inspect.Type:
    if isinstance(kind, inspect.VarTupleType | inspect.ListType):
        return kind.item_type
    if isinstance(kind, inspect.TupleType):
        return kind.item_types[index]
    if isinstance(kind, inspect.StructType):
        return kind.fields[index].type
    return inspect.AnyType()


def _unfit_entry(kind: inspect.Type, value: Any) -> tuple[inspect.Type, str, Any]:
    """Returns the type, key and value of the entry that makes an object wrong."""
    assert isinstance(kind, inspect.DictType)
    for key, item in value.items():
        if not _fits(kind.value_type, item):
            return kind.value_type, str(key), item
    raise AssertionError(f"every entry of {value!r} fits {kind!r}")


def _fits(kind: inspect.Type, value: Any) -> bool:
    """Whether a type accepts a value; good enough for the keys and values of objects."""
    match kind:
        case inspect.Metadata():
            return _fits(kind.type, value)
        case inspect.UnionType():
            return any(_fits(member, value) for member in kind.types)
        case inspect.LiteralType():
            return value in kind.values
        case inspect.StrType():
            longest = kind.max_length if kind.max_length is not None else float("inf")
            return isinstance(value, str) and (kind.min_length or 0) <= len(value) <= longest
        case inspect.BoolType():
            return isinstance(value, bool)
        case inspect.IntType():
            return isinstance(value, int) and not isinstance(value, bool)
        case inspect.NoneType():
            return value is None
        case inspect.DictType():
            return isinstance(value, dict) and all(
                _fits(kind.key_type, key) and _fits(kind.value_type, item)
                for key, item in value.items()
            )
        case _:
            return True


def _expected_integer(kind: inspect.IntType) -> str:
    most = kind.lt - 1 if kind.lt is not None else kind.le
    if kind.ge is None:
        return "an integer"
    if most is None:
        return f"an integer of at least {kind.ge}"
    return f"an integer from {kind.ge} to {most}"


def _expected_string(kind: inspect.StrType) -> str:
    words = "a string that isn't empty" if kind.min_length else "a string"
    return words if kind.max_length is None else f"{words}, of at most {kind.max_length} characters"


def _expected_object(kind: inspect.DictType) -> str:
    words = "an object"
    if isinstance(kind.key_type, inspect.LiteralType):
        words += f" with keys among {', '.join(map(str, kind.key_type.values))}"
    return words


def _expected_list(items: Iterable[inspect.Type]) -> str:
    return f"[{', '.join(map(expected, items))}]"


def _expected_either(kind: inspect.UnionType) -> str:
    # "or null" comes last, because it is the exception.
    ordered = sorted(kind.types, key=lambda member: isinstance(member, inspect.NoneType))
    return " or ".join(expected(member) for member in ordered)


def _expected_item(kind: inspect.Type) -> str:
    return "" if isinstance(kind, inspect.AnyType) else f", each {expected(kind)}"


_LISTS = (inspect.VarTupleType, inspect.ListType, inspect.TupleType, inspect.StructType)
_WORDS: dict[type[inspect.Type], Callable[[Any], str]] = {
    inspect.AnyType: lambda _: "anything",
    inspect.NoneType: lambda _: "null",
    inspect.BoolType: lambda _: "true or false",
    inspect.IntType: _expected_integer,
    inspect.FloatType: lambda _: "a number",
    inspect.StrType: _expected_string,
    inspect.LiteralType: lambda kind: f"one of {', '.join(map(str, kind.values))}",
    inspect.DictType: _expected_object,
    inspect.VarTupleType: lambda kind: f"a list{_expected_item(kind.item_type)}",
    inspect.ListType: lambda kind: f"a list{_expected_item(kind.item_type)}",
    inspect.TupleType: lambda kind: _expected_list(kind.item_types),
    inspect.StructType: lambda kind: _expected_list(field.type for field in kind.fields),
    inspect.UnionType: _expected_either,
    inspect.Metadata: lambda kind: (kind.extra or {}).get("expected") or expected(kind.type),
}


def _shown(value: Any) -> str:
    try:
        text = msgspec.json.encode(value).decode()
    except (TypeError, ValueError, RecursionError):
        return _kind_of(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _kind_of(value: Any) -> str:
    kinds = {
        bool: "a boolean",
        int: "an integer",
        float: "a number",
        str: "a string",
        list: "a list",
        dict: "an object",
        type(None): "null",
    }
    return kinds.get(type(value), "another kind of value")
