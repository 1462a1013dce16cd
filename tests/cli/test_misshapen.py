"""Answers of any shape: an error line and an exit code, never a traceback."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

from click.testing import CliRunner

from ganeti_masterd.cli import output
from ganeti_masterd.cli.main import program
from tests.cli.doubles import FAILED_ROW, OK_ROW, CommandCase, job_answers

#: What stands in the place of each part of an answer, one after the other.
JUNK: tuple[Any, ...] = (
    *(None, True, -1, 1, 1.5, 1e308, 10**30, 2**63, "", "x", "\x1b[31m\n", "7"),
    *([], [[]], [None], [1, 2, 3], [["x", 1]], {}, {"x": []}, [{"x": 1}] * 3),
)

QUERY: dict[str, Any] = {
    "fields": [
        {"name": "name", "title": "Name", "kind": "text", "doc": "The name."},
        {"name": "mtime", "title": "Time", "kind": "timestamp", "doc": "A time."},
        {"name": "mfree", "title": "Free", "kind": "unit", "doc": "A size."},
        {"name": "pending", "title": "Pending", "kind": "other", "doc": "Jobs."},
    ],
    "data": [[[0, "node1"], [0, 1767323045], [0, 512], [0, [["exclusive", ["4"]]]]]],
}
DELAY = {"OP_ID": "OP_TEST_DELAY", "duration": 1.0}

#: The most calls that a command may make; then the daemon goes away.
MOST_CALLS = 6


def misshapen(value: Any) -> Iterator[Any]:
    """Yields the value with each of its parts replaced by each piece of junk, or left out."""
    yield from JUNK
    if isinstance(value, dict):
        for key in value:
            yield {name: each for name, each in value.items() if name != key}
            for other in misshapen(value[key]):
                yield {**value, key: other}
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield [*value[:index], *value[index + 1 :]]
            yield [*value[:index], each, *value[index:]]
            for other in misshapen(each):
                yield [*value[:index], other, *value[index + 1 :]]


class MisshapenTests(CommandCase):
    """Each command with a daemon that answers one of its calls in a wrong shape."""

    def setUp(self) -> None:
        super().setUp()
        self.good: dict[str, Any] = {
            "QueryClusterInfo": {
                **{"name": "cluster", "uuid": "abc", "master": "node1", "tags": ["a"]},
                **{"software_version": "3.0.2", "protocol_version": 3000000},
            },
            "QueryConfigValues": lambda names: [
                {"drain_flag": False, "watcher_pause": 1767323045}[name] for name in names
            ],
            "QueryJobs": job_answers(OK_ROW, FAILED_ROW),
            "WaitForJobChange": [["success", ["success"]], [[1, [1767323045, 0], "message", "x"]]],
            "SetDrainFlag": True,
            "SetWatcherPause": None,
            "QueryJobWait": {"id": 7, "sentence": "Job 7 waits", "kind": "lock", "jobs": [5]},
            "CancelJob": [True, "Job 7 was cancelled"],
            "ChangeJobPriority": [True, "Job 7 has priority 10"],
            "ArchiveJob": True,
            "AutoArchiveJobs": [2, 0],
            "SubmitJob": 7,
            "SubmitJobToDrainedQueue": 7,
            "SubmitManyJobs": [[True, 7], [False, "no"]],
            "Query": QUERY,
            "QueryFields": {"fields": QUERY["fields"]},
        }

    def check(self, method: str, *command: str, values: Callable[..., Any] | None = None) -> None:
        """Gives the command every wrong answer to one method."""
        good = self.good[method]
        first = values() if values is not None else good
        for wrong in misshapen(first):
            answers = copy.copy(self.good)
            answers[method] = wrong
            self.daemon.answers = _Ending(answers)
            for terminal in (False, True):
                self.patch(output, "on_terminal", lambda terminal=terminal: terminal)
                self.run_with(json.dumps(wrong), command)
            self.run_with(json.dumps(wrong), ("--json", *command))

    def run_with(self, wrong: str, command: tuple[str, ...]) -> None:
        """Runs the command, which may fail, though only with a message."""
        result = CliRunner().invoke(
            program, ["--socket", self.socket, *command], prog_name="gnt-luxi"
        )
        self.daemon.answers.clear()  # starts the count again
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise AssertionError(f"{command} with {wrong}") from result.exception
        self.assertIn(result.exit_code, (0, 1), wrong)
        self.assertNotIn("Traceback", result.output)
        self.assertNotIn("\x1b[31m", result.stderr)

    def rows(self, *fields: str) -> Callable[[], Any]:
        """Returns the good rows of some fields."""
        return lambda: job_answers(OK_ROW)([7], list(fields))

    def test_info(self) -> None:
        """``info``."""
        self.check("QueryClusterInfo", "info")
        self.check("QueryConfigValues", "info", values=lambda: [False, 1767323045])
        self.check("QueryJobs", "info", values=self.rows("id", "status"))

    def test_switches(self) -> None:
        """``drain`` and ``pause-watcher``."""
        self.check("QueryConfigValues", "drain", values=lambda: [True])
        self.check("SetDrainFlag", "drain", "on")
        self.check("QueryConfigValues", "pause-watcher", values=lambda: [1767323045.5])
        self.check("SetWatcherPause", "pause-watcher", "1h")

    def test_jobs(self) -> None:
        """``jobs`` and ``job``."""
        listed = ("id", "status", "summary", "received_ts", "start_ts", "end_ts")
        ended = (*listed, "opstatus", "opresult", "oplog")
        more = ("priority", "archived", "ops", "oppriority", "opstart", "opexec", "opend")
        self.check("QueryJobs", "jobs", values=self.rows(*listed))
        self.check("QueryJobs", "job", "7", values=self.rows(*ended, *more))

    def test_why(self) -> None:
        """``why``."""
        self.check("QueryJobWait", "why", "7")

    def test_control(self) -> None:
        """``cancel``, ``priority`` and ``archive``."""
        self.check("CancelJob", "cancel", "7")
        self.check("ChangeJobPriority", "priority", "high", "7")
        self.check("ArchiveJob", "archive", "7")
        self.check("AutoArchiveJobs", "archive", "--age", "1d")

    def test_submit(self) -> None:
        """``submit`` of one job and of several."""
        one, two = self.write("one", [DELAY]), self.write("two", [[DELAY], [DELAY]])
        self.check("SubmitJob", "submit", one)
        self.check("SubmitJobToDrainedQueue", "submit", "--drained", two)
        self.check("SubmitManyJobs", "submit", two)
        self.check("SubmitManyJobs", "submit", "--wait", two)

    def test_following(self) -> None:
        """``watch`` and ``wait``."""
        listed = ("id", "status", "opstatus", "received_ts", "start_ts", "end_ts")
        ended = ("id", "status", "summary", *listed[3:], "opstatus", "opresult", "oplog")
        self.check("QueryJobs", "wait", "7", values=self.rows(*listed[:3]))
        self.check("QueryJobs", "watch", "7", values=self.rows(*ended))
        self.good["QueryJobs"] = job_answers({**OK_ROW, "status": "running"})
        self.check("WaitForJobChange", "watch", "7")

    def test_listings(self) -> None:
        """``nodes``, for all listings, and ``fields``."""
        self.check("Query", "nodes")
        self.check("QueryFields", "fields", "nodes")

    def test_errors(self) -> None:
        """An error whose class or arguments make no sense is an error all the same."""
        for wrong in misshapen(["OpPrereqError", ["no such node\x1b[31m", "unknown_entity"]]):
            self.patch(self.daemon, "answer", lambda *_, wrong=wrong: (False, wrong))
            for command in (
                ("info",),
                ("wait", "7"),
                ("cancel", "7"),
                ("nodes",),
                ("archive", "7"),
            ):
                self.run_with(json.dumps(wrong), command)

    def test_call(self) -> None:
        """``call`` prints whatever comes."""
        self.check("QueryClusterInfo", "call", "QueryClusterInfo")


class _Ending(dict[str, Any]):
    """Answers, until too many were asked for; then the connection ends."""

    def __init__(self, answers: dict[str, Any]) -> None:
        super().__init__(answers)
        self.count = 0

    def __getitem__(self, name: str) -> Any:
        self.count += 1
        if self.count > MOST_CALLS:
            return _gone
        return super().__getitem__(name)

    def clear(self) -> None:
        self.count = 0


def _gone(*args: Any) -> Any:
    raise ConnectionError
