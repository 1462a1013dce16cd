"""What filters mean for the rows of a query (protocol/luxi.rst, Filters).

:func:`compile_filter` reads a filter once (:mod:`ganeti_masterd.filtertree`), and refuses
what is malformed, too deep, or names a field that doesn't exist. :meth:`Filter.predicate`
makes the function that says of each row whether it passes.

A test of data that isn't there passes, as in 3.0.2: the filter has nothing to
judge by. So a filter and its negation always part the rows in two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from ganeti_masterd.constants import RS_NORMAL
from ganeti_masterd.errors import ParameterError, prereq
from ganeti_masterd.filtertree import (
    Comparison,
    Condition,
    Containment,
    FilterLeaf,
    FilterTooDeep,
    FilterTree,
    Join,
    MalformedFilter,
    Search,
    Truth,
    judge,
    leaves,
    read_filter,
    with_leaves,
)
from ganeti_masterd.query.comparisons import (
    ComparisonTest,
    comparison,
    contains,
    search,
    truth,
)
from ganeti_masterd.query.entries import Entry
from ganeti_masterd.query.fields import Field, FieldTable, Matching, View

RowPredicate = Callable[[Any], bool]


class FieldTest(FilterLeaf, frozen=True):
    """One field put to one test."""

    field: Field
    test: ComparisonTest
    #: The name that an equality asks for, else None.
    equals: str | int | None = None


#: A filter whose fields are those of one resource.
RowFilter = FilterTree[FieldTest]


class Filter(Struct, frozen=True):
    """A filter that has been understood; ``weight`` counts its tests."""

    root: RowFilter
    weight: int

    def fields(self) -> list[Field]:
        """Returns every field that it looks at."""
        return list({test.field.name: test.field for test in leaves(self.root)}.values())

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
        here: list[RowFilter] = []
        there: list[RowFilter] = []
        for part in parts:
            live = any(test.field.needs is not None for test in leaves(part))
            (there if live else here).append(part)
        return _joined(here), _joined(there)

    def predicate(self, view: View) -> RowPredicate:
        """Returns the function that tells whether a row's object passes."""
        return judge(self.root, lambda test: _tested(test.field.bound(view), test.test))


def compile_filter(document: Any, table: FieldTable) -> Filter:
    """Reads a filter, nested lists as they came from JSON, for the fields of ``table``.

    Raises ``OpPrereqError`` with ``wrong_input`` for a malformed one, naming the
    place, and ``ParameterError`` for an unknown field.
    """
    try:
        tree = read_filter(document, "filter")
    except FilterTooDeep as error:
        raise prereq(f"The filter is {error.fault}") from None
    except MalformedFilter as error:
        raise prereq(f"Malformed filter: {error}") from None
    return _filter(with_leaves(tree, lambda condition: _field_test(condition, table)))


def _field_test(condition: Condition, table: FieldTable) -> FieldTest:
    field = table.get(condition.field)
    if field is None:
        raise ParameterError(f"Can't find field named '{condition.field}'")
    match condition:
        case Truth():
            return FieldTest(field, truth)
        case Search(_, pattern):
            return FieldTest(field, search(pattern))
        case Containment(_, value):
            return FieldTest(field, contains(value))
        case Comparison(operator, _, value):
            names = isinstance(value, str) or field.matching is Matching.JOB_ID
            asked = value if names and operator == "==" else None
            return FieldTest(field, comparison(operator, value, field.matching), asked)


def _filter(root: RowFilter) -> Filter:
    return Filter(root, sum(1 for _ in leaves(root)))


def _equals(node: RowFilter, field: Field, found: list[str | int]) -> bool:
    if isinstance(node, FieldTest):
        if node.field is not field or node.equals is None:
            return False
        found.append(node.equals)
        return True
    if isinstance(node, Join) and not node.all:
        return all(_equals(part, field, found) for part in node.parts)
    return False


def _joined(parts: list[RowFilter]) -> Filter | None:
    if not parts:
        return None
    root = parts[0] if len(parts) == 1 else Join(True, tuple(parts))
    return _filter(root)


def _tested(value_of: Callable[[Any], Any], test: ComparisonTest) -> RowPredicate:
    def predicate(row: Any) -> bool:
        value = value_of(row)
        if type(value) is Entry:
            # A null that is the data itself passes no test.
            return value.status != RS_NORMAL
        return True if value is None else test(value)

    return predicate
