"""Regular expressions from clients."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.patterns import LONGEST, BadPattern, Pattern


class PatternTests(SynchronousTestCase):
    """Matching, and refused expressions."""

    def test_search(self) -> None:
        """``search`` matches anywhere in a text, as Ganeti's tools expect."""
        for pattern, text, found in (
            ("DELAY", "TEST_DELAY(0.1)", True),
            ("^DELAY", "TEST_DELAY(0.1)", False),
            (r"^web[^.]*(\..*)?$", "web17.example.com", True),
            (r"^web[^.]*(\..*)?$", "a.web.example.com", False),
            ("(?i)^NODE", "node1", True),
            ("(?s)a.b", "a\nb", True),
            (r"\bb\b", "a-b", True),
            ("é+$", "caféé", True),
            ("", "", True),
        ):
            self.assertIs(Pattern(pattern).search(text), found, pattern)

    def test_fullmatch(self) -> None:
        """``fullmatch`` matches only the whole text."""
        self.assertTrue(Pattern("xenvg/.*").fullmatch("xenvg/root"))
        self.assertFalse(Pattern("xenvg/r").fullmatch("xenvg/root"))

    def test_costly(self) -> None:
        """Expressions that take other engines hours are fast."""
        text = "a" * 10_000 + "b"
        for pattern in ("(a|aa)+$", "(a+)+$", "(a*)*c", "(.*)(.*)(.*)(.*)(.*)c"):
            self.assertFalse(Pattern(pattern).search(text), pattern)

    def test_refused(self) -> None:
        """Invalid expressions are refused with the reason, as are those that need much memory."""
        for pattern, told in (
            ("(", "missing )"),
            ("*", "repetition"),
            ("[z-a]", "z-a"),
            ("(?!x)", "(?!"),
            (r"(a)\1", "escape"),
            ("(?:(?:a{1000}){1000}){1000}", "repetition"),
            ("x" * (LONGEST + 1), "10,001 characters"),
            ("\udc80", "Unicode"),
        ):
            error = self.assertRaises(BadPattern, Pattern, pattern)
            self.assertIn(told, str(error))
