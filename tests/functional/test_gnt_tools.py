"""Debian's own gnt-* tools against the daemon on simulated nodes.

Exit codes and output are those that Ganeti 3.0.2 gave for the same commands
(recorded once, normalised by :func:`normal`), but for :data:`DIFFERENT`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.conftest import require
from tests.functional.gnt import Gnt, Said, on

_NORMAL = (
    (r"\b\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}\b", "DATE"),
    (r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{6})?\b", "STAMP"),
    (r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "UUID"),
    (r"\b\d{19}\b", "NANOSECONDS"),
    (r";uid=\d+;pid=\d+", ""),  # who sent a job: ids that the real daemon doesn't tell
    (r"\(delta [\d.]+s\)", "(delta)"),
    (r"processing time: [\d.]+ seconds", "processing time"),
    (r"(T:\w+ +)[\d.]+", r"\1SECONDS"),
    (r"(?m) +$", ""),
)


def normal(text: str) -> str:
    """Returns output without what differs from run to run."""
    for pattern, name in _NORMAL:
        text = re.sub(pattern, name, text)
    return text


def refused(text: str, code: str = "") -> str:
    """Returns what the tools print for an ``OpPrereqError``."""
    kind = f"error type: {code}, error details:\n" if code else ""
    return f"Failure: prerequisites not met for this operation:\n{kind}{text}\n"


@pytest.fixture(scope="module")
def daemon(module_folder: Path) -> Iterator[DaemonProcess]:
    """One daemon for all tests here."""
    require("gnt-cluster", "ganeti-3.0")
    with DaemonProcess(module_folder / "node1") as daemon:
        yield daemon


@pytest.fixture
def gnt(daemon: DaemonProcess) -> Gnt:
    """Runs a command line of the tools."""
    return on(daemon, normal)


def submitted(gnt: Gnt, command: str) -> int:
    """Runs a command with ``--submit``; returns the job's id."""
    said = gnt(command)
    match = re.fullmatch(r"JobID: (\d+)\n", said.err)
    assert said.code == 0, said
    assert match is not None, said
    return int(match[1])


# -- commands whose answer depends on no other ------------------------------------------------

