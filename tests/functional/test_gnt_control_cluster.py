"""Debian's own gnt-cluster against the daemon on simulated nodes: parameters and verification.

Exit codes and output are those that Ganeti 3.0.2 gave for the same commands in the same
state (recorded once), but for what docs/differences.rst names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.conftest import require
from tests.functional.gnt import Said, on
from tests.functional.ledger import FINAL
from tests.functional.waiting import equal_to, job_is, until


def refused(text: str, code: str = "wrong_input") -> Said:
    """Returns what the tools do on an ``OpPrereqError``."""
    return Said(
        1,
        "",
        "Failure: prerequisites not met for this operation:\n"
        f"error type: {code}, error details:\n{text}\n",
    )


def normal(text: str) -> str:
    """Returns output without what differs from run to run."""
    text = re.sub(r"\b\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}\b", "DATE", text)
    text = re.sub(r"(?m)^(Submitted jobs|Waiting for job) .*$", r"\1", text)
    return re.sub(r"(?m) +$", "", text)


CONFIG = """\
Waiting for job
DATE * Verifying cluster config
DATE * Verifying cluster certificate files
DATE * Verifying hypervisor parameters
DATE * Verifying all nodes belong to an existing group
"""

GROUP = """\
Waiting for job
DATE * Verifying group 'default'
DATE * Gathering data (3 nodes)
DATE * Gathering information about nodes (3 nodes)
DATE * Gathering disk information (3 nodes)
DATE * Verifying configuration file consistency
DATE * Verifying node status
{nodes}DATE * Verifying instance status
DATE * Verifying orphan volumes
{memory}DATE * Other Notes
DATE * Hooks Results
"""

NODES = """\
DATE * Verifying node node1 (master)
DATE * Verifying node node2 (master candidate)
DATE * Verifying node node3 (master candidate)
"""

MEMORY = "DATE * Verifying N+1 Memory redundancy\n"


def verified(*parts: str, nodes: str = "", memory: str = MEMORY) -> Said:
    """Returns what a verification without faults prints."""
    return Said(0, "Submitted jobs\n" + "".join(parts).format(nodes=nodes, memory=memory))


#: Commands one after the other, each with what it says.
STORY: tuple[tuple[str, Said], ...] = (
    ("gnt-cluster verify", verified(CONFIG, GROUP)),
    (
        "gnt-cluster verify --error-codes --no-nplus1-mem",
        verified(CONFIG, GROUP, memory=""),
    ),
    ("gnt-cluster verify -g default", verified(GROUP)),
    (
        "gnt-cluster verify --verbose --ignore-errors ENODEHV",
        verified(CONFIG, GROUP, nodes=NODES),
    ),
    ("gnt-cluster verify-disks", Said(0)),
    ("gnt-cluster repair-disk-sizes", Said(0)),
    ("gnt-cluster redist-conf", Said(0)),
    (
        "gnt-cluster modify -C 2",
        Said(0, "DATE  - INFO: Demoted nodes from master candidate role: node3\n"),
    ),
    ("gnt-node list --no-headers -o name,role", Said(0, "node1 M\nnode2 C\nnode3 R\n")),
    (
        "gnt-cluster modify -C 10",
        Said(0, "DATE  - INFO: Promoted nodes to master candidate role: node3\n"),
    ),
    ("gnt-cluster modify --max-running-jobs 15", Said(0)),
    ("gnt-cluster modify --max-running-jobs 20", Said(0)),
    ("gnt-cluster modify --max-tracked-jobs 30", Said(0)),
    ("gnt-cluster modify -B memory=256", Said(0)),
    ("gnt-cluster modify -H fake:migration_mode=live", Said(0)),
    ("gnt-cluster modify --maintain-node-health no", Said(0)),
    ("gnt-cluster modify --mac-prefix aa:00:01", Said(0)),
    ("gnt-cluster modify --prealloc-wipe-disks no", Said(0)),
    ("gnt-cluster modify --ipolicy-vcpu-ratio 8", Said(0)),
    ("gnt-cluster modify", Said(1, "", "Please give at least one of the parameters.\n")),
    ("gnt-cluster modify --nic-parameters link=200", Said(0)),
    ("gnt-cluster modify --reserved-lvs ''", Said(0)),
    ("gnt-cluster modify --uid-pool 5000-5005", Said(0)),
    (
        "gnt-cluster modify --remove-uids 1-2",
        refused("User-id range to be removed is not found in the current user-id pool: (1, 2)"),
    ),
    ("gnt-cluster modify --uid-pool ''", Said(0)),
    ("gnt-cluster modify --mac-prefix zz:00:01", refused("Invalid MAC address prefix 'zz:00:01'")),
    (
        "gnt-cluster modify --enabled-disk-templates diskless",
        refused(
            "The following disk templates are allowed by the ipolicy, but not enabled on the"
            " cluster: drbd, file, plain"
        ),
    ),
    (
        "gnt-cluster modify --vg-name ''",
        refused("Cannot unset volume group if lvm-based disk templates are or get enabled."),
    ),
    (
        "gnt-cluster modify --default-iallocator nosuch",
        refused("Invalid default iallocator script 'nosuch' specified"),
    ),
    ("gnt-cluster modify --default-iallocator builtin", Said(0)),
    ("gnt-cluster deactivate-master-ip --yes", Said(0)),
    ("gnt-cluster activate-master-ip", Said(0)),
    (
        "gnt-cluster modify --master-netdev eth0",
        Said(
            0,
            "DATE Shutting down master ip on the current netdev (lo)\n"
            "DATE Changing master_netdev from lo to eth0\n"
            "DATE Starting the master ip on the new master netdev (eth0)\n",
        ),
    ),
    (
        "gnt-cluster destroy --yes-do-it",
        refused("There are still 2 node(s) in this cluster."),
    ),
    ("gnt-cluster verify", verified(CONFIG, GROUP)),
)


@pytest.fixture(scope="module")
def daemon(module_folder: Path) -> Iterator[DaemonProcess]:
    """One daemon for all tests here."""
    require("gnt-cluster", "ganeti-3.0")
    with DaemonProcess(module_folder / "node1") as daemon:
        yield daemon


def said(daemon: DaemonProcess, command: str) -> Said:
    """Runs a command line of the tools."""
    return on(daemon, normal)(command)


def test_story(daemon: DaemonProcess) -> None:
    """Each command does what it did with the real daemon."""
    for command, expected in STORY:
        assert said(daemon, command) == expected, command
    info = said(daemon, "gnt-cluster info").out
    for line in (
        "  candidate pool size: 10\n",
        "  mac prefix: aa:00:01\n",
        "  maximal number of jobs simultaneously tracked by the scheduler: 30\n",
        "  master netdev: eth0\n",
        "    maxmem: 256\n",
        "    link: 200\n",
    ):
        assert line in info


def test_faults(daemon: DaemonProcess) -> None:
    """A node that fails is reported with its code, and the command fails."""
    path = daemon.root / "simulation/faults.json"
    rule = {"kind": "error", "node": "node2", "call": "node_verify", "text": "no such luck"}
    path.write_text(json.dumps([rule]))
    try:
        found = said(daemon, "gnt-cluster verify --error-codes")
    finally:
        path.unlink()
    assert found.code == 1
    assert "  - ERROR:ENODERPC:node:node2:while contacting node: no such luck" in found.out


def run(daemon: DaemonProcess, *jobs: list[dict[str, Any]]) -> list[Any]:
    """Runs jobs at once; returns status, result, start and end (in seconds) of each."""
    client = daemon.client()
    opcodes = [[{"reason": [], **op} for op in job] for job in jobs]
    ids = [row[1] for row in client.call("SubmitManyJobs", opcodes)]
    return [finished(client, job_id) for job_id in ids]


def finished(client: Any, job_id: int) -> Any:
    """Waits for a job; returns status, results of its opcodes, start and end."""
    fields = ["status", "opresult", "start_ts", "end_ts"]
    job_is(client, job_id, *FINAL)
    ((status, result, start, end),) = client.query_jobs([job_id], fields)
    begin, finish = (at[0] + at[1] / 1e6 for at in (start, end))
    return status, result, begin, finish


def test_change_on_many_nodes(make_daemon: Callable[..., DaemonProcess]) -> None:
    """On 500 nodes a parameter is changed while each that isn't a candidate takes an hour."""
    daemon = make_daemon(nodes=500)
    slow = [
        {"kind": "delay", "node": f"node{number}", "seconds": 3600} for number in range(11, 501)
    ]
    daemon.start(60.0)
    seen = {"kind": "error", "call": "test_delay"}
    (daemon.root / "simulation/faults.json").write_text(json.dumps([seen, *slow]))
    delay = {"OP_ID": "OP_TEST_DELAY", "duration": 0.001, "on_nodes": ["node1"]}
    until("the nodes know of the faults", lambda: run(daemon, [delay])[0][0], equal_to("error"))
    for value in range(5):
        op = {"OP_ID": "OP_CLUSTER_SET_PARAMS", "max_running_jobs": 20 + value}
        ((status, *_),) = run(daemon, [op])
        assert status == "success"


