"""Whole outputs of ``gnt-cluster info``, ``gnt-job``, ``gnt-filter`` and ``gnt-debug``.

Compared line by line with what Ganeti 3.0.2 printed in the same state, and the
refusals of the same commands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional import recorded
from tests.functional.conftest import require
from tests.functional.gnt import Gnt, Said, on

#: What differs from run to run, and a name for it.
_NORMAL = (
    (r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{6})?\b", "STAMP"),
    (r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "UUID"),
    (r"\b\d{19}\b", "NANOSECONDS"),
    (r";uid=\d+;pid=\d+", ""),  # who sent a job: the real daemon doesn't tell
    (r"\(delta [\d.]+s\)", "(delta)"),
    (r"processing time: [\d.]+ seconds", "processing time"),
    (r"(?m) +$", ""),
)


def normal(text: str) -> str:
    """Returns output without what differs from run to run."""
    for pattern, name in _NORMAL:
        text = re.sub(pattern, name, text)
    return text


def in_any_order(text: str) -> list[str]:
    """Returns the lines of a tool that puts out some of them in an order of the moment."""
    return sorted(line.lstrip(" -") for line in normal(text).splitlines())


@pytest.fixture(scope="module")
def gnt(module_folder: Path) -> Iterator[Gnt]:
    """A new cluster, the same for all tests here."""
    require("gnt-cluster", "ganeti-3.0")
    with DaemonProcess(module_folder / "node1") as daemon:
        yield on(daemon)


def submitted(gnt: Gnt, command: str) -> int:
    """Runs a command with ``--submit``; returns the job's id."""
    said = gnt(command)
    match = re.fullmatch(r"JobID: (\d+)\n", said.err)
    assert match is not None, said
    return int(match[1])


def test_cluster_info_as_recorded(folder: Path) -> None:
    """All of what gnt-cluster info says of the recorded cluster; --roman has the same lines."""
    require("gnt-cluster", "ganeti-3.0")
    document = recorded.final()
    document["cluster"]["candidate_pool_size"] = 10  # as it was when the command was recorded
    recorded.prepare(folder / "node1", document)
    (row,) = recorded.recorded("final")
    with DaemonProcess(folder / "node1") as daemon:
        said = on(daemon)(row["command"])
        assert (said.code, said.err) == (row["code"], row["err"])
        assert in_any_order(said.out) == in_any_order(row["out"])
        roman = on(daemon)(f"{row['command']} --roman")
        assert (roman.code, roman.err) == (0, "")
        assert len(roman.out.splitlines()) == len(said.out.splitlines())


@pytest.fixture(scope="module")
def ended(gnt: Gnt) -> int:
    """A job that has ended."""
    job = submitted(gnt, "gnt-debug delay --submit 0.01")
    assert gnt(f"gnt-job wait {job}").code == 0
    return job


def invalid(job: str) -> str:
    """What the tools print for a word that is no job id."""
    return (
        "Failure: prerequisites not met for this operation:\nerror type: wrong_input, error "
        f"details:\nInvalid job ID passed: invalid literal for int() with base 10: '{job}'\n"
    )


def test_ended_jobs_are_past_changing(gnt: Gnt, ended: int) -> None:
    """Cancelling or reprioritizing a job that has ended is refused as for one that never was."""
    not_found = Said(1, f"Job {ended} not found in queue\n")
    assert gnt(f"gnt-job cancel {ended}") == not_found
    assert gnt(f"gnt-job cancel --kill --yes-do-it {ended}") == not_found
    assert gnt(f"gnt-job change-priority --priority low {ended}") == not_found


def test_wrong_use_of_job_commands(gnt: Gnt, ended: int) -> None:
    """What is no id, no priority or no filter is refused in the tools' own words."""
    for command in ("info", "list", "cancel", "archive", "wait", "watch"):
        said = gnt(f"gnt-job {command} abc")
        assert said.code == 1
        assert "abc" in said.err
    assert gnt("gnt-job info abc") == Said(1, err=invalid("abc"))
    said = gnt(f"gnt-job change-priority --priority 77 {ended}")
    assert said.code == 2
    assert said.err.endswith(
        "gnt-job: error: option --priority: invalid choice: '77' "
        "(choose from 'low', 'normal', 'high')\n"
    )
    said = gnt("gnt-job list -F 'status =='")
    assert said.code == 1
    assert said.err.startswith(
        "Error while parsing query filter: Failed to parse query filter 'status ==': Expected "
    )


