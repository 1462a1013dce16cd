"""The engine: answers each query from one snapshot, asking nodes only for what is needed.

Answers from memory are returned at once; if nodes, archived jobs or much computation
are needed, the answer is a Deferred. Long answers are computed in slices
(:mod:`ganeti_masterd.query.slices`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import msgspec
from twisted.internet.defer import Deferred

from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.constants import RS_NORMAL
from ganeti_masterd.errors import prereq
from ganeti_masterd.locking.listing import LockRow
from ganeti_masterd.luxi.messages import Encoded
from ganeti_masterd.query.cluster import ClusterFlags, cluster_info, config_values
from ganeti_masterd.query.collectors import PATIENCE, Collectors
from ganeti_masterd.query.entries import UNAVAILABLE, UNKNOWN, Entry
from ganeti_masterd.query.fields import View
from ganeti_masterd.query.filters import Filter, compile_filter
from ganeti_masterd.query.resources import RowMaker, RowsMaker, Selection, Source, describe, select
from ganeti_masterd.query.slices import Slices, then
from ganeti_masterd.query.sources import JobSource, RowRequest, Sources, those
from ganeti_masterd.rpc.interfaces import INodeRPC
from ganeti_masterd.timing import Timers

P = TypeVar("P")

QueryAnswer = dict[str, Any]
Rows = list[list[Any]]
#: A function from some of the rows' objects to that part of the answer.
PartMaker = Callable[[Sequence[Any]], P]

_encode = msgspec.json.Encoder().encode

#: How many short answers are cached until the configuration changes, and the most bytes that
#: such an answer may have.
_KEPT = 64
_SHORT = 1 << 14


class QueryEngine:
    """Answers queries; reactor thread only.

    ``snapshot`` returns the published configuration, ``locks`` the rows of
    locks. ``patience`` is how many seconds one node may delay an answer.
    """

    def __init__(
        self,
        timers: Timers,
        snapshot: Callable[[], Snapshot],
        nodes: INodeRPC,
        jobs: JobSource,
        locks: Callable[[], Iterable[LockRow]],
        state: ClusterFlags,
        patience: float = PATIENCE,
    ) -> None:
        self._snapshot = snapshot
        self._state = state
        #: The queue of long computations, which other parts of the daemon share.
        self.slices = Slices(timers)
        self._collectors = Collectors(nodes, self.slices, patience)
        self._sources = Sources(self._collectors, jobs, locks, self.slices.turn)
        self._kept: dict[Any, Encoded] = {}
        self._kept_for: Snapshot | None = None

    def close(self) -> None:
        """Abandons long answers: their Deferreds fail with ``DaemonStopping``."""
        self.slices.close()

    def query(
        self, resource: str, names: Sequence[str], filter_: Any = None
    ) -> QueryAnswer | Deferred[QueryAnswer]:
        """Returns ``{"fields": [...], "data": [[[status, value], ...], ...]}``.

        See protocol/luxi.rst, Methods and protocol/luxi.rst, Filters.

        ``names`` are fields; ``filter_`` is nested lists, None for all rows.
        Raises ``OpPrereqError`` for an unknown resource or name, ``wrong_input`` for a
        malformed filter, ``ParameterError`` for a filter that doesn't fit the fields.
        If the answer is a Deferred, it fails with these errors instead.
        """
        selection = select(resource, names)
        parts = self._rows(selection, filter_, lambda view: _listed(_cells(selection, view)))
        return then(parts, lambda found: {"fields": selection.head, "data": _flat(found)})

    def answer(
        self, resource: str, names: Sequence[str], filter_: Any = None
    ) -> Encoded | Deferred[Encoded]:
        """Returns the answer of :meth:`query` as JSON, encoded in slices too; for LUXI's Query."""
        selection = select(resource, names)
        snapshot = self._snapshot()
        keep = filter_ is None and selection.resource.configured and not selection.needs
        if snapshot is not self._kept_for:
            self._kept.clear()
            self._kept_for = snapshot
        key = (resource, selection.names)
        if keep and key in self._kept:
            return self._kept[key]

        def encoded(parts: list[bytes]) -> Encoded:
            before = b"".join((b'{"fields":', selection.head_json, b',"data":['))
            done = Encoded.of_parts(before, parts, b"]}")
            if keep and len(done.reply) <= _SHORT and self._kept_for is snapshot:
                if len(self._kept) >= _KEPT:
                    self._kept.clear()
                self._kept[key] = done
            return done

        parts = self._rows(selection, filter_, lambda view: _bytes(_cells(selection, view)))
        return then(parts, encoded)

    def query_fields(self, resource: str, names: Sequence[str] | None = None) -> QueryAnswer:
        """Returns ``{"fields": [...]}``; all of the resource's if ``names`` is None or empty."""
        return {"fields": describe(resource, names)}

    def nodes(
        self, names: Sequence[str], fields: Sequence[str], locking: bool = False
    ) -> Rows | Deferred[Rows]:
        """Returns rows of bare values in natural order of names (QueryNodes).

        ``names`` are names or uuids; unknown ones are left out; empty means all.
        Raises ``OpPrereqError`` for an unknown field, or if ``locking`` is true.
        """
        return self._classic("node", names, fields, locking)

    def instances(
        self, names: Sequence[str], fields: Sequence[str], locking: bool = False
    ) -> Rows | Deferred[Rows]:
        """Returns the rows for QueryInstances; see :meth:`nodes`."""
        return self._classic("instance", names, fields, locking)

    def groups(
        self, names: Sequence[str], fields: Sequence[str], locking: bool = False
    ) -> Rows | Deferred[Rows]:
        """Returns the rows for QueryGroups; see :meth:`nodes`."""
        return self._classic("group", names, fields, locking)

    def networks(
        self, names: Sequence[str], fields: Sequence[str], locking: bool = False
    ) -> Rows | Deferred[Rows]:
        """Returns the rows for QueryNetworks; see :meth:`nodes`."""
        return self._classic("network", names, fields, locking)

    def filters(self, uuids: Sequence[str] | None, fields: Sequence[str]) -> Rows | Deferred[Rows]:
        """Returns rows of filter rules, sorted by uuid (QueryFilters); None or empty means all."""
        selection = _known(select("filter", fields))
        snapshot = self._snapshot()
        rules = [rule for _, rule in sorted(snapshot.filters.items())]
        wanted = frozenset(uuids or snapshot.filters)
        rules = [rule for rule in rules if rule.uuid in wanted]
        return self._plain_rows(selection, View(snapshot), rules)

    def exports(self, nodes: Sequence[str], locking: bool = False) -> Deferred[Rows]:
        """Fires with rows ``[node, export or None]`` (QueryExports); empty ``nodes`` means all.

        Raises ``OpPrereqError`` with ``unknown_entity`` for an unknown node, and
        ``OpPrereqError`` if ``locking`` is true.
        """
        _refuse_locking(locking)
        found = self._sources.exports(self._snapshot(), list(nodes) or None)
        return found.addCallback(
            lambda rows: [
                [row.node, row.export if isinstance(row.export, str) else None] for row in rows
            ]
        )

    def query_jobs(
        self, ids: Sequence[int] | None, fields: Sequence[str], null_rows: bool = False
    ) -> Rows | Deferred[Rows]:
        """Returns rows of bare values for QueryJobs (protocol/luxi.rst, Methods).

        Rows are in the order of ``ids``, each job once. None or empty ``ids`` mean all jobs
        in the queue, and with the field ``archived`` those in the archive too. The row of a
        job that doesn't exist has its id and otherwise None; with ``null_rows``, as in 2.x,
        the row itself is None. Raises ``OpPrereqError`` for an unknown field.
        """
        selection = _known(select("job", fields))
        missing = _null_row if null_rows else _missing_values(selection)
        return then(self._jobs(selection, ids, missing, lambda rows: rows), _flat)

    def answer_jobs(
        self, ids: Sequence[int] | None, fields: Sequence[str]
    ) -> Encoded | Deferred[Encoded]:
        """Returns the answer of :meth:`query_jobs` as JSON, encoded in slices too."""
        selection = _known(select("job", fields))
        parts = self._jobs(selection, ids, _missing_values(selection), _encoded)
        return then(parts, lambda made: Encoded.of_parts(b"[", made, b"]"))

    def _jobs(
        self,
        selection: Selection,
        ids: Sequence[int] | None,
        missing: Callable[[int], Any],
        parts_of: Callable[[RowsMaker], PartMaker[P]],
    ) -> list[P] | Deferred[list[P]]:
        view = View(self._snapshot())
        row = _or_missing(selection.values(view), missing)
        all_there = parts_of(selection.rows_of_values(view))
        some_missing = parts_of(lambda jobs: list(map(row, jobs)))
        return self._sources.work(
            selection.resource,
            view,
            RowRequest(ids or None, selection.names),
            lambda jobs: self.slices.run(
                jobs, selection.weight, some_missing if int in map(type, jobs) else all_there
            ),
        )

    def cluster_info(self) -> Encoded:
        """Returns the answer to QueryClusterInfo; computed once for each configuration."""
        snapshot = self._snapshot()
        if snapshot is not self._kept_for:
            self._kept.clear()
            self._kept_for = snapshot
        done = self._kept.get("cluster info")
        if done is None:
            done = self._kept["cluster info"] = Encoded(_encode(cluster_info(snapshot)))
        return done

    def config_values(self, names: Sequence[str]) -> list[Any]:
        """Returns the answer to QueryConfigValues; the value of an unknown name is None."""
        return config_values(names, self._snapshot(), self._state)

    def _classic(
        self, resource: str, names: Sequence[str], fields: Sequence[str], locking: bool
    ) -> Rows | Deferred[Rows]:
        _refuse_locking(locking)
        selection = _known(select(resource, fields))
        snapshot = self._snapshot()
        found = those(snapshot, selection.resource, names)
        return self._plain_rows(selection, View(snapshot), found)

    def _plain_rows(
        self, selection: Selection, view: View, objects: Sequence[Any]
    ) -> Rows | Deferred[Rows]:
        work = _listed(selection.values(view))
        return then(self._judged(selection, view, objects, None, work), _flat)

    def _rows(
        self,
        selection: Selection,
        document: Any,
        work_on: Callable[[View], PartMaker[P]],
    ) -> list[P] | Deferred[list[P]]:
        """Returns the parts of an answer, made from the rows that the filter selects.

        ``work_on`` returns the function that makes a part, given the answer's view.
        """
        resource = selection.resource
        view = View(self._snapshot())
        view.memo["state"] = self._state
        work = work_on(view)
        if document is None:
            looked_at: Iterable[str] = selection.names
            judge, names = None, None
        else:
            judge = compile_filter(document, resource.fields)
            looked_at = {*selection.names, *(field.name for field in judge.fields())}
            names = None if resource.key is None else judge.names(resource.fields[resource.key])
            if names is not None:
                judge = None  # the filter only asks for these names
        return self._sources.work(
            resource,
            view,
            RowRequest(names, frozenset(looked_at)),
            lambda objects: self._judged(selection, view, objects, judge, work),
        )

    def _judged(
        self,
        selection: Selection,
        view: View,
        objects: Sequence[Any],
        judge: Filter | None,
        work: PartMaker[P],
    ) -> list[P] | Deferred[list[P]]:
        """Filters, asks the nodes, filters by their answers, and makes the rows."""
        here, there = (None, None) if judge is None else judge.parted()
        needs = set(selection.needs)
        if there is not None:
            needs |= {field.needs for field in there.fields() if field.needs is not None}

        def collect(passed: Sequence[Any]) -> Sequence[Any] | Deferred[Sequence[Any]]:
            if not needs or not passed:
                return passed

            def collected(live: dict[Any, Any]) -> Sequence[Any]:
                view.live = live
                return passed

            return self._collectors.collect(needs, view.snapshot, passed).addCallback(collected)

        passed = then(self._filtered(objects, here, view), collect)
        passed = then(passed, lambda known: self._filtered(known, there, view))
        return then(passed, lambda left: self.slices.run(left, selection.weight, work))

    def _filtered(
        self, objects: Sequence[Any], judge: Filter | None, view: View
    ) -> Sequence[Any] | Deferred[Sequence[Any]]:
        if judge is None or not objects:
            return objects
        passes = judge.predicate(view)
        parts = self.slices.run(
            objects, 1 + judge.weight, lambda part: [obj for obj in part if passes(obj)]
        )
        return then(parts, _flat)


