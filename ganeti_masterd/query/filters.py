"""Filters: from nested lists to a predicate over rows (protocol/luxi.rst, Filters).

:func:`compile_filter` reads a filter once, and refuses what is malformed, too
deep, or names a field that doesn't exist. :meth:`Filter.predicate` makes the
function that says of each row whether it passes.

A test of data that isn't there passes, as in 3.0.2: the filter has nothing to
judge by. So a filter and its negation always part the rows in two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

from ganeti_masterd.constants import RS_NORMAL
from ganeti_masterd.errors import ParameterError, prereq
from ganeti_masterd.patterns import BadPattern, Pattern
from ganeti_masterd.query.comparisons import (
    COMPARISONS,
    ComparisonTest,
    comparison,
    contains,
    search,
    truth,
)
from ganeti_masterd.query.entries import Entry
from ganeti_masterd.query.fields import Field, FieldTable, Matching, View

#: How deep operators may stand in each other.
MAX_DEPTH = 50

RowPredicate = Callable[[Any], bool]

_JOINS = ("&", "|")


class FieldTest(Struct, frozen=True):
    """One field put to one test."""

    field: Field
    test: ComparisonTest
    #: The name that an equality asks for, else None.
    equals: str | int | None = None


class Not(Struct, frozen=True):
    """What the inner one doesn't let pass."""

    inner: FilterNode


class Join(Struct, frozen=True):
    """All of the parts (``&``), or any (``|``)."""

    all: bool
    parts: tuple[FilterNode, ...]


FilterNode = FieldTest | Not | Join


class Filter(Struct, frozen=True):
    """A filter that has been understood; ``weight`` counts its tests."""

    root: FilterNode
    weight: int

    def fields(self) -> list[Field]:
        """Returns every field that it looks at."""
        return list({test.field.name: test.field for test in _tests(self.root)}.values())

    def names(self, field: Field) -> list[str | int] | None:
        """Returns what it asks for if it is an "or of equals" on ``field`` alone, else None.

        In the order asked, each as often as asked.
        """
        found: list[str | int] = []
        return found if _equals(self.root, field, found) else None

    def parted(self) -> tuple[Filter | None, Filter | None]:
        """Returns what can be judged by the configuration alone, and the rest; None for nothing.

        Rows pass the filter exactly if they pass both.
        """
        parts = self.root.parts if isinstance(self.root, Join) and self.root.all else (self.root,)
        here: list[FilterNode] = []
        there: list[FilterNode] = []
        for part in parts:
            live = any(test.field.needs is not None for test in _tests(part))
            (there if live else here).append(part)
        return _joined(here), _joined(there)

    def predicate(self, view: View) -> RowPredicate:
        """Returns the function that tells whether a row's object passes."""
        return _predicate(self.root, view)


def compile_filter(document: Any, table: FieldTable) -> Filter:
    """Reads a filter, nested lists as they came from JSON, for the fields of ``table``.

    Raises ``OpPrereqError`` with ``wrong_input`` for a malformed one, naming the
    place, and ``ParameterError`` for an unknown field.
    """
    root = _read(document, table, "filter", 1)
    return Filter(root, sum(1 for _ in _tests(root)))


def _read(document: Any, table: FieldTable, where: str, depth: int) -> FilterNode:
    if depth > MAX_DEPTH:
        raise prereq(f"The filter is nested deeper than {MAX_DEPTH} levels")
    if not isinstance(document, (list, tuple)) or not document:
        raise _malformed(where, "expected a list that begins with an operator", document)
    operator, *args = document
    if not isinstance(operator, str):
        raise _malformed(f"{where}[0]", "expected an operator", operator)
    if operator in _JOINS:
        parts = (_read(arg, table, f"{where}[{n}]", depth + 1) for n, arg in enumerate(args, 1))
        return Join(operator == "&", tuple(parts))
    if operator == "!":
        if len(args) != 1:
            raise _malformed(where, "expected one filter after '!'", document)
        return Not(_read(args[0], table, f"{where}[1]", depth + 1))
    if operator == "?":
        if len(args) != 1:
            raise _malformed(where, "expected one field after '?'", document)
        return FieldTest(_field(args[0], table, where), truth)
    if operator in COMPARISONS or operator in ("=~", "=[]"):
        if len(args) != 2:
            raise _malformed(where, f"expected a field and a value after '{operator}'", document)
        field = _field(args[0], table, where)
        return _compared(operator, field, _value(args[1], where), where)
    raise _malformed(f"{where}[0]", "unknown operator", operator)


def _compared(operator: str, field: Field, value: str | int, where: str) -> FieldTest:
    if operator == "=~":
        if not isinstance(value, str):
            raise _malformed(f"{where}[2]", "expected a regular expression", value)
        try:
            return FieldTest(field, search(Pattern(value)))
        except BadPattern as error:
            raise _malformed(f"{where}[2]", f"bad regular expression ({error})", value)
    if operator == "=[]":
        return FieldTest(field, contains(value))
    test = comparison(operator, value, field.matching)
    names = isinstance(value, str) or field.matching is Matching.JOB_ID
    return FieldTest(field, test, value if names and operator in ("=", "==") else None)


def _field(name: Any, table: FieldTable, where: str) -> Field:
    if not isinstance(name, str):
        raise _malformed(f"{where}[1]", "expected the name of a field", name)
    field = table.get(name)
    if field is None:
        raise ParameterError(f"Can't find field named '{name}'")
    return field


def _value(value: Any, where: str) -> str | int:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise _malformed(f"{where}[2]", "expected a text or an integer", value)
    return value


def _malformed(where: str, fault: str, found: Any) -> Exception:
    text = repr(found)
    if len(text) > 80:
        text = text[:77] + "..."
    return prereq(f"Malformed filter: {where}: {fault}, got {text}")


def _tests(node: FilterNode) -> Sequence[FieldTest]:
    if isinstance(node, FieldTest):
        return (node,)
    if isinstance(node, Not):
        return _tests(node.inner)
    return [test for part in node.parts for test in _tests(part)]


def _equals(node: FilterNode, field: Field, found: list[str | int]) -> bool:
    if isinstance(node, FieldTest):
        if node.field is not field or node.equals is None:
            return False
        found.append(node.equals)
        return True
    if isinstance(node, Join) and not node.all:
        return all(_equals(part, field, found) for part in node.parts)
    return False


def _joined(parts: list[FilterNode]) -> Filter | None:
    if not parts:
        return None
    root = parts[0] if len(parts) == 1 else Join(True, tuple(parts))
    return Filter(root, sum(1 for _ in _tests(root)))


def _predicate(node: FilterNode, view: View) -> RowPredicate:
    if isinstance(node, FieldTest):
        return _tested(node.field.bound(view), node.test)
    if isinstance(node, Not):
        inner = _predicate(node.inner, view)
        return lambda row: not inner(row)
    parts = [_predicate(part, view) for part in node.parts]
    if node.all:
        return lambda row: all(part(row) for part in parts)
    return lambda row: any(part(row) for part in parts)


def _tested(value_of: Callable[[Any], Any], test: ComparisonTest) -> RowPredicate:
    def predicate(row: Any) -> bool:
        value = value_of(row)
        if type(value) is Entry:
            # A null that is the data itself passes no test.
            return value.status != RS_NORMAL
        return True if value is None else test(value)

    return predicate
