"""A section of the configuration: objects of one kind by uuid, and by name.

Sections are immutable. Indexes (:mod:`ganeti_masterd.config.indexes`) are built on first
use; a changed section gets updated ones rather than building its own, so a change in a
big cluster is cheap.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import Any, Generic, TypeVar

from ganeti_masterd.config.base import ConfigObject
from ganeti_masterd.config.indexes import (
    Groups,
    Index,
    Order,
    names,
    short_names,
    uuid_of,
    whole_names,
)

T = TypeVar("T", bound=ConfigObject)
V = TypeVar("V")
I = TypeVar("I", bound=Index)  # noqa: E741


class Section(Mapping[str, T], Generic[T]):
    """Objects by uuid, in the order of the file; usable from any thread."""

    __slots__ = ("_cache", "_indexes", "_objects")

    def __init__(self, objects: Mapping[str, T]) -> None:
        self._objects: dict[str, T] = dict(objects)
        #: Values made from exactly this section; a changed section starts without any.
        self._cache: dict[str, Any] = {}
        #: Indexes by the function that they are built with; a changed section updates them.
        self._indexes: dict[Any, Index] = {}

    def __getitem__(self, uuid: str) -> T:
        return self._objects[uuid]

    def __iter__(self) -> Iterator[str]:
        return iter(self._objects)

    def __len__(self) -> int:
        return len(self._objects)

    def __contains__(self, uuid: object) -> bool:
        return uuid in self._objects

    def keys(self) -> KeysView[str]:
        """The uuids."""
        return self._objects.keys()

    def values(self) -> ValuesView[T]:
        """The objects."""
        return self._objects.values()

    def items(self) -> ItemsView[str, T]:
        """Pairs of uuid and object."""
        return self._objects.items()

    def cached(self, key: str, make: Callable[[], V]) -> V:
        """Returns the result of ``make``, which is called only the first time for each key."""
        try:
            value: V = self._cache[key]
        except KeyError:
            value = self._cache[key] = make()
        return value

    def with_object(self, obj: T) -> Section[T]:
        """Returns the section with an object added, or replacing the one with its uuid.

        A new object is inserted in the order of uuids, as the real daemon sorts them.
        """
        uuid = uuid_of(obj)
        before = self._objects.get(uuid)
        if before is not None:
            objects = self._objects.copy()
            objects[uuid] = obj
        else:
            keys = list(self._objects)
            values = list(self._objects.values())
            place = bisect_left(keys, uuid)
            keys.insert(place, uuid)
            values.insert(place, obj)
            objects = dict(zip(keys, values, strict=True))
        return self._changed(objects, before, obj)

    def without(self, uuid: str) -> Section[T]:
        """Returns the section without an object; raises ``KeyError`` for an unknown uuid."""
        objects = self._objects.copy()
        return self._changed(objects, objects.pop(uuid), None)

    def differing(self, before: Section[T]) -> list[str]:
        """Returns the uuids of objects that only one section has, or that aren't the very same.

        Takes little time, as unchanged objects are shared: only references are compared.
        """
        if before is self:
            return []
        earlier, now = before._objects, self._objects
        found = [uuid for uuid, obj in now.items() if earlier.get(uuid) is not obj]
        return found + [uuid for uuid in earlier if uuid not in now]

    def named(self, name: str) -> T | None:
        """Returns the object whose name is exactly ``name``, or None."""
        uuids = self.grouped(names).get(name)
        return None if uuids is None else self._objects[uuids[-1]]

    def expanded(self, name: str) -> T | None:
        """Returns the object with this name, which may be shortened to a prefix before a dot.

        Case doesn't matter. Returns None if there is none, or if the short name fits
        several objects and isn't the full name of one (real daemon 3.0.2: node1 means
        node1.example.com).
        """
        exact = self.named(name)
        if exact is not None:
            return exact
        key = name.lower()
        for keys in (whole_names, short_names):
            uuids = self.grouped(keys).get(key, ())
            if len(uuids) == 1:
                return self._objects[uuids[0]]
        return None

    def ordered(self, key: Callable[[str], Any]) -> Order:
        """Returns the objects sorted by ``key`` of their names; built once for each ``key``.

        Changed sections return the same object until a name is added, removed or changed.
        """
        return self._index(key, lambda: Order.of(key, self.values()))

    def grouped(self, keys: Callable[[T], Iterable[Any]]) -> dict[Any, tuple[str, ...]]:
        """Returns the uuids of the objects by the groups that ``keys`` returns for each.

        Built once for each ``keys``, which must therefore be a permanent function such as
        one of a module. Don't change the dictionary.
        """
        return self._index(keys, lambda: Groups.of(keys, self.values())).uuids

    def _index(self, key: Any, make: Callable[[], I]) -> I:
        index: Any = self._indexes.get(key)
        if index is None:
            index = self._indexes[key] = make()
        made: I = index
        return made

    def _changed(self, objects: dict[str, T], before: T | None, after: T | None) -> Section[T]:
        changed: Section[T] = Section.__new__(Section)
        changed._objects = objects
        changed._cache = {}
        # A copy, because a reader in another thread may add an index meanwhile.
        changed._indexes = {
            key: index.with_change(before, after) for key, index in self._indexes.copy().items()
        }
        return changed
