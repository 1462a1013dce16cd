"""Tables of a TOML file, read key by key; errors name their place in the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn


class DescriptionError(Exception):
    """A description is invalid; the message says where and why."""


class Table:
    """A table of the file; keys that are never read are errors, see :meth:`finish`."""

    def __init__(self, path: str, name: str, values: Mapping[str, Any]) -> None:
        self._path = path
        self._name = name
        self._values = values
        self._asked: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def fail(self, key: str, fault: str) -> NoReturn:
        """Raises an error about a key of this table."""
        place = f"table [{self._name}]" if self._name else "the top of the file"
        raise DescriptionError(f"{self._path}: {place}, key {key!r}: {fault}")

    def asked(self, *keys: str) -> None:
        """Marks keys as known without reading them."""
        self._asked.update(keys)

    def finish(self) -> None:
        """Raises an error if there are unknown keys."""
        for key in self._values:
            if key not in self._asked:
                known = ", ".join(sorted(self._asked))
                self.fail(key, f"there is no such key (there are: {known})")

    def take(self, key: str, kind: Any, shape: str, default: Any = None) -> Any:
        """Returns a value of a kind; ``default`` if it is missing."""
        self._asked.add(key)
        if key not in self._values:
            return default
        value = self._values[key]
        if isinstance(value, bool) and kind is not bool:
            self.fail(key, f"must be {shape}, is {value!r}")
        if not isinstance(value, kind):
            self.fail(key, f"must be {shape}, is {value!r}")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """Returns a non-empty string."""
        value = self.take(key, str, "a text", default)
        if not value:
            self.fail(key, "is missing" if value is None else "is empty")
        return str(value)

    def optional_text(self, key: str) -> str | None:
        """Returns a string, or None if it is missing."""
        value = self.take(key, str, "a text")
        return None if value is None else str(value)

    def texts(self, key: str, default: Sequence[str] = ()) -> list[str]:
        """Returns a list of strings."""
        values = self.take(key, list, "a list of texts", list(default))
        for value in values:
            if not isinstance(value, str):
                self.fail(key, f"must be a list of texts, has {value!r}")
        return list(values)

    def choices(self, key: str, known: frozenset[str]) -> list[str]:
        """Returns a non-empty list of known strings."""
        values = self.texts(key)
        if not values:
            self.fail(key, "is empty")
        for value in values:
            if value not in known:
                self.fail(key, f"{value!r} is none of {', '.join(sorted(known))}")
        return values

    def number(self, key: str, default: int | None = None, *, least: int = 0) -> int:
        """Returns an integer of at least ``least``."""
        value = self.take(key, int, "a whole number", default)
        if value is None:
            self.fail(key, "is missing")
        if value < least:
            self.fail(key, f"must be at least {least}, is {value}")
        return int(value)

    def rate(self, key: str) -> float | None:
        """Returns a number above zero, or None if it is missing."""
        value = self.take(key, (int, float), "a number")
        if value is not None and not value > 0:
            self.fail(key, f"must be above zero, is {value}")
        return None if value is None else float(value)

    def flag(self, key: str, default: bool) -> bool:
        """Returns a boolean."""
        return bool(self.take(key, bool, "true or false", default))

    def tables(self, key: str) -> list[Table]:
        """Returns an array of tables."""
        values = self.take(key, list, f"an array of tables: [[{key}]]", [])
        for value in values:
            if not isinstance(value, dict):
                self.fail(key, f"must be an array of tables: [[{key}]]")
        name = f"{self._name}.{key}" if self._name else key
        return [Table(self._path, f"{name}[{at + 1}]", value) for at, value in enumerate(values)]

    def optional_table(self, key: str) -> Table | None:
        """Returns a table, or None if it is missing."""
        value = self.take(key, dict, f"a table: [{key}]")
        name = f"{self._name}.{key}" if self._name else key
        return None if value is None else Table(self._path, name, value)

    def mapping(self, key: str) -> tuple[tuple[str, str], ...]:
        """Returns the pairs of a table of strings."""
        value = self.take(key, dict, "a table of texts", {})
        for name, text in value.items():
            if not isinstance(text, str):
                self.fail(key, f"{name!r} must be a text, is {text!r}")
        return tuple(value.items())
