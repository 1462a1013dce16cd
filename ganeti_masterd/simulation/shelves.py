"""Shelves: the state of simulated nodes by kind and name, which records changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import msgspec

V = TypeVar("V")

#: A removal with this name means that all values of the kind were removed.
EVERYTHING = "*"


class Shelf(Generic[V]):
    """Values of one kind by name; adds (kind, name) to ``changes`` for each change.

    ``version`` increases with each change, so that what was computed from all values can be kept
    until then.
    """

    __slots__ = ("_changes", "_values", "get", "kind", "shape", "version")

    def __init__(self, kind: str, shape: Any, changes: dict[tuple[str, str], None]) -> None:
        self.kind = kind
        self.shape = shape
        self._values: dict[str, V] = {}
        #: Returns the value of a name, or None: the dictionary's own method, as a creation of
        #: an instance asks a thousand times.
        self.get: Callable[[str], V | None] = self._values.get
        self._changes = changes
        self.version = 0

    def items(self) -> list[tuple[str, V]]:
        """Returns a copy of all names and values."""
        return list(self._values.items())

    def pop(self, name: str) -> V | None:
        """Removes and returns the value; None if there is none."""
        value = self._values.pop(name, None)
        if value is not None:
            self.version += 1
            self._changes[self.kind, name] = None
        return value

    def forget(self, name: str) -> None:
        """Removes the value from memory only; it stays on disk."""
        self._values.pop(name, None)
        self.version += 1

    def clear(self) -> None:
        """Removes all values, including those removed from memory by :meth:`forget`."""
        self._values.clear()
        self.version += 1
        self._changes[self.kind, EVERYTHING] = None

    def restore(self, name: str, value: V) -> None:
        """Sets a value read from disk, without recording a change."""
        self._values[name] = value
        self.version += 1

    def __getitem__(self, name: str) -> V:
        return self._values[name]

    def __setitem__(self, name: str, value: V) -> None:
        self._values[name] = value
        self.version += 1
        self._changes[self.kind, name] = None

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._values))

    def __len__(self) -> int:
        return len(self._values)


class Shelves:
    """Shelves of several kinds that are written and read together.

    ``unheld`` has the kinds that are removed from memory once they are written.
    """

    def __init__(self, *, unheld: str | None = None) -> None:
        self.changes: dict[tuple[str, str], None] = {}
        self._shelves: dict[str, Shelf[Any]] = {}
        self._unheld = unheld

    def shelf(self, kind: str, shape: Any) -> Shelf[Any]:
        """Returns a new shelf for values of a kind."""
        made = self._shelves[kind] = Shelf(kind, shape, self.changes)
        return made

    def take_changes(self) -> list[tuple[str, str, Any]]:
        """Returns kind, name and value (None: removed) of all changes since the last call."""
        rows: list[tuple[str, str, Any]] = []
        for kind, name in self.changes:
            shelf = self._shelves[kind]
            rows.append((kind, name, shelf.get(name)))
            if kind == self._unheld:
                shelf.forget(name)
        self.changes.clear()
        return rows

    def restore(self, kind: str, name: str, value: bytes) -> None:
        """Sets a value, after a restart, from the JSON of what :meth:`take_changes` returned."""
        shelf = self._shelves[kind]
        shelf.restore(name, msgspec.json.decode(value, type=shelf.shape))

    def wipe(self) -> None:
        """Empties all shelves."""
        for shelf in self._shelves.values():
            shelf.clear()
