"""Fitting tables into terminals."""

from __future__ import annotations

import io

from rich.console import Console
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.cli import output
from ganeti_masterd.cli.output import Column, Output, fitted


class FittedTests(SynchronousTestCase):
    """Widths of columns."""

    def test_room_enough(self) -> None:
        """Columns that fit aren't cut."""
        self.assertEqual(fitted([36, 8, 6], 50), [36, 8, 6])
        self.assertEqual(fitted([], 10), [])

    def test_widest_first(self) -> None:
        """If space is short, the widest columns are cut, and the others stay whole."""
        self.assertEqual(fitted([36, 8, 6], 30), [16, 8, 6])
        self.assertEqual(fitted([36, 8, 44, 6], 54), [20, 8, 20, 6])
        self.assertEqual(fitted([36, 8, 6], 15), [5, 5, 5])

    def test_narrowest(self) -> None:
        """Each column keeps some characters, even if they don't fit."""
        self.assertEqual(fitted([36, 8, 2], 3), [4, 4, 2])


class TableTests(SynchronousTestCase):
    """Tables on a terminal."""

    def test_narrow(self) -> None:
        """On a narrow terminal every column is still recognisable."""
        self.patch(output, "on_terminal", lambda: True)
        columns = [Column("UUID"), Column("Priority", right=True), Column("Action")]
        rows = [["7b2680e1-11ca-4802-92ba-eb29cee8a2e5", "3", "PAUSE"]]
        said = io.StringIO()
        self.patch(output, "console", lambda: Console(file=said, width=30))
        Output().table(columns, rows)
        lines = [line.rstrip() for line in said.getvalue().splitlines()]
        self.assertEqual(lines, ["UUID          Priority  Action", "7b2680e1-11…         3  PAUSE"])
