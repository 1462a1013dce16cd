"""Types of structured opcode results."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from ganeti_masterd.opcodes.checks import NonEmptyStr
from ganeti_masterd.opcodes.types import ObjectNames

#: ``[true, job id]`` or ``[false, message]``.
SubmissionResult = tuple[bool, str | int]
FieldKind = Literal["bool", "float", "number", "other", "text", "timestamp", "unit", "unknown"]
ResultStatus = Literal[0, 1, 2, 3, 4]


class JobsResult(Struct, forbid_unknown_fields=True):
    """The result of an opcode that submitted jobs, with one entry for each."""

    jobs: tuple[SubmissionResult, ...]


class AllocatedResult(Struct, forbid_unknown_fields=True):
    """Jobs that create instances, and which instances there was room for (by name)."""

    jobs: tuple[SubmissionResult, ...]
    allocatable: ObjectNames
    failed: ObjectNames


class FieldDefinition(Struct, forbid_unknown_fields=True):
    """One field of a query."""

    name: NonEmptyStr
    title: NonEmptyStr
    kind: FieldKind
    doc: NonEmptyStr


class FieldsResult(Struct, forbid_unknown_fields=True):
    """The fields that a resource has."""

    fields: tuple[FieldDefinition, ...]


class QueryResult(Struct, forbid_unknown_fields=True):
    """The fields asked for, and rows with a ``[status, value]`` for each field."""

    fields: tuple[FieldDefinition, ...]
    data: tuple[tuple[tuple[ResultStatus, Any], ...], ...]
