"""The filter language: parsing texts, and the places of faults."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from ganeti_masterd.cli.filterlang import FilterSyntaxError, parse_filter
from ganeti_masterd.cli.patterns import name_filter, pattern
from ganeti_masterd.filtertree import read_filter, written

#: Texts and what they mean, here and in Ganeti 3.0.2.
CORPUS: dict[str, Any] = {
    # one field
    "master": ["?", "master"],
    "nothing": ["?", "nothing"],
    "in": ["?", "in"],
    "disk.size/0": ["?", "disk.size/0"],
    " \t(( a ))\n": ["?", "a"],
    # comparisons
    'role == "M"': ["==", "role", "M"],
    'role="M"': ["==", "role", "M"],
    "role != 'M'": ["!=", "role", "M"],
    "a<5": ["<", "a", 5],
    "a <= -5": ["<=", "a", -5],
    "a > +5": [">", "a", 5],
    "a>=007": [">=", "a", 7],
    "be/memory>=128": [">=", "be/memory", 128],
    'a == ""': ["==", "a", ""],
    # quotes: the text as it stands
    r'a == "x\"y"': ["==", "a", r"x\"y"],
    r'a == "\x41\t"': ["==", "a", r"\x41\t"],
    'a == "b""c"': ["==", "a", 'b""c'],
    "a == 'it''s'": ["==", "a", "it''s"],
    'a == "it\'s"': ["==", "a", "it's"],
    'a == "grün"': ["==", "a", "grün"],
    # membership
    '"web" in tags': ["=[]", "tags", "web"],
    "5 in disk.sizes": ["=[]", "disk.sizes", 5],
    '"x" not in tags': ["!", ["=[]", "tags", "x"]],
    "'x'in tags": ["=[]", "tags", "x"],
    # regular expressions
    "name =~ m/^node[12]$/": ["=~", "name", "^node[12]$"],
    "name=~/a/": ["=~", "name", "a"],
    "name =~ m /a/": ["=~", "name", "a"],
    "name =~ #a/b#": ["=~", "name", "a/b"],
    "name =~ ^a^": ["=~", "name", "a"],
    "name =~ m|a|": ["=~", "name", "a"],
    "name =~ m//": ["=~", "name", ""],
    "name =~ m/x/is": ["=~", "name", "(?is)x"],
    "name =~ m/x/si": ["=~", "name", "(?is)x"],
    r"name =~ m/a\.b/": ["=~", "name", "a.b"],
    r"name =~ m/a\\.b/": ["=~", "name", r"a\.b"],
    r"name =~ m/a\/b/": ["=~", "name", "a/b"],
    r"name =~ m/a\tb/": ["=~", "name", "a\tb"],
    "name !~ /a/": ["!", ["=~", "name", "a"]],
    # patterns
    'name =* "node*"': ["=~", "name", r"^node[^.]*(\..*)?$"],
    'name =* "a?.b-c"': ["=~", "name", r"^a[^.]\.b\-c(\..*)?$"],
    "name !* 'x'": ["!", ["=~", "name", r"^x(\..*)?$"]],
    'name =* ""': ["=~", "name", r"^(\..*)?$"],
    # joined
    "not a": ["!", ["?", "a"]],
    "not not a": ["!", ["!", ["?", "a"]]],
    "not(a)": ["!", ["?", "a"]],
    "not a = 5": ["!", ["==", "a", 5]],
    "a and b": ["&", ["?", "a"], ["?", "b"]],
    "a and b and c": ["&", ["?", "a"], ["?", "b"], ["?", "c"]],
    "a or b or c": ["|", ["?", "a"], ["?", "b"], ["?", "c"]],
    "a or b and c": ["|", ["?", "a"], ["&", ["?", "b"], ["?", "c"]]],
    "(a or b) and c": ["&", ["|", ["?", "a"], ["?", "b"]], ["?", "c"]],
    "(a or b) or c": ["|", ["|", ["?", "a"], ["?", "b"]], ["?", "c"]],
    "not (a or b) and c": ["&", ["!", ["|", ["?", "a"], ["?", "b"]]], ["?", "c"]],
    "a and not b": ["&", ["?", "a"], ["!", ["?", "b"]]],
    "a or not (b and not c)": ["|", ["?", "a"], ["!", ["&", ["?", "b"], ["!", ["?", "c"]]]]],
    "android and orange": ["&", ["?", "android"], ["?", "orange"]],
    'not (name == "a" or name =* "b*")': [
        "!",
        ["|", ["==", "name", "a"], ["=~", "name", r"^b[^.]*(\..*)?$"]],
    ],
}

#: Texts that aren't filters, here and in Ganeti, and the place of the fault here.
WRONG: dict[str, int] = {
    "": 0,
    "   ": 3,
    "|(": 0,
    "_a": 0,
    "a b": 2,
    "a =": 3,
    "a == b": 5,
    "a == 5.5": 6,
    "a == - 5": 5,
    "a == (5)": 5,
    'a == "x': 5,
    "a == 5 or": 9,
    "a and": 5,
    "(a": 2,
    "a)": 1,
    "a == 1 b == 2": 7,
    'disk_template in ["file"]': 14,
    '"x" tags': 4,
    "5": 1,
    'a =~ "x"': 5,
    "a =~ mx": 5,
    "a =~ m/x": 5,
    "a =~ m/x\ny/": 5,
    "a =~ m/(/": 5,
    "a =~ m/x/q": 5,
    "a =* 5": 5,
    "a-b": 1,
    "é": 0,
}

_REAL = """
import json, sys
sys.path.insert(0, "/usr/share/ganeti/3.0")
try:
    from ganeti import errors, qlang