def _cells(selection: Selection, view: View) -> RowMaker:
    row = selection.cells(view)
    if selection.resource.source is not Source.JOBS:
        return row
    return _or_missing(row, _missing_cells(selection))


def _listed(row: RowMaker) -> PartMaker[Rows]:
    return lambda part: [row(obj) for obj in part]


def _bytes(row: RowMaker) -> PartMaker[bytes]:
    """Returns a function that encodes rows as JSON, without the brackets around them."""
    return _encoded(lambda part: list(map(row, part)))


def _encoded(rows: RowsMaker) -> PartMaker[bytes]:
    """Returns :func:`_bytes` of what makes many rows at once."""
    return lambda part: _encode(rows(part))[1:-1]


def _flat(parts: list[list[Any]]) -> list[Any]:
    return parts[0] if len(parts) == 1 else [item for part in parts for item in part]


def _known(selection: Selection) -> Selection:
    unknown = selection.unknown()
    if unknown:
        raise prereq(f"Unknown output fields selected: {', '.join(unknown)}")
    return selection


def _refuse_locking(locking: bool) -> None:
    if locking:
        raise prereq("Sync queries are not allowed")


def _or_missing(row: RowMaker, missing: Callable[[int], Any]) -> RowMaker:
    return lambda job: missing(job) if type(job) is int else row(job)


def _null_row(job_id: int) -> Any:
    return None


def _missing_values(selection: Selection) -> Callable[[int], list[Any]]:
    return lambda job_id: [job_id if name == "id" else None for name in selection.names]


def _missing_cells(selection: Selection) -> Callable[[int], list[Any]]:
    """Returns a function that makes the row of a job that doesn't exist: only its id is set."""

    def row(job_id: int) -> list[Any]:
        return [
            UNKNOWN if field is None else Entry(RS_NORMAL, job_id) if name == "id" else UNAVAILABLE
            for name, field in zip(selection.names, selection.fields, strict=True)
        ]

    return row
