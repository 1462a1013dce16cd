"""Debian's ganeti-confd and ganeti-mond beside gnt-masterd, as they run beside luxid."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.conftest import need_peer, require
from tests.functional.instance_kills import CREATION
from tests.functional.realcluster import NET, RealCluster, real_cluster
from tests.functional.waiting import equal_to, jobs_end, until

Make = Callable[..., DaemonProcess]

#: Asks a confd as Ganeti's own client does; prints status and answer, or nothing without a reply.
ASK = """
import json, sys
sys.path.insert(0, "/usr/share/ganeti/3.0")
from ganeti import pathutils, utils
from ganeti.confd import client
def told(up):
    if up.type == client.UPCALL_REPLY:
        print(json.dumps([up.server_reply.status, up.server_reply.answer]))
address, kind, query, key = json.loads(sys.argv[1])
asking = client.ConfdClient(key or utils.ReadFile(pathutils.CONFD_HMAC_KEY), [address], told)
asking.SendRequest(client.ConfdClientRequest(type=kind, query=query), async_=False)
asking.ReceiveReply(timeout=2)
"""

#: Reads a page of ganeti-mond's on this node; prints status and content.
READ = """
import sys, urllib.error, urllib.request
try:
    page = urllib.request.urlopen("http://127.0.0.1:1815" + sys.argv[1], timeout=20)
except urllib.error.HTTPError as error:
    page = error
print(page.status, page.read().decode())
"""

#: Requests of confd's protocol, and the roles that it tells.
ROLE, MASTER, CANDIDATES, COLLECTORS = 1, 3, 5, 11
CANDIDATE, DRAINED = 1, 3

#: All collectors of 3.0.2.
LISTED = [
    ["cpu-avg-load", "default", 0],
    ["xen-cpu-avg-load", "default", 0],
    ["diskstats", "storage", 0],
    ["drbd", "storage", 1],
    ["lv", "storage", 0],
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[RealCluster]:
    """A real cluster of three candidates, luxid its master daemon; its confds and a mond run."""
    need_peer()
    require("ganeti-confd", "ganeti-haskell-3.0")
    require("ganeti-mond", "ganeti-haskell-3.0")
    with real_cluster() as made:
        for node in ("node2", "node3"):
            made.daemon_util("start ganeti-confd", node).checked()
        yield made


@pytest.fixture(scope="module")
def reports(cluster: RealCluster) -> dict[str, tuple[int, Any]]:
    """What each collector's report was under luxid: its status, and which keys it has."""
    return {name: report(cluster, f"{category}/{name}") for name, category, _ in LISTED}


@pytest.fixture(scope="module")
def taken_over(cluster: RealCluster, reports: dict[str, tuple[int, Any]]) -> RealCluster:
    """The cluster, gnt-masterd its master daemon."""
    cluster.take_over()
    return cluster


def ask(cluster: RealCluster, node: str, kind: int, query: Any = None, key: str = "") -> Any:
    """Asks the confd of a node; returns status and answer, None if it doesn't answer."""
    request = json.dumps([f"{NET}.{9 + int(node[4:])}", kind, query, key])
    out = cluster.run(f"/usr/bin/python3 -c '{ASK}' '{request}'", node).checked().out
    return json.loads(out) if out else None


def read(cluster: RealCluster, page: str) -> tuple[int, str]:
    """Reads a page of mond's."""
    status, _, content = (
        cluster.run(f"/usr/bin/python3 -c '{READ}' {page}").checked().out.partition(" ")
    )
    return int(status), content


def report(cluster: RealCluster, name: str) -> tuple[int, Any]:
    """Returns a report's status, and which keys it has; of a refusal the whole text."""
    status, content = read(cluster, f"/1/report/{name}")
    return status, sorted(json.loads(content)) if status == 200 else content


@pytest.mark.parametrize("node", ["node1", "node2"])
def test_confd_knows_the_cluster(taken_over: RealCluster, node: str) -> None:
    """On the master and on a candidate, to those who have the key and nobody else."""
    assert ask(taken_over, node, MASTER) == [0, "node1"]
    status, addresses = ask(taken_over, node, CANDIDATES)
    assert (status, sorted(addresses)) == (0, [f"{NET}.{n}" for n in (10, 11, 12)])
    assert ask(taken_over, node, ROLE, "node3") == [0, CANDIDATE]
    assert ask(taken_over, node, MASTER, key="another") is None