except ImportError as error:
    print(error, file=sys.stderr)
    sys.exit(77)
parser = qlang.BuildFilterParser()
def parsed(text):
    try:
        return qlang.ParseFilter(text, parser=parser)
    except errors.QueryFilterParseError:
        return None
json.dump([parsed(text) for text in json.load(sys.stdin)], sys.stdout)
"""


def real(texts: list[str]) -> list[Any]:
    """Returns the lists that the installed Ganeti makes of the texts; None for no filter."""
    # Without what the environment says of paths: a worker of trial has those of its own Python.
    command = ["/usr/bin/python3", "-E", "-c", _REAL]
    try:
        done = subprocess.run(
            command, input=json.dumps(texts), capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise SkipTest(f"Ganeti can't be asked: {error}")
    if done.returncode == 77:
        raise SkipTest(f"Ganeti is not installed: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    answers: list[Any] = json.loads(done.stdout)
    return answers


class MeaningTests(SynchronousTestCase):
    """Texts that are filters."""

    def test_corpus(self) -> None:
        """Each text is parsed to the expected lists."""
        for text, expected in CORPUS.items():
            self.assertEqual(parse_filter(text), expected, text)

    def test_corpus_against_ganeti(self) -> None:
        """The installed tools parse the same texts to the same lists, and refuse the same."""
        answers = real([*CORPUS, *WRONG])
        for text, answer in zip([*CORPUS, *WRONG], answers, strict=True):
            self.assertEqual(CORPUS.get(text), answer, text)

    def test_goes_on_after_an_expression(self) -> None:
        """A word after an expression isn't taken as its flags (the tools need parentheses)."""
        expected = ["&", ["=~", "name", "x"], ["?", "master"]]
        self.assertEqual(parse_filter("name =~ m/x/ and master"), expected)
        self.assertEqual(parse_filter("(name =~ m/x/) and master"), expected)

    def test_deep(self) -> None:
        """Any depth of nesting can be parsed; the daemon has its own limit."""
        self.assertEqual(parse_filter("(" * 2000 + "a" + ")" * 2000), ["?", "a"])
        found = parse_filter("not " * 2000 + "a")
        for _ in range(2000):
            operator, found = found
            self.assertEqual(operator, "!")
        self.assertEqual(found, ["?", "a"])