CANCELED = """\
- Job ID: {job}
  Status: canceled
  Received:         STAMP
  Processing start: STAMP (delta)
  Processing end:   STAMP (delta)
  Total processing time
  Opcodes:
    - Opcode: OP_TEST_DELAY
      Status: canceled
      Processing start: STAMP
      Execution start:  N/A
      Processing end:   N/A
      Input fields:
        OP_ID: OP_TEST_DELAY
        comment: None
        debug_level: 0
        depends: None
        dry_run: False
        duration: 5
        interruptible: False
        no_locks: False
        on_master: True
        on_nodes:
        priority: 0
        reason:
          - - gnt:client:gnt-debug
            - delay
            - NANOSECONDS
          - - gnt:opcode:test_delay
            - job={job};index=0
            - NANOSECONDS
        repeat: 0
      Result: Job canceled by request
      Execution log:
"""


def test_a_waiting_job_that_is_cancelled(gnt: Gnt) -> None:
    """A job that was cancelled while it waited is shown as with the real daemon, line by line."""
    holder = submitted(gnt, "gnt-debug delay --submit -r 600 0.1")
    waiter = submitted(gnt, "gnt-debug delay --submit 5")
    try:
        said = gnt(f"gnt-job change-priority --priority high {waiter}")
        assert said == Said(0, f"Priority of job {waiter} is -10 now\n")
        assert gnt(f"gnt-job cancel {waiter}") == Said(0, "Job successfully cancelled\n")
        shown = normal(gnt(f"gnt-job info {waiter}").out)
        assert shown == CANCELED.format(job=waiter)
    finally:
        gnt(f"gnt-job cancel --kill --yes-do-it {holder}")
    assert gnt(f"gnt-job wait {holder}").code == 1


def test_jobs_by_state_are_changed_at_once(gnt: Gnt) -> None:
    """Jobs are chosen by their state for a cancellation or a priority, without their ids."""
    holder = submitted(gnt, "gnt-debug delay --submit -r 600 0.1")
    waiters = [submitted(gnt, "gnt-debug delay --submit 5") for _ in range(2)]
    try:
        said = gnt("gnt-job change-priority -f --priority low --waiting")
        assert said == Said(0, "".join(f"Priority of job {job} is 10 now\n" for job in waiters))
        assert gnt("gnt-job cancel -f --waiting") == Said(0, 2 * "Job successfully cancelled\n")
        assert gnt("gnt-job list --no-headers -o id --running") == Said(0, f"{holder}\n")
    finally:
        gnt(f"gnt-job cancel --kill --yes-do-it {holder}")
    assert gnt(f"gnt-job wait {holder}").code == 1


TITLES = (
    "Archived End ID OpCode_end OpCode_exec OpCode_log OpCode_prio OpCode_result OpCodes"
    " OpCode_start OpCode_status Priority Received Start Status Summary"
)


def test_every_field_of_jobs(gnt: Gnt, ended: int) -> None:
    """All fields can be listed at once, under the titles that they have with the real daemon."""
    names = gnt("gnt-job list-fields --no-headers --separator=:").out.splitlines()
    fields = ",".join(line.split(":")[0] for line in names)
    said = gnt(f"gnt-job list -o {fields} {ended}")
    assert (said.code, said.err) == (0, "")
    titles, _ = said.out.splitlines()
    assert titles.split() == TITLES.split()


def test_a_pattern_for_a_list(gnt: Gnt, ended: int) -> None:
    """A summary is a list and fits no pattern: the error is luxid's, with the first job's."""
    said = gnt("""gnt-job list -o id,summary -F 'summary =* "INSTANCE*"'""")
    assert said.code == 1
    assert re.fullmatch(
        "Failure: unknown/wrong parameter name 'Invalid field value used in regexp matching, "
        r"""expecting string but got '\["TEST_DELAY\(.*\)"\]''\n""",
        said.err,
    )


