"""Declaring the fields of a resource: title, kind, data needed, and value.

A table of fields reads like a list of sentences::

    NODE_FIELDS = fields(
        text("name", "Node", of=lambda node: node.name, doc="The node's name."),
        flag("offline", "Offline", of=lambda node: node.offline, doc="..."),
    )

``of`` computes the value from the row's object alone, ``given`` from the
:class:`View` of the whole answer and the object. Both return a value as
:mod:`ganeti_masterd.query.entries` describes, consisting of JSON types only.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from enum import Enum
from functools import partial
from typing import Any

from msgspec import Struct

from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import ProgrammerError
from ganeti_masterd.query.names import natural


class Need(Enum):
    """Data that a field needs besides the configuration; each has a collector."""

    NODE_INFO = "what hypervisors report about their nodes"
    NODE_STORAGE = "space on the nodes' storage"
    INSTANCE_INFO = "which instances run, and with which resources"
    CONSOLE = "how to reach instances' consoles"


class Matching(Enum):
    """How a filter compares a field's value."""

    PLAIN = "as it is"
    #: Equality also accepts a prefix of the name that ends before a dot.
    HOST_NAME = "as a host name"
    #: Values may be given as strings of decimal digits.
    JOB_ID = "as a job id"
    #: ``[seconds, microseconds]`` is compared by its whole seconds.
    SPLIT_TIME = "as a time in two parts"


class View:
    """The data from which one answer is made: a snapshot, and what was collected for it.

    ``live`` holds the collectors' results. ``archived`` contains the job ids that
    are in the archive. ``memo`` caches what is computed once for an answer.
    """

    __slots__ = ("archived", "live", "memo", "snapshot")

    def __init__(self, snapshot: Snapshot, archived: Container[int] = ()) -> None:
        self.snapshot = snapshot
        self.archived = archived
        self.live: dict[Need, Any] = {}
        self.memo: dict[Any, Any] = {}


class Field(Struct, frozen=True):
    """A field of a resource. Exactly one of ``of`` and ``given`` computes it."""

    name: str
    title: str
    kind: str
    doc: str
    of: Callable[[Any], Any] | None = None
    given: Callable[[View, Any], Any] | None = None
    needs: Need | None = None
    matching: Matching = Matching.PLAIN

    def bound(self, view: View) -> Callable[[Any], Any]:
        """Returns the function from a row's object to the field's value."""
        if self.of is not None:
            return self.of
        if self.given is None:
            raise ProgrammerError(f"Field {self.name} has neither 'of' nor 'given'")
        return partial(self.given, view)

    def described(self) -> dict[str, str]:
        """Returns the field's description for QueryFields and for the ``fields`` of an answer."""
        return {"name": self.name, "title": self.title, "kind": self.kind, "doc": self.doc}


FieldTable = Mapping[str, Field]


def fields(*declared: Field | Iterable[Field]) -> FieldTable:
    """Returns a table of single fields and iterables of fields, in natural order of names.

    Raises ``ProgrammerError`` if a name is declared twice.
    """
    table: dict[str, Field] = {}
    for item in declared:
        for field in (item,) if isinstance(item, Field) else item:
            if field.name in table:
                raise ProgrammerError(f"Field {field.name} is declared twice")
            table[field.name] = field
    return {name: table[name] for name in natural(table)}


def declare(
    name: str,
    title: str,
    kind: str,
    *,
    doc: str,
    of: Callable[[Any], Any] | None = None,
    given: Callable[[View, Any], Any] | None = None,
    needs: Need | None = None,
    matching: Matching = Matching.PLAIN,
) -> Field:
    """Returns a field of any kind."""
    return Field(name, title, kind, doc, of, given, needs, matching)


def text(name: str, title: str, **rest: Any) -> Field:
    """Declares a field whose value is text."""
    return declare(name, title, "text", **rest)


def flag(name: str, title: str, **rest: Any) -> Field:
    """Declares a field that is true or false."""
    return declare(name, title, "bool", **rest)


def number(name: str, title: str, **rest: Any) -> Field:
    """Declares a field whose value is a number without a unit."""
    return declare(name, title, "number", **rest)


def unit(name: str, title: str, **rest: Any) -> Field:
    """Declares a field whose value is a size in MiB."""
    return declare(name, title, "unit", **rest)


def timestamp(name: str, title: str, **rest: Any) -> Field:
    """Declares a field whose value is a time in seconds since the epoch."""
    return declare(name, title, "timestamp", **rest)


def other(name: str, title: str, **rest: Any) -> Field:
    """Declares a field whose value is a list, a dictionary, or of varying type."""
    return declare(name, title, "other", **rest)


def common(what: str, *, serial: bool = True) -> tuple[Field, ...]:
    """Returns the fields that all objects of the configuration have, except the name."""
    declared = (
        text("uuid", "UUID", of=lambda obj: obj.uuid, doc=f"The {what}'s UUID."),
        timestamp("ctime", "CTime", of=lambda obj: obj.ctime, doc=f"When the {what} was created."),
        timestamp("mtime", "MTime", of=lambda obj: obj.mtime, doc=f"When the {what} last changed."),
        other("tags", "Tags", of=lambda obj: sorted(obj.tags), doc=f"The {what}'s tags, sorted."),
    )
    if not serial:
        return declared
    count = number(
        "serial_no", "SerialNo", of=lambda obj: obj.serial_no, doc=f"How often the {what} changed."
    )
    return (*declared, count)


def unknown_field(name: str) -> dict[str, str]:
    """Returns the description of a field that doesn't exist."""
    return {
        "name": name,
        "title": name,
        "kind": "unknown",
        "doc": f"There is no field '{name}'.",
    }
