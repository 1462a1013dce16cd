"""Indexes of a section, which are updated rather than rebuilt when an object changes.

An index is immutable, so several versions of a section may share it. The cost of an
update depends on the changed object alone, except for copying whole lists and
dictionaries, which the interpreter does quickly.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable
from typing import Any, Protocol, Self

from ganeti_masterd.config.base import ConfigObject


class Index(Protocol):
    """What a section knows of all its objects together."""

    def with_change(self, before: Any, after: Any) -> Self:
        """Returns the index after a change of one object.

        ``before`` is None for an object that is added, ``after`` for one that is removed.
        Returns the same index if the change makes no difference to it.
        """


class Order:
    """Objects sorted by their names: ``uuids`` and ``names`` in the same order.

    ``key`` returns what a name is sorted by, and differs for different names. Don't change
    the lists.
    """

    __slots__ = ("key", "names", "uuids")

    def __init__(self, key: Callable[[str], Any], names: list[str], uuids: list[str]) -> None:
        self.key = key
        self.names = names
        self.uuids = uuids

    @classmethod
    def of(cls, key: Callable[[str], Any], objects: Iterable[Any]) -> Order:
        """Makes the index from scratch."""
        ranked = sorted(objects, key=lambda obj: (key(obj.name), obj.uuid))
        return cls(key, [obj.name for obj in ranked], [obj.uuid for obj in ranked])

    def with_change(self, before: Any, after: Any) -> Order:
        """See :meth:`Index.with_change`."""
        if before is not None and after is not None and before.name == after.name:
            return self
        names, uuids = list(self.names), list(self.uuids)
        if before is not None:
            place = self._place(names, uuids, before)
            del names[place], uuids[place]
        if after is not None:
            place = self._place(names, uuids, after)
            names.insert(place, after.name)
            uuids.insert(place, after.uuid)
        return Order(self.key, names, uuids)

    def _place(self, names: list[str], uuids: list[str], obj: Any) -> int:
        place = bisect_left(names, self.key(obj.name), key=self.key)
        while place < len(names) and names[place] == obj.name and uuids[place] < obj.uuid:
            place += 1
        return place


class Groups:
    """The uuids of objects by what they belong to, each group in ascending order.

    ``keys`` returns the keys of the groups that an object belongs to, any number of them.
    """

    __slots__ = ("keys", "uuids")

    def __init__(
        self, keys: Callable[[Any], Iterable[Any]], uuids: dict[Any, tuple[str, ...]]
    ) -> None:
        self.keys = keys
        self.uuids = uuids

    @classmethod
    def of(cls, keys: Callable[[Any], Iterable[Any]], objects: Iterable[Any]) -> Groups:
        """Makes the index from scratch."""
        found: dict[Any, list[str]] = {}
        for obj in objects:
            for key in dict.fromkeys(keys(obj)):
                found.setdefault(key, []).append(obj.uuid)
        return cls(keys, _frozen(found))

    def with_change(self, before: Any, after: Any) -> Groups:
        """See :meth:`Index.with_change`."""
        old = () if before is None else tuple(dict.fromkeys(self.keys(before)))
        new = () if after is None else tuple(dict.fromkeys(self.keys(after)))
        if old == new:
            return self
        uuids = dict(self.uuids)
        _move(uuids, old, new, uuid_of(before or after))
        return Groups(self.keys, uuids)


def name_of(obj: Any) -> str | None:
    """Returns an object's name; None if it has none, or if the object is None."""
    name: str | None = getattr(obj, "name", None)
    return name


def uuid_of(obj: ConfigObject) -> str:
    """Returns an object's uuid."""
    uuid: str = obj.uuid  # type: ignore[attr-defined]
    return uuid


def names(obj: Any) -> tuple[str, ...]:
    """Keys of a group for each name."""
    name = name_of(obj)
    return (name,) if name else ()


def whole_names(obj: Any) -> tuple[str, ...]:
    """Keys of a group for each name in lower case."""
    name = name_of(obj)
    return (name.lower(),) if name else ()


def short_names(obj: Any) -> tuple[str, ...]:
    """Keys of a group for each name in lower case, and for its beginnings up to a dot."""
    name = name_of(obj)
    if not name:
        return ()
    labels = name.lower().split(".")
    return tuple(".".join(labels[:count]) for count in range(1, len(labels) + 1))


def _frozen(lists: dict[Any, list[str]]) -> dict[Any, tuple[str, ...]]:
    return {key: tuple(sorted(uuids)) for key, uuids in lists.items()}


def _move(
    groups: dict[Any, tuple[str, ...]], old: Iterable[Any], new: Iterable[Any], uuid: str
) -> None:
    """Moves a uuid from its old groups to the new ones; removes groups that become empty."""
    old, new = set(old), set(new)
    for key in old - new:
        left = tuple(each for each in groups[key] if each != uuid)
        if left:
            groups[key] = left
        else:
            del groups[key]
    for key in new - old:
        members = list(groups.get(key, ()))
        insort(members, uuid)
        groups[key] = tuple(members)
