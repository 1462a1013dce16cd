"""The resources that can be queried, and selections of fields from which rows are computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Struct

from ganeti_masterd.config.kinds import KINDS, ObjectKind
from ganeti_masterd.constants import (
    RS_NORMAL,
    TAG_CLUSTER,
    TAG_INSTANCE,
    TAG_NETWORK,
    TAG_NODE,
    TAG_NODEGROUP,
)
from ganeti_masterd.errors import prereq
from ganeti_masterd.locking.levels import Level
from ganeti_masterd.query.cluster import CLUSTER_FIELDS
from ganeti_masterd.query.entries import UNAVAILABLE, UNKNOWN, Entry
from ganeti_masterd.query.fields import Field, FieldTable, Need, View, unknown_field
from ganeti_masterd.query.groups import GROUP_FIELDS
from ganeti_masterd.query.instances import INSTANCE_FIELDS
from ganeti_masterd.query.jobs import JOB_FIELDS
from ganeti_masterd.query.listings import EXPORT_FIELDS, FILTER_FIELDS, LOCK_FIELDS
from ganeti_masterd.query.networks import NETWORK_FIELDS
from ganeti_masterd.query.nodes import NODE_FIELDS
from ganeti_masterd.query.oses import EXTSTORAGE_FIELDS, OS_FIELDS

#: A function from a row's object to the row.
RowMaker = Callable[[Any], list[Any]]
#: The same for many rows at once.
RowsMaker = Callable[[Sequence[Any]], list[list[Any]]]

#: Selections of more fields aren't cached.
_LONGEST = 512

#: The most fields that one query may ask for; no resource has half as many.
MAX_FIELDS = 1000


class Source(Enum):
    """Where the rows of a resource come from."""

    SECTION = "a section of the configuration, whose objects have names"
    RULES = "the filter rules of the configuration"
    CLUSTER = "the cluster itself"
    JOBS = "the queue and its archive"
    LOCKS = "the lock table"
    SYSTEMS = "nodes: operating systems"
    PROVIDERS = "nodes: external storage providers"
    EXPORTS = "nodes: exported instances"


class Resource(Struct, frozen=True, kw_only=True):
    """One kind of thing that can be queried, and everything that depends on the kind.

    A filter that is an "or of equals" on the field ``key`` asks for rows by name; None if
    rows can't be asked for by name. ``level`` is the level at which the rows' objects
    are locked, None if they aren't.

    ``kind`` is what tags, and :data:`ganeti_masterd.config.kinds.KINDS`, call objects of
    a section, and the cluster; empty for others.
    """

    name: str
    fields: FieldTable
    source: Source
    key: str | None = None
    level: Level | None = None
    kind: str = ""

    @property
    def objects(self) -> ObjectKind:
        """What the configuration says of the objects of a section."""
        return KINDS[self.kind]

    @property
    def configured(self) -> bool:
        """Whether rows depend on the configuration alone (except for fields that need nodes)."""
        return self.source in (Source.SECTION, Source.RULES)


#: Every resource by its name.
RESOURCES: dict[str, Resource] = {
    resource.name: resource
    for resource in (
        Resource(
            name="node",
            fields=NODE_FIELDS,
            source=Source.SECTION,
            key="name",
            level=Level.NODE,
            kind=TAG_NODE,
        ),
        Resource(
            name="instance",
            fields=INSTANCE_FIELDS,
            source=Source.SECTION,
            key="name",
            level=Level.INSTANCE,
            kind=TAG_INSTANCE,
        ),
        Resource(
            name="group",
            fields=GROUP_FIELDS,
            source=Source.SECTION,
            key="name",
            level=Level.NODEGROUP,
            kind=TAG_NODEGROUP,
        ),
        Resource(
            name="network",
            fields=NETWORK_FIELDS,
            source=Source.SECTION,
            key="name",
            level=Level.NETWORK,
            kind=TAG_NETWORK,
        ),
        Resource(name="os", fields=OS_FIELDS, source=Source.SYSTEMS, key="name", level=Level.NODE),
        Resource(
            name="extstorage",
            fields=EXTSTORAGE_FIELDS,
            source=Source.PROVIDERS,
            key="name",
            level=Level.NODE,
        ),
        Resource(
            name="export",
            fields=EXPORT_FIELDS,
            source=Source.EXPORTS,
            key="node",
            level=Level.NODE,
        ),
        Resource(name="job", fields=JOB_FIELDS, source=Source.JOBS, key="id"),
        Resource(name="lock", fields=LOCK_FIELDS, source=Source.LOCKS),
        Resource(name="filter", fields=FILTER_FIELDS, source=Source.RULES),
        Resource(name="cluster", fields=CLUSTER_FIELDS, source=Source.CLUSTER, kind=TAG_CLUSTER),
    )
}

#: The resources whose objects have tags, by tag kind.
TAGGED: dict[str, Resource] = {
    resource.kind: resource for resource in RESOURCES.values() if resource.kind
}

#: Those whose rows are sections of the configuration.
CONFIGURED: tuple[Resource, ...] = tuple(
    resource for resource in RESOURCES.values() if resource.source is Source.SECTION
)


def resource_named(name: str) -> Resource:
    """Returns a resource; raises ``OpPrereqError`` with ``wrong_input`` for an unknown name."""
    try:
        return RESOURCES[name]
    except KeyError:
        raise prereq(f"There is no resource '{name}' to query, only {', '.join(RESOURCES)}")


class Selection(Struct, frozen=True):
    """The fields of one resource that a query asks for, in order; None for unknown fields."""

    resource: Resource
    names: tuple[str, ...]
    fields: tuple[Field | None, ...]
    #: The fields' descriptions, as values and as JSON.
    head: list[dict[str, str]]
    head_json: bytes
    needs: frozenset[Need]

    @property
    def weight(self) -> int:
        """How much work one row is, in the unit of :data:`.slices.WEIGHT`."""
        return 1 + len(self.fields)

    def unknown(self) -> list[str]:
        """Returns the names of fields that don't exist."""
        return [name for name, field in zip(self.names, self.fields, strict=True) if field is None]

    def cells(self, view: View) -> RowMaker:
        """Returns a function that makes a row of cells, ``[status, value]`` each."""
        getters = self._getters(view)

        def row(obj: Any) -> list[Any]:
            return [
                UNAVAILABLE
                if (value := getter(obj)) is None
                else value
                if type(value) is Entry
                else (RS_NORMAL, value)
                for getter in getters
            ]

        return row

    def rows_of_values(self, view: View) -> RowsMaker:
        """Returns a function that makes rows as :meth:`values` does, of many objects at once.

        Clients ask again and again for one field of many jobs, their status.
        """
        getters = self._getters(view)
        if len(getters) != 1:
            row = self.values(view)
            return lambda objects: list(map(row, objects))
        (only,) = getters
        return lambda objects: [
            [value.value if type(value := only(obj)) is Entry else value] for obj in objects
        ]

    def values(self, view: View) -> RowMaker:
        """Returns a function that makes a row of bare values, None for cells without data."""
        getters = self._getters(view)

        def row(obj: Any) -> list[Any]:
            return [
                value.value if type(value := getter(obj)) is Entry else value for getter in getters
            ]

        return row

    def _getters(self, view: View) -> list[Callable[[Any], Any]]:
        return [_unknown if field is None else field.bound(view) for field in self.fields]


