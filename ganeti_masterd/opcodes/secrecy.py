"""Hiding parameters that must not be shown, or not be written to disk.

Private OS parameters are written to disk until their opcode has ended, but never sent in an
answer; secret ones are neither (protocol/luxi.rst, Opcodes). The functions here take an
``input`` as returned by ``encode_opcode`` or read from a job file, and also look into opcodes
nested in it. If there is nothing to hide, :func:`redact` and :func:`strip_secrets` return their
argument, else a new object; they never modify it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, Final

from ganeti_masterd.opcodes.base import Opcode
from ganeti_masterd.opcodes.parameters import Parameter, parameters
from ganeti_masterd.opcodes.registry import OPCODES

#: Replaces a hidden value.
REDACTED: Final = "<redacted>"

_PRIVATE_AND_SECRET = frozenset({"private", "secret"})
_SECRET = frozenset({"secret"})


def private_fields(opcode: Opcode | type[Opcode]) -> tuple[str, ...]:
    """Returns the names of private parameters: written to disk, but never shown."""
    return _names_of(opcode, "private")


def secret_fields(opcode: Opcode | type[Opcode]) -> tuple[str, ...]:
    """Returns the names of secret parameters: neither shown nor written to disk."""
    return _names_of(opcode, "secret")


def redact(values: dict[str, Any]) -> dict[str, Any]:
    """Returns an opcode's ``input`` as an answer may show it."""
    return _without(values, _PRIVATE_AND_SECRET)


def strip_secrets(values: dict[str, Any]) -> dict[str, Any]:
    """Returns an opcode's ``input`` as it may be written to disk."""
    return _without(values, _SECRET)


def lacks_secrets(values: dict[str, Any]) -> bool:
    """Whether secret values are missing from an ``input`` that was read from disk."""
    for parameter in _sensitive(values.get("OP_ID")):
        value = values.get(parameter.name)
        if parameter.opcodes:
            if any(map(lacks_secrets, _opcodes_in(value))):
                return True
        elif parameter.secrecy in _SECRET and _is_redacted(value):
            return True
    return False


def _opcodes_in(value: Any) -> Iterator[dict[str, Any]]:
    """Returns the opcodes in lists, however nested."""
    if isinstance(value, dict):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _opcodes_in(item)


def _is_redacted(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_is_redacted, value.values()))
    return bool(value == REDACTED)


def _names_of(opcode: Opcode | type[Opcode], secrecy: str) -> tuple[str, ...]:
    cls = opcode if isinstance(opcode, type) else type(opcode)
    return tuple(p.name for p in parameters(cls).values() if p.secrecy == secrecy)


def _without(values: dict[str, Any], hidden: frozenset[str]) -> dict[str, Any]:
    result = values
    for parameter in _sensitive(values.get("OP_ID")):
        value = values.get(parameter.name)
        if value is None:
            continue
        if parameter.opcodes:
            new = _inside(value, hidden)
        elif parameter.secrecy in hidden:
            new = _hidden(value, parameter.depth)
        else:
            continue
        if new is not value:
            if result is values:
                result = dict(values)
            result[parameter.name] = new
    return result


def _hidden(value: Any, depth: int) -> Any:
    if depth and isinstance(value, dict):
        return {key: _hidden(item, depth - 1) for key, item in value.items()}
    return REDACTED


def _inside(value: Any, hidden: frozenset[str]) -> Any:
    """Returns lists of opcodes, however nested, without their hidden values."""
    if isinstance(value, dict):
        return _without(value, hidden)
    if isinstance(value, list | tuple):
        items = [_inside(item, hidden) for item in value]
        if any(new is not old for new, old in zip(items, value, strict=True)):
            return items
    return value


def _sensitive(op_id: object) -> tuple[Parameter, ...]:
    cls = OPCODES.get(op_id) if isinstance(op_id, str) else None
    return _sensitive_in(cls) if cls is not None else _sensitive_anywhere()


@cache
def _sensitive_in(cls: type[Opcode]) -> tuple[Parameter, ...]:
    return tuple(p for p in parameters(cls).values() if p.secrecy or p.opcodes)


@cache
def _sensitive_anywhere() -> tuple[Parameter, ...]:
    """The sensitive parameters of all opcodes, since an unknown opcode may have any of them."""
    found = {p.name: p for cls in OPCODES.values() for p in _sensitive_in(cls)}
    return tuple(found.values())
