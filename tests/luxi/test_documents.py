"""JSON documents: what is refused, and that the quick check is exact."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.luxi.documents import MAX_NESTING, ProtocolError, parse, parse_strictly
from tests.luxi.doubles import examples
from tests.work import calls_of

BLANKS = st.sampled_from(["", "", " ", "\n", "\t ", "\r\n"])
KEYS = st.sampled_from(
    ['"a"', '"\\u0061"', '":"', '"\\u003a"', '"\\u003A"', '"\\\\u003a"', '"b:"', '"é"', '""']
)
LEAVES = st.sampled_from(["1", "-1.5e3", "null", "true", '"x"', '":"', '"\\u003a"', '"a\\":b"'])


@st.composite
def arrays(draw: Any, children: Any) -> str:
    return "[" + ",".join(draw(BLANKS) + item for item in draw(st.lists(children))) + "]"


@st.composite
def objects(draw: Any, children: Any) -> str:
    pairs = draw(st.lists(st.tuples(KEYS, BLANKS, BLANKS, children), max_size=4))
    return "{" + ",".join(f"{a}{key}{b}:{value}" for key, a, b, value in pairs) + "}"


DOCUMENTS = st.recursive(LEAVES, lambda inner: arrays(inner) | objects(inner), max_leaves=20)


def slow(text: str) -> bool:
    """Whether an object names a key twice, found the slow way."""
    twice = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in items}) < len(items):
            twice.append(items)
        return dict(items)

    json.loads(text, object_pairs_hook=pairs)
    return bool(twice)


class DuplicateKeyTests(SynchronousTestCase):
    """Equal keys in one object, at any depth."""

    @given(DOCUMENTS)
    @examples(400)
    def test_as_the_slow_way(self, text: str) -> None:
        """The quick check agrees with a check of each object, and the value is json's."""
        data = text.encode()
        if slow(text):
            self.assertRaises(ProtocolError, parse_strictly, data)
        else:
            self.assertEqual(parse_strictly(data), json.loads(text))

    def test_named(self) -> None:
        """The error names the key, and its text for the log does not."""
        error = self.assertRaises(ProtocolError, parse_strictly, b'{"a":[{"zz":1,"zz":2}]}')
        self.assertIn("'zz'", str(error))
        self.assertNotIn("zz", error.logged)

    def test_escaped_twin(self) -> None:
        """A key and its escaped spelling are equal."""
        self.assertRaises(ProtocolError, parse_strictly, b'{"a":1,"\\u0061":2}')

    def test_hidden_behind_an_escaped_colon(self) -> None:
        """A colon that is an escape doesn't make up for the one that was dropped."""
        self.assertRaises(ProtocolError, parse_strictly, b'{"x\\u003a":1,"b":{"c":1,"c":1}}')

    def test_deep_below_a_dropped_key(self) -> None:
        """What hides deep levels behind an equal key is refused as well."""
        deep = b"[" * 900 + b"]" * 900
        self.assertRaises(ProtocolError, parse_strictly, b'{"a":' + deep + b',"a":1}')

    def test_long_integers_on_the_slow_path(self) -> None:
        """The slow check isn't stopped by long integers."""
        number = int("9" * 4000)
        data = b'{"a":"\\u003a","b":%d}' % number
        self.assertEqual(parse_strictly(data), {"a": ":", "b": number})


class StrictnessTests(SynchronousTestCase):
    """What isn't a document, or isn't one to be served."""

    def test_refused(self) -> None:
        """Bad syntax, bad UTF-8, lone surrogates, NaN and trailing text are refused."""
        for data in (
            b"",
            b"  ",
            b"{",
            b"[1,]",
            b"{'a':1}",
            b"01",
            b"+1",
            b"nul",
            b"NaN",
            b"[Infinity]",
            b"-Infinity",
            b"1e999",
            b"[1]x",
            b"[1][2]",
            b"[1]\x00",
            b'"\xff"',
            b'{"\xff":1}',
            b'"\xed\xa0\x80"',
            b'"\\ud800"',
            b'"\\ud800x"',
            b'"\\udc00"',
            b'"a\nb"',
            b"\xef\xbb\xbf[]",
            b"1" * 20000,
        ):
            self.assertRaises(ProtocolError, parse_strictly, data)

    def test_blanks(self) -> None:
        """Blanks before and after the document are nothing."""
        self.assertEqual(parse_strictly(b" \r\n\t[1] \n"), [1])

    def test_exact_integers(self) -> None:
        """Integers come as they were sent, whatever their size."""
        for number in (2**53 + 1, 2**63, -(2**64) - 1, 10**40):
            self.assertEqual(parse_strictly(b"[%d]" % number), [number])

    def test_nesting(self) -> None:
        """The deepest allowed passes; one more doesn't, in objects as in arrays."""
        for opening, closing in ((b"[", b"]"), (b'{"a":', b"}"), (b'[{"a:[":', b"}]")):
            levels = opening.count(b"[", 0, 1) + opening.count(b"{")
            times = MAX_NESTING // levels
            good = opening * times + b"1" + closing * times
            parse_strictly(good)
            self.assertRaises(ProtocolError, parse_strictly, opening + good + closing)

    def test_wide_is_not_deep(self) -> None:
        """Many containers beside each other are no nesting."""
        self.assertEqual(parse_strictly(b"[" + b"[]," * 1000 + b'"[["]')[-1], "[[")

    def test_deep_is_quick(self) -> None:
        """Millions of levels are refused without a look at each, whole or not."""
        for data in (b"[" * 4_000_000, b'{"a":' * 1_000_000, b"[" * 500_000 + b"]" * 500_000):
            _, calls = calls_of(self.assertRaises, ProtocolError, parse_strictly, data)
            self.assertLess(calls, 1000)

    def test_replies_may_repeat(self) -> None:
        """The lenient form, for replies, takes the last of equal keys."""
        self.assertEqual(parse(b'{"a":1,"a":2}'), {"a": 2})

    @given(st.binary(max_size=60))
    @examples(300)
    def test_any_bytes(self, data: bytes) -> None:
        """Whatever goes in, out comes what the lenient form takes it for, or ``ProtocolError``."""
        try:
            value = parse_strictly(data)
        except ProtocolError as error:
            self.assertTrue(str(error))
        else:
            self.assertEqual(value, parse(data))