@pytest.mark.parametrize("node", ["node1", "node2"])
def test_confd_follows_changes(taken_over: RealCluster, node: str) -> None:
    """What a job has changed is what confd answers, on the master and on a candidate."""

    def role() -> Any:
        return ask(taken_over, node, ROLE, "node3")

    taken_over.run("gnt-node modify -D yes node3").checked()
    until(f"{node}'s confd says so", role, equal_to([0, DRAINED]), 30)
    taken_over.run("gnt-node modify -D no node3").checked()
    taken_over.run("gnt-node modify -C yes node3").checked()
    until(f"{node}'s confd says so", role, equal_to([0, CANDIDATE]), 30)


def test_mond_reports(taken_over: RealCluster, reports: dict[str, tuple[int, Any]]) -> None:
    """Mond has the collectors and reports that it has beside luxid."""
    assert read(taken_over, "/") == (200, "[1]\n")
    status, content = read(taken_over, "/1/list/collectors")
    assert (status, json.loads(content)) == (200, LISTED)
    assert reports["cpu-avg-load"][0] == 200
    for name, category, _ in LISTED:
        assert report(taken_over, f"{category}/{name}") == reports[name]
    data = json.loads(read(taken_over, "/1/report/default/cpu-avg-load")[1])["data"]
    assert len(data["cpus"]) == data["cpu_number"] > 0
    assert read(taken_over, "/1/report/default/nosuch")[0] == 404


def test_mond_follows_changes(taken_over: RealCluster) -> None:
    """A collector that is switched off through gnt-masterd is left out, as mond asks confd."""
    modify = "gnt-cluster modify --enabled-data-collectors=cpu-avg-load="

    def listed() -> Any:
        return json.loads(read(taken_over, "/1/list/collectors")[1])

    taken_over.run(f"{modify}false").checked()
    until(
        "confd says so",
        lambda: ask(taken_over, "node1", COLLECTORS)[1]["cpu-avg-load"]["active"],
        equal_to(False),
    )
    until("it is left out", listed, equal_to(LISTED[1:]))
    assert read(taken_over, "/1/report/default/cpu-avg-load")[0] == 404
    taken_over.run(f"{modify}true").checked()
    until("it is there again", listed, equal_to(LISTED))


@pytest.fixture
def network() -> Iterator[str]:
    """A network namespace with nothing but a loopback device."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    name = f"masterd-confd-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def test_minors(make_daemon: Make, network: str) -> None:
    """gnt-node list-drbd, which asks confd, lists the mirrors that there are by then."""
    require("ganeti-confd", "ganeti-haskell-3.0")
    require("gnt-node", "ganeti-3.0")
    inside = ["ip", "netns", "exec", network]
    with make_daemon() as daemon:
        client = daemon.client()
        environment = {"GANETI_ROOTDIR": daemon.paths.root, "GANETI_HOSTNAME": "node1"}
        Path(daemon.paths.root).chmod(0o755)
        confd = subprocess.Popen(
            [*inside, "ganeti-confd", "-f", "--no-user-checks", "-b", "127.0.0.1"],
            env={**os.environ, **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:

            def minors() -> str:
                command = ["gnt-node", "list-drbd", "--no-headers", "--separator=,", "node1"]
                return daemon.tool([*inside, *command]).stdout

            mirrored = {**CREATION, "disks": [{"size": 64}], "pnode": "node1", "snode": "node2"}
            client.submit_job([{**mirrored, "instance_name": "web"}])
            jobs_end(client)
            first = "node1,0,web,disk/0,primary,node2\n"
            until("it is listed", minors, equal_to(first), 30)
            mirrored |= {"pnode": "node2", "snode": "node1"}
            client.submit_job([{**mirrored, "instance_name": "database"}])
            jobs_end(client)
            second = "node1,1,database,disk/0,secondary,node2\n"
            until("both are listed", minors, equal_to(first + second), 30)
            client.submit_job([{"OP_ID": "OP_INSTANCE_REMOVE", "instance_name": "web"}])
            jobs_end(client)
            until("one is left", minors, equal_to(second), 30)
        finally:
            confd.kill()
            confd.wait()
