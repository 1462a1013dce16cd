"""The operators of filters, applied to one value (protocol/luxi.rst, Filters, real luxid 3.0.2).

A value is what a field's function returns for a normal cell: JSON types. If the operator
can't be used on a value, the test raises luxid's error (mostly ``ParameterError``) with
luxid's text, because users see it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ganeti_masterd.errors import GenericError, ParameterError
from ganeti_masterd.filtertree import COMPARISONS
from ganeti_masterd.patterns import Pattern
from ganeti_masterd.query.fields import Matching
from ganeti_masterd.query.names import means

#: A function that returns whether a value passes.
ComparisonTest = Callable[[Any], bool]


def comparison(name: str, wanted: str | int, matching: Matching) -> ComparisonTest:
    """Returns the test of ``value NAME wanted``, ``NAME`` being one of :data:`COMPARISONS`.

    Strings are compared by code points, numbers by value; a string can't be compared with
    a number. Host names equal their prefixes that end before a dot, job ids may be
    given as strings, and split times are compared by whole seconds.
    """
    compare = COMPARISONS[name]
    if matching is Matching.HOST_NAME and isinstance(wanted, str) and name in ("==", "!="):
        return _host_name(wanted, name != "!=")
    if matching is Matching.SPLIT_TIME:
        inner = _plain(compare, wanted)
        return lambda value: inner(value[0])
    if matching is Matching.JOB_ID:
        return _plain(compare, job_id(wanted))
    return _plain(compare, wanted)


def job_id(given: str | int) -> int:
    """Returns a job id given as a number or as a string of decimal digits.

    Raises ``GenericError`` for any other string, like luxid.
    """
    if isinstance(given, int):
        return given
    if given.isascii() and given.isdigit() and len(given) <= 20:
        return int(given)
    raise GenericError(f"parsing job id: cannot parse string '{given}'")


def truth(value: Any) -> bool:
    """Returns the value itself, which must be a boolean: the test for ``["?", field]``."""
    if type(value) is bool:
        return value
    raise ParameterError(f"Unexpected value '{shown(value)}' in boolean context")


def search(pattern: Pattern) -> ComparisonTest:
    """Returns the test for ``=~``: whether the pattern matches anywhere in a string."""

    def test(value: Any) -> bool:
        if type(value) is not str:
            raise ParameterError(
                "Invalid field value used in regexp matching, "
                f"expecting string but got '{shown(value)}'"
            )
        return pattern.search(value)

    return test


def contains(wanted: str | int) -> ComparisonTest:
    """Returns the test for ``=[]``: whether a list contains the value; None items are ignored."""
    kind, kind_name = (str, "String") if isinstance(wanted, str) else (int, "Integer")

    def test(value: Any) -> bool:
        if type(value) not in (list, tuple):
            raise GenericError(f"Cannot convert value '{shown(value)}', error: Unable to read list")
        for item in value:
            if item is not None and type(item) is not kind:
                raise GenericError(
                    f"Cannot convert value '{shown(value)}', error: Unable to read {kind_name}"
                )
        return wanted in value

    return test


def shown(value: Any) -> str:
    """Returns a value as shown in error messages."""
    return json.dumps(value, default=str)


def _host_name(wanted: str, equal: bool) -> ComparisonTest:
    def test(value: Any) -> bool:
        if type(value) is not str:
            raise _incomparable(value, wanted)
        return means(wanted, value) is equal

    return test


def _plain(compare: Callable[[Any, Any], bool], wanted: str | int) -> ComparisonTest:
    if isinstance(wanted, str):

        def test(value: Any) -> bool:
            if type(value) is not str:
                raise _incomparable(value, wanted)
            return compare(value, wanted)

    else:

        def test(value: Any) -> bool:
            if type(value) is not int and type(value) is not float:
                raise _incomparable(value, wanted)
            return compare(value, wanted)

    return test


def _incomparable(value: Any, wanted: str | int) -> ParameterError:
    if isinstance(wanted, str):
        named = f"QuotedString {json.dumps(wanted)}"
    else:
        named = f"NumericValue {wanted}" if wanted >= 0 else f"NumericValue ({wanted})"
    return ParameterError(
        f"Invalid types in comparison, trying to compare {shown(value)} with '{named}'"
    )
