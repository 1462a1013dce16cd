"""Edits make the document that they were taken from, whatever the two documents are."""

from __future__ import annotations

import contextlib

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.journal import edits
from ganeti_masterd.journal.edits import apply_edit, edit_between
from tests.examples import examples

EXAMPLES = settings(max_examples=examples(200, 20_000), deadline=None)

#: Pieces that look like those of a document, and some that don't.
PIECES = st.sampled_from(
    [b"a", b"b", b"ab", b'},{"input":', b"},{", b'"input":', b"\x00", b"x" * 9]
)
DOCUMENTS = st.lists(PIECES, max_size=12).map(b"".join)


class EditTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(edits, "LARGE", 0)
        self.patch(edits, "_OVERHEAD", -1000)

    @given(DOCUMENTS, DOCUMENTS)
    @EXAMPLES
    def test_any(self, before: bytes, after: bytes) -> None:
        """Applied to the one it gives the other."""
        edit = edit_between(before, after)
        assert edit is not None
        self.assertEqual(apply_edit(before, edit), after)

    def test_apart(self) -> None:
        """Two changes at both ends of a document don't take along what is between them."""
        opcode = b'{"input":{},"status":"queued"}'
        before = b'{"ops":[%s],"end":null}' % b",".join([opcode] * 100)
        after = before.replace(b"queued", b"running", 1).replace(b"null", b"[1,2]")
        edit = edit_between(before, after)
        assert edit is not None
        self.assertEqual(apply_edit(before, edit), after)
        self.assertLess(len(edit), 60)

    @given(
        DOCUMENTS,
        st.binary(max_size=20)
        | st.builds(
            msgspec.msgpack.encode,
            st.lists(
                st.tuples(st.integers(-2, 60), st.integers(-2, 60), st.binary(max_size=3)),
                max_size=3,
            ),
        ),
    )
    @EXAMPLES
    def test_rubbish(self, before: bytes, edit: bytes) -> None:
        """Whatever isn't an edit of this document is a ValueError, if it isn't one by chance."""
        with contextlib.suppress(ValueError):
            apply_edit(before, edit)


class WorthTests(SynchronousTestCase):
    def test_small(self) -> None:
        """A small document has no edit."""
        self.assertIsNone(edit_between(b"a" * 100, b"a" * 99))

    def test_much(self) -> None:
        """Nor has one of which most has changed."""
        self.assertIsNone(edit_between(b"a" * 9000, b"b" * 9000))
        self.assertIsNone(edit_between(b"", b"b" * 9000))