class FaultTests(SynchronousTestCase):
    """Texts that aren't filters."""

    def fault(self, text: str) -> FilterSyntaxError:
        return self.assertRaises(FilterSyntaxError, parse_filter, text)

    def test_places(self) -> None:
        """The place of a fault is where the text stops making sense."""
        for text, place in WRONG.items():
            self.assertEqual(self.fault(text).place, place, text)

    def test_message(self) -> None:
        """The message says what was expected, and points at the place."""
        self.assertEqual(
            str(self.fault('disk_template in ["file"]')),
            "Expected a comparison, '=~', '=*', 'or', 'and' or the end, not 'in'\n"
            '  disk_template in ["file"]\n'
            "                ^",
        )
        self.assertEqual(
            str(self.fault("name =")),
            "Expected a number or a quoted text, but the filter ends\n  name =\n        ^",
        )
        self.assertEqual(
            str(self.fault("a =~ m/(/")).splitlines()[0],
            "No regular expression: missing ): (",
        )
        self.assertEqual(
            str(self.fault("a =~ m/x/qi")).splitlines()[0],
            "An expression's flags are s and i, not q",
        )

    def test_the_line_of_the_fault(self) -> None:
        """For a text of several lines, the line with the fault is shown, with its tabs."""
        self.assertEqual(
            str(self.fault("a ==\n\t5 ]\nor b")).splitlines()[1:], ["  \t5 ]", "  \t  ^"]
        )
        self.assertEqual(str(self.fault("")).splitlines()[1:], ["  ", "  ^"])
        self.assertEqual(str(self.fault("a and\n")).splitlines()[1:], ["  ", "  ^"])

    def test_numbers(self) -> None:
        """A number beyond the values of fields is refused, however long."""
        self.assertEqual(parse_filter(f"a = {2**63 - 1}"), ["==", "a", 2**63 - 1])
        for number in (2**63, -(2**63) - 1, "9" * 5000):
            fault = self.fault(f"a = {number}")
            self.assertEqual((fault.place, fault.reason), (4, "The number is too large"))


names = st.from_regex(r"[a-z][a-z_/.0-9]{0,8}", fullmatch=True).filter(
    lambda name: name not in ("in", "not", "and", "or")
)
values = st.one_of(
    st.integers(-999, 999).map(lambda number: (str(number), number)),
    st.text("abc .-é'", max_size=5).map(lambda text: (f'"{text}"', text)),
)


@st.composite
def conditions(draw: Any) -> tuple[str, Any]:
    """A condition: its text and its lists."""
    name = draw(names)
    text, value = draw(values)
    operator = draw(st.sampled_from(["==", "!=", "<", "<=", ">", ">="]))
    return draw(
        st.sampled_from(
            [
                (name, ["?", name]),
                (f"{name}{operator}{text}", [operator, name, value]),
                (f"{text} in {name}", ["=[]", name, value]),
                (f"{text} not in {name}", ["!", ["=[]", name, value]]),
                (f"{name} !~ m/a+/", ["!", ["=~", name, "a+"]]),
            ]
        )
    )


def joined(operator: str, parts: list[tuple[str, Any]]) -> tuple[str, Any]:
    """Returns conditions in parentheses, joined by a word."""
    word = {"&": " and ", "|": " or "}[operator]
    return word.join(f"({text})" for text, _ in parts), [operator, *(lists for _, lists in parts)]


filters = st.recursive(
    conditions(),
    lambda inner: st.one_of(
        inner.map(lambda part: (f"not ({part[0]})", ["!", part[1]])),
        st.builds(joined, st.sampled_from("&|"), st.lists(inner, min_size=2, max_size=3)),
    ),
    max_leaves=8,
)


class PropertyTests(SynchronousTestCase):
    """Properties of any filter and of any text."""

    @settings(deadline=None, max_examples=100)
    @given(filters)
    def test_what_is_written_is_read(self, filter_: tuple[str, Any]) -> None:
        """Any filter written out is read back as it was, here and by the daemon."""
        text, lists = filter_
        self.assertEqual(parse_filter(text), lists)
        self.assertEqual(written(read_filter(lists, "filter")), lists)

    @settings(deadline=None, max_examples=200)
    @given(st.one_of(st.text(), st.text("ab =~!*<>()'\"/\\m1-\n", max_size=20)))
    def test_any_text(self, text: str) -> None:
        """Any text is either a filter or an error with a place."""
        try:
            self.assertIsInstance(parse_filter(text), list)
        except FilterSyntaxError as error:
            self.assertTrue(0 <= error.place <= len(text))
            self.assertTrue(str(error).endswith("^"))


class PatternTests(SynchronousTestCase):
    """Names and patterns of names."""

    def test_patterns(self) -> None:
        """A star matches part of one label, and the rest of the name may be left out."""
        self.assertEqual(pattern("a*.b?"), r"^a[^.]*\.b[^.](\..*)?$")
        self.assertEqual(pattern("x"), r"^x(\..*)?$")

    def test_names(self) -> None:
        """Names make an "or of equals", to which patterns are added."""
        self.assertIsNone(name_filter("name", []))
        self.assertEqual(
            name_filter("name", ["b", "a"]), ["|", ["=", "name", "b"], ["=", "name", "a"]]
        )
        self.assertEqual(
            name_filter("name", ["b", "a*"]),
            ["|", ["=", "name", "b"], ["=~", "name", r"^a[^.]*(\..*)?$"]],
        )
