"""Queries in a job: OP_QUERY, OP_QUERY_FIELDS, OP_OS_DIAGNOSE and OP_EXT_STORAGE_DIAGNOSE.

The first two answer the same as the LUXI methods Query and QueryFields. The real daemon runs them
only for operating systems, storage providers and the cluster; here they serve every resource
(protocol/luxi.rst, Filters). The others are the classic form: rows of bare values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import prereq
from ganeti_masterd.locking.levels import Level, WantedLocks, all_shared
from ganeti_masterd.logical_units.base import LogicalUnit
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.luxi.messages import Encoded
from ganeti_masterd.opcodes.os_storage import ExtStorageDiagnose, OsDiagnose
from ganeti_masterd.opcodes.queries import Query, QueryFields
from ganeti_masterd.query.resources import resource_named, select


class QueryInJob(LogicalUnit[Query], runs=Query):
    """Answers a query. It uses one snapshot, so it needs no locks.

    With ``use_locking`` it shares all locks of the queried objects, and so waits for other jobs
    that hold them; this makes a difference only for live data.
    """

    def locks(self, level: Level, snapshot: Snapshot) -> WantedLocks:
        """Holds only the cluster's lock, unless ``use_locking`` is set."""
        if self.op.use_locking and resource_named(self.op.what).level is level:
            return all_shared
        return super().locks(level, snapshot)

    def exec(self, ctx: Context) -> dict[str, Any]:
        """Returns ``{"fields", "data"}``; raises like ``QueryEngine.answer``."""
        return _answer(ctx, self.op.what, self.op.fields, self.op.qfilter)


class QueryResourceFields(LogicalUnit[QueryFields], runs=QueryFields):
    """Answers the fields of a resource."""

    def exec(self, ctx: Context) -> dict[str, Any]:
        """Returns ``{"fields"}``; all fields if none are named."""
        what, fields = self.op.what, self.op.fields
        answer: dict[str, Any] = ctx.ask(lambda engine: engine.query_fields(what, fields))
        return answer


class DiagnoseSystems(LogicalUnit[OsDiagnose], runs=OsDiagnose):
    """Lists operating systems, all or those named, in natural order of their names.

    Hidden, blacklisted or invalid ones are listed only if the field of that name is requested, too
    (real master daemon 3.0.2).
    """

    def expand(self, snapshot: Snapshot) -> None:
        """Refuses fields that don't exist."""
        _refuse_unknown("os", self.op.output_fields)

    def exec(self, ctx: Context) -> list[list[Any]]:
        """Returns a row of values for each, with None for missing ones."""
        fields = self.op.output_fields
        shown = [["!", ["?", name]] for name in ("hidden", "blacklisted") if name not in fields]
        if "valid" not in fields:
            shown.append(["?", "valid"])
        return _values(ctx, "os", fields, ["&", *_named(self.op.names), *shown])


class DiagnoseProviders(LogicalUnit[ExtStorageDiagnose], runs=ExtStorageDiagnose):
    """Lists external storage providers, all or those named, in natural order of names."""

    def expand(self, snapshot: Snapshot) -> None:
        """Refuses fields that don't exist."""
        _refuse_unknown("extstorage", self.op.output_fields)

    def exec(self, ctx: Context) -> list[list[Any]]:
        """Returns a row of values for each, with None for missing ones."""
        wanted = ["&", *_named(self.op.names)]
        return _values(ctx, "extstorage", self.op.output_fields, wanted)


def _answer(ctx: Context, what: str, fields: Sequence[str], wanted: Any) -> dict[str, Any]:
    encoded: Encoded = ctx.ask(lambda engine: engine.answer(what, fields, wanted))
    # Decoded here in the thread, so that the job's result equals the one in its file.
    answer: dict[str, Any] = msgspec.json.decode(encoded.data)
    return answer


def _values(ctx: Context, what: str, fields: Sequence[str], wanted: Any) -> list[list[Any]]:
    rows = _answer(ctx, what, fields, wanted)["data"]
    return [[value for _, value in row] for row in rows]


def _named(names: Sequence[str]) -> list[Any]:
    return [["|", *(["=", "name", name] for name in names)]] if names else []


def _refuse_unknown(what: str, fields: Sequence[str]) -> None:
    unknown = select(what, fields).unknown()
    if unknown:
        raise prereq(f"Unknown output fields selected: {', '.join(unknown)}")
