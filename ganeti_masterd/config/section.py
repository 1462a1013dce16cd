"""A section of the configuration: objects of one kind by uuid, and by name.

Sections are immutable. Indexes are made when first asked for, and go along
to a changed section when no name changed, so a change in a big cluster is cheap.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, ValuesView
from typing import Any, Generic, TypeVar

from ganeti_masterd.config.base import ConfigObject

T = TypeVar("T", bound=ConfigObject)
V = TypeVar("V")


class Section(Mapping[str, T], Generic[T]):
    """Objects by uuid, in the order of the file; usable from any thread."""

    __slots__ = ("_cache", "_objects")

    def __init__(self, objects: Mapping[str, T]) -> None:
        self._objects: dict[str, T] = dict(objects)
        self._cache: dict[str, Any] = {}

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
        """Returns what ``make`` made from this section the first time."""
        try:
            value: V = self._cache[key]
        except KeyError:
            value = self._cache[key] = make()
        return value

    def with_object(self, obj: T) -> Section[T]:
        """Returns the section with an object added, or put for the one of the same uuid.

        A new object stands where its uuid belongs, as the real daemon sorts by uuid.
        """
        uuid = _uuid(obj)
        changed = self._empty()
        before = self._objects.get(uuid)
        if before is None:
            keys = list(self._objects)
            place = bisect_left(keys, uuid)
            objects = list(self._objects.values())
            keys.insert(place, uuid)
            objects.insert(place, obj)
            changed._objects = dict(zip(keys, objects, strict=True))
            names: dict[str, str] | None = self._cache.get("names")
            if names is not None and (name := _name(obj)):
                changed._cache["names"] = {**names, name: uuid}
        else:
            changed._objects = {**self._objects, uuid: obj}
            if _name(before) == _name(obj):
                changed._cache = {
                    key: value for key, value in self._cache.items() if key in _BY_NAME
                }
        return changed

    def without(self, uuid: str) -> Section[T]:
        """Returns the section without an object; raises ``KeyError`` if it isn't there."""
        changed = self._empty()
        changed._objects = dict(self._objects)
        del changed._objects[uuid]
        return changed

    def named(self, name: str) -> T | None:
        """Returns the object that is called exactly ``name``."""
        uuid = self.cached("names", self._names).get(name)
        return None if uuid is None else self._objects[uuid]

    def expanded(self, name: str) -> T | None:
        """Returns the object that ``name`` means: its name, or the beginning of it up to a dot.

        Case doesn't matter. A short name that fits several objects means none,
        unless it is the whole name of one (real daemon 3.0.2: node1 means
        node1.example.com).
        """
        exact = self.named(name)
        if exact is not None:
            return exact
        whole, short = self.cached("short names", self._short_names)
        key = name.lower()
        for uuids in (whole.get(key, ()), short.get(key, ())):
            if len(uuids) == 1:
                return self._objects[uuids[0]]
        return None

    def _names(self) -> dict[str, str]:
        return {name: uuid for uuid, obj in self._objects.items() if (name := _name(obj))}

    def _short_names(self) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        whole: dict[str, list[str]] = {}
        short: dict[str, list[str]] = {}
        for name, uuid in self.cached("names", self._names).items():
            key = name.lower()
            whole.setdefault(key, []).append(uuid)
            short.setdefault(key, []).append(uuid)
            dot = key.find(".")
            while dot != -1:
                short.setdefault(key[:dot], []).append(uuid)
                dot = key.find(".", dot + 1)
        return whole, short

    def _empty(self) -> Section[T]:
        return Section({})


_BY_NAME = frozenset({"names", "short names"})


def _name(obj: ConfigObject) -> str | None:
    return getattr(obj, "name", None)


def _uuid(obj: ConfigObject) -> str:
    uuid: str = obj.uuid  # type: ignore[attr-defined]
    return uuid