ALWAYS = {
    "gnt-cluster version": Said(
        0,
        "Software version: 3.0.2\nInternode protocol: 3000000\nConfiguration format: 3000000\n"
        "OS api version: 20\nExport interface: 0\nVCS version: (ganeti) version 3.0.2-3\n",
    ),
    "gnt-cluster getmaster": Said(0, "node1\n"),
    "gnt-cluster master-ping": Said(0),
    "gnt-cluster list-tags": Said(0),
    "gnt-cluster queue bogus": Said(1, err=refused("Command 'bogus' is not valid.", "wrong_input")),
    "gnt-cluster watcher bogus": Said(
        1, err=refused("Command 'bogus' is not valid.", "wrong_input")
    ),
    # delay
    "gnt-debug delay 0": Said(1, err=refused("Duration must be greater than zero")),
    "gnt-debug delay -- -3": Said(1, err=refused("Duration must be greater than zero")),
    "gnt-debug delay 0.05": Said(0),
    "gnt-debug delay 1.1": Said(0),
    "gnt-debug delay -n node2 0.1": Said(0),
    "gnt-debug delay --no-master -n node1 -n node2 0.1": Said(0),
    "gnt-debug delay --no-master 0.1": Said(0),
    "gnt-debug delay -r 3 0.02": Said(
        0,
        "".join(f"DATE  - INFO: Test delay iteration {number}/2\n" for number in range(3)),
    ),
    "gnt-debug delay --no-locks 0.05": Said(0),
    "gnt-debug delay --dry-run 0.05": Said(
        0, "DATE  - INFO: dry-run mode requested, not actually executing the operation\n"
    ),
    "gnt-debug delay --priority=high 0.05": Said(0),
    "gnt-debug delay -n nosuch 0.05": Said(
        1, err=refused("Node 'nosuch' not known", "unknown_entity")
    ),
    "gnt-debug delay --reason 'because I say so' 0.05": Said(0),
    # jobs that aren't there
    "gnt-job list abc": Said(
        1,
        err=refused(
            "Invalid job ID passed: invalid literal for int() with base 10: 'abc'", "wrong_input"
        ),
    ),
    "gnt-job list 999999": Said(0, "    ID Status Summary\n999999 -      -\n"),
    "gnt-job info 999999": Said(0, "- Job ID 999999 not found\n"),
    "gnt-job cancel 999999": Said(1, "Job 999999 not found in queue\n"),
    "gnt-job archive 999999": Said(1, err="Failed to archive job with ID '999999'\n"),
    "gnt-job change-priority --priority low 999999": Said(1, "Job 999999 not found in queue\n"),
    "gnt-job change-priority -f --priority low --queued": Said(
        1, err=refused("No jobs with the requested status have been found", "wrong_state")
    ),
    "gnt-job cancel -f --pending": Said(
        1, err=refused("No jobs with the requested status have been found", "wrong_state")
    ),
    "gnt-job list --pending": Said(0, "ID Status Summary\n"),
    "gnt-job autoarchive 100000": Said(0, "Archived 0 jobs, 0 unchecked left\n"),
    # nodes
    "gnt-node list -o name,role": Said(0, "Node  Role\nnode1 M\nnode2 C\nnode3 C\n"),
    "gnt-node list -o name,role -F 'role == \"M\"'": Said(0, "Node  Role\nnode1 M\n"),
    "gnt-node list -o name,role -F 'name =* \"node*\" and not master'": Said(
        0, "Node  Role\nnode2 C\nnode3 C\n"
    ),
    "gnt-node list -o name,role -F 'pinst_cnt < 1 or offline'": Said(
        0, "Node  Role\nnode1 M\nnode2 C\nnode3 C\n"
    ),
    "gnt-node list -o name -F 'name =~ m/^node[12]$/'": Said(0, "Node\nnode1\nnode2\n"),
    "gnt-node list -o name -F 'mfree > 100'": Said(0, "Node\nnode1\nnode2\nnode3\n"),
    "gnt-node list -o name,nosuchfield": Said(
        14,
        "Node  nosuchfield\nnode1 ??\nnode2 ??\nnode3 ??\n",
        "Warning: Queried for unknown fields nosuchfield\n",
    ),
    "gnt-node list -F 'nosuchfield == 1'": Said(
        1,
        err="Failure: unknown/wrong parameter name 'Can't find field named 'nosuchfield''\n",
    ),
    "gnt-node list nosuchnode": Said(
        1, err=refused("Node name nosuchnode not found", "unknown_entity")
    ),
    "gnt-node list -o name node2 node1": Said(0, "Node\nnode2\nnode1\n"),
    "gnt-node list --no-headers --separator=: "
    "-o name,master_candidate,drained,offline,vm_capable,master_capable": Said(
        0, "".join(f"node{number}:Y:N:N:Y:Y\n" for number in (1, 2, 3))
    ),
    "gnt-node info nosuch": Said(0, "\n"),
    "gnt-node add-tags node2 'bad tag!'": Said(
        1, err="Failure: invalid tag(s) given:\nTag contains invalid characters\n"
    ),
    # what a new cluster has none of
    "gnt-instance list": Said(0, "Instance Hypervisor OS Primary_node Status Memory\n"),
    "gnt-network list": Said(0, "Network Subnet Gateway MacPrefix GroupList Tags\n"),
    "gnt-debug locks": Said(0, "Name Mode Owner Pending\n"),
    "gnt-debug locks -o name,mode,owner,pending": Said(0, "Name Mode Owner Pending\n"),
}


@pytest.mark.parametrize("command", ALWAYS)
def test_answers_as_the_real_daemon(gnt: Gnt, command: str) -> None:
    """A command gives the exit code and the output that it gives with Ganeti 3.0.2."""
    assert gnt(command) == ALWAYS[command]


# -- what differs by intent ---------------------------------------------------------------------


class Difference(NamedTuple):
    """A command that Ganeti 3.0.2 answers otherwise, and why this daemon doesn't do the same."""

    command: str
    real: str
    ours: Said
    why: str


