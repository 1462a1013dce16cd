"""Files with jobs: their structure, and messages about unusable ones."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.cli.jobfile import (
    JobFileError,
    check_jobs,
    read_jobs,
    with_absolute_dependencies,
    with_priority,
    with_reason,
)
from tests.luxi.doubles import examples

DELAY = {"OP_ID": "OP_TEST_DELAY", "duration": 1.0}


def read(value: Any) -> Any:
    return read_jobs(json.dumps(value).encode(), "f")


class ReadTests(SynchronousTestCase):
    """The three structures of a file."""

    def refused(self, data: bytes) -> str:
        return str(self.assertRaises(JobFileError, read_jobs, data, "f"))

    def test_shapes(self) -> None:
        """A file has one opcode, one job, or many jobs."""
        self.assertEqual(read(DELAY), [[DELAY]])
        self.assertEqual(read([DELAY, DELAY]), [[DELAY, DELAY]])
        self.assertEqual(read([[DELAY], [DELAY]]), [[DELAY], [DELAY]])

    def test_wrong_shapes(self) -> None:
        """Each message says where in the file what is expected."""
        for value, text in [
            (5, "f: expected an opcode"),
            ([], "f: expected an opcode"),
            ([5], "f: expected an opcode"),
            ([DELAY, 5], "f: opcode 2: expected an object with OP_ID"),
            ([DELAY, [DELAY]], "f: opcode 2: expected an object with OP_ID"),
            ([[DELAY], DELAY], "f: job 2: expected a list of opcodes"),
            ([[DELAY], []], "f: job 2: a job needs at least one opcode"),
            ([[DELAY], [DELAY, "x"]], "f: job 2: opcode 2: expected an object"),
        ]:
            with self.subTest(value=value):
                self.assertIn(text, self.refused(json.dumps(value).encode()))

    def test_syntax(self) -> None:
        """A syntax error is reported with its line and column."""
        self.assertRegex(self.refused(b'[\n  {"OP_ID": }\n]'), "^f:2:13: Not a JSON document")
        self.assertRegex(self.refused(b""), "^f:1:1: ")

    def test_without_position(self) -> None:
        """A document that only the stricter parser refuses is reported without a position."""
        self.assertIn("'a' twice", self.refused(b'{"a": 1, "a": 2}'))
        self.assertRegex(self.refused(b'{"a": "\xff"}'), "^f: Not a JSON")
        self.assertRegex(self.refused(b"[" * 100_000), "^f[:0-9]*: ")

    @examples(100)
    @given(st.binary(max_size=40) | st.text('[]{}",:5 ', max_size=40).map(str.encode))
    def test_anything(self, data: bytes) -> None:
        """Any bytes are either jobs or refused with the file's name."""
        try:
            jobs = read_jobs(data, "f")
        except JobFileError as error:
            self.assertTrue(str(error).startswith("f"))
        else:
            self.assertTrue(jobs and all(jobs))


class CheckTests(SynchronousTestCase):
    """Opcodes are checked like in the daemon."""

    def refused(self, *jobs: list[dict[str, Any]]) -> str:
        return str(self.assertRaises(JobFileError, check_jobs, jobs, "f"))

    def test_good(self) -> None:
        """Valid opcodes pass, and aren't modified."""
        jobs = [[dict(DELAY)], [dict(DELAY), dict(DELAY)]]
        check_jobs(jobs, "f")
        self.assertEqual(jobs, [[DELAY], [DELAY, DELAY]])

    def test_places(self) -> None:
        """A fault names job and opcode only if there are several."""
        bad = {"OP_ID": "OP_TEST_DELAY"}
        self.assertRegex(self.refused([bad]), "^f: OP_TEST_DELAY: missing parameter duration$")
        self.assertRegex(self.refused([DELAY, bad]), "^f: opcode 2: OP_TEST_DELAY: ")
        self.assertRegex(self.refused([DELAY], [bad]), "^f: job 2: OP_TEST_DELAY: ")
        self.assertRegex(self.refused([DELAY], [DELAY, bad]), "^f: job 2: opcode 2: OP_TEST")

    def test_all_faults(self) -> None:
        """All faults are reported at once, up to ten."""
        text = self.refused(*[[{"OP_ID": f"OP_X{number}"}] for number in range(13)])
        self.assertEqual(len(text.splitlines()), 11)
        self.assertIn("and 3 more faults", text)


class ReadyTests(SynchronousTestCase):
    """What is added before jobs are sent."""

    def test_priority(self) -> None:
        """A priority replaces that of all opcodes."""
        jobs = with_priority([[DELAY, {**DELAY, "priority": 10}]], -10)
        self.assertEqual([op["priority"] for op in jobs[0]], [-10, -10])

    def test_reason(self) -> None:
        """The user's reason and the client are appended to the opcode's own reasons."""
        jobs = with_reason([[DELAY, {**DELAY, "reason": [["a", "b", 1]]}]], "why", "submit")
        trails = [[entry[:2] for entry in op["reason"]] for op in jobs[0]]
        added = [["gnt:user", "why"], ["gnt:client:gnt-luxi", "submit"]]
        self.assertEqual(trails, [added, [["a", "b"], *added]])
        self.assertIsInstance(jobs[0][0]["reason"][0][2], int)
        bare = with_reason([[{**DELAY, "reason": None}]], None, "submit")
        self.assertEqual(len(bare[0][0]["reason"]), 1)
        self.assertNotIn("reason", DELAY)

    def test_dependencies(self) -> None:
        """Relative ids become the ids of earlier jobs; others are kept."""
        job = [{**DELAY, "depends": [[-1, []], ["-2", ["error"]], [5, []]]}, DELAY]
        ready = with_absolute_dependencies(job, [3, 9])
        self.assertEqual(ready[0]["depends"], [[9, []], [3, ["error"]], [5, []]])
        self.assertIs(ready[1], DELAY)

    def test_lost_dependencies(self) -> None:
        """A job can't depend on one that doesn't exist or was refused."""
        for before in ([], [None]):
            job = [{**DELAY, "depends": [[-1, []]]}]
            error = self.assertRaises(JobFileError, with_absolute_dependencies, job, before)
            self.assertIn("job -1", str(error))
