"""Filters of queries and of filter rules: nested lists, read into one tree.

The lists are JSON of clients (protocol/luxi.rst, Filters); :func:`read_filter` is the only
reader of them. What a condition means is not known here: queries judge rows by it
(:mod:`ganeti_masterd.query.filters`), filter rules judge jobs
(:mod:`ganeti_masterd.jobs.expressions`). Both give :func:`judge` the meaning of one leaf.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeAlias, TypeVar, Union

from msgspec import Struct

from ganeti_masterd.patterns import LONGEST, BadPattern, Pattern

#: How deep operators may stand in each other.
MAX_DEPTH = 50

#: How many operators and conditions a filter may have.
MAX_TERMS = 5000

#: The most regular expressions of a filter, and characters of them all: to compile one costs as
#: much as hundreds of other terms.
MAX_PATTERNS = 100
MAX_PATTERN_CHARACTERS = LONGEST

#: How much of what is wrong an error shows.
_SHOWN = 80

#: Operators that compare with a text or a number; ``=`` is read as ``==``.
COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}


class FilterLeaf(Struct, frozen=True):
    """What a tree's operators join; has no filter below it."""


class Truth(FilterLeaf, frozen=True):
    """``["?", field]``: the field is true."""

    field: str


class Comparison(FilterLeaf, frozen=True):
    """``[operator, field, value]``, the operator being one of :data:`COMPARISONS`."""

    operator: str
    field: str
    value: str | int


class Search(FilterLeaf, frozen=True):
    """``["=~", field, pattern]``: the pattern is found in the field."""

    field: str
    pattern: Pattern


class Containment(FilterLeaf, frozen=True):
    """``["=[]", field, value]``: the field is a list that has the value."""

    field: str
    value: str | int


#: A leaf as it is read.
Condition = Truth | Comparison | Search | Containment

L = TypeVar("L", bound=FilterLeaf)
M = TypeVar("M", bound=FilterLeaf)
T = TypeVar("T")


class Not(Struct, Generic[L], frozen=True):
    """``["!", filter]``: what the inner one doesn't let pass."""

    inner: FilterTree[L]


class Join(Struct, Generic[L], frozen=True):
    """All of the parts (``&``), or any (``|``)."""

    all: bool
    parts: tuple[FilterTree[L], ...]


#: A filter whose leaves are of one class.
FilterTree: TypeAlias = Union[L, Not[L], Join[L]]  # noqa: UP007


class MalformedFilter(ValueError):
    """A document is no filter: ``fault`` says why, and ``where`` the place, as ``filter[2][0]``."""

    def __init__(self, where: str, fault: str) -> None:
        super().__init__(where, fault)
        self.where = where
        self.fault = fault

    def __str__(self) -> str:
        """The place and the fault."""
        return f"{self.where}: {self.fault}"


class FilterTooDeep(MalformedFilter):
    """The operators of a filter stand too deep in each other; ``where`` is the whole."""


def read_filter(document: Any, where: str) -> FilterTree[Condition]:
    """Returns the filter that nested lists mean; ``where`` is what errors call it.

    Raises :exc:`MalformedFilter`.
    """
    return _Reader(where).read(document, where, 1)


def written(tree: FilterTree[Condition]) -> list[Any]:
    """Returns the nested lists that :func:`read_filter` reads as this filter."""
    match tree:
        case Join(every, parts):
            return ["&" if every else "|", *map(written, parts)]
        case Not(inner):
            return ["!", written(inner)]
        case Truth(field):
            return ["?", field]
        case Comparison(name, field, value):
            return [name, field, value]
        case Search(field, pattern):
            return ["=~", field, pattern.text]
        case Containment(field, value):
            return ["=[]", field, value]


def leaves(tree: FilterTree[L]) -> Iterator[L]:
    """Yields all leaves, from left to right."""
    if isinstance(tree, Join):
        for part in tree.parts:
            yield from leaves(part)
    elif isinstance(tree, Not):
        yield from leaves(tree.inner)
    else:
        yield tree


def with_leaves(tree: FilterTree[L], leaf: Callable[[L], M]) -> FilterTree[M]:
    """Returns the same tree with ``leaf`` of each leaf in its place."""
    if isinstance(tree, Join):
        return Join(tree.all, tuple(with_leaves(part, leaf) for part in tree.parts))
    if isinstance(tree, Not):
        return Not(with_leaves(tree.inner, leaf))
    return leaf(tree)