def test_locks_of_two_opcodes(gnt: Gnt) -> None:
    """A job that holds locks, and another kind of job that waits for one of them."""
    holder = submitted(gnt, "gnt-debug delay --submit -r 600 -n node2 0.1")
    fields = "--no-headers -o name,mode,owner,pending"

    def held() -> list[list[str]]:
        said = gnt(f"gnt-debug locks {fields}")
        assert (said.code, said.err) == (0, "")
        return sorted(line.split() for line in normal(said.out).splitlines())

    try:
        waiter = submitted(gnt, "gnt-node modify --submit -D no node2")
        assert held() == [
            ["cluster/BGL", "shared", f"{holder},{waiter}", "-"],
            ["cluster/[lockset]", "-", "-", "-"],
            ["node/UUID", "exclusive", str(holder), "-"],
            ["node/UUID", "exclusive", str(holder), f"exclusive:{waiter}"],
            ["node/[lockset]", "-", "-", "-"],
        ]
        assert gnt(f"gnt-job list --no-headers -o status,summary {waiter}") == Said(
            0, "waiting NODE_SET_PARAMS(node2)\n"
        )
        assert gnt(f"gnt-job cancel {waiter}") == Said(0, "Job successfully cancelled\n")
    finally:
        gnt(f"gnt-job cancel --kill --yes-do-it {holder}")
    assert gnt(f"gnt-job wait {holder}").code == 1


def test_each_job_by_itself(gnt: Gnt, tmp_path: Path) -> None:
    """With --each the tool trips over its own code, as with the real daemon; one job is there."""
    last = submitted(gnt, "gnt-debug delay --submit 0.01")
    path = tmp_path / "ops.json"
    path.write_text('[{"OP_ID": "OP_TEST_DELAY", "duration": 0.01}]')
    said = gnt(f"gnt-debug submit-job --each --job-repeat 2 {path}")
    assert said.code == 1
    assert said.err.endswith("TypeError: 'int' object is not subscriptable\n")
    assert gnt(f"gnt-job wait {last + 1}").code == 0
    assert gnt(f"gnt-job list --no-headers -o id {last + 2}").out == f"{last + 2}\n"
    assert gnt(f"gnt-job info {last + 2}") == Said(0, f"- Job ID {last + 2} not found\n")


def test_files_that_the_tools_refuse(gnt: Gnt, tmp_path: Path) -> None:
    """What the tools themselves don't take never gets to the daemon."""
    last = gnt("gnt-job list --no-headers -o id").out.split()[-1]
    nope = tmp_path / "nope.json"
    nope.write_text('[{"OP_ID": "OP_NOPE"}]')
    said = gnt(f"gnt-debug submit-job {nope}")
    assert said.code == 1
    assert said.err.endswith("Invalid data to LoadOpCode: OP_ID OP_NOPE unsupported\n")
    said = gnt("gnt-debug delay abc")
    assert said.code == 1
    assert said.err.endswith("ValueError: could not convert string to float: 'abc'\n")
    assert gnt("gnt-job list --no-headers -o id").out.split()[-1] == last


NOBODY = "00000000-0000-4000-8000-000000000000"


def test_rules_that_are_refused(gnt: Gnt) -> None:
    """A rule that makes no sense, or isn't there, is refused, and no rule comes of it."""
    for options in (
        "--action=NONSENSE",
        "--action='RATE_LIMIT x'",
        "--action='RATE_LIMIT 0'",
        "--priority=-1 --action=PAUSE",
        """--action=PAUSE --predicates='[["nosuch", ["=", "id", 1]]]'""",
        """--action=PAUSE --predicates='[["jobid", ["nosuch", "id", 1]]]'""",
    ):
        said = gnt(f"gnt-filter add {options}")
        assert said.code == 1, (options, said)
        assert "Traceback" not in said.err
    said = gnt(f"gnt-filter delete {NOBODY}")
    assert (said.code, said.out) == (1, "")
    assert NOBODY in said.err
    assert gnt(f"gnt-filter info {NOBODY}") == Said(0)
    assert gnt("gnt-filter list --no-headers") == Said(0)
