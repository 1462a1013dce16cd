"""Formatting of times, durations and errors."""

from __future__ import annotations

import contextlib
import os
import time

from hypothesis import given
from hypothesis import strategies as st

from ganeti_masterd.cli import words
from ganeti_masterd.errors import GenericError, OpPrereqError
from tests.cli.doubles import NOW, FolderCase
from tests.luxi.doubles import examples


class TimeTests(FolderCase):
    """Times in the local zone."""

    def setUp(self) -> None:
        super().setUp()
        zone = os.environ.get("TZ")
        os.environ["TZ"] = "UTC"
        time.tzset()
        self.addCleanup(time.tzset)
        self.addCleanup(os.environ.update, {"TZ": zone or ""})

    def test_forms(self) -> None:
        """Times to the millisecond, to the second, and the time of day; a dash for None."""
        self.assertEqual(words.moment((NOW, 7999)), "2026-01-02 03:04:05.007")
        self.assertEqual(words.minute((NOW, 7999)), "2026-01-02 03:04:05")
        self.assertEqual(words.clock((NOW, 0)), "03:04:05")
        self.assertEqual((words.moment(None), words.minute(None)), ("-", "-"))

    def test_span(self) -> None:
        """From begin to end, or to now; a dash if either isn't known."""
        self.assertEqual(words.span((5, 500000), (7, 0)), "1.50 s")
        self.assertEqual(words.span((5, 500000), None, 7.5), "2.00 s")
        self.assertEqual(words.span((5, 500000), None), "-")
        self.assertEqual(words.span(None, (7, 0)), "-")


class DurationTests(FolderCase):
    """Formatting and parsing durations."""

    def test_forms(self) -> None:
        """Durations of any size have suitable units, also at the borders between units."""
        for seconds, text in [
            (-1, "0.0 ms"),
            (0.0004, "0.4 ms"),
            (0.00099, "1 ms"),
            (0.25, "250 ms"),
            (0.9996, "1.00 s"),
            (9.996, "10.0 s"),
            (59.96, "1 min"),
            (125, "2 min 5 s"),
            (3599.9, "1 h"),
            (7500, "2 h 5 min"),
            (86399.9, "1 d"),
            (90000, "1 d 1 h"),
        ]:
            self.assertEqual(words.duration(seconds), text, seconds)

    def test_parse(self) -> None:
        """Numbers with and without units, and sums of them."""
        for text, seconds in [("90", 90), ("1.5m", 90), ("1h30m", 5400), ("2w", 1209600)]:
            self.assertEqual(words.parse_duration(text), seconds)

    def test_parse_refuses(self) -> None:
        """Text that isn't a finite duration is refused."""
        for text in ("", "x", "-1", "1y", "1h ", "h", "nan", "9" * 400, "1e9999"):
            with self.subTest(text=text):
                self.assertRaises(ValueError, words.parse_duration, text)

    @examples(200)
    @given(st.text(alphabet="0123456789.smhdw -x", max_size=20))
    def test_parse_anything(self, text: str) -> None:
        """Any text is a duration of 0 or more, or a ValueError."""
        with contextlib.suppress(ValueError):
            self.assertGreaterEqual(words.parse_duration(text), 0)


class TextTests(FolderCase):
    """Errors, log lines and untrusted text."""

    def test_errors(self) -> None:
        """An error is shown as its class, its code if it has one, and its message."""
        self.assertEqual(
            words.exception_text(OpPrereqError("no", "wrong_input")),
            "OpPrereqError (wrong_input): no",
        )
        self.assertEqual(words.exception_text(GenericError("a", 5)), "GenericError: a, 5")
        self.assertEqual(words.exception_text(GenericError()), "GenericError")

    def test_results(self) -> None:
        """An opcode's error has the same form; any other result is returned as it is."""
        self.assertEqual(words.failure_text(["OpExecError", ["x", [1]]]), "OpExecError: x, [1]")
        self.assertEqual(words.failure_text("Job canceled"), "Job canceled")
        self.assertEqual(words.failure_text({"a": [1]}), '{"a":[1]}')
        self.assertEqual(words.log_text([1, "a"]), '[1,"a"]')

    def test_summaries(self) -> None:
        """If there are few opcodes all are shown, else the first ones."""
        self.assertEqual(words.summaries(["A", "B"]), "A, B")
        self.assertEqual(words.summaries(list("ABCD")), "A, B, C, ... (4 opcodes)")

    def test_counted(self) -> None:
        """The noun is in the singular or plural."""
        self.assertEqual(words.counted(1, "job"), "1 job")
        self.assertEqual(words.counted(2000, "job"), "2,000 jobs")

    @examples(200)
    @given(st.text())
    def test_printable(self, text: str) -> None:
        """Control characters are escaped, and plain text is unchanged."""
        shown = words.printable(text)
        self.assertTrue(shown.replace("\n", "").isprintable())
        if text.replace("\n", "").isprintable():
            self.assertEqual(shown, text)

    def test_printable_escapes(self) -> None:
        """An escape character is shown as an escape sequence."""
        self.assertEqual(words.printable("a\x1b[31mb\tc\n"), "a\\x1b[31mb\\tc\n")
