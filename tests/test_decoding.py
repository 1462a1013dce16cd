"""Decoding JSON from outside: one error for every fault."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.decoding import decode_json

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
