"""Filters: which rows pass, and what is refused."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.errors import GenericError, OpPrereqError, ParameterError
from ganeti_masterd.filtertree import MAX_DEPTH
from ganeti_masterd.query.comparisons import shown
from ganeti_masterd.query.entries import NO_DATA, NULL
from ganeti_masterd.query.fields import Matching, Need, View, fields, flag, number, other, text
from ganeti_masterd.query.filters import compile_filter
from tests.examples import examples
from tests.query.scene import rich_snapshot

EXAMPLES = examples(120, 2000)

Row = dict[str, Any]


def _of(name: str) -> Any:
    return lambda row: row.get(name)


TABLE = fields(
    text("name", "Name", of=_of("name"), matching=Matching.HOST_NAME, doc="A name."),
    text("label", "Label", of=_of("label"), doc="A text."),
    number("size", "Size", of=_of("size"), doc="A number."),
    flag("good", "Good", of=_of("good"), doc="True or false."),
    other("tags", "Tags", of=_of("tags"), doc="A list."),
    other("when", "When", of=_of("when"), matching=Matching.SPLIT_TIME, doc="A time."),
    number("id", "ID", of=_of("id"), matching=Matching.JOB_ID, doc="A job's id."),
    number("live", "Live", of=_of("live"), needs=Need.NODE_INFO, doc="A live number."),
)


def passes(document: Any, row: Row) -> bool:
    """Whether a row passes a compiled filter."""
    return compile_filter(document, TABLE).predicate(View(SNAPSHOT))(row)


SNAPSHOT = rich_snapshot()

# A naive interpreter, with which compiled filters are compared.


def interpret(document: list[Any], row: Row) -> bool:
    """Whether a row passes, computed by interpreting the filter for each row."""
    operator, *args = document
    if operator == "&":
        return not [part for part in args if not interpret(part, row)]
    if operator == "|":
        return bool([part for part in args if interpret(part, row)])
    if operator == "!":
        return not interpret(args[0], row)
    value = row.get(args[0])
    if value is None:
        return True
    if operator == "?":
        return bool(value)
    wanted = args[1]
    if operator == "=~":
        return bool(re.findall(wanted, value))
    if operator == "=[]":
        return bool([item for item in value if item == wanted])
    if args[0] == "name" and operator in ("=", "==", "!="):
        same: bool = value == wanted or value[: len(wanted) + 1] == wanted + "."
        return same is not (operator == "!=")
    if args[0] == "when":
        value = value[0]
    results: dict[str, bool] = {
        "=": value == wanted,
        "==": value == wanted,
        "!=": value != wanted,
        "<": value < wanted,
        ">": value > wanted,
        "<=": value <= wanted,
        ">=": value >= wanted,
    }
    return results[operator]


WORDS = st.sampled_from(["a", "b", "a.b", "a.b.c", "node1", "node1.x", ""])
NUMBERS = st.integers(-3, 3)
COMPARING = st.sampled_from(["=", "==", "!=", "<", ">", "<=", ">="])
TESTS = st.one_of(
    st.tuples(COMPARING, st.sampled_from(["name", "label"]), WORDS),
    st.tuples(COMPARING, st.sampled_from(["size", "when", "id", "live"]), NUMBERS),
    st.tuples(st.just("?"), st.just("good")),
    st.tuples(st.just("=[]"), st.just("tags"), WORDS),
    st.tuples(st.just("=~"), st.just("label"), st.sampled_from(["a", "^b", r"\.", "c$", ""])),
).map(list)
FILTERS = st.recursive(
    TESTS,
    lambda inner: st.one_of(
        st.tuples(st.just("!"), inner).map(list),
        st.tuples(st.sampled_from("&|"), st.lists(inner, max_size=3)).map(lambda f: [f[0], *f[1]]),
    ),
    max_leaves=8,
)
ROWS = st.fixed_dictionaries(
    {
        "name": st.none() | WORDS,
        "label": st.none() | WORDS,
        "size": st.none() | NUMBERS | st.floats(-3, 3),
        "good": st.none() | st.booleans(),
        "tags": st.none() | st.lists(WORDS, max_size=3),
        "when": st.none() | st.tuples(NUMBERS, st.integers(0, 999999)),
        "id": st.none() | NUMBERS,
        "live": st.none() | NUMBERS,
    }
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | WORDS
    # What filters are made of comes up often enough to get far.
    | st.sampled_from(["&", "|", "!", "?", "=", "=~", "=[]", "<", "name", "tags", "size", "("]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=2)
    ),
    max_leaves=12,
)


class PropertyTests(SynchronousTestCase):
    """Properties of every filter."""

    @given(FILTERS, st.lists(ROWS, max_size=6))
    @settings(deadline=None, max_examples=EXAMPLES)
    def test_as_interpreted(self, document: list[Any], rows: list[Row]) -> None:
        """A compiled filter agrees with a naive interpreter."""
        self.assertEqual(
            [passes(document, row) for row in rows], [interpret(document, row) for row in rows]
        )

    @given(FILTERS, ROWS)
    @settings(deadline=None, max_examples=EXAMPLES)
    def test_negation_parts(self, document: list[Any], row: Row) -> None:
        """Every row passes a filter or its negation, not both."""
        self.assertNotEqual(passes(document, row), passes(["!", document], row))

    @given(FILTERS, FILTERS, st.lists(ROWS, max_size=6))
    @settings(deadline=None, max_examples=EXAMPLES)
    def test_joins_are_sets(self, one: list[Any], other: list[Any], rows: list[Row]) -> None:
        """An "and" passes the intersection of what two filters pass, an "or" the union."""

        def passed(document: list[Any]) -> set[int]:
            return {place for place, row in enumerate(rows) if passes(document, row)}

        self.assertEqual(passed(["&", one, other]), passed(one) & passed(other))
        self.assertEqual(passed(["|", one, other]), passed(one) | passed(other))

    @given(FILTERS, ROWS)
    @settings(deadline=None, max_examples=EXAMPLES)
    def test_parted(self, document: list[Any], row: Row) -> None:
        """The parts with and without live data are together equivalent to the filter."""
        compiled = compile_filter(document, TABLE)
        here, there = compiled.parted()
        view = View(SNAPSHOT)
        parts = [part.predicate(view)(row) for part in (here, there) if part is not None]
        self.assertEqual(all(parts), compiled.predicate(view)(row))
        if here is not None:
            self.assertNotIn("live", [field.name for field in here.fields()])

    def test_alternatives_stay_together(self) -> None:
        """An "or" is never split: all of it waits for live data, or none does."""
        here, there = compile_filter(["|", ["=", "name", "a"], ["?", "live"]], TABLE).parted()
        self.assertIsNone(here)
        assert there is not None
        self.assertEqual([field.name for field in there.fields()], ["name", "live"])
        here, there = compile_filter(
            ["!", ["|", ["=", "name", "a"], ["?", "live"]]], TABLE
        ).parted()
        self.assertIsNone(here)
        here, there = compile_filter(["|", ["=", "name", "a"], ["=", "name", "b"]], TABLE).parted()
        self.assertIsNone(there)

    @given(JSON)
    @settings(deadline=None, max_examples=EXAMPLES)
    def test_anything(self, document: Any) -> None:
        """Any JSON value is a filter, or refused with one of Ganeti's errors."""
        try:
            compile_filter(document, TABLE)
        except (OpPrereqError, ParameterError, GenericError) as error:
            self.assertTrue(error.args[0])


