"""Decoding opcodes from JSON values, and encoding them.

``decode_opcode`` checks what clients submit; ``load_opcode`` reads the ``input`` of a job
file, and is as strict except about the priority, which may have been changed since the
job was submitted. The messages of both name the parameter that is wrong.

Both are lenient where luxid 3.0.2 is, since clients may rely on it: null stands for the
default of a parameter that can't be null, and a whole number may be written as
a float (``60.0``), also inside lists and objects.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import ValidationError

from ganeti_masterd.constants import OP_PRIO_SUBMIT_VALID
from ganeti_masterd.errors import OpPrereqError, OpResultError, prereq
from ganeti_masterd.opcodes.base import Opcode
from ganeti_masterd.opcodes.parameters import (
    checked_parameters,
    failed_check,
    parameters,
    required_parameters,
    with_integers,
)
from ganeti_masterd.opcodes.registry import OPCODES
from ganeti_masterd.opcodes.wording import (
    SHOWN,
    fault_of_check,
    fault_of_value,
    parameter_at_fault,
)

#: Every integer below this is exactly representable as a float.
_EXACT = 2**53

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


def decode_opcode(raw: object, where: str = "opcode") -> Opcode:
    """Returns the opcode that a client submitted as a JSON object.

    Each message begins with ``where`` ("opcode 2 of job 1"). Raises ``OpPrereqError``
    with ``wrong_input`` for an unknown opcode, an unknown or missing
    parameter, a value that isn't allowed, and a priority other than -10, 0
    and 10.
    """
    opcode = load_opcode(raw, where)
    if opcode.priority not in OP_PRIO_SUBMIT_VALID:
        raise prereq(
            f"{where}: {opcode.op_id}: parameter priority: expected one of"
            f" {', '.join(map(str, sorted(OP_PRIO_SUBMIT_VALID)))}, not {opcode.priority}"
        )
    return opcode


def load_opcode(raw: object, where: str = "opcode") -> Opcode:
    """Returns the opcode from the ``input`` of a job file.

    Raises ``OpPrereqError`` like :func:`decode_opcode`, but allows any
    priority from -20 to 19. Parameters that are null may be missing, because luxid leaves
    them out while a job is queued.
    """
    cls, values = _class_of(raw, where)
    try:
        opcode = msgspec.convert(_with_integer_dependencies(values), cls)
    except ValidationError:
        mended = _mended(cls, values)
        try:
            opcode = msgspec.convert(_with_integer_dependencies(mended), cls)
        except ValidationError as error:
            raise _refusal(cls, mended, error, where) from None
    for parameter in checked_parameters(cls):
        value = getattr(opcode, parameter.name)
        path = failed_check(parameter.type, value)
        if path is not None:
            words = fault_of_check(parameter, value, path)
            raise prereq(f"{where}: {opcode.op_id}: parameter {words}")
    return opcode


def encode_opcode(opcode: Opcode) -> dict[str, Any]:
    """Returns all parameters, including defaults, in the form of a job file's ``input``.

    The order is Ganeti's: the opcode's own parameters, the common ones, then
    ``OP_ID``. The values are copies; changing them doesn't affect the opcode.
    Secrets are included (see ``secrecy.strip_secrets``).
    """
    plain = _decode(_encode(opcode))
    values = {
        name: _whole(value) if type(value := plain[name]) is float else value
        for name in parameters(type(opcode))
    }
    values["OP_ID"] = plain["OP_ID"]
    return values


def _whole(value: float) -> int | float:
    """Returns a whole number of seconds without a fraction, as in luxid's files: 3, not 3.0."""
    return int(value) if value.is_integer() and abs(value) < _EXACT else value


def check_result(opcode: Opcode, value: Any) -> None:
    """Checks that a result has the opcode's declared type and can be encoded as JSON.

    Raises ``OpResultError``, which says what is wrong and where. A job whose result can't be
    encoded could never be saved, and so would never end.
    """
    try:
        msgspec.convert(value, opcode.RESULT)
    except ValidationError as error:
        raise OpResultError(f"{opcode.op_id}: the result is not as declared: {error}") from None
    try:
        msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise OpResultError(f"{opcode.op_id}: the result has no form in JSON: {error}") from None


def _class_of(raw: object, where: str) -> tuple[type[Opcode], dict[str, Any]]:
    if not isinstance(raw, dict):
        raise prereq(f"{where}: expected an object with OP_ID and parameters")
    op_id = raw.get("OP_ID")
    if not isinstance(op_id, str):
        raise prereq(f"{where}: expected an object with OP_ID, the opcode's name, in it")
    cls = OPCODES.get(op_id)
    if cls is None:
        raise prereq(f"{where}: unknown opcode {_named(op_id, OPCODES)}")
    return cls, raw


def _with_integer_dependencies(values: dict[str, Any]) -> dict[str, Any]:
    """Returns the values with job ids in ``depends`` as integers, because "5" is accepted too."""
    depends = values.get("depends")
    if not isinstance(depends, (list, tuple)):
        return values
    return {**values, "depends": [_with_integer_id(entry) for entry in depends]}


def _with_integer_id(entry: Any) -> Any:
    # The limit on the length is below the one at which Python's int() raises a ValueError.
    if (
        isinstance(entry, list | tuple)
        and entry
        and isinstance(entry[0], str)
        and re.fullmatch(r"[0-9]{1,20}", entry[0])
    ):
        return [int(entry[0]), *entry[1:]]
    return entry


def _mended(cls: type[Opcode], values: dict[str, Any]) -> dict[str, Any]:
    """Returns the values after applying luxid's leniency (see the module's docstring)."""
    known = parameters(cls)
    mended = {}
    for name, value in values.items():
        parameter = known.get(name)
        if parameter is None:
            mended[name] = value
        elif value is not None or not parameter.has_default:
            mended[name] = with_integers(parameter.type, value)
    return mended


def _refusal(
    cls: type[Opcode], values: dict[str, Any], error: ValidationError, where: str
) -> OpPrereqError:
    op_id = values["OP_ID"]
    known = parameters(cls)
    unknown = [str(name) for name in values if name not in known and name != "OP_ID"]
    if unknown:
        return prereq(f"{where}: {op_id}: unknown parameter {_named(unknown[0], known)}")
    missing = [name for name in required_parameters(cls) if name not in values]
    if missing:
        return prereq(f"{where}: {op_id}: missing parameter {', '.join(missing)}")
    name = parameter_at_fault(error)
    words = fault_of_value(known[name], values[name], error) if name in known else str(error)
    return prereq(f"{where}: {op_id}: parameter {words}")


def _named(name: str, known: Iterable[str]) -> str:
    """Returns an unknown name for a message, shortened if long, with a similar known name."""
    if len(name) > SHOWN:
        return repr(f"{name[:SHOWN]}...")
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    return f"{name!r} (is it {close[0]}?)" if close else repr(name)
