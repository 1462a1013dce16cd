"""Where the rows of each resource come from: all rows, or those asked for by name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar, assert_never

from msgspec import Struct
from twisted.internet.defer import Deferred, inlineCallbacks

from ganeti_masterd.config.objects import Node
from ganeti_masterd.config.section import Section
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import ECODE_NOENT, ProgrammerError, prereq
from ganeti_masterd.jobs.model import Job
from ganeti_masterd.locking.listing import LockRow
from ganeti_masterd.query.collectors import Collectors
from ganeti_masterd.query.comparisons import job_id
from ganeti_masterd.query.fields import View
from ganeti_masterd.query.jobs import ARCHIVED
from ganeti_masterd.query.listings import ListedExport
from ganeti_masterd.query.names import in_order, natural_key
from ganeti_masterd.query.resources import RESOURCES, Resource, Source
from ganeti_masterd.query.slices import then

T = TypeVar("T")

#: The objects of rows. Among jobs, a number is the id of a job that doesn't exist.
Found = Sequence[Any]

#: How many jobs are held in memory at a time by a query that includes archived ones.
PAGE = 1000
#: After how many pages others have a turn in any case; one takes half a millisecond.
PAGES = 20


class JobSource(Protocol):
    """The part of the job queue's interface that queries use."""

    def live(self) -> Mapping[int, Job]:
        """Returns the published jobs that aren't archived, ids ascending."""

    def archived(self, job_ids: Iterable[int], /) -> Deferred[Mapping[int, Job]]:
        """Fires with those of the jobs that are in the archive, by id."""

    def archived_ids(self) -> Deferred[list[int]]:
        """Fires with the ids of all jobs that are in the archive."""


class RowRequest(Struct, frozen=True):
    """Which rows a query needs.

    ``names`` are the names asked for, in that order, None for all rows; ``fields``
    are the names of the fields that the answer or the filter uses.
    """

    names: Sequence[Any] | None
    fields: Collection[str]


