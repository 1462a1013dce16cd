"""Decoding JSON from outside: one error for every fault."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd import decoding
from ganeti_masterd.decoding import decode_in_pieces, decode_json, deeper_than
from tests.examples import examples

#: Malformed documents, one for each kind of error that msgspec raises.
NONSENSE = (
    b"",
    b"{",
    b'["\xd0"]',
    b'{"\xff": 1}',
    b'{"ops": [{"input": {"OP_ID": "\xd0\xd0"}}], "id": 5}',
    b"[" * 100_000,
    b'{"id":' * 100_000,
)


class DecodeTests(SynchronousTestCase):
    def test_read(self) -> None:
        """A document is decoded to a value of the type."""
        self.assertEqual(decode_json(b'{"a": [1]}', dict[str, list[int]]), {"a": [1]})
        self.assertEqual(decode_json('["é"]', list[str]), ["é"])

    def test_nonsense(self) -> None:
        """Every fault raises the same error."""
        for document in NONSENSE:
            self.assertRaises(msgspec.DecodeError, decode_json, document, Any)
        self.assertRaises(msgspec.DecodeError, decode_json, '["\udcd0"]', list[str])
        self.assertRaises(msgspec.ValidationError, decode_json, b"[1]", list[str])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=20,
)


class PiecesTests(SynchronousTestCase):
    """Large documents, decoded entry by entry; here whatever has four bytes is large."""

    def setUp(self) -> None:
        self.patch(decoding, "_LARGE", 4)

    def outcome(self, decode: Callable[[bytes], Any], document: bytes) -> Any:
        """Returns the value with its types, or the error."""
        try:
            return repr(decode(document))
        except (ValueError, RecursionError, msgspec.MsgspecError) as error:
            return type(error), str(error)

    def same(self, document: bytes) -> None:
        self.assertEqual(
            self.outcome(decode_in_pieces, document), self.outcome(msgspec.json.decode, document)
        )

    @settings(deadline=None, max_examples=examples(200, 5000))
    @given(JSON, st.sampled_from([None, 1]))
    def test_any_value(self, value: Any, indent: int | None) -> None:
        """Whatever the document is, the value is the same, with blanks or without."""
        self.same(json.dumps(value, indent=indent).encode())

    @settings(deadline=None, max_examples=examples(300, 10_000))
    @given(JSON, st.data())
    def test_any_bytes(self, value: Any, data: st.DataObject) -> None:
        """So is the error of a document in which something was changed."""
        document = bytearray(json.dumps(value).encode())
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(st.integers(0, len(document)))
            new = data.draw(
                st.sampled_from([b"", b",", b"]", b"}", b'"', b"\xff", b" ", b"[", b"0"])
            )
            document[at : at + data.draw(st.integers(0, 2))] = new
        self.same(bytes(document))

    def test_nonsense(self) -> None:
        """What is nested without end, cut off, or followed by more has its error."""
        for document in (
            *NONSENSE,
            b'{"a": [1, 2, 3]} x',
            b"[[1, 2, 3, 4], NaN]",
            b"\xef\xbb\xbf[]",
        ):
            self.same(document)

    def test_short_calls(self) -> None:
        """No call of the decoder makes more values than one entry has."""
        made: list[int] = []
        plain = decoding._plain

        def counted(document: Any) -> Any:
            value = plain(document)
            made.append(len(value) if isinstance(value, list) else 1)
            return value

        self.patch(decoding, "_plain", counted)
        document = json.dumps([True, {f"key {n}": [n] * 3 for n in range(1000)}]).encode()
        self.patch(decoding, "_LARGE", 1000)
        self.assertEqual(decode_in_pieces(document), json.loads(document))
        self.assertEqual((max(made), len(made)), (3, 1001))


class DepthTests(SynchronousTestCase):
    def test_at_the_limit(self) -> None:
        """Lists and objects count alike; as deep as the limit is fine."""
        for limit in (1, 2, 64, 200):
            for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
                for depth in (limit - 1, limit, limit + 1):
                    document = opening * depth + b"1" + closing * depth
                    value = msgspec.json.decode(document)
                    self.assertIs(deeper_than(document, value, limit), depth > limit, document)

    def test_beside_each_other(self) -> None:
        """Many containers beside each other are no deeper than one; a deep one is found."""
        document = b"[" + b"[1]," * 500 + b"[[[2]]]]"
        value = msgspec.json.decode(document)
        self.assertIs(deeper_than(document, value, 4), False)
        self.assertIs(deeper_than(document, value, 3), True)

    def test_brackets_in_texts(self) -> None:
        """Brackets in texts are no containers."""
        document = b'["' + b"[" * 900 + b'"]'
        self.assertIs(deeper_than(document, msgspec.json.decode(document), 3), False)
