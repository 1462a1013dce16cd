"""Real node daemons that die in a call, hang or come back, under a daemon that works on."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.functional.conftest import need_peer
from tests.functional.realcluster import RealCluster, real_cluster
from tests.functional.waiting import equal_to, until

CURRENT = "Node node3 holds the queue and the configuration again"


@pytest.fixture(scope="module")
def cluster() -> Iterator[RealCluster]:
    """A cluster that gnt-masterd has taken over."""
    need_peer()
    with real_cluster() as made:
        made.take_over()
        holds = "holds the queue and the configuration"
        until("both candidates hold it", lambda: made.log().count(holds), equal_to(2))
        yield made


def send(cluster: RealCluster, node: str, number: signal.Signals) -> None:
    """Sends a signal to a node daemon and the children that serve its calls."""
    file = cluster.folder / node / "var/run/ganeti/ganeti-noded.pid"
    os.killpg(os.getpgid(int(file.read_text(encoding="ascii"))), number)


def submitted(cluster: RealCluster, delay: str) -> int:
    """Submits a delay; returns the job's id when it runs."""
    said = cluster.run(f"gnt-debug delay --submit --print-jobid {delay}").checked().out
    job = int("".join(filter(str.isdigit, said)))
    until(f"job {job} runs", lambda: status(cluster, job), equal_to("running"))
    return job


def status(cluster: RealCluster, job: int) -> str:
    """Returns the status of a job."""
    return cluster.run(f"gnt-job list --no-headers -o status {job}").checked().out.strip()


def up_to_date(cluster: RealCluster, times: int) -> None:
    """Waits until node3 has been brought up to date so often, and holds what the master does."""
    until("node3 is up to date", lambda: cluster.log().count(CURRENT), equal_to(times))
    cluster.run("gnt-debug delay 0.01").checked()
    until(
        "node3 has the files of node1",
        lambda: (_files(cluster, "node1"), _files(cluster, "node3")),
        lambda files: files[0] == files[1],
    )


def test_killed_in_a_call(cluster: RealCluster) -> None:
    """A job whose node dies ends as an error that says so; others go on, and it catches up."""
    before = cluster.log().count(CURRENT)
    job = submitted(cluster, "--no-master -n node3 60")
    send(cluster, "node3", signal.SIGKILL)
    until("the job fails", lambda: status(cluster, job), equal_to("error"))
    info = cluster.run(f"gnt-job info {job}").checked().out
    assert "Node node3 closed the connection without an answer" in info
    cluster.run("gnt-debug delay --no-master -n node2 0.1").checked()
    cluster.run("gnt-cluster add-tags red").checked()
    assert "Node node3 does not get the queue and the configuration any more" in cluster.log()
    # One that is still about to die would count as running.
    until("noded is dead", lambda: cluster.daemon_util("check ganeti-noded", "node3").code)
    cluster.daemon_util("start ganeti-noded", "node3").checked()
    up_to_date(cluster, before + 1)


def test_hanging(cluster: RealCluster) -> None:
    """A node daemon that takes connections and is silent holds nobody up for long."""
    before = cluster.log().count(CURRENT)
    send(cluster, "node3", signal.SIGSTOP)
    try:
        cluster.run("gnt-debug delay --no-master -n node2 0.1").checked()
        cluster.run("gnt-cluster remove-tags red").checked()
        listed = cluster.run("gnt-node list --no-headers --separator=: -o name,mfree").checked().out
        free = dict(line.split(":") for line in listed.split())
        assert free["node3"] == "?"
        assert "?" not in (free["node1"], free["node2"])
        failed = cluster.run("gnt-debug delay --no-master -n node3 0.1")
        assert failed.code == 1
        assert "call test_delay: Node node3 gave no answer within 5 seconds" in failed.err
    finally:
        send(cluster, "node3", signal.SIGCONT)
    up_to_date(cluster, before + 1)


def _files(cluster: RealCluster, node: str) -> dict[str, Any]:
    """Returns the configuration and the jobs that a node holds.

    Jobs of luxid's are the same there, but written as we do.
    """
    data = cluster.folder / node / "var/lib/ganeti"
    paths = [data / "config.data", *(data / "queue").glob("job-*")]
    return {path.name: json.loads(path.read_bytes()) for path in paths}
