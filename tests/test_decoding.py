"""JSON of others: one error for all that can be wrong with it."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.decoding import decode_json

#: What is no JSON, in each way that msgspec has an error of its own for.
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
        """A document becomes a value of the type."""
        self.assertEqual(decode_json(b'{"a": [1]}', dict[str, list[int]]), {"a": [1]})
        self.assertEqual(decode_json('["é"]', list[str]), ["é"])

    def test_nonsense(self) -> None:
        """Whatever is wrong, the error is the same."""
        for document in NONSENSE:
            self.assertRaises(msgspec.DecodeError, decode_json, document, Any)
        self.assertRaises(msgspec.DecodeError, decode_json, '["\udcd0"]', list[str])
        self.assertRaises(msgspec.ValidationError, decode_json, b"[1]", list[str])
