"""The types of LUXI arguments, and how each is read and refused.

A method declares its arguments by annotations; :func:`reader` returns the function that converts a
JSON value to an annotated type. For an integer a whole number may be written as a float (``5.0``),
as for the real daemon 3.0.2.
"""

from __future__ import annotations

import re
import types
from collections.abc import Callable
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec

from ganeti_masterd.errors import GenericError, prereq
from ganeti_masterd.opcodes import Opcode, decode_opcode
from ganeti_masterd.opcodes.parameters import whole
from ganeti_masterd.opcodes.types import Reason

_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")


#: How many opcodes a job may have, and how many jobs, and opcodes of them all, a request.
MAX_OPCODES = 2000
MAX_JOBS = 10_000
MAX_OPCODES_OF_ALL = 20_000

#: How many names, of whatever, an argument may have, and how many entries a list or an object
#: that is a parameter of an opcode.
MAX_NAMES = 20_000

#: How many instances, disks or NICs a parameter of an opcode may describe: what is made of one
#: takes 100 microseconds, and all of them are looked at together.
MAX_DESCRIBED = 1_000

#: The parameters of which that is true.
_DESCRIBING = frozenset(("instances", "disks", "nics"))

#: How many jobs a request may name: as many as a full queue has.
MAX_JOB_IDS = 200_000

#: Decodes job ids in the form that most clients send, quickly even for thousands.
_Numbers = list[Annotated[int, msgspec.Meta(ge=0)]]


class Reading(msgspec.Struct, frozen=True):
    """Marks a type in an ``Annotated`` with the function that reads it."""

    read: Callable[[Any, str], Any]


def _job_id(value: Any, where: str) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 20:
        value = int(value)
    if type(value) is float:
        value = whole(value)
    if type(value) is not int or value < 0:
        raise prereq(f"{where}: expected a job id, not {shown(value)}")
    return value


def _job_ids(value: Any, where: str) -> list[int] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise prereq(f"{where}: expected a list of job ids or null, not {shown(value)}")
    _bound(len(value), MAX_JOB_IDS, where, "ids")
    try:
        return msgspec.convert(value, _Numbers)
    except msgspec.ValidationError:
        pass  # some are strings, or wrong: read them one by one
    return [_job_id(item, f"{where}[{index}]") for index, item in enumerate(value)]


def _opcodes(value: Any, where: str) -> list[Opcode]:
    if not isinstance(value, list):
        raise prereq(f"{where}: expected a list of opcodes, not {shown(value)}")
    _bound(len(value), MAX_OPCODES, where, "opcodes")
    return [_opcode(raw, f"{where}[{index}]") for index, raw in enumerate(value)]


def _opcode(raw: Any, where: str) -> Opcode:
    if type(raw) is dict:
        for name, value in raw.items():
            kind = type(value)
            if (kind is list or kind is dict) and len(value) > MAX_DESCRIBED:
                describing = name in _DESCRIBING and type(next(iter(value))) is not str
                most = MAX_DESCRIBED if describing else MAX_NAMES
                _bound(len(value), most, f"{where}: parameter {shown(name)}", "entries")
    return decode_opcode(raw, where)


def _many_jobs(value: Any, where: str) -> list[list[Opcode]]:
    if not isinstance(value, list):
        raise prereq(f"{where}: expected a list of jobs, not {shown(value)}")
    _bound(len(value), MAX_JOBS, where, "jobs")
    opcodes = sum(len(raw) for raw in value if isinstance(raw, list))
    _bound(opcodes, MAX_OPCODES_OF_ALL, where, "opcodes in all")
    return [_opcodes(raw, f"{where}[{index}]") for index, raw in enumerate(value)]


def _bound(found: int, most: int, where: str, what: str) -> None:
    if found > most:
        raise prereq(f"{where}: it has {found} {what}, and may have {most}")


def _uuid(value: Any, where: str) -> str:
    if not isinstance(value, str) or _UUID.fullmatch(value) is None:
        raise GenericError(f"{where}: expected a UUID, not {shown(value)}")
    return value


def _uuid_or_null(value: Any, where: str) -> str | None:
    return None if value is None else _uuid(value, where)


def _trail(value: Any, where: str) -> list[Reason]:
    try:
        return msgspec.convert(value, list[Reason])
    except msgspec.ValidationError as error:
        raise prereq(
            f"{where}{_path(error)}: expected a list of [source, text, nanoseconds], "
            f"not {shown(value)}"
        )


#: A job's id: an integer, or a string of digits.
JobId = Annotated[int, Reading(_job_id)]
#: Job ids, or null for all.
JobIds = Annotated[list[int] | None, Reading(_job_ids)]
#: One job: its opcodes, decoded.
JobOpcodes = Annotated[list[Opcode], Reading(_opcodes)]
#: Several jobs, decoded. If one can't be decoded, the whole argument is refused.
ManyJobs = Annotated[list[list[Opcode]], Reading(_many_jobs)]
#: The UUID of a filter rule; anything else is a ``GenericError``, as with luxid.
RuleId = Annotated[str, Reading(_uuid)]
#: The UUID of a filter rule, or null for a new one.
RuleIdOrNew = Annotated[str | None, Reading(_uuid_or_null)]
#: Who asked, and why: entries of source, text and nanoseconds.
ReasonTrail = Annotated[list[Reason], Reading(_trail)]


def reader(annotation: Any) -> Callable[[Any, str], Any]:
    """Returns the function that reads one argument: ``read(value, where)``.

    It raises ``OpPrereqError`` with ``wrong_input``; the message has ``where`` and the error.
    """
    if get_origin(annotation) is Annotated:
        for mark in get_args(annotation)[1:]:
            if isinstance(mark, Reading):
                return mark.read
    if annotation is Any:
        return lambda value, where: value
    convert, expected = msgspec.convert, describe(annotation)
    is_integer = int in (annotation, *get_args(annotation))

    def read(value: Any, where: str) -> Any:
        kind = type(value)
        if kind is list:
            if len(value) > MAX_NAMES:
                _bound(len(value), MAX_NAMES, where, "items")
        elif is_integer and kind is float:
            value = whole(value)
        try:
            return convert(value, annotation)
        except msgspec.ValidationError as error:
            raise prereq(f"{where}{_path(error)}: expected {expected}, not {shown(value)}")

    return read


def _path(error: msgspec.ValidationError) -> str:
    """Returns the place of an error within an argument."""
    return str(error).partition(" - at `$")[2].rstrip("`")


_NAMES = {str: "a string", int: "an integer", float: "a number", bool: "true or false"}


def describe(annotation: Any) -> str:
    """Returns a type's description, for messages and the reference."""
    if annotation in _NAMES:
        return _NAMES[annotation]
    if annotation is type(None) or annotation is None:
        return "null"
    if annotation is Any:
        return "anything"
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return describe(args[0])
    if origin in (Union, types.UnionType):
        return " or ".join(describe(arg) for arg in args)
    if origin is list:
        inner = args[0]
        plural = {str: "strings", int: "integers", float: "numbers", Opcode: "opcodes"}
        return f"a list of {plural.get(inner, 'values')}"
    return getattr(annotation, "__name__", str(annotation))


def shown(value: Any) -> str:
    """Returns a short text for a value in a message, without contents that may be secret."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 60 else text[:57] + "..."