LOST = "Error checking job status: Job 999999 is archived or was never there\n"

DIFFERENT = (
    Difference(
        "gnt-job wait 999999",
        "Job 999999 failed: Error checking job status: Can't load job file",
        Said(1, err=f"Job 999999 failed: {LOST}"),
        "WaitForJobChange looks for a job, not for a file",
    ),
    Difference(
        "gnt-job watch 999999",
        "Job 999999 failed: Error checking job status: Can't load job file",
        Said(
            1,
            "Output from job 999999 follows\n------------------------------\n",
            f"Job 999999 failed: {LOST}",
        ),
        "as above",
    ),
    Difference(
        "gnt-debug submit-job bad.json",
        "Unhandled protocol error while talking to the master daemon: Failed to parse request: "
        "SubmitManyJobs: Can't parse value for 'duration': Unable to read Double",
        Said(
            1,
            err=refused(
                "SubmitManyJobs: argument jobs[0][0]: OP_TEST_DELAY: parameter duration: "
                'expected a number, not "x"',
                "wrong_input",
            ),
        ),
        "an error in the form of Ganeti's, naming the argument; the connection lives",
    ),
    Difference(
        "gnt-job cancel --kill --yes-do-it 999999",
        "Job 999999 not found in queue",
        Said(1, "Job 999999 not found in queue\n"),
        'a running job is told to end ("is being killed"), not its process killed '
        '("SIGKILL send to the process"): there is none (protocol/queue.rst)',
    ),
)


@pytest.mark.parametrize("difference", DIFFERENT, ids=lambda difference: difference.command)
def test_differs_on_purpose(gnt: Gnt, daemon: DaemonProcess, difference: Difference) -> None:
    """Where this daemon means to differ it differs as described, and in nothing else."""
    bad = [{"OP_ID": "OP_TEST_DELAY", "duration": "x"}]
    (daemon.root.parent / "bad.json").write_text(json.dumps(bad))
    assert gnt(difference.command) == difference.ours


# -- commands that change what the next one says ------------------------------------------------


def test_cluster_info_shows_the_new_cluster(gnt: Gnt) -> None:
    """The real cluster info tool finds all that it asks for."""
    said = gnt("gnt-cluster info")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith(
        "Cluster name: cluster\nCluster UUID: UUID\nCreation time: STAMP\n"
        "Modification time: STAMP\nMaster node: node1\n"
        "Architecture (this node): 64bits (x86_64)\nTags: (none)\n"
        "Default hypervisor: fake\nEnabled hypervisors: fake\n"
    )
    for line in (
        "  candidate pool size: 10",
        "  maximal number of jobs running simultaneously: 20",
        "  maximal number of jobs simultaneously tracked by the scheduler: 25",
        "  enabled disk templates: diskless, drbd, file, plain",
        "  default instance allocator: hail",
        "Instance policy - limits for instances:",
        "Data collectors:",
    ):
        assert line in said.out.splitlines()


def test_queue_is_drained_and_opened(gnt: Gnt) -> None:
    """A drained queue says so, and takes no jobs until it is open again."""
    assert gnt("gnt-cluster queue info") == Said(0, "The drain flag is unset\n")
    assert gnt("gnt-cluster queue drain") == Said(0)
    assert gnt("gnt-cluster queue info") == Said(0, "The drain flag is set\n")
    assert gnt("gnt-debug delay 0.05") == Said(1, err="Unhandled Ganeti error: Queue drained\n")
    assert gnt("gnt-cluster queue undrain") == Said(0)
    assert gnt("gnt-debug delay 0.05") == Said(0)


def test_watcher_is_paused_and_goes_on(gnt: Gnt) -> None:
    """The watcher's pause is set, shown and ended."""
    paused = Said(0, "The watcher is paused until DATE.\n")
    going_on = Said(0, "The watcher is not paused.\n")
    assert gnt("gnt-cluster watcher info") == going_on
    assert gnt("gnt-cluster watcher pause 1h") == paused
    assert gnt("gnt-cluster watcher info") == paused
    assert gnt("gnt-cluster watcher continue") == Said(0, "The watcher is no longer paused.\n")
    assert gnt("gnt-cluster watcher info") == going_on


