"""Debian's own gnt-node against the daemon on simulated nodes: roles, storage, coming and going.

Exit codes and output are those that Ganeti 3.0.2 gave for the same commands in the same
state (recorded once), but for what docs/differences.rst names. ``gnt-node add`` needs ssh,
so nodes are added by ``gnt-luxi submit``.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.conftest import require
from tests.functional.gnt import Said, on
from tests.functional.waiting import containing, job_is, until

LUXI = "from ganeti_masterd.cli.main import main; main()"

SHORT = (
    "DATE Configuration data is not consistent: Not enough master candidates: actual 2, target 3\n"
)
PROMOTED = "DATE  - INFO: Auto-promoting node to master candidate\n"


def modified(*changes: str, before: str = "") -> Said:
    """Returns what a modification of node3 prints."""
    lines = "".join(f" - {change}\n" for change in changes)
    return Said(0, f"{before}Modified node node3\n{lines}")


def refused(text: str, code: str = "") -> Said:
    """Returns what the tools do on an ``OpPrereqError``."""
    kind = f"error type: {code}, error details:\n" if code else ""
    return Said(1, "", f"Failure: prerequisites not met for this operation:\n{kind}{text}\n")


def normal(text: str) -> str:
    """Returns output without what differs from run to run."""
    text = re.sub(r"\b\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}\b", "DATE", text)
    return re.sub(r"(?m) +$", "", text)


#: Commands one after the other, each with what it says.
STORY: tuple[tuple[str, Said], ...] = (
    ("gnt-node modify -C no node3", modified("master_candidate -> False", before=SHORT)),
    ("gnt-node list -o name,role", Said(0, "Node  Role\nnode1 M\nnode2 C\nnode3 R\n")),
    ("gnt-node modify -C yes node3", modified("master_candidate -> True", before=SHORT)),
    (
        "gnt-node modify -D yes node3",
        modified("master_candidate -> False", "drained -> True"),
    ),
    (
        "gnt-node modify -D no node3",
        modified("master_candidate -> True", "drained -> False", before=PROMOTED),
    ),
    (
        "gnt-node modify -O yes node3",
        modified("master_candidate -> False", "offline -> True"),
    ),
    ("gnt-node modify -O no node3", Said(1)),
    (
        "gnt-node modify -f -O no node3",
        modified(
            "master_candidate -> True",
            "offline -> False",
            before=PROMOTED
            + "DATE  - WARNING: Transitioning node from offline to online state without using"
            " re-add. Please make sure the node is healthy!\n",
        ),
    ),
    (
        "gnt-node list -o name,role,offline",
        Said(
            0,
            "Node  Role Offline\n"
            + "".join(
                f"{name} {role}    N\n"
                for name, role in (("node1", "M"), ("node2", "C"), ("node3", "C"))
            ),
        ),
    ),
    ("gnt-node modify --vm-capable no node3", modified("vm_capable -> False")),
    ("gnt-node modify --vm-capable yes node3", modified("vm_capable -> True")),
    ("gnt-node modify --node-parameters spindle_count=4 node2", Said(0)),
    ("gnt-node list --no-headers -o ndp/spindle_count node2", Said(0, "4\n")),
    ("gnt-node modify node2", Said(1, "", "Please give at least one of the parameters.\n")),
    (
        "gnt-node modify -C no node1",
        refused("The master role can be changed only via master-failover", "wrong_input"),
    ),
    ("gnt-node modify -C yes nosuch", refused("Node 'nosuch' not known", "unknown_entity")),
    ("gnt-node volumes", Said(0, "Node PhysDev VG Name Size Instance\n")),
    (
        "gnt-node volumes -o node,phys,vg,name,size,instance node1",
        Said(0, "Node PhysDev VG Name Size Instance\n"),
    ),
    (
        "gnt-node list-storage",
        refused(
            "Storage reporting for storage type 'diskless' is not supported. Please use the"
            " --storage-type option to specify one of the supported storage types (sharedfile,"
            " lvm-vg, lvm-pv, file, gluster) or set the default disk template to one that"
            " supports storage reporting."
        ),
    ),
    (
        "gnt-node list-storage --storage-type lvm-vg -o node,type,name,allocatable",
        Said(
            0,
            "Node  Type   Name  Allocatable\n"
            + "".join(f"node{number} lvm-vg xenvg Y\n" for number in (1, 2, 3)),
        ),
    ),
    (
        "gnt-node list-storage --storage-type gluster",
        refused(
            "No disk template of storage type 'gluster' is enabled in this cluster. Enabled disk"
            " templates are: diskless,drbd,file,plain"
        ),
    ),
    ("gnt-node modify-storage --allocatable no node2 lvm-pv /dev/sda2", Said(0)),
    (
        "gnt-node list-storage --no-headers --storage-type lvm-pv -o allocatable node2",
        Said(0, "N\n"),
    ),
    (
        "gnt-node modify-storage --allocatable no node2 lvm-vg xenvg",
        refused("Storage units of type 'lvm-vg' can not be modified", "wrong_input"),
    ),
    (
        "gnt-node repair-storage node2 lvm-vg xenvg",
        Said(0, "DATE Repairing storage unit 'xenvg' on node2 ...\n"),
    ),
    (
        "gnt-node health",
        Said(
            1,
            "Node  Status\n" + "".join(f"node{number} (unavail)\n" for number in (1, 2, 3)),
        ),
    ),
    (
        "gnt-node power status",
        Said(
            1,
            "Node  Status\n" + "".join(f"node{number} (unavail)\n" for number in (1, 2, 3)),
        ),
    ),
    ("gnt-node powercycle -f --yes node2", Said(0, "", "Reboot scheduled in 5 seconds\n")),
    (
        "gnt-node remove node1",
        refused("Node is the master node, failover to another node is required", "wrong_input"),
    ),
    ("gnt-node remove node3", Said(0)),
    ("gnt-node list -o name,role", Said(0, "Node  Role\nnode1 M\nnode2 C\n")),
)


@pytest.fixture
def daemon(folder: Path) -> Iterator[DaemonProcess]:
    """A new cluster for each test."""
    require("gnt-node", "ganeti-3.0")
    with DaemonProcess(folder / "node1") as daemon:
        yield daemon


def gnt(daemon: DaemonProcess, command: str) -> Said:
    """Runs a command line of the tools."""
    return on(daemon, normal)(command)


def submit(daemon: DaemonProcess, **opcode: Any) -> tuple[int, str]:
    """Submits an opcode by ``gnt-luxi submit --wait``; returns exit code and output."""
    done = subprocess.run(
        [sys.executable, "-c", LUXI, "submit", "--wait", "-"],
        input=json.dumps(opcode),
        env=daemon.environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_story(daemon: DaemonProcess) -> None:
    """Each command gives the exit code and the output that it gives with Ganeti 3.0.2."""
    for command, expected in STORY:
        assert (command, gnt(daemon, command)) == (command, expected)


def test_adding(daemon: DaemonProcess) -> None:
    """A node leaves, joins, and is added again; the lists show it each time."""
    assert gnt(daemon, "gnt-node remove node3").code == 0
    wanted = {"OP_ID": "OP_NODE_ADD", "node_name": "node3", "primary_ip": "198.51.100.3"}
    code, text = submit(daemon, **wanted)
    assert code == 0, text
    assert " - INFO: Node will be a master candidate" in text
    listed = Said(0, "Node  Role\nnode1 M\nnode2 C\nnode3 C\n")
    assert gnt(daemon, "gnt-node list -o name,role") == listed
    code, text = submit(daemon, **wanted)
    assert code == 1
    assert "OpPrereqError (already_exists): Node node3 is already in the configuration" in text
    assert gnt(daemon, "gnt-node modify -f -O yes node3").code == 0
    code, text = submit(daemon, **wanted, readd=True)
    assert code == 0, text
    assert "Readding a node, the offline/drained flags were reset" in text
    assert gnt(daemon, "gnt-node list -o name,role") == listed
    assert gnt(daemon, "gnt-node modify --dry-run -C no node3") == Said(
        0, "DATE  - INFO: dry-run mode requested, not actually executing the operation\n"
    )
    assert gnt(daemon, "gnt-node list -o name,role") == listed


def test_calls(daemon: DaemonProcess) -> None:
    """A node that leaves gets its calls in the order of Ganeti 3.0.2."""
    assert gnt(daemon, "gnt-node remove node3").code == 0
    log = daemon.root / "simulation" / "calls.log"
    until("the last hooks run", log.read_text, containing("config-update"))
    calls = [json.loads(line) for line in log.read_text().splitlines()]
    hooks = [call for call in calls if call["call"] in ("hooks_runner", "node_leave_cluster")]
    named = [
        (call["node"], *call["arguments"][:2]) if call["call"] == "hooks_runner" else call["node"]
        for call in hooks
    ]
    assert sorted(named[:2]) == [(f"node{n}", "node-remove", "pre") for n in (1, 2)]
    assert named[2:4] == [("node3", "node-remove", "post"), "node3"]
    assert sorted(named[4:6]) == [(f"node{n}", "node-remove", "post") for n in (1, 2)]
    assert named[6:] == [("node1", "config-update", "post")]


def test_other_jobs_go_on(daemon: DaemonProcess) -> None:
    """A node joins and leaves while a job holds another node."""
    client = daemon.client()
    busy = client.submit_job(
        [{"OP_ID": "OP_TEST_DELAY", "duration": 3600, "on_nodes": ["node2"], "on_master": False}]
    )
    job_is(client, busy, "running")
    assert gnt(daemon, "gnt-node remove node3").code == 0
    code, text = submit(daemon, OP_ID="OP_NODE_ADD", node_name="node3", primary_ip="198.51.100.3")
    assert code == 0, text
    assert gnt(daemon, "gnt-node modify -D yes node3").code == 0
    assert client.query_jobs([busy], ["status"])[0][0] == "running"