def test_groups_side_by_side(make_daemon: Callable[..., DaemonProcess]) -> None:
    """Verifying 100 nodes in 10 groups takes as long as the slowest group, not all together."""
    daemon = make_daemon(nodes=100)
    daemon.start(60.0)
    names = [f"group{number}" for number in range(9)]
    results = run(daemon, *([{"OP_ID": "OP_GROUP_ADD", "group_name": n}] for n in names))
    assert {status for status, *_ in results} == {"success"}
    for place, name in enumerate(names):
        nodes = [f"node{number}" for number in range(2 + 10 * place, 12 + 10 * place)]
        op = {"OP_ID": "OP_GROUP_ASSIGN_NODES", "group_name": name, "nodes": nodes, "force": True}
        ((status, *_),) = run(daemon, [op])
        assert status == "success"
    path = daemon.root / "simulation/faults.json"
    path.write_text(json.dumps([{"kind": "delay", "call": "node_verify", "seconds": 1.0}]))
    ((status, result, *_),) = run(daemon, [{"OP_ID": "OP_CLUSTER_VERIFY"}])
    assert status == "success"
    client = daemon.client()
    jobs = [finished(client, job_id) for _, job_id in result[0]["jobs"]]
    assert len(jobs) == 11
    assert [(s, r) for s, r, *_ in jobs] == [("success", [True])] * 11
    starts, ends = [job[2] for job in jobs[1:]], [job[3] for job in jobs[1:]]
    assert max(starts) < min(ends), "the groups waited for each other"
