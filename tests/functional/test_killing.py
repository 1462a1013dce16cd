"""A job that waits for a node is killed with the real tool: it ends at once, and says so."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.conftest import need_peer, require
from tests.functional.realcluster import RealCluster, real_cluster
from tests.functional.waiting import equal_to, until


@pytest.fixture
def daemon(folder: Path) -> Iterator[DaemonProcess]:
    """A daemon on three simulated nodes, of which node2 takes a call and says nothing."""
    require("gnt-job", "ganeti-3.0")
    root = folder / "node1"
    faults = [{"kind": "silent", "node": "node2", "call": "test_delay"}]
    (root / "simulation").mkdir(parents=True)
    (root / "simulation/faults.json").write_text(json.dumps(faults), encoding="ascii")
    with DaemonProcess(root) as daemon:
        yield daemon


def run(daemon: DaemonProcess, command: str) -> str:
    """Runs a tool that must succeed; returns what it prints."""
    done = daemon.tool(shlex.split(command))
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout + done.stderr


def test_hung_node(daemon: DaemonProcess) -> None:
    """Slot and locks are free at once; the job tells which call may still be under way."""
    run(daemon, "gnt-cluster modify --max-running-jobs 1")
    said = run(daemon, "gnt-debug delay --submit --no-master -n node2 3600")
    job = re.search(r"\d+", said)
    assert job is not None
    job_id = job.group()
    status = f"gnt-job list --no-headers -o status {job_id}"
    until("the job runs", lambda: run(daemon, status), equal_to("running\n"))
    said = run(daemon, f"gnt-job cancel --kill --yes-do-it {job_id}")
    assert said == f"Job {job_id} is being killed\n"
    assert daemon.tool(["gnt-job", "wait", job_id]).returncode == 1
    info = run(daemon, f"gnt-job info {job_id}")
    assert "  Status: error\n" in info
    assert "was killed while this opcode ran; test_delay may still be under way at node2" in info
    assert " - WARNING: The job is killed; test_delay may still be under way at node2" in info
    run(daemon, "gnt-cluster modify --max-running-jobs 20")
    assert "node/" not in run(daemon, "gnt-debug locks --no-headers -o name,owner")


@pytest.fixture(scope="module")
def cluster() -> Iterator[RealCluster]:
    """A cluster with real node daemons."""
    need_peer()
    with real_cluster() as made:
        made.take_over()
        yield made


def test_real_nodes(cluster: RealCluster) -> None:
    """So it is with real node daemons: the connection goes, the node sleeps on."""
    said = cluster.run("gnt-debug delay --submit --print-jobid --no-master -n node2 -n node3 3600")
    job = "".join(filter(str.isdigit, said.checked().out))
    status = f"gnt-job list --no-headers -o status {job}"
    until("the job runs", lambda: cluster.run(status).checked().out, equal_to("running\n"))
    cluster.run(f"gnt-job cancel --kill --yes-do-it {job}").checked()
    assert cluster.run(f"gnt-job wait {job}").code == 1
    info = cluster.run(f"gnt-job info {job}").checked().out
    assert "test_delay may still be under way at node2, node3" in info
    cluster.run("gnt-debug delay --no-master -n node2 -n node3 0.1").checked()
    cluster.run("gnt-cluster modify --max-running-jobs 20").checked()