def _unknown(obj: Any) -> Entry:
    return UNKNOWN


def select(resource: str, names: Sequence[str]) -> Selection:
    """Returns the fields ``names`` of a resource.

    Raises like :func:`resource_named`, and ``OpPrereqError`` for more than :data:`MAX_FIELDS`.
    """
    refuse_if_too_many(names, f"The fields of the {resource_named(resource).name} query")
    key = tuple(names)
    return _remembered(resource, key) if len(key) <= _LONGEST else _selected(resource, key)


def refuse_if_too_many(names: Sequence[str], where: str) -> None:
    """Raises ``OpPrereqError`` with ``wrong_input`` for more fields than one query may have."""
    if len(names) > MAX_FIELDS:
        raise prereq(f"{where}: {len(names)} are asked for, and may be {MAX_FIELDS}")


def describe(resource: str, names: Sequence[str] | None) -> list[dict[str, str]]:
    """Returns descriptions of the fields ``names``, or of all fields if None or empty."""
    table = resource_named(resource).fields
    return select(resource, names or tuple(table)).head


def _selected(name: str, names: tuple[str, ...]) -> Selection:
    resource = resource_named(name)
    found = tuple(resource.fields.get(one) for one in names)
    head = [
        unknown_field(one) if field is None else field.described()
        for one, field in zip(names, found, strict=True)
    ]
    needs = frozenset(
        field.needs for field in found if field is not None and field.needs is not None
    )
    return Selection(resource, names, found, head, msgspec.json.encode(head), needs)


_remembered = lru_cache(maxsize=256)(_selected)
