"""What can be queried, and a list of fields of one resource made ready to compute rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Struct

from ganeti_masterd.constants import RS_NORMAL
from ganeti_masterd.errors import prereq
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

#: From a row's object to the row.
RowMaker = Callable[[Any], list[Any]]

#: Longer lists of fields aren't remembered.
_LONGEST = 512


class Resource(Struct, frozen=True):
    """One kind of thing that can be queried.

    An "or of equals" on the field ``key`` asks for rows by name; null where
    rows have no names to be asked by.
    """

    name: str
    fields: FieldTable
    key: str | None = None


#: Every resource by its name.
RESOURCES: dict[str, Resource] = {
    resource.name: resource
    for resource in (
        Resource("node", NODE_FIELDS, "name"),
        Resource("instance", INSTANCE_FIELDS, "name"),
        Resource("group", GROUP_FIELDS, "name"),
        Resource("network", NETWORK_FIELDS, "name"),
        Resource("os", OS_FIELDS, "name"),
        Resource("extstorage", EXTSTORAGE_FIELDS, "name"),
        Resource("export", EXPORT_FIELDS, "node"),
        Resource("job", JOB_FIELDS, "id"),
        Resource("lock", LOCK_FIELDS),
        Resource("filter", FILTER_FIELDS),
        Resource("cluster", CLUSTER_FIELDS),
    )
}


def resource_named(name: str) -> Resource:
    """Returns a resource; raises ``OpPrereqError`` with ``wrong_input`` for another name."""
    try:
        return RESOURCES[name]
    except KeyError:
        raise prereq(f"There is no resource '{name}' to query, only {', '.join(RESOURCES)}")


class Selection(Struct, frozen=True):
    """Fields of one resource in the order asked; null stands for one that doesn't exist."""

    resource: Resource
    names: tuple[str, ...]
    fields: tuple[Field | None, ...]
    #: How the fields are described, as values and as JSON.
    head: list[dict[str, str]]
    head_json: bytes
    needs: frozenset[Need]

    @property
    def weight(self) -> int:
        """How much work one row is."""
        return 1 + len(self.fields)

    def unknown(self) -> list[str]:
        """Returns the names of fields that don't exist."""
        return [name for name, field in zip(self.names, self.fields, strict=True) if field is None]

    def cells(self, view: View) -> RowMaker:
        """Returns the function that makes a row of cells, ``[status, value]`` each."""
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

    def values(self, view: View) -> RowMaker:
        """Returns the function that makes a row of bare values, null for what isn't there."""
        getters = self._getters(view)
        if len(getters) == 1:
            (only,) = getters

            def cell(obj: Any) -> list[Any]:
                value = only(obj)
                return [value.value if type(value) is Entry else value]

            return cell

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
    """Returns the fields ``names`` of a resource; raises as :func:`resource_named`."""
    key = tuple(names)
    return _remembered(resource, key) if len(key) <= _LONGEST else _selected(resource, key)


def describe(resource: str, names: Sequence[str] | None) -> list[dict[str, str]]:
    """Returns descriptions of the fields ``names``, of all fields for null or none."""
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
