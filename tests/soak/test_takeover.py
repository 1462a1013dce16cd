"""The long profile of a take-over: more commands, all crypto renewed, another master, and back."""

from __future__ import annotations

from pathlib import Path

from tests.functional.conftest import need_peer
from tests.functional.realcluster import NODES, RealCluster, real_cluster
from tests.functional.realcommands import LONG, QUICK, outcome

# Fixtures are found by their names.
from tests.functional.test_takeover import JOBS, VERIFY, cluster
from tests.functional.transcripts import recorded
from tests.functional.waiting import equal_to, until

__all__ = ["cluster"]

COMMANDS = [*QUICK, *LONG, VERIFY]


def take_over(cluster: RealCluster) -> None:
    """Puts gnt-masterd in the place of luxid and wconfd."""
    cluster.take_over()


def hand_back(cluster: RealCluster) -> None:
    """Puts luxid and wconfd in the place of gnt-masterd."""
    cluster.daemon_util("stop ganeti-luxid").checked()
    cluster.undeploy()
    cluster.start_luxid()


def test_there_and_back(cluster: RealCluster) -> None:
    """Three times taken over and handed back, everything said is what luxid says."""
    before = [outcome(cluster, command) for command in COMMANDS]
    for _ in range(3):
        take_over(cluster)
        for expected, command in zip(before, COMMANDS, strict=True):
            assert outcome(cluster, command) == expected
        hand_back(cluster)
        assert outcome(cluster, VERIFY) == before[-1]
    for expected, command in zip(before, COMMANDS, strict=True):
        assert outcome(cluster, command) == expected


def test_all_that_was_recorded() -> None:
    """Every recorded command of five groups, from a cluster of one node on, ends as it did."""
    need_peer()
    with real_cluster(NODES[:1]) as cluster:
        take_over(cluster)
        different = [each.difference(cluster) for each in recorded()]
        assert [each for each in different if each is not None] == []


def test_renewed_and_moved(cluster: RealCluster) -> None:
    """Ganeti's own commands that stop and start daemons find gnt-masterd on every node."""
    before = outcome(cluster, VERIFY)
    take_over(cluster)
    for what in (
        "--new-confd-hmac-key --new-rapi-certificate",
        "--new-node-certificates",
        "--new-cluster-certificate",
    ):
        cluster.run(f"gnt-cluster renew-crypto -f {what}", limit=300).checked()
        cluster.run("gnt-debug delay -n node2 -n node3 0.1").checked()
        assert outcome(cluster, VERIFY) == before

    cluster.run("gnt-cluster add-tags kept; gnt-debug delay --submit 0").checked()
    until(
        "no job is left",
        lambda: cluster.run("gnt-job list --no-headers --pending").out,
        equal_to(""),
    )
    listed = cluster.run(JOBS).checked().out
    cluster.run("gnt-cluster master-failover", node="node2", limit=300).checked()
    assert not Path(cluster.paths.pid).exists()
    assert cluster.daemon_util("start ganeti-luxid").code == 11
    assert cluster.run("gnt-cluster getmaster", node="node2").out == "node2\n"
    assert cluster.run(JOBS, node="node2").checked().out == listed
    assert cluster.run("gnt-cluster list-tags", node="node2").checked().out == "kept\n"
    cluster.run("gnt-cluster remove-tags kept", node="node2").checked()

    cluster.run("gnt-cluster master-failover --no-voting --yes-do-it", limit=300).checked()
    assert "were not asked" in cluster.log()
    assert cluster.run("gnt-cluster getmaster").out == "node1\n"
    hand_back(cluster)
    assert outcome(cluster, VERIFY) == before
