"""Displays of jobs that are followed."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout

from rich.console import Console
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.cli import output
from ganeti_masterd.cli.displays import (
    MOST_BARS,
    Bars,
    Lines,
    Nothing,
    Records,
    display,
    ending,
    first_fault,
    follow,
)
from ganeti_masterd.cli.following import Ended, Event, LineSaid, StatusMoved
from ganeti_masterd.cli.output import Output
from ganeti_masterd.cli.rows import JobOutcome, understand
from tests.cli.doubles import FAILED_ROW, NOW, OK_ROW


def outcome(row: dict[str, object]) -> JobOutcome:
    (value,) = understand(
        [[row[name] for name in JobOutcome.__struct_fields__]], JobOutcome
    ).values()
    return value


GOOD, BAD = outcome(OK_ROW), outcome(FAILED_ROW)

EVENTS: list[Event] = [
    StatusMoved(7, "queued", 0, 2),
    StatusMoved(7, "running", 0, 2),
    StatusMoved(7, "running", 1, 2),
    LineSaid(7, (NOW, 0), "message", "half [bold]way\x1b"),
    StatusMoved(8, "error", 1, 1),
    Ended(8, BAD),
    StatusMoved(7, "success", 2, 2),
    Ended(7, GOOD),
]


class PlainTests(SynchronousTestCase):
    """Lines, records, and nothing."""

    def printed(self, kind: type[Lines] | type[Records]) -> list[str]:
        text = io.StringIO()
        with redirect_stdout(text):
            outcomes = follow(EVENTS, kind(Output(json=kind is Records)))
        self.assertEqual(outcomes, {7: GOOD, 8: BAD})
        return text.getvalue().splitlines()

    def test_lines(self) -> None:
        """Each new status, log line and end is printed."""
        lines = self.printed(Lines)
        self.assertEqual(lines[:2], ["job 7: queued", "job 7: running"])
        self.assertRegex(lines[2], r"^job 7: \d\d:\d\d:\d\d half \[bold\]way\\x1b$")
        self.assertEqual(
            lines[3],
            "job 8: error, TEST_DELAY(1.0), 1.25 s: OpPrereqError (unknown_entity): no such node",
        )
        self.assertEqual(lines[4:], ["job 7: success, TEST_DELAY(1.0), 1.25 s"])

    def test_records(self) -> None:
        """Each event is printed as a JSON object with its kind."""
        records = [json.loads(line) for line in self.printed(Records)]
        self.assertEqual([each["event"] for each in records].count("status"), 5)
        self.assertEqual(records[3]["message"], "half [bold]way\x1b")
        self.assertEqual(records[-1]["event"], "end")
        self.assertEqual((records[-1]["id"], records[-1]["opresult"]), (7, [None]))
        self.assertNotIn("oplog", records[-1])

    def test_nothing(self) -> None:
        """Nothing is printed, but the outcomes are returned."""
        text = io.StringIO()
        with redirect_stdout(text):
            self.assertEqual(len(follow(EVENTS, Nothing())), 2)
        self.assertEqual(text.getvalue(), "")

    def test_ending(self) -> None:
        """A job that never started has no duration; a cancelled one has no error."""
        row = {**OK_ROW, "status": "canceled", "opstatus": ["canceled"], "start_ts": None}
        self.assertEqual(ending(outcome(row)), "canceled, TEST_DELAY(1.0)")
        self.assertIsNone(first_fault(outcome(row)))
        self.assertTrue(outcome(row).failed)

    def test_choice(self) -> None:
        """JSON, lines or bars, depending on the output."""
        self.assertIsInstance(display(Output(json=True), [7]), Records)
        self.assertIsInstance(display(Output(), [7]), Lines)
        self.patch(output, "on_terminal", lambda: True)
        self.assertIsInstance(display(Output(), [7]), Bars)
        self.assertIsInstance(display(Output(json=True), [7]), Records)


class BarsTests(SynchronousTestCase):
    """Progress on a terminal."""

    def shown(self, jobs: list[int]) -> str:
        text = io.StringIO()
        screen = Console(
            file=text,
            force_terminal=True,
            width=120,
            markup=False,
            highlight=False,
            color_system=None,
        )
        bars = Bars(jobs, screen)
        self.assertEqual(len(follow(EVENTS, bars)), 2)
        return text.getvalue()

    def test_few(self) -> None:
        """A few jobs have a bar each; log lines and ends stay above."""
        text = self.shown([7, 8])
        self.assertIn("half [bold]way\\x1b", text)
        self.assertIn("job 8: error, TEST_DELAY(1.0)", text)
        self.assertIn("job 7: success, TEST_DELAY(1.0)", text)

    def test_many(self) -> None:
        """Many jobs have one bar; only failures are printed, and a count at the end."""
        text = self.shown(list(range(7, 8 + MOST_BARS)))
        self.assertIn("job 8: error, TEST_DELAY(1.0)", text)
        self.assertNotIn("job 7: success", text)
        self.assertIn("2 jobs: 1 error, 1 success", text)
        self.assertIn(f"2/{MOST_BARS + 1}", text)