class Sources:
    """Finds the objects of rows; reactor thread only."""

    def __init__(
        self,
        collectors: Collectors,
        jobs: JobSource,
        locks: Callable[[], Iterable[LockRow]],
        turn: Callable[[], Deferred[None]],
    ) -> None:
        """``turn`` fires in another turn of the reactor."""
        self._collectors = collectors
        self._jobs = jobs
        self._locks = locks
        self._turn = turn

    def work(
        self,
        resource: Resource,
        view: View,
        request: RowRequest,
        work: Callable[[Found], list[T] | Deferred[list[T]]],
    ) -> list[T] | Deferred[list[T]]:
        """Calls ``work`` with the objects of a resource's rows; returns its results, joined.

        Usually there is one call. If archived jobs are included, there is one for each page,
        so that no more than a page of jobs is in memory at a time.

        Raises ``OpPrereqError`` with ``unknown_entity`` for a name that doesn't exist.
        Exceptions are jobs, of which the id is passed on instead, and operating systems
        and storage providers, which are left out.
        """
        if resource.source is Source.JOBS:
            return self._work_on_jobs(view, request, work)
        return then(self._rows(resource, view, request), work)

    def _rows(self, resource: Resource, view: View, request: RowRequest) -> Found | Deferred[Found]:
        snapshot, names = view.snapshot, request.names
        match resource.source:
            case Source.SECTION:
                if names is None:
                    return in_order(section_of(snapshot, resource))
                return [named(snapshot, resource, name) for name in names]
            case Source.RULES:
                return [rule for _, rule in sorted(snapshot.filters.items())]
            case Source.CLUSTER:
                return [snapshot.cluster]
            case Source.LOCKS:
                return list(self._locks())
            case Source.SYSTEMS:
                return self._collectors.operating_systems(snapshot).addCallback(_chosen, names)
            case Source.PROVIDERS:
                return self._collectors.providers(snapshot).addCallback(_chosen, names)
            case Source.EXPORTS:
                return self.exports(snapshot, names).addCallback(_chosen, None)
            case Source.JOBS:
                raise ProgrammerError("jobs are worked on in pages")
        assert_never(resource.source)

    def exports(
        self, snapshot: Snapshot, names: Sequence[str] | None
    ) -> Deferred[list[ListedExport]]:
        """Fires with the exports of the nodes named, or of all nodes if ``names`` is None."""
        nodes: Sequence[Node] = in_order(snapshot.nodes)
        if names is not None:
            nodes = [named(snapshot, RESOURCES["node"], name) for name in dict.fromkeys(names)]
        return self._collectors.exports(nodes)

    def _work_on_jobs(
        self,
        view: View,
        request: RowRequest,
        work: Callable[[Found], list[T] | Deferred[list[T]]],
    ) -> list[T] | Deferred[list[T]]:
        live = self._jobs.live()
        if request.names is None:
            if ARCHIVED not in request.fields:
                return work(list(live.values()))
            return self._jobs.archived_ids().addCallback(
                lambda ids: self._in_pages(view, sorted({*ids, *live}), False, work)
            )
        names = request.names
        if set(map(type, names)) <= {int}:
            wanted = dict.fromkeys(names)
        else:
            wanted = dict.fromkeys(map(job_id, names))
        if wanted.keys() <= live.keys():
            return work(list(map(live.__getitem__, wanted)))
        return self._in_pages(view, list(wanted), True, work)

    @inlineCallbacks
    def _in_pages(
        self,
        view: View,
        ids: Sequence[int],
        missing: bool,
        work: Callable[[Found], list[T] | Deferred[list[T]]],
    ) -> Generator[Any, Any, list[T]]:
        """Works on the jobs of ``ids``, page by page.

        If ``missing``, jobs that don't exist are passed on as numbers, else they are left out.
        """
        # A copy, so that a job that is archived meanwhile appears only once, in its old state.
        live = dict(self._jobs.live())
        made: list[T] = []
        for start in range(0, len(ids), PAGE):
            page = ids[start : start + PAGE]
            archived = yield self._jobs.archived([one for one in page if one not in live])
            view.archived = archived.keys()
            jobs = (live.get(one) or archived.get(one, one if missing else None) for one in page)
            made += yield work([job for job in jobs if job is not None])
            if start % (PAGES * PAGE) == 0 and start:
                yield self._turn()  # for jobs that don't exist nothing else takes time
        return made


def section_of(snapshot: Snapshot, resource: Resource) -> Section[Any]:
    """Returns the configuration's objects of a resource that is a section of it."""
    return snapshot.section(resource.objects.section)


def look_up(snapshot: Snapshot, resource: Resource, name: Any) -> Any | None:
    """Returns the object with a name, shortened host name or uuid; None if there is none."""
    return snapshot.lookup(resource.kind, name) if isinstance(name, str) else None


def named(snapshot: Snapshot, resource: Resource, name: Any) -> Any:
    """Returns what :func:`look_up` returns, but raises ``OpPrereqError`` instead of None.

    The code is ``unknown_entity``.
    """
    found = look_up(snapshot, resource, name)
    if found is None:
        raise prereq(f"{resource.objects.title} name {name} not found", ECODE_NOENT)
    return found


def those(snapshot: Snapshot, resource: Resource, names: Sequence[str]) -> Found:
    """Returns the objects with ``names`` in natural order; all if empty; skips unknown ones."""
    if not names:
        return in_order(section_of(snapshot, resource))
    found = {obj.uuid: obj for name in names if (obj := look_up(snapshot, resource, name))}
    section = section_of(snapshot, resource)
    if len(found) > len(section) // 8:  # all of them are in order already
        return [obj for obj in in_order(section) if obj.uuid in found]
    return sorted(found.values(), key=lambda obj: natural_key(obj.name))


def _chosen(rows: Sequence[Any], names: Sequence[str] | None) -> Found:
    if names is None:
        return rows
    by_name = {row.name: row for row in rows}
    return [by_name[name] for name in names if name in by_name]
