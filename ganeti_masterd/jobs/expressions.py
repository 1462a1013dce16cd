"""What expressions of filter rules mean: a test of named values.

Pure. They are filters as queries have them (:mod:`ganeti_masterd.filtertree`), but nothing
is assumed about data that isn't there: an expression that meets a missing field, or a
value that the operator can't be used on, has no answer, and what has no answer
doesn't match, also under ``!`` (real luxid 3.0.2). Parts of ``&`` and ``|``
are looked at from left to right, only as far as needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ganeti_masterd.errors import prereq
from ganeti_masterd.filtertree import (
    COMPARISONS,
    Comparison,
    Condition,
    Containment,
    MalformedFilter,
    Search,
    Truth,
    judge,
    read_filter,
)

#: Says whether a value matches; raises :class:`Unanswerable`.
ValueTest = Callable[[Any], bool]

#: Says whether named values match; raises :class:`Unanswerable`.
ExpressionTest = Callable[[Mapping[str, Any]], bool]


class Unanswerable(Exception):
    """The expression has no answer for these values."""


def compile_expression(
    document: Any,
    where: str,
    *,
    comparisons_only: bool = False,
    substitutes: Mapping[str, int] | None = None,
) -> Callable[[Mapping[str, Any]], bool]:
    """Returns the function that says whether named values match; it never raises.

    ``comparisons_only`` lets every other operator have no answer;
    ``substitutes`` are texts that stand for numbers where a value is expected.
    Raises ``OpPrereqError`` with ``wrong_input`` for a malformed expression; the
    message begins with ``where``.
    """
    try:
        tree = read_filter(document, where)
    except MalformedFilter as error:
        raise prereq(str(error)) from None
    values_for = substitutes or {}

    def meaning(condition: Condition) -> ExpressionTest:
        if isinstance(condition, Comparison):
            return _of(condition.field, _comparison(condition, values_for))
        return _never if comparisons_only else _of(condition.field, _other(condition))

    test = judge(tree, meaning)

    def matches(values: Mapping[str, Any]) -> bool:
        try:
            return test(values)
        except Unanswerable:
            return False

    return matches


def _of(field: str, test: ValueTest) -> ExpressionTest:
    def tested(values: Mapping[str, Any]) -> bool:
        try:
            value = values[field]
        except KeyError:
            raise Unanswerable from None
        return test(value)

    return tested


def _never(values: Mapping[str, Any]) -> bool:
    raise Unanswerable


def _comparison(condition: Comparison, substitutes: Mapping[str, int]) -> ValueTest:
    compare, wanted = COMPARISONS[condition.operator], condition.value
    if isinstance(wanted, str):
        wanted = substitutes.get(wanted, wanted)
    kinds = (str,) if isinstance(wanted, str) else (int, float)

    def test(value: Any) -> bool:
        return compare(_value_of(kinds, value), wanted)

    return test


def _other(condition: Truth | Search | Containment) -> ValueTest:
    match condition:
        case Truth():
            return lambda value: _value_of((bool,), value)
        case Search(_, pattern):
            return lambda value: pattern.search(_value_of((str,), value))
        case Containment(_, wanted):
            return lambda value: any(
                type(item) is type(wanted) and item == wanted
                for item in _value_of((list, tuple), value)
            )


def _value_of(kinds: tuple[type, ...], value: Any) -> Any:
    """Returns the value; raises :class:`Unanswerable` if it is of no such kind."""
    if type(value) not in kinds:
        raise Unanswerable
    return value
