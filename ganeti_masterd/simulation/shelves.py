"""Shelves: what simulated nodes hold, by kind and name, with a note of what changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import msgspec

V = TypeVar("V")

#: As the name of a value that is gone: all values of its kind are.
EVERYTHING = "*"


class Shelf(Generic[V]):
    """Values of one kind by name; ``changes`` gets (kind, name) of each that changes."""

    __slots__ = ("_changes", "_values", "kind", "shape")

    def __init__(self, kind: str, shape: Any, changes: dict[tuple[str, str], None]) -> None:
        self.kind = kind
        self.shape = shape
        self._values: dict[str, V] = {}
        self._changes = changes

    def get(self, name: str) -> V | None:
        """Returns the value, or None."""
        return self._values.get(name)

    def items(self) -> list[tuple[str, V]]:
        """Returns all names and values as they are now."""
        return list(self._values.items())

    def pop(self, name: str) -> V | None:
        """Takes the value off the shelf; None if it isn't there."""
        value = self._values.pop(name, None)
        if value is not None:
            self._changes[self.kind, name] = None
        return value

    def forget(self, name: str) -> None:
        """Lets the value go from memory only: what was written stays written."""
        self._values.pop(name, None)

    def clear(self) -> None:
        """Takes all values off the shelf, those that were forgotten too."""
        self._values.clear()
        self._changes[self.kind, EVERYTHING] = None

    def restore(self, name: str, value: V) -> None:
        """Puts back what was read from disk: no change."""
        self._values[name] = value

    def __getitem__(self, name: str) -> V:
        return self._values[name]

    def __setitem__(self, name: str, value: V) -> None:
        self._values[name] = value
        self._changes[self.kind, name] = None

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._values))

    def __len__(self) -> int:
        return len(self._values)


class Shelves:
    """Shelves of several kinds that are written and read together.

    ``unheld`` names kinds that are not held in memory once they are written.
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
        """Returns kind, name and value (None: gone) of all that changed since the last time."""
        rows: list[tuple[str, str, Any]] = []
        for kind, name in self.changes:
            shelf = self._shelves[kind]
            rows.append((kind, name, shelf.get(name)))
            if kind == self._unheld:
                shelf.forget(name)
        self.changes.clear()
        return rows

    def restore(self, kind: str, name: str, value: bytes) -> None:
        """Puts back the JSON of a value that :meth:`take_changes` gave out, after a restart."""
        shelf = self._shelves[kind]
        shelf.restore(name, msgspec.json.decode(value, type=shelf.shape))

    def wipe(self) -> None:
        """Empties all shelves."""
        for shelf in self._shelves.values():
            shelf.clear()