def test_cluster_tags(gnt: Gnt, daemon: DaemonProcess) -> None:
    """Tags of the cluster are added, listed, found and removed, and reach config.data."""
    assert gnt("gnt-cluster add-tags service:a b") == Said(0)
    assert gnt("gnt-cluster list-tags") == Said(0, "b\nservice:a\n")
    assert gnt("gnt-cluster search-tags ^service:") == Said(0, "/cluster service:a\n")
    assert gnt("gnt-cluster search-tags '('").code == 1
    assert gnt("gnt-cluster remove-tags b") == Said(0)
    assert gnt("gnt-cluster remove-tags b") == Said(
        1, err=refused("Tag(s) 'b' not found", "unknown_entity")
    )
    assert gnt("gnt-cluster list-tags") == Said(0, "service:a\n")
    assert "Tags: service:a\n" in gnt("gnt-cluster info").out
    assert gnt("gnt-cluster remove-tags service:a") == Said(0)
    assert gnt("gnt-cluster list-tags") == Said(0)


def test_node_tags(gnt: Gnt) -> None:
    """Tags of a node are its own."""
    assert gnt("gnt-node add-tags node2 alpha beta") == Said(0)
    assert gnt("gnt-node list-tags node2") == Said(0, "alpha\nbeta\n")
    assert gnt("gnt-node list-tags node3") == Said(0)
    assert gnt("gnt-cluster search-tags beta") == Said(0, "/nodes/node2 beta\n")
    assert gnt("gnt-node remove-tags node2 alpha") == Said(0)
    assert gnt("gnt-node remove-tags node2 alpha") == Said(
        1, err=refused("Tag(s) 'alpha' not found", "unknown_entity")
    )
    assert gnt("gnt-node list -o name,tags node2") == Said(0, "Node  Tags\nnode2 beta\n")
    assert gnt("gnt-node list-tags nosuch") == Said(
        1, err=refused("Node name nosuch not found", "unknown_entity")
    )


def test_node_list_and_info(gnt: Gnt) -> None:
    """Live and static values of simulated nodes are shown."""
    said = gnt("gnt-node list")
    lines = said.out.splitlines()
    assert (said.code, said.err, len(lines)) == (0, "", 4)
    assert lines[0].split() == [
        "Node",
        "DTotal",
        "DFree",
        "MTotal",
        "MNode",
        "MFree",
        "Pinst",
        "Sinst",
    ]
    for number, line in enumerate(lines[1:], 1):
        assert re.fullmatch(rf"node{number} +([\d.]+[GTM] +){{5}}0 +0", line)
    info = gnt("gnt-node info node2")
    assert (info.code, info.err) == (0, "")
    assert info.out.startswith("- Node name: node2\n  primary ip: ")
    assert "  master candidate: True\n  drained: False\n  offline: False\n" in info.out
    assert info.out.endswith("    spindle_count: default (1)\n    ssh_port: default (22)\n")


def test_node_group(gnt: Gnt) -> None:
    """The one group of a new cluster is listed with its nodes."""
    said = gnt("gnt-group list -o name,node_cnt,pinst_cnt,alloc_policy")
    assert said == Said(
        0, "Group   Nodes Instances AllocPolicy\ndefault     3         0 preferred\n"
    )
    nodes = gnt("gnt-group list --no-headers -o node_list").out.strip()
    assert sorted(nodes.split(",")) == ["node1", "node2", "node3"]


def test_submit_prints_the_id_and_wait_waits(gnt: Gnt) -> None:
    """A submitted job is waited for, and watched when it has ended."""
    job = submitted(gnt, "gnt-debug delay --submit 0.4")
    assert gnt(f"gnt-job wait {job}") == Said(0)
    assert gnt(f"gnt-job list {job}").out.splitlines()[1].split() == [
        str(job),
        "success",
        "TEST_DELAY(0.4)",
    ]
    title = f"Output from job {job} follows"
    assert gnt(f"gnt-job watch {job}") == Said(0, f"{title}\n{'-' * len(title)}\n")
    said = gnt("gnt-debug delay --print-jobid 0.05")
    assert said == Said(0, f"{job + 1}\n")


