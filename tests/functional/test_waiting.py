"""What the waits of these tests say when they are in vain, and that they end as they should."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from tests.functional.ledger import FINAL
from tests.functional.waiting import (
    containing,
    equal_to,
    job_is,
    jobs_end,
    process_ends,
    until,
)


class Jobs:
    """A LUXI client whose job has the next status of a list each time that it is asked for."""

    def __init__(self, *statuses: str) -> None:
        self.left = list(statuses)
        self.previous: list[Any] = []

    def wait_for_job_change(
        self, job: int, fields: Sequence[str], previous: Any, log_serial: None, timeout: float
    ) -> Any:
        self.previous.append(previous)
        return [[self.left.pop(0)], []]

    def query_jobs(self, jobs: None, fields: Sequence[str]) -> Any:
        return [[7, self.left[0] if self.left else "success"]]


def test_until_returns_what_it_saw() -> None:
    """It looks again until what it sees holds, and returns just that."""
    seen = iter(range(9))
    assert until("three", lambda: next(seen), equal_to(3)) == 3
    assert next(seen) == 4


def test_until_in_vain() -> None:
    """Without success it says for how long it waited, for what, and what was seen last."""
    with pytest.raises(AssertionError) as failed:
        until("the job runs", lambda: ["queued"], equal_to(["running"]), limit=0)
    text = "Waited 0 s in vain for this: the job runs. Last seen: ['queued']"
    assert str(failed.value) == text
    with pytest.raises(AssertionError, match=r"Last seen: \.\.\.-+the end$"):
        until("a line", lambda: 5000 * "-" + "the end", containing("+"), limit=0)


def test_job_is() -> None:
    """It asks with what it was told before, and stops at the first status that is wanted."""
    jobs: Any = Jobs("queued", "waiting", "running", "success")
    assert job_is(jobs, 7, "running") == "running"
    assert jobs.previous == [None, ["queued"], ["waiting"]]
    assert job_is(jobs, 7, *FINAL) == "success"


def test_job_ends_otherwise() -> None:
    """A job that can't get there any more is not waited for."""
    jobs: Any = Jobs("running", "error")
    with pytest.raises(AssertionError, match="Job 7 ended as error, so never this: job 7 is succ"):
        job_is(jobs, 7, "success")
    jobs = Jobs("queued")
    with pytest.raises(AssertionError, match=r"for this: job 7 is running\. Last seen: None"):
        job_is(jobs, 7, "running", limit=0)


def test_jobs_end() -> None:
    """Jobs that have not ended are waited for, one by one; with no limit left it fails."""
    jobs: Any = Jobs("running", "canceled")
    jobs_end(jobs)
    assert jobs.left == []
    jobs = Jobs("running")
    with pytest.raises(AssertionError, match=r"for this: all jobs have ended. Last seen: \[7\]"):
        jobs_end(jobs, limit=0)


def test_process_ends() -> None:
    """A process that ends is noticed, one that is gone is no error, one that stays is told of."""
    command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        with pytest.raises(AssertionError, match=f"Process {process.pid} has not ended within 0 s"):
            process_ends(process.pid, limit=0)
        assert process.stdin is not None
        process.stdin.close()
        process_ends(process.pid)
        assert os.waitpid(process.pid, os.WNOHANG)[0] == process.pid
        process.returncode = 0
    process_ends(process.pid)
