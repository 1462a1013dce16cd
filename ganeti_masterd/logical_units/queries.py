"""OP_QUERY and OP_QUERY_FIELDS: what the LUXI methods Query and QueryFields answer, in a job.

The real daemon runs them for operating systems, storage providers and the
cluster alone; here they serve every resource (spec luxi 3).
"""

from __future__ import annotations

from typing import Any

import msgspec

from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.locking.levels import Level, Wanted, all_shared
from ganeti_masterd.logical_units.base import LogicalUnit
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.luxi.messages import Encoded
from ganeti_masterd.opcodes.queries import Query, QueryFields

#: Where the objects are locked that a resource's rows are about.
_LEVELS = {
    "export": Level.NODE,
    "extstorage": Level.NODE,
    "group": Level.NODEGROUP,
    "instance": Level.INSTANCE,
    "network": Level.NETWORK,
    "node": Level.NODE,
    "os": Level.NODE,
}


class QueryResource(LogicalUnit[Query], runs=Query):
    """Answers a query. One snapshot makes the answer, so that it needs no locks.

    With ``use_locking`` it waits until no other job works on what it shows, by
    sharing all locks of these objects: only live data can tell the difference.
    """

    def locks(self, level: Level, snapshot: Snapshot) -> Wanted:
        """Holds nothing besides the cluster unless ``use_locking`` says so."""
        if self.op.use_locking and _LEVELS.get(self.op.what) is level:
            return all_shared
        return super().locks(level, snapshot)

    def exec(self, ctx: Context) -> dict[str, Any]:
        """Returns ``{"fields", "data"}``; raises what ``QueryEngine.answer`` does."""
        what, fields, wanted = self.op.what, self.op.fields, self.op.qfilter
        encoded: Encoded = ctx.ask(lambda engine: engine.answer(what, fields, wanted))
        # Read here in the thread, so that the job holds what its file will say.
        answer: dict[str, Any] = msgspec.json.decode(encoded.data)
        return answer


class QueryResourceFields(LogicalUnit[QueryFields], runs=QueryFields):
    """Tells the fields of a resource."""

    def exec(self, ctx: Context) -> dict[str, Any]:
        """Returns ``{"fields"}``, all of them where none are named."""
        what, fields = self.op.what, self.op.fields
        answer: dict[str, Any] = ctx.ask(lambda engine: engine.query_fields(what, fields))
        return answer