def test_job_queue_passes_the_tool_made_for_it(gnt: Gnt) -> None:
    """The real test of the job queue goes through to its end."""
    said = gnt("gnt-debug test-jobqueue")
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[-1] == "Job queue test successful"
    for line in ("Job submission tests were successful", "Job dependency tests were successful"):
        assert line in lines


def test_watch_follows_what_a_job_says(gnt: Gnt) -> None:
    """Watching a job that runs shows each of its log lines."""
    job = submitted(gnt, "gnt-debug delay --submit -r 3 0.3")
    title = f"Output from job {job} follows"
    lines = "".join(f"DATE  - INFO: Test delay iteration {number}/2\n" for number in range(3))
    assert gnt(f"gnt-job watch {job}") == Said(0, f"{title}\n{'-' * len(title)}\n{lines}")


def test_job_info_shows_everything(gnt: Gnt) -> None:
    """The information about a job has the same lines as with the real daemon."""
    job = submitted(gnt, "gnt-debug delay --submit 0.3")
    assert gnt(f"gnt-job wait {job}") == Said(0)
    assert gnt(f"gnt-job info {job} 999999") == Said(
        0,
        f"""\
- Job ID: {job}
  Status: success
  Received:         STAMP
  Processing start: STAMP (delta)
  Processing end:   STAMP (delta)
  Total processing time
  Opcodes:
    - Opcode: OP_TEST_DELAY
      Status: success
      Processing start: STAMP
      Execution start:  STAMP
      Processing end:   STAMP
      Input fields:
        OP_ID: OP_TEST_DELAY
        comment: None
        debug_level: 0
        depends: None
        dry_run: False
        duration: 0.3
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
      Result: None
      Execution log:
- Job ID 999999 not found
""",
    )


def test_job_lists_and_their_filters(gnt: Gnt) -> None:
    """Jobs are listed by state, by id and by filter."""
    gnt("gnt-debug delay 0")
    bad = int(gnt("gnt-job list --no-headers -o id").out.split()[-1])
    good = submitted(gnt, "gnt-debug delay --submit 0.05")
    assert gnt(f"gnt-job wait {good}") == Said(0)

    def listed(options: str) -> list[list[str]]:
        said = gnt(f"gnt-job list --no-headers {options}")
        assert (said.code, said.err) == (0, "")
        return [line.split() for line in said.out.splitlines()]

    row_bad = [str(bad), "error", "TEST_DELAY(0.0)"]
    row_good = [str(good), "success", "TEST_DELAY(5.0e-2)"]
    assert listed("")[-2:] == [row_bad, row_good]
    assert listed("--finished")[-2:] == [row_bad, row_good]
    assert listed("--error")[-1] == row_bad
    assert listed("--running") == []
    assert listed(f"-F 'status == \"error\" and id >= {bad}'") == [row_bad]
    assert listed(f"-F 'id >= {bad} and id < {good}'") == [row_bad]
    assert listed(f"{good} {bad}") == [row_good, row_bad]
    assert listed("--archived")[-1] == [*row_good, "N"]
    said = gnt(f"gnt-job list -o nosuch {bad} {good}")
    assert said == Said(14, "nosuch\n??\n??\n", "Warning: Queried for unknown fields nosuch\n")
    said = gnt("gnt-job list -F 'summary =~ m/DELAY/'")
    assert said.code == 1
    assert said.err.startswith(
        "Failure: unknown/wrong parameter name "
        "'Invalid field value used in regexp matching, expecting string but got '[\""
    )


