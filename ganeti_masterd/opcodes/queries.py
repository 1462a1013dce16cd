"""Queries that run as jobs."""

from __future__ import annotations

from typing import Any

from ganeti_masterd.opcodes.base import Opcode
from ganeti_masterd.opcodes.results import FieldsResult, QueryResult
from ganeti_masterd.opcodes.types import ObjectNames, QueryResource


class Query(Opcode, tag="OP_QUERY", frozen=True, kw_only=True):
    """Queries a resource; the result is the same as that of LUXI's Query."""

    SUMMARY = "what"
    RESULT = QueryResult

    what: QueryResource
    use_locking: bool = False
    fields: ObjectNames
    qfilter: tuple[Any, ...] | None = None


class QueryFields(Opcode, tag="OP_QUERY_FIELDS", frozen=True, kw_only=True):
    """Returns the fields of a resource; the result is the same as that of LUXI's QueryFields."""

    SUMMARY = "what"
    RESULT = FieldsResult

    what: QueryResource
    fields: ObjectNames | None = None
