"""Fail-over on a cluster of real node daemons (Debian's Ganeti 3.0.2), each node with its root.

The tests go on from one another: node1 is master first, then node2, node3, node1.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ganeti_masterd.startup.accounts import READERS_GROUP, USER
from ganeti_masterd.startup.paths import Paths
from tests.functional.conftest import need_peer
from tests.functional.realcluster import NODES, Ran, RealCluster, real_cluster
from tests.functional.waiting import equal_to, until

JOBS = "gnt-job list --no-headers --separator=, -o id,status"


class Nodes:
    """The cluster, and what each node's own root has."""

    def __init__(self, cluster: RealCluster) -> None:
        self.cluster = cluster

    def paths(self, node: str) -> Paths:
        return Paths(str(self.cluster.folder / node))

    def config(self, node: str) -> Any:
        return json.loads(Path(self.paths(node).config).read_bytes())

    def master_by_config(self, node: str) -> str:
        config = self.config(node)
        return str(config["nodes"][config["cluster"]["master_node"]]["name"])

    def master_by_ssconf(self, node: str) -> str:
        return Path(self.paths(node).ssconf("master_node")).read_text(encoding="ascii").strip()

    def fail_over(self, node: str, options: str = "") -> Ran:
        return self.cluster.run(
            f"{self.cluster.folder}/bin/gnt-luxi master-failover {options}", node
        )

    def jobs(self, node: str) -> dict[int, str]:
        lines = self.cluster.run(JOBS, node).checked().out.split()
        return {int(job): status for job, status in (line.split(",") for line in lines)}

    def submit(self, node: str, duration: str = "0.01") -> int:
        command = f"gnt-debug delay --submit --print-jobid --no-master {duration}"
        printed = self.cluster.run(command, node).checked().out
        return int("".join(filter(str.isdigit, printed)))

    def kill_master(self, node: str) -> None:
        """Ends the master daemon as a crash does, and the node daemon: the node is gone."""
        os.kill(int(Path(self.paths(node).pid).read_text(encoding="ascii")), signal.SIGKILL)
        self.noded("stop", node)

    def noded(self, action: str, node: str) -> None:
        self.cluster.daemon_util(f"{action} ganeti-noded", node).checked()

    def start(self, node: str) -> Ran:
        return self.cluster.daemon_util("start ganeti-luxid", node)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """A real cluster of three candidates, gnt-masterd its master daemon on node1."""
    need_peer()
    with real_cluster() as cluster:
        cluster.take_over()
        yield Nodes(cluster)


def test_master_dies(nodes: Nodes) -> None:
    """Everything acknowledged is there on the new master, which missed the last of it itself."""
    cluster = nodes.cluster
    refused = nodes.fail_over("node1")
    assert (refused.code, refused.out) == (1, "")
    assert "node1 is the master already" in refused.err

    nodes.noded("stop", "node2")
    ended = nodes.submit("node1")
    cluster.run(f"gnt-job watch {ended}").checked()
    cluster.run("gnt-cluster add-tags acknowledged").checked()
    running = nodes.submit("node1", "600")
    until("it runs", lambda: nodes.jobs("node1")[running], equal_to("running"))
    cluster.run("gnt-cluster add-tags last").checked()
    known = nodes.jobs("node1")
    serial = nodes.config("node3")["serial_no"]
    nodes.kill_master("node1")
    nodes.noded("start", "node2")
    assert ended not in {int(path.name[4:]) for path in queue(nodes, "node2")}

    done = nodes.fail_over("node2").checked()
    assert "node2 is the master now, node1 was" in done.out
    assert "node3's" in done.out  # its configuration was the newest
    assert "node1 does not answer" in done.err
    for node in ("node2", "node3"):
        assert nodes.master_by_config(node) == "node2"
        assert nodes.master_by_ssconf(node) == "node2"
        assert nodes.config(node)["serial_no"] > serial
    found = nodes.jobs("node2")
    assert found == {**known, running: "error"}
    config, job = Path(nodes.paths("node2").config), queue(nodes, "node2")[0]
    assert (config.owner(), config.group(), job.owner()) == (USER, READERS_GROUP, USER)
    tags = cluster.run("gnt-cluster list-tags", "node2").checked().out.split()
    assert tags == ["acknowledged", "last"]
    assert cluster.run("gnt-cluster getmaster", "node2").checked().out == "node2\n"
    new = nodes.submit("node2")
    assert new > max(known)
    cluster.run(f"gnt-job watch {new}", "node2").checked()


def test_old_master_comes_back(nodes: Nodes) -> None:
    """It loses the vote; once it was told who is master it knows that it isn't."""
    lost = nodes.start("node1")
    assert lost.code == 1
    assert "node2 is the master by 2 of 2 votes" in lost.out
    nodes.noded("start", "node1")
    told = equal_to("node2")
    until("node1 is told", lambda: nodes.master_by_ssconf("node1"), told, 60)
    assert nodes.start("node1").code == 11
    until("node1 gets config.data", lambda: nodes.master_by_config("node1"), told, 60)


def test_living_master_is_stopped(nodes: Nodes) -> None:
    """The old master's daemon is stopped in order, and what it knew is taken over."""
    cluster = nodes.cluster
    cluster.run("gnt-cluster add-tags in-order", "node2").checked()
    jobs = nodes.jobs("node2")
    nodes.fail_over("node3").checked()
    assert not Path(nodes.paths("node2").pid).exists()
    assert {nodes.master_by_ssconf(node) for node in NODES} == {"node3"}
    assert {nodes.master_by_config(node) for node in NODES} == {"node3"}
    assert nodes.jobs("node3") == jobs
    assert "in-order" in cluster.run("gnt-cluster list-tags", "node3").checked().out
    assert nodes.start("node2").code == 11
    # What is not the master's any more is nobody's way back.
    refused = nodes.fail_over("node3")
    assert (refused.code, "is the master already" in refused.err) == (1, True)


def test_without_a_majority(nodes: Nodes) -> None:
    """Alone, a node becomes the master only when it is told not to ask the others."""
    jobs = nodes.jobs("node3")
    nodes.kill_master("node3")
    nodes.noded("stop", "node2")
    refused = nodes.fail_over("node1")
    assert refused.code == 1
    assert "only 1 of 3 nodes answer" in refused.err
    assert nodes.master_by_ssconf("node1") == "node3"
    aborted = nodes.fail_over("node1", "--no-voting")
    assert (aborted.code, "Aborted: nothing was done" in aborted.err) == (1, True)

    done = nodes.fail_over("node1", "--no-voting --yes-do-it").checked()
    assert "what only that candidate holds is lost" in done.err
    assert nodes.master_by_ssconf("node1") == nodes.master_by_config("node1") == "node1"
    assert nodes.jobs("node1") == jobs


def queue(nodes: Nodes, node: str) -> list[Path]:
    """Returns the files of a node's jobs."""
    return list(Path(nodes.paths(node).queue).glob("job-*"))