def test_job_fields(gnt: Gnt) -> None:
    """The fields of jobs have the real names, types and titles; the texts are our own."""
    said = gnt("gnt-job list-fields --separator=| --no-headers".replace("|", "'|'"))
    assert (said.code, said.err) == (0, "")
    assert [line.split("|")[:3] for line in said.out.splitlines()] == [
        ["archived", "Boolean", "Archived"],
        ["end_ts", "Custom", "End"],
        ["id", "Number", "ID"],
        ["opend", "Custom", "OpCode_end"],
        ["opexec", "Custom", "OpCode_exec"],
        ["oplog", "Custom", "OpCode_log"],
        ["oppriority", "Custom", "OpCode_prio"],
        ["opresult", "Custom", "OpCode_result"],
        ["ops", "Custom", "OpCodes"],
        ["opstart", "Custom", "OpCode_start"],
        ["opstatus", "Custom", "OpCode_status"],
        ["priority", "Number", "Priority"],
        ["received_ts", "Custom", "Received"],
        ["start_ts", "Custom", "Start"],
        ["status", "Text", "Status"],
        ["summary", "Custom", "Summary"],
    ]


@pytest.fixture
def holder(gnt: Gnt) -> Iterator[int]:
    """A running job that holds the master's lock, killed at the end."""
    job = submitted(gnt, "gnt-debug delay --submit -r 600 0.1")
    yield job
    gnt(f"gnt-job cancel --kill --yes-do-it {job}")
    assert gnt(f"gnt-job wait {job}").code == 1


def test_waiting_job_is_reprioritized_and_cancelled(gnt: Gnt, holder: int) -> None:
    """A job that waits for a lock shows so, takes a priority, and is cancelled at once."""
    waiter = submitted(gnt, "gnt-debug delay --submit 5")
    locks = gnt("gnt-debug locks -o name,mode,owner,pending").out.splitlines()
    assert [line.split() for line in locks[1:3]] == [
        ["cluster/BGL", "shared", f"{holder},{waiter}", "-"],
        ["cluster/[lockset]", "-", "-", "-"],
    ]
    assert ["node/UUID", "exclusive", str(holder), f"exclusive:{waiter}"] in [
        line.split() for line in locks[3:]
    ]
    assert gnt(f"gnt-job change-priority --priority high {waiter}").code == 0
    said = gnt(f"gnt-job list --no-headers -o id,status,priority {waiter}")
    assert said.out.split() == [str(waiter), "waiting", "-10"]
    assert gnt(f"gnt-job cancel {waiter}") == Said(0, "Job successfully cancelled\n")
    info = gnt(f"gnt-job info {waiter}").out
    assert "  Status: canceled\n" in info
    assert "      Execution start:  N/A\n      Processing end:   N/A\n" in info
    assert "      Result: Job canceled by request\n" in info
    assert gnt(f"gnt-job cancel {waiter}") == Said(1, f"Job {waiter} not found in queue\n")


def test_a_running_job_is_killed_only_on_demand(gnt: Gnt, holder: int) -> None:
    """A running job runs on when it is cancelled; killed, it ends in an error that says so."""
    assert gnt(f"gnt-job list --no-headers -o status {holder}") == Said(0, "running\n")
    assert gnt("gnt-job list --no-headers -o id --running") == Said(0, f"{holder}\n")
    assert gnt(f"gnt-job cancel {holder}") == Said(
        1, "Job no longer waiting, can't cancel (informed it anyway)\n"
    )
    assert gnt(f"gnt-job cancel --kill -f {holder}") == Said(
        1, err=refused("The --kill option must be confirmed with --yes-do-it", "wrong_input")
    )
    assert gnt(f"gnt-job list --no-headers -o status {holder}") == Said(0, "running\n")
    said = gnt(f"gnt-job cancel --kill --yes-do-it {holder}")
    assert said == Said(0, f"Job {holder} is being killed\n")
    assert gnt(f"gnt-job wait {holder}").code == 1
    assert gnt(f"gnt-job list --no-headers -o status {holder}") == Said(0, "error\n")
    assert "kill" in gnt(f"gnt-job list --no-headers -o opresult {holder}").out.lower()