def judge(tree: FilterTree[L], meaning: Callable[[L], Callable[[T], bool]]) -> Callable[[T], bool]:
    """Returns what says whether something passes, from what ``meaning`` says so of each leaf.

    Parts are looked at from left to right, only as far as needed. What a leaf's function
    raises goes through.
    """
    if isinstance(tree, Not):
        inner = judge(tree.inner, meaning)
        return lambda judged: not inner(judged)
    if isinstance(tree, Join):
        parts = [judge(part, meaning) for part in tree.parts]
        if tree.all:
            return lambda judged: all(part(judged) for part in parts)
        return lambda judged: any(part(judged) for part in parts)
    return meaning(tree)


class _Reader:
    """Reads one filter, which errors call ``whole``."""

    def __init__(self, whole: str) -> None:
        self._whole = whole
        self._terms = 0
        self._patterns = self._characters = 0

    def read(self, document: Any, where: str, depth: int) -> FilterTree[Condition]:
        if depth > MAX_DEPTH:
            raise FilterTooDeep(self._whole, f"nested deeper than {MAX_DEPTH} levels")
        self._terms += 1
        if self._terms > MAX_TERMS:
            raise MalformedFilter(self._whole, f"it has more than {MAX_TERMS} terms")
        if not isinstance(document, (list, tuple)) or not document:
            raise _malformed(where, "expected a list that begins with an operator", document)
        name, *args = document
        if not isinstance(name, str):
            raise _malformed(f"{where}[0]", "expected an operator", name)
        if name in ("&", "|"):
            parts = (self.read(arg, f"{where}[{n}]", depth + 1) for n, arg in enumerate(args, 1))
            return Join(name == "&", tuple(parts))
        if name == "!":
            if len(args) != 1:
                raise _malformed(where, "expected one filter after '!'", document)
            return Not(self.read(args[0], f"{where}[1]", depth + 1))
        if name == "=~":
            self._count_pattern(args)
        return _condition(name, args, document, where)

    def _count_pattern(self, args: list[Any]) -> None:
        self._patterns += 1
        self._characters += sum(len(arg) for arg in args[1:] if isinstance(arg, str))
        if self._patterns > MAX_PATTERNS:
            raise MalformedFilter(
                self._whole, f"it has more than {MAX_PATTERNS} regular expressions"
            )
        if self._patterns > 1 and self._characters > MAX_PATTERN_CHARACTERS:
            raise MalformedFilter(
                self._whole,
                f"its regular expressions have more than {MAX_PATTERN_CHARACTERS} characters",
            )


def _condition(name: str, args: list[Any], document: Any, where: str) -> Condition:
    if name == "?":
        if len(args) != 1:
            raise _malformed(where, "expected one field after '?'", document)
        return Truth(_field(args[0], where))
    spelt = "==" if name == "=" else name
    if spelt not in COMPARISONS and name not in ("=~", "=[]"):
        raise _malformed(f"{where}[0]", "unknown operator", name)
    if len(args) != 2:
        raise _malformed(where, f"expected a field and a value after '{name}'", document)
    field, value = _field(args[0], where), args[1]
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise _malformed(f"{where}[2]", "expected a text or an integer", value)
    if name == "=~":
        return Search(field, _pattern(value, f"{where}[2]"))
    return Containment(field, value) if name == "=[]" else Comparison(spelt, field, value)


def _field(name: Any, where: str) -> str:
    if not isinstance(name, str):
        raise _malformed(f"{where}[1]", "expected the name of a field", name)
    return name


def _pattern(text: str | int, where: str) -> Pattern:
    if not isinstance(text, str):
        raise _malformed(where, "expected a regular expression", text)
    try:
        return Pattern(text)
    except BadPattern as error:
        raise _malformed(where, f"bad regular expression ({error})", text) from None


def _malformed(where: str, fault: str, found: Any) -> MalformedFilter:
    text = repr(found)
    if len(text) > _SHOWN:
        text = text[: _SHOWN - 3] + "..."
    return MalformedFilter(where, f"{fault}, got {text}")
