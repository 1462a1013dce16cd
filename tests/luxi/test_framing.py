"""Framing: messages out of chunks."""

from __future__ import annotations

import itertools
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.luxi.framing import Framer, MessageTooLarge
from tests.luxi.doubles import examples


def taken(framer: Framer) -> list[bytes]:
    found = []
    while (message := framer.take()) is not None:
        found.append(message)
    return found


def chunks(data: bytes, cuts: list[int]) -> list[bytes]:
    marks = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(marks)]


class FramerTests(SynchronousTestCase):
    """What goes in comes out, cut at 0x03."""

    @given(st.lists(st.binary()), st.binary(), st.lists(st.integers(0)))
    @examples(200)
    def test_any_split(self, parts: list[bytes], rest: bytes, cuts: list[int]) -> None:
        """However a stream is split, the messages are the same and no byte is searched twice."""
        messages = b"\x03".join(parts).split(b"\x03") if parts else []
        rest = rest.replace(b"\x03", b"")
        stream = b"".join(message + b"\x03" for message in messages) + rest
        framer = Framer()
        found = []
        for chunk in chunks(stream, cuts):
            framer.feed(chunk)
            found += taken(framer)
        self.assertEqual(found, messages)
        self.assertEqual(framer.buffered, len(rest))
        self.assertEqual(framer.scanned, len(stream))

    @given(st.lists(st.integers(0, 12), min_size=1), st.lists(st.integers(0)))
    @examples(200)
    def test_late_taking(self, sizes: list[int], cuts: list[int]) -> None:
        """Chunks fed between two messages that are taken change nothing."""
        messages = [bytes([65 + n % 26]) * size for n, size in enumerate(sizes)]
        framer, found = Framer(), []
        for chunk in chunks(b"".join(m + b"\x03" for m in messages), cuts):
            framer.feed(chunk)
            message = framer.take()
            if message is not None:
                found.append(message)
        self.assertEqual(found + taken(framer), messages)

    def test_large_message_in_chunks(self) -> None:
        """20 MiB in chunks of 64 KiB are searched once, not once a chunk."""
        framer = Framer(32 << 20)
        chunk = b"x" * 65536
        for _ in range(320):
            framer.feed(chunk)
            self.assertIsNone(framer.take())
        framer.feed(b"\x03")
        message = framer.take()
        assert message is not None
        self.assertEqual(len(message), 320 * 65536)
        self.assertEqual(framer.scanned, 320 * 65536 + 1)
        self.assertEqual(framer.buffered, 0)

    def test_whole_message_is_not_buffered(self) -> None:
        """A chunk that is one message leaves nothing behind and isn't copied into a buffer."""
        framer = Framer()
        framer.feed(b"[]\x03")
        self.assertIsInstance(framer._buffer, bytes)
        self.assertEqual(framer.take(), b"[]")
        self.assertEqual(framer.buffered, 0)

    def test_limit(self) -> None:
        """A message of exactly the limit passes, one byte more doesn't."""
        framer = Framer(limit=5)
        framer.feed(b"12345\x03")
        self.assertEqual(framer.take(), b"12345")
        framer.feed(b"123456\x03")
        self.assertRaises(MessageTooLarge, framer.take)

    def test_limit_while_reading(self) -> None:
        """A message that grows too large is refused before its end, and its bytes are dropped."""
        framer = Framer(limit=100)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for _ in range(10):
            framer.feed(b"1234567890")
            self.assertIsNone(framer.take())
        framer.feed(b"1")
        error = self.assertRaises(MessageTooLarge, framer.take)
        self.assertIn("100 bytes", str(error))
        self.assertEqual(framer.buffered, 0)
        self.assertLess(tracemalloc.get_traced_memory()[0], 100_000)

    def test_limit_is_for_each_message(self) -> None:
        """Many small messages together may be longer than the limit."""
        framer = Framer(limit=3)
        framer.feed(b"abc\x03" * 100)
        self.assertEqual(taken(framer), [b"abc"] * 100)

    def test_limit_behind_a_good_message(self) -> None:
        """What was whole before the large one still comes out."""
        framer = Framer(limit=3)
        framer.feed(b"abc\x03abcd")
        self.assertEqual(framer.take(), b"abc")
        self.assertRaises(MessageTooLarge, framer.take)
