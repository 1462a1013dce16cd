"""Who is master, asked of real node daemons, and the master's address, seen with ``ip``."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.functional.conftest import need_peer
from tests.functional.realcluster import NET, NODES, Ran, RealCluster, real_cluster
from tests.functional.waiting import containing, until

ADDRESS = f"{NET}.1/32"


@pytest.fixture(scope="module")
def cluster() -> Iterator[RealCluster]:
    """A cluster without luxid, whose daemon-util starts gnt-masterd."""
    need_peer()
    with real_cluster() as made:
        made.stop_luxid()
        made.deploy()
        yield made


@pytest.fixture(autouse=True)
def as_before(cluster: RealCluster) -> Iterator[None]:
    """After each test no master daemon runs, all nodes do, and node1 is what they say."""
    yield
    cluster.daemon_util("stop ganeti-luxid").checked()
    for node in NODES:
        name(cluster, node, "node1")
        cluster.daemon_util("start ganeti-noded", node).checked()


def name(cluster: RealCluster, node: str, master: str) -> None:
    """Has a node say who the master is."""
    file = cluster.folder / node / "var/lib/ganeti/ssconf_master_node"
    file.write_text(f"{master}\n", encoding="ascii")


def stop(cluster: RealCluster, *nodes: str) -> None:
    """Stops node daemons."""
    for node in nodes:
        cluster.daemon_util("stop ganeti-noded", node).checked()


def start(cluster: RealCluster, *options: str) -> Ran:
    """Starts gnt-masterd as scripts do."""
    return cluster.daemon_util(" ".join(["start ganeti-luxid", *options]))


def addresses(cluster: RealCluster) -> str:
    """Returns what ``ip`` shows of the nodes' machine."""
    command = ["ip", "-n", cluster.namespace, "-4", "-o", "address", "show"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_agreement(cluster: RealCluster) -> None:
    """All others name this node: it starts, with exit code 0."""
    assert start(cluster).code == 0
    assert "This node is the master: 2 of 2 other nodes agree" in cluster.log()


def test_a_node_is_down(cluster: RealCluster) -> None:
    """Of two others one is enough; the one that is down is no candidate up to date."""
    stop(cluster, "node3")
    assert start(cluster).code == 0
    assert "This node is the master: 1 of 2 other nodes agree" in cluster.log()
    cluster.run("gnt-debug delay 0.1").checked()


def test_another_master(cluster: RealCluster) -> None:
    """One that votes for another, on equal votes: exit code 1, and who it would be."""
    name(cluster, "node3", "node2")
    refused = start(cluster)
    assert refused.code == 1
    assert "node2 is the master by 1 of 2 votes" in refused.out
    assert not Path(cluster.paths.pid).exists()
    assert cluster.daemon_util("check ganeti-luxid").code == 1


def test_nobody_answers(cluster: RealCluster) -> None:
    """While most are down they are asked again, and one that comes back is heard."""
    stop(cluster, "node2", "node3")
    log = cluster.folder / "daemon-util.log"
    log.touch()
    before = log.stat().st_size
    waiting = subprocess.Popen(
        ["ip", "netns", "exec", cluster.namespace, "bash", "-c", _start_command(cluster, log)],
        stdin=subprocess.DEVNULL,
    )
    try:

        def said() -> str:
            return log.read_bytes()[before:].decode("utf-8", "replace")

        until("it asks again", said, containing("asking again in 10 s, 5 times at most"))
        assert not Path(cluster.paths.pid).exists()
        cluster.daemon_util("start ganeti-noded", "node2").checked()
        assert waiting.wait(60) == 0
    finally:
        waiting.kill()
    assert "asking again in 10 s, 4 times" not in said()
    assert "This node is the master: 1 of 2 other nodes agree" in cluster.log()


def test_no_voting(cluster: RealCluster) -> None:
    """Told not to ask, it asks nobody, and works on without the others."""
    stop(cluster, "node2", "node3")
    assert start(cluster, "--no-voting", "--yes-do-it").code == 0
    assert "were not asked" in cluster.log()
    cluster.run("gnt-debug delay 0.1").checked()


def test_not_the_master(cluster: RealCluster) -> None:
    """Another node's: exit code 11, without a vote; not even --no-voting makes it one."""
    refused = cluster.daemon_util("start ganeti-luxid", "node2")
    assert (refused.code, refused.out) == (11, "Not master\n")
    assert cluster.daemon_util("start ganeti-luxid --no-voting --yes-do-it", "node2").code == 11


def test_no_cluster(cluster: RealCluster) -> None:
    """Without ssconf: exit code 12, and the file by name."""
    file = cluster.folder / "node2/var/lib/ganeti/ssconf_master_node"
    kept = file.rename(f"{file}.kept")
    try:
        refused = cluster.daemon_util("start ganeti-luxid", "node2")
    finally:
        kept.rename(file)
    assert refused.code == 12
    assert str(file) in refused.out


def test_address(cluster: RealCluster) -> None:
    """The start brings the master's address up; commands take it down and up again."""
    subprocess.run(["ip", "-n", cluster.namespace, "addr", "del", ADDRESS, "dev", "lo"], check=True)
    assert ADDRESS not in addresses(cluster)
    start(cluster).checked()
    assert f"inet {ADDRESS} scope global lo" in addresses(cluster)
    cluster.run("gnt-cluster deactivate-master-ip --yes").checked()
    assert ADDRESS not in addresses(cluster)
    cluster.run("gnt-cluster activate-master-ip").checked()
    assert ADDRESS in addresses(cluster)
    # A stop leaves it: whoever is started next has it.
    cluster.daemon_util("stop ganeti-luxid").checked()
    assert ADDRESS in addresses(cluster)


def test_cluster_of_two(cluster: RealCluster) -> None:
    """It needs the other node's vote, and has it again when it is a cluster of three."""
    start(cluster).checked()
    cluster.run("gnt-node remove node3").checked()
    cluster.daemon_util("stop ganeti-luxid").checked()
    start(cluster).checked()
    assert "This node is the master: 1 of 1 other nodes agree" in cluster.log()
    cluster.daemon_util("stop ganeti-luxid").checked()
    name(cluster, "node2", "node2")
    refused = start(cluster)
    assert refused.code == 1
    assert "node2 is the master by 1 of 1 votes" in refused.out
    name(cluster, "node2", "node1")
    start(cluster).checked()
    cluster.run("gnt-node add --no-ssh-key-check node3").checked()


def _start_command(cluster: RealCluster, log: Path) -> str:
    root, util = cluster.paths.root, "/usr/lib/ganeti/daemon-util"
    return (
        f"GANETI_ROOTDIR={root} GANETI_HOSTNAME=node1 {util} start ganeti-luxid"
        f" >>{log} 2>&1 </dev/null"
    )
