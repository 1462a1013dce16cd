"""Where the rows of each resource come from, all of them or those asked for by name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct
from twisted.internet.defer import Deferred

from ganeti_masterd.config.objects import Node
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import ECODE_NOENT, prereq
from ganeti_masterd.jobs.model import Job
from ganeti_masterd.locking.listing import LockRow
from ganeti_masterd.query.collectors import Collectors
from ganeti_masterd.query.comparisons import job_id
from ganeti_masterd.query.fields import View
from ganeti_masterd.query.jobs import ARCHIVED
from ganeti_masterd.query.listings import Export
from ganeti_masterd.query.names import in_order, natural_key
from ganeti_masterd.query.slices import then

#: The objects of rows. A number among jobs is the id of one that isn't there.
Found = Sequence[Any]

#: Resources that are sections of the configuration: tag kind, and what an error calls them.
_SECTIONS = {
    "node": ("node", "Node"),
    "instance": ("instance", "Instance"),
    "group": ("nodegroup", "NodeGroup"),
    "network": ("network", "Network"),
}


class JobSource(Protocol):
    """The queue, as far as queries see it."""

    def live(self) -> Mapping[int, Job]:
        """Returns the published jobs that aren't archived, ids ascending."""

    def archived(self, job_ids: Iterable[int] | None, /) -> Deferred[Mapping[int, Job]]:
        """Fires with those of the jobs that are in the archive, all of it for null."""


class Request(Struct, frozen=True):
    """What decides which rows are looked at.

    ``names`` are those asked for, in that order, null for all rows; ``fields``
    are the fields that the answer or the filter looks at.
    """

    names: Sequence[Any] | None
    fields: Collection[str]


class Sources:
    """Finds the objects of rows; reactor thread only."""

    def __init__(
        self, collectors: Collectors, jobs: JobSource, locks: Callable[[], Iterable[LockRow]]
    ) -> None:
        self._collectors = collectors
        self._jobs = jobs
        self._locks = locks

    def rows(self, resource: str, view: View, request: Request) -> Found | Deferred[Found]:
        """Returns the objects of a resource's rows, in the order in which they are shown.

        Raises ``OpPrereqError`` with ``unknown_entity`` for a name that isn't
        there, but for jobs, whose id then stands in the place, and for
        operating systems and storage providers, which are left out.
        """
        snapshot = view.snapshot
        if resource in _SECTIONS:
            if request.names is None:
                return in_order(section_of(snapshot, resource))
            return [named(snapshot, resource, name) for name in request.names]
        if resource == "job":
            return self._job_rows(view, request)
        if resource == "export":
            return self.exports(snapshot, request.names).addCallback(_chosen, None)
        if resource == "os":
            return self._collectors.operating_systems(snapshot).addCallback(_chosen, request.names)
        if resource == "extstorage":
            return self._collectors.providers(snapshot).addCallback(_chosen, request.names)
        if resource == "filter":
            return [rule for _, rule in sorted(snapshot.filters.items())]
        if resource == "lock":
            return list(self._locks())
        return [snapshot.cluster]

    def exports(self, snapshot: Snapshot, names: Sequence[str] | None) -> Deferred[list[Export]]:
        """Fires with the exports of the nodes named, of all nodes for null."""
        nodes: Sequence[Node] = in_order(snapshot.nodes)
        if names is not None:
            nodes = [named(snapshot, "node", name) for name in dict.fromkeys(names)]
        return self._collectors.exports(nodes)

    def _job_rows(self, view: View, request: Request) -> Found | Deferred[Found]:
        live = self._jobs.live()
        if request.names is None:
            if ARCHIVED not in request.fields:
                return list(live.values())
            return self._jobs.archived(None).addCallback(_with_archived, view, live)
        wanted = list(dict.fromkeys(job_id(name) for name in request.names))
        rest = [one for one in wanted if one not in live]
        if not rest:
            return [live[one] for one in wanted]

        def found(archived: Mapping[int, Job]) -> Found:
            view.archived = archived.keys()
            everything = {**archived, **{one: live[one] for one in wanted if one in live}}
            return [everything.get(one, one) for one in wanted]

        return then(self._jobs.archived(rest), found)


def section_of(snapshot: Snapshot, resource: str) -> Any:
    """Returns the configuration's objects of a resource."""
    return getattr(snapshot, f"{resource}s")


def look_up(snapshot: Snapshot, resource: str, name: Any) -> Any | None:
    """Returns the object of a name, a shortened host name or a uuid; null if there is none."""
    return snapshot.lookup(_SECTIONS[resource][0], name) if isinstance(name, str) else None


def named(snapshot: Snapshot, resource: str, name: Any) -> Any:
    """Returns what :func:`look_up` does; raises ``OpPrereqError`` with ``unknown_entity``."""
    found = look_up(snapshot, resource, name)
    if found is None:
        raise prereq(f"{_SECTIONS[resource][1]} name {name} not found", ECODE_NOENT)
    return found


def those(snapshot: Snapshot, resource: str, names: Sequence[str]) -> Found:
    """Returns the objects of ``names`` in natural order, all for none; unknown ones left out."""
    if not names:
        return in_order(section_of(snapshot, resource))
    found = {obj.uuid: obj for name in names if (obj := look_up(snapshot, resource, name))}
    return sorted(found.values(), key=lambda obj: natural_key(obj.name))


def _with_archived(archived: Mapping[int, Job], view: View, live: Mapping[int, Job]) -> Found:
    view.archived = archived.keys() - live.keys()
    everything = {**archived, **live}
    return [everything[one] for one in sorted(everything)]


def _chosen(rows: Sequence[Any], names: Sequence[str] | None) -> Found:
    if names is None:
        return rows
    by_name = {row.name: row for row in rows}
    return [by_name[name] for name in names if name in by_name]
