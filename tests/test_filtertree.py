"""The one reader of filters, and what joins the meanings of their leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.errors import GenericError, OpPrereqError, ParameterError
from ganeti_masterd.filtertree import (
    MAX_DEPTH,
    Comparison,
    Condition,
    FilterTooDeep,
    Join,
    MalformedFilter,
    Not,
    Truth,
    judge,
    leaves,
    read_filter,
    with_leaves,
    written,
)
from ganeti_masterd.jobs.expressions import compile_expression
from ganeti_masterd.query.filters import compile_filter
from tests.query.test_filters import EXAMPLES, FILTERS, JSON, TABLE


class ReadingTests(SynchronousTestCase):
    def test_tree(self) -> None:
        """Operators join what is below them, in order."""
        tree = read_filter(["&", ["?", "a"], ["!", ["|", ["=", "b", 1]]]], "filter")
        self.assertEqual(
            tree, Join(True, (Truth("a"), Not(Join(False, (Comparison("==", "b", 1),)))))
        )
        self.assertEqual(list(leaves(tree)), [Truth("a"), Comparison("==", "b", 1)])

    def test_malformed(self) -> None:
        """The error says what is wrong, where, and what stands there."""
        for document, text in (
            (5, "f: expected a list that begins with an operator, got 5"),
            ((), "f: expected a list that begins with an operator, got ()"),
            ({"?": "a"}, "f: expected a list that begins with an operator, got {'?': 'a'}"),
            ([["?"]], "f[0]: expected an operator, got ['?']"),
            (["=*", "a", "b"], "f[0]: unknown operator, got '=*'"),
            (["?", "a", "b"], "f: expected one field after '?', got ['?', 'a', 'b']"),
            (["?", 1], "f[1]: expected the name of a field, got 1"),
            (["!"], "f: expected one filter after '!', got ['!']"),
            (["<", "a"], "f: expected a field and a value after '<', got ['<', 'a']"),
            (["=", None, "a"], "f[1]: expected the name of a field, got None"),
            (["=", "a", True], "f[2]: expected a text or an integer, got True"),
            (["=[]", "a", ["b"]], "f[2]: expected a text or an integer, got ['b']"),
            (["=~", "a", 5], "f[2]: expected a regular expression, got 5"),
            (["=~", "a", "("], "f[2]: bad regular expression (missing ): (), got '('"),
            (["&", ["?", "a"], ["|", ["!", 1]]], "f[2][1][1]: expected a list that begins"),
        ):
            error = self.assertRaises(MalformedFilter, read_filter, document, "f")
            self.assertTrue(str(error).startswith(text), str(error))
        error = self.assertRaises(MalformedFilter, read_filter, ["x" * 10_000], "f")
        self.assertLess(len(str(error)), 120)

    def test_depth(self) -> None:
        """A filter may be so deep and no deeper; the error names the whole."""
        document: list[Any] = ["?", "a"]
        for _ in range(MAX_DEPTH - 1):
            document = ["!", document]
        read_filter(document, "f")
        error = self.assertRaises(FilterTooDeep, read_filter, ["&", document], "f")
        self.assertEqual(str(error), f"f: nested deeper than {MAX_DEPTH} levels")

    @given(FILTERS)
    @settings(deadline=None, max_examples=EXAMPLES)
    def test_written(self, document: list[Any]) -> None:
        """A filter that was read is written as it came, with one spelling for equality."""

        def spelt(part: Any) -> Any:
            if not isinstance(part, list):
                return part
            return ["==" if part[0] == "=" else part[0], *map(spelt, part[1:])]

        self.assertEqual(written(read_filter(document, "f")), spelt(document))

    @given(JSON)
    @settings(deadline=None, max_examples=EXAMPLES)
    def test_refused_alike(self, document: Any) -> None:
        """What is no filter of a query is no expression of a rule, for the same reason."""
        self.assertEqual(
            self.fault("filter", lambda: compile_expression(document, "filter")),
            self.fault("Malformed filter: filter", lambda: compile_filter(document, TABLE)),
        )

    def fault(self, place: str, read: Callable[[], object]) -> str | None:
        """What a reader refuses about the form of a document, None for a filter."""
        try:
            read()
        except OpPrereqError as error:
            text: str = error.args[0]
            self.assertTrue(text.startswith(place), text)
            return text[len(place) :]
        except (ParameterError, GenericError):
            pass  # a field or a job id that there isn't
        return None


class JudgingTests(SynchronousTestCase):
    def judged(self, document: Any, true: set[str]) -> tuple[bool, list[str]]:
        """Whether it passes where some fields are true, and which fields were looked at."""
        looked: list[str] = []

        def meaning(leaf: Condition) -> Callable[[set[str]], bool]:
            def is_true(fields: set[str]) -> bool:
                looked.append(leaf.field)
                return leaf.field in fields

            return is_true

        return judge(read_filter(document, "f"), meaning)(true), looked

    def test_only_as_far_as_needed(self) -> None:
        """Parts are looked at in order, until it is decided."""
        a, b = ["?", "a"], ["?", "b"]
        self.assertEqual(self.judged(["&", a, b], set()), (False, ["a"]))
        self.assertEqual(self.judged(["&", a, b], {"a", "b"}), (True, ["a", "b"]))
        self.assertEqual(self.judged(["|", a, b], {"a"}), (True, ["a"]))
        self.assertEqual(self.judged(["|", a, ["!", b]], {"b"}), (False, ["a", "b"]))
        self.assertEqual(self.judged(["&"], set()), (True, []))
        self.assertEqual(self.judged(["|"], set()), (False, []))

    def test_other_leaves(self) -> None:
        """Leaves may be others, the rest of the tree stays."""
        tree = read_filter(["!", ["|", ["?", "a"], ["?", "b"]]], "f")
        self.assertEqual(
            written(with_leaves(tree, lambda leaf: Truth(leaf.field * 2))),
            ["!", ["|", ["?", "aa"], ["?", "bb"]]],
        )
