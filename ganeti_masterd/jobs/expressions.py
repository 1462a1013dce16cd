"""Boolean expressions of filter rules: from nested lists to a test of named values.

Pure. The operators are those of queries (protocol/luxi.rst, Filters), but nothing is assumed
about data that isn't there: an expression that meets a missing field, or a
value that the operator can't be used on, has no answer, and what has no answer
doesn't match, also under ``!`` (real luxid 3.0.2). Parts of ``&`` and ``|``
are looked at from left to right, only as far as needed.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from ganeti_masterd.errors import OpPrereqError, prereq
from ganeti_masterd.patterns import BadPattern, Pattern

#: How deep operators may stand in each other.
MAX_DEPTH = 50

#: Says whether named values match; raises :class:`Unanswerable`.
ExpressionTest = Callable[[Mapping[str, Any]], bool]

_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}


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
    test = _Reader(comparisons_only, substitutes or {}).read(document, where, 1)

    def matches(values: Mapping[str, Any]) -> bool:
        try:
            return test(values)
        except Unanswerable:
            return False

    return matches


class _Reader:
    """Reads one expression."""

    def __init__(self, comparisons_only: bool, substitutes: Mapping[str, int]) -> None:
        self._comparisons_only = comparisons_only
        self._substitutes = substitutes

    def read(self, document: Any, where: str, depth: int) -> ExpressionTest:
        if depth > MAX_DEPTH:
            raise prereq(f"{where}: nested deeper than {MAX_DEPTH} levels")
        if not isinstance(document, (list, tuple)) or not document:
            raise _malformed(where, "a list that begins with an operator", document)
        name, *args = document
        if name in ("&", "|"):
            parts = [self.read(arg, f"{where}[{n}]", depth + 1) for n, arg in enumerate(args, 1)]
            return _all(parts) if name == "&" else _any(parts)
        if name == "!":
            if len(args) != 1:
                raise _malformed(where, "one expression after '!'", document)
            inner = self.read(args[0], f"{where}[1]", depth + 1)
            return lambda values: not inner(values)
        if name == "?":
            if len(args) != 1:
                raise _malformed(where, "one field after '?'", document)
            return self._other(_truth(_field(args[0], where)))
        if not isinstance(name, str) or (name not in _COMPARISONS and name not in ("=~", "=[]")):
            raise _malformed(f"{where}[0]", "an operator", name)
        if len(args) != 2:
            raise _malformed(where, f"a field and a value after '{name}'", document)
        field, value = _field(args[0], where), args[1]
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise _malformed(f"{where}[2]", "a text or an integer", value)
        if name == "=~":
            return self._other(_search(field, value, f"{where}[2]"))
        if name == "=[]":
            return self._other(_contains(field, value))
        wanted = self._substitutes.get(value, value) if isinstance(value, str) else value
        return _comparison(_COMPARISONS[name], field, wanted)

    def _other(self, test: ExpressionTest) -> ExpressionTest:
        return _never if self._comparisons_only else test


def _malformed(where: str, expected: str, found: Any) -> OpPrereqError:
    shown = repr(found)
    return prereq(
        f"{where}: expected {expected}, not {shown if len(shown) <= 80 else shown[:77] + '...'}"
    )


def _field(name: Any, where: str) -> str:
    if not isinstance(name, str):
        raise _malformed(f"{where}[1]", "the name of a field", name)
    return name


def _all(parts: list[ExpressionTest]) -> ExpressionTest:
    return lambda values: all(part(values) for part in parts)


def _any(parts: list[ExpressionTest]) -> ExpressionTest:
    return lambda values: any(part(values) for part in parts)


def _never(values: Mapping[str, Any]) -> bool:
    raise Unanswerable


def _value(values: Mapping[str, Any], field: str) -> Any:
    try:
        return values[field]
    except KeyError:
        raise Unanswerable from None


def _truth(field: str) -> ExpressionTest:
    def test(values: Mapping[str, Any]) -> bool:
        value = _value(values, field)
        if type(value) is not bool:
            raise Unanswerable
        return value

    return test


def _comparison(
    compare: Callable[[Any, Any], bool], field: str, wanted: str | int
) -> ExpressionTest:
    kinds = (str,) if isinstance(wanted, str) else (int, float)

    def test(values: Mapping[str, Any]) -> bool:
        value = _value(values, field)
        if type(value) not in kinds:
            raise Unanswerable
        return compare(value, wanted)

    return test


def _search(field: str, pattern: str | int, where: str) -> ExpressionTest:
    if not isinstance(pattern, str):
        raise _malformed(where, "a regular expression", pattern)
    try:
        found_in = Pattern(pattern).search
    except BadPattern as error:
        raise prereq(f"{where}: bad regular expression: {error}") from None

    def test(values: Mapping[str, Any]) -> bool:
        value = _value(values, field)
        if type(value) is not str:
            raise Unanswerable
        return found_in(value)

    return test


def _contains(field: str, wanted: str | int) -> ExpressionTest:
    def test(values: Mapping[str, Any]) -> bool:
        value = _value(values, field)
        if type(value) not in (list, tuple):
            raise Unanswerable
        return any(type(item) is type(wanted) and item == wanted for item in value)

    return test