def test_a_job_that_waits_for_another_is_dequeued(gnt: Gnt, daemon: DaemonProcess) -> None:
    """A job with an open dependency is queued, and is cancelled as such."""
    client = daemon.client()
    # Long enough for tools on a busy machine; it is killed in the end.
    delay = {"OP_ID": "OP_TEST_DELAY", "duration": 60.0, "no_locks": True}
    (_, first), (_, second) = client.submit_many_jobs(
        [[delay], [{**delay, "depends": [[-1, ["success"]]]}]]
    )
    assert gnt(f"gnt-job list --no-headers -o status {second}") == Said(0, "queued\n")
    assert gnt(f"gnt-job cancel {second}") == Said(0, f"Dequeued job {second}\n")
    assert gnt(f"gnt-job list --no-headers -o status {second}") == Said(0, "canceled\n")
    client.cancel_job(first, True)
    assert gnt(f"gnt-job wait {first}").code == 1


def test_archived_jobs_are_still_found(gnt: Gnt) -> None:
    """An archived job leaves the list, can be asked for by id, and is archived once."""
    job = submitted(gnt, "gnt-debug delay --submit 0.05")
    assert gnt(f"gnt-job wait {job}") == Said(0)
    before = gnt(f"gnt-job info {job}")
    assert gnt(f"gnt-job archive {job}") == Said(0)
    assert gnt(f"gnt-job archive {job}") == Said(1, err=f"Failed to archive job with ID '{job}'\n")
    assert str(job) not in gnt("gnt-job list --no-headers -o id").out.split()
    assert gnt(f"gnt-job info {job}") == before
    last = gnt("gnt-job list --no-headers --archived").out.splitlines()[-1]
    assert last.split() == [str(job), "success", "TEST_DELAY(5.0e-2)", "Y"]
    left = gnt("gnt-job list --no-headers -o id --finished").out.split()
    assert gnt("gnt-job autoarchive all") == Said(
        0, f"Archived {len(left)} jobs, 0 unchecked left\n"
    )
    assert gnt("gnt-job list --no-headers") == Said(0)


OPCODES = [
    {"OP_ID": "OP_TEST_DELAY", "duration": 0.1},
    {"OP_ID": "OP_TEST_DELAY", "duration": 0.2, "comment": "second"},
]
DEPENDANT = [{"OP_ID": "OP_TEST_DELAY", "duration": 0.1, "depends": [[-1, ["success"]]]}]


def test_submit_job_from_files(gnt: Gnt, daemon: DaemonProcess) -> None:
    """Jobs from files are submitted, repeated, counted, and depend on one another."""
    folder = daemon.root.parent
    (folder / "ops.json").write_text(json.dumps(OPCODES))
    (folder / "dep.json").write_text(json.dumps(DEPENDANT))
    job = submitted(gnt, "gnt-debug delay --submit 0.01")
    assert gnt("gnt-debug submit-job ops.json") == Said(
        0, f"Waiting for job {job + 1} for file ops.json/0 ...\n"
    )
    waiting = "".join(
        f"Waiting for job {job + 2 + number} for file ops.json/{number} ...\n"
        for number in range(3)
    )
    assert gnt("gnt-debug submit-job --job-repeat 3 --timing-stats ops.json") == Said(
        0,
        f"Loading...\nSubmitting...\nExecuting...\n{waiting}C:op        6\nC:job       3\n"
        "T:submit SECONDS\nT:exec   SECONDS\nT:total  SECONDS\n",
    )
    assert gnt("gnt-debug submit-job --verbose --op-repeat 2 ops.json") == Said(
        0, f"Submitted jobs {job + 5}\nWaiting for job {job + 5} for file ops.json/0 ...\n"
    )
    assert gnt("gnt-debug submit-job ops.json dep.json") == Said(
        0,
        f"Waiting for job {job + 6} for file ops.json/0 ...\n"
        f"Waiting for job {job + 7} for file dep.json/0 ...\n",
    )
    said = gnt(f"gnt-job list --no-headers -o status,summary {job + 5}")
    assert said == Said(
        0, "success TEST_DELAY(0.1),TEST_DELAY(0.2),TEST_DELAY(0.1),TEST_DELAY(0.2)\n"
    )