class FilterTests(SynchronousTestCase):
    """Filters one by one."""

    def refused(self, document: Any) -> str:
        """Returns the error message for a malformed filter."""
        error = self.assertRaises(OpPrereqError, compile_filter, document, TABLE)
        self.assertEqual(error.args[1], "wrong_input")
        text: str = error.args[0]
        return text

    def test_empty_joins(self) -> None:
        """An empty "and" passes everything, an empty "or" nothing."""
        self.assertTrue(passes(["&"], {}))
        self.assertFalse(passes(["|"], {}))

    def test_missing_data(self) -> None:
        """Missing data passes any test; a normal None doesn't."""
        for value in (None, NO_DATA):
            self.assertTrue(passes(["=", "size", 1], {"size": value}))
            self.assertFalse(passes(["!", ["=", "size", 1]], {"size": value}))
        self.assertFalse(passes(["=", "size", 1], {"size": NULL}))

    def test_malformed_says_where(self) -> None:
        """The error about a malformed filter has the place of the fault."""
        self.assertIn("filter: expected a list", self.refused([]))
        self.assertIn("filter[0]", self.refused([["="]]))
        self.assertIn("filter[2][1]", self.refused(["&", ["?", "good"], ["!", {}]]))
        self.assertIn("unknown operator", self.refused(["=*", "name", "x*"]))
        self.assertIn("after '='", self.refused(["=", "name"]))
        self.assertIn("after '!'", self.refused(["!"]))
        self.assertIn("after '?'", self.refused(["?", "good", 1]))
        self.assertIn("text or an integer", self.refused(["=", "name", None]))
        self.assertIn("text or an integer", self.refused(["=", "size", True]))
        self.assertIn("text or an integer", self.refused(["=", "size", 1.5]))
        self.assertIn("regular expression", self.refused(["=~", "name", "("]))
        self.assertIn("regular expression", self.refused(["=~", "name", 1]))
        self.assertIn("name of a field", self.refused(["?", ["good"]]))
        self.assertLess(len(self.refused(["x" * 10000])), 200)

    def test_depth(self) -> None:
        """A filter may be nested up to the limit and no deeper."""
        document: list[Any] = ["?", "good"]
        for _ in range(MAX_DEPTH - 1):
            document = ["!", document]
        self.assertEqual(passes(document, {"good": True}), MAX_DEPTH % 2 == 1)
        self.assertIn("deeper", self.refused(["!", document]))
        for _ in range(100000):
            document = ["&", document]
        self.assertIn("deeper", self.refused(document))
        # Taken apart by hand, because freeing it as a whole would recurse as deep.
        while isinstance(document[-1], list):
            document = document.pop()

    def test_unknown_field(self) -> None:
        """The error names a field that doesn't exist."""
        error = self.assertRaises(ParameterError, compile_filter, ["=", "nosuch", 1], TABLE)
        self.assertEqual(error.args, ("Can't find field named 'nosuch'",))

    def test_wrong_types(self) -> None:
        """The error shows a value on which an operator can't be used."""
        for document, row, words in (
            (["=", "size", "1"], {"size": 3}, "compare 3 with 'QuotedString \"1\"'"),
            (["<", "label", -4], {"label": "x"}, "compare \"x\" with 'NumericValue (-4)'"),
            (["=", "name", "x"], {"name": 5}, "compare 5 with"),
            (["=", "good", 1], {"good": True}, "compare true with 'NumericValue 1'"),
            (["=~", "tags", "x"], {"tags": []}, "expecting string but got '[]'"),
            (["?", "size"], {"size": 0}, "Unexpected value '0' in boolean context"),
        ):
            error = self.assertRaises(ParameterError, passes, document, row)
            self.assertIn(words, error.args[0])
        broken: tuple[tuple[Any, Row, str], ...] = (
            (["=[]", "size", 1], {"size": 1}, "Unable to read list"),
            (["=[]", "tags", 1], {"tags": ["x"]}, "Unable to read Integer"),
            (["=[]", "tags", "x"], {"tags": [None, True]}, "Unable to read String"),
        )
        for document, row, words in broken:
            failed = self.assertRaises(GenericError, passes, document, row)
            self.assertIn(words, failed.args[0])
        self.assertTrue(passes(["=[]", "tags", "x"], {"tags": [None, "x"]}))

    def test_job_ids(self) -> None:
        """Job ids are numbers, or strings of decimal digits."""
        self.assertTrue(passes(["=", "id", "7"], {"id": 7}))
        self.assertTrue(passes(["<", "id", "10"], {"id": 7}))
        for given_id in ("x", "", "-1", "1.0", "\u0661", "9" * 30):
            self.assertRaises(GenericError, compile_filter, ["=", "id", given_id], TABLE)

    def test_names(self) -> None:
        """An "or of equals" on the name field alone asks for rows by name."""

        def names(document: Any) -> Any:
            return compile_filter(document, TABLE).names(TABLE["name"])

        self.assertEqual(names(["=", "name", "b"]), ["b"])
        self.assertEqual(names(["|", ["==", "name", "b"], ["|", ["=", "name", "a"]]]), ["b", "a"])
        self.assertEqual(names(["|"]), [])
        for document in (
            ["&", ["=", "name", "b"]],
            ["!", ["=", "name", "b"]],
            ["|", ["=", "name", "b"], ["=", "label", "b"]],
            ["|", ["=", "name", "b"], ["!=", "name", "a"]],
            ["=~", "name", "b"],
            ["=", "name", 1],
        ):
            self.assertIsNone(names(document))

    def test_shown(self) -> None:
        """Values in errors are JSON."""
        self.assertEqual(shown({"a": [1, None, True]}), '{"a": [1, null, true]}')
