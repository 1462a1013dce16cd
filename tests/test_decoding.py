"""Decoding JSON from outside: one error for every fault."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.decoding import decode_json, deeper_than

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
