"""Ganeti's own tools that change the cluster themselves, without Ganeti's own wconfd.

gnt-cluster redist-conf, upgrade, renew-crypto and master-failover on a cluster of real node daemons
(Debian's Ganeti 3.0.2). What they print is what they printed with luxid and wconfd there. The tests
go on from one another: node1 is master first, then node2, node1, node2.
"""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ganeti_masterd.startup.paths import Paths
from tests.functional.conftest import need_peer
from tests.functional.realcluster import NODES, Ran, RealCluster, real_cluster
from tests.functional.realcommands import outcome
from tests.functional.waiting import equal_to, until

VERIFY = "gnt-cluster verify"
CONFIG_LOG = "gnt-luxi config log"
JOBS = "gnt-job list --no-headers --separator=, -o id,status"

#: Seconds for a command that stops and starts the daemons of all nodes, one after the other.
LONG = 300

#: Ganeti's own client of wconfd makes this node the master, as gnt-cluster master-failover does.
PROMOTE = """
import sys
sys.path.insert(0, "/usr/share/ganeti/3.0")
from ganeti import config, utils
import ganeti.utils.livelock
cfg = config.GetConfig(None, utils.livelock.LiveLock("test"), accept_foreign=True)
cluster = cfg.GetClusterInfo()
cluster.master_node = cfg.GetNodeInfoByName(sys.argv[1]).uuid
cfg.Update(cluster, print)
"""

ADVICE = (
    'Updating certificates now. Running "gnt-cluster verify"  is recommended after this operation.'
)
STOPPED = [
    ADVICE,
    "Gathering cluster information",
    "Blocking watcher",
    "Stopping master daemons",
    "Stopping daemons on node1",
]
OTHERS_STOPPED = ["Stopping daemons on node2", "Stopping daemons on node3"]
OTHERS_STARTED = ["Starting daemons on node2", "Starting daemons on node3"]
CONFIGURING = [
    "Starting daemon 'ganeti-noded' on node1",
    "Starting daemon 'ganeti-wconfd' on node1",
    *OTHERS_STOPPED,
]
CLIENT_CERTIFICATES = [
    "Updating client SSL certificates.",
    "Copying DATA/ssconf_master_candidates_certs to node2:22",
    "Copying DATA/ssconf_master_candidates_certs to node3:22",
    *OTHERS_STARTED,
    "Stopping daemon 'ganeti-wconfd' on node1",
    "Stopping daemon 'ganeti-noded' on node1",
    "Starting daemons on node1",
    "TIME Renewing Node SSL certificates",
]
DONE = (
    "All requested certificates and keys have been replaced."
    ' Running "gnt-cluster verify" now is recommended.'
)

#: What renew-crypto prints with luxid and wconfd of 3.0.2.
RENEWED = {
    "--new-confd-hmac-key --new-rapi-certificate": [
        *STOPPED,
        *OTHERS_STOPPED,
        "Updating certificates and keys",
        "Copying DATA/rapi.pem, DATA/hmac.key to node2:22",
        "Copying DATA/rapi.pem, DATA/hmac.key to node3:22",
        *OTHERS_STARTED,
        "Starting daemons on node1",
        DONE,
    ],
    "--new-node-certificates": [*STOPPED, *CONFIGURING, *CLIENT_CERTIFICATES, DONE],
    "--new-cluster-certificate": [
        *STOPPED,
        *CONFIGURING,
        "Updating the cluster SSL certificate.",
        "Copying DATA/server.pem to node2:22",
        "Copying DATA/server.pem to node3:22",
        *CLIENT_CERTIFICATES,
        DONE,
    ],
}

#: The one that replaces the most, which is tried each time.
ALWAYS_RENEWED = "--new-cluster-certificate"

#: What is replaced by it: on every node, the same on all of them but for client.pem.
REPLACED = {
    "--new-confd-hmac-key --new-rapi-certificate": ("hmac.key", "rapi.pem"),
    "--new-node-certificates": ("client.pem",),
    "--new-cluster-certificate": ("server.pem", "client.pem"),
}


#: What makes the configuration have objects of every kind, so that all of them are written back.
INHABITED = [
    "gnt-group add spare",
    "gnt-network add --network=198.51.100.0/24 --gateway=198.51.100.1 lan",
    "gnt-network connect --nic-parameters=mode=routed,link=100 lan default",
    'gnt-filter add --priority=10 --predicates=\'[["jobid", ["<", "id", 0]]]\' --action=ACCEPT',
    "gnt-instance add --no-ip-check --no-name-check -t file --disk 0:size=16M,name=data "
    "--net 0:network=lan,ip=pool -B maxmem=256,minmem=128 -n node2 -o noop web1",
    "gnt-instance add --no-ip-check --no-name-check -t diskless --no-nics --no-start "
    "-n node3 -o noop web2",
    "gnt-instance add --no-ip-check --no-name-check -t file -s 16M --no-nics --forthcoming "
    "-n node1 -o noop web3",
    "gnt-instance add-tags web1 tagged",
]

#: Sections of config.data that no tool here may change.
KEPT = ("instances", "disks", "networks", "filters")


class Tools:
    """A cluster whose master daemon is gnt-masterd, and what each node's own root has."""

    def __init__(self, cluster: RealCluster) -> None:
        self.cluster = cluster
        self.logged = {node: self.logged_by_wconfd(node) for node in NODES}
        self.inhabited = self.kept("node1")

    def kept(self, node: str) -> dict[str, Any]:
        return {section: self.config(node)[section] for section in KEPT}

    def paths(self, node: str) -> Paths:
        return Paths(str(self.cluster.folder / node))

    def config(self, node: str) -> Any:
        return json.loads(Path(self.paths(node).config).read_bytes())

    def tags(self, node: str) -> Any:
        return self.config(node)["cluster"]["tags"]

    def master_by_config(self, node: str) -> str:
        config = self.config(node)
        return str(config["nodes"][config["cluster"]["master_node"]]["name"])

    def master_by_ssconf(self, node: str) -> str:
        return Path(self.paths(node).ssconf("master_node")).read_text(encoding="ascii").strip()

    def jobs(self, node: str) -> dict[int, str]:
        lines = self.cluster.run(JOBS, node).checked().out.split()
        return {int(job): status for job, status in (line.split(",") for line in lines)}

    def only_wconfd(self, node: str) -> Ran:
        """Starts the daemon for wconfd's socket as gnt-cluster master-failover does it."""
        options = "--force-node --no-voting --yes-do-it"
        return self.cluster.daemon_util(f"start ganeti-wconfd {options}", node)

    def logged_by_wconfd(self, node: str) -> int:
        """Returns how much Ganeti's own wconfd has logged on a node."""
        log = Path(self.paths(node).log).with_name("wconf-daemon.log")
        return log.stat().st_size if log.exists() else 0

    def check_who_served(self) -> None:
        """Checks that Ganeti's own wconfd has never run since gnt-masterd took over."""
        assert {node: self.logged_by_wconfd(node) for node in NODES} == self.logged

    def check_files(self, master: str) -> None:
        """Checks that every node's files name one master, and have what the cluster had."""
        assert {self.master_by_ssconf(node) for node in NODES} == {master}
        assert {self.master_by_config(node) for node in NODES} == {master}
        for node in NODES:
            assert self.kept(node) == self.inhabited, node

    def check_masters(self, master: str) -> None:
        """Checks that every node has the one master, and that it answers."""
        self.check_files(master)
        assert self.cluster.run("gnt-cluster getmaster", master).checked().out == f"{master}\n"


@pytest.fixture(scope="module")
def tools() -> Iterator[Tools]:
    """A real cluster of three candidates, gnt-masterd its master daemon on node1."""
    need_peer()
    with real_cluster() as cluster:
        cluster.take_over()
        for command in INHABITED:
            cluster.run(command).checked()
        cluster.run("gnt-debug wconfd flushconfig").checked()
        yield Tools(cluster)


def said(tools: Tools, text: str) -> list[str]:
    """Returns the lines that were printed, without paths and times."""
    text = text.replace(tools.cluster.paths.data, "DATA")
    return re.sub(r"(?m)^\w{3} \w{3} [ \d]\d [\d:]{8} \d{4} ", "TIME ", text).splitlines()


def test_redistribute(tools: Tools) -> None:
    """Files of another node that are old or damaged are as on the master again."""
    copy = tools.paths("node2")
    Path(copy.ssconf("cluster_name")).write_text("wrong\n", encoding="ascii")
    Path(copy.config).write_text("{}", encoding="ascii")
    done = tools.cluster.run("gnt-cluster redist-conf")
    assert (done.code, done.out, done.err) == (0, "", "")
    assert Path(copy.ssconf("cluster_name")).read_text(encoding="ascii") == "cluster\n"
    assert tools.cluster.run("gnt-debug wconfd flushconfig").out == "Configuration flushed.\n"
    until("config.data is there", lambda: tools.config("node2"), equal_to(tools.config("node1")))


@pytest.mark.parametrize(
    ("options", "out", "err"),
    [
        ("", "", "Precisely one of the options --to and --resume has to be given\n"),
        ("--to nonsense", "", "Could not parse version string nonsense\n"),
        (
            "--to 3.1",
            "Verifying 3.1 present on all nodes\n",
            "Ganeti version 3.1 not installed on nodes node2, node3, node1\n",
        ),
        (
            "--to 2.16",
            "Verifying 2.16 present on all nodes\n",
            "Ganeti version 2.16 not installed on nodes node2, node3, node1\n",
        ),
    ],
)
def test_upgrade_refused(tools: Tools, options: str, out: str, err: str) -> None:
    """What gnt-cluster upgrade checks before it does anything, with its words."""
    done = tools.cluster.run(f"gnt-cluster upgrade {options}")
    assert (done.code, done.out, done.err) == (1, out, err)


@pytest.mark.soak
def test_upgrade_to_the_same(tools: Tools) -> None:
    """The whole way of an upgrade, to the version that is there: all is stopped and started."""
    cluster = tools.cluster
    cluster.run("gnt-cluster add-tags upgraded").checked()
    jobs, pid = tools.jobs("node1"), cluster.pid()
    done = cluster.run("gnt-cluster upgrade --to 3.0", limit=LONG)
    steps = done.out.splitlines()
    assert [re.sub(r" as .*", "", step) for step in steps[:14]] == [
        "Verifying 3.0 present on all nodes",
        "Draining queue",
        "Pausing the watcher for one hour.",
        "Stopping daemons on master node.",
        "Stopping daemons everywhere.",
        "Backing up configuration",
        "Switching to version 3.0 on all nodes",
        "Upgrading configuration",
        "Starting daemons everywhere.",
        "Redistributing the configuration.",
        "Restarting daemons everywhere.",
        "Undraining the queue.",
        "Running post-upgrade hooks",
        "Unpausing the watcher.",
    ], done
    assert steps[14:] == ["Verifying cluster."]
    # Its last step fails where verify finds faults, as with luxid: here that of this machine.
    assert done.code == 0 or "Command ['gnt-cluster', 'verify'] failed" in done.err
    assert cluster.pid() != pid
    assert cluster.run("gnt-cluster list-tags").checked().out == "upgraded\n"
    cluster.run("gnt-cluster remove-tags upgraded").checked()
    assert jobs.items() <= tools.jobs("node1").items()
    tools.check_who_served()


@pytest.mark.parametrize(
    "what",
    [
        what if what == ALWAYS_RENEWED else pytest.param(what, marks=pytest.mark.soak)
        for what in RENEWED
    ],
)
def test_renew(tools: Tools, what: str) -> None:
    """All is stopped, keys and certificates are replaced, and the cluster works as before."""
    cluster = tools.cluster
    before, jobs = outcome(cluster, VERIFY), tools.jobs("node1")

    def contents() -> dict[str, list[bytes]]:
        return {
            name: [Path(tools.paths(node).data, name).read_bytes() for node in NODES]
            for name in REPLACED[what]
        }

    old = contents()
    done = cluster.run(f"gnt-cluster renew-crypto -f {what}", limit=LONG)
    assert (done.code, said(tools, done.out), done.err) == (0, RENEWED[what], "")
    for name, new in contents().items():
        assert not set(new) & set(old[name])
        assert len(set(new)) == (3 if name == "client.pem" else 1)

    def listed() -> bool:
        return "bootstrap" in tools.config("node1")["cluster"]["candidate_certs"]

    until("the file follows the job", listed, equal_to(False))
    cluster.run("gnt-debug delay -n node2 -n node3 0.1").checked()
    assert outcome(cluster, VERIFY) == before
    assert jobs.items() <= tools.jobs("node1").items()
    if "client.pem" in REPLACED[what]:
        log = cluster.run(f"{cluster.folder}/bin/{CONFIG_LOG}").checked().out
        assert "written by" in log, log
    tools.check_who_served()


def test_living_master(tools: Tools) -> None:
    """gnt-cluster master-failover stops the old master; what that knew is on the new one."""
    cluster = tools.cluster
    cluster.run("gnt-cluster add-tags kept").checked()
    jobs, serial = tools.jobs("node1"), tools.config("node1")["serial_no"]
    done = cluster.run("gnt-cluster master-failover", "node2", LONG)
    assert (done.code, done.out, done.err) == (0, "", "")
    assert not Path(tools.paths("node1").pid).exists()
    tools.check_masters("node2")
    assert tools.config("node2")["serial_no"] >= serial + 1000
    assert tools.jobs("node2") == jobs
    assert cluster.run("gnt-cluster list-tags", "node2").checked().out == "kept\n"
    assert cluster.daemon_util("start ganeti-luxid", "node1").code == 11
    again = cluster.run("gnt-cluster master-failover", "node2")
    assert (again.code, again.out) == (1, "")
    assert "node2 is already the master" in again.err
    cluster.run("gnt-debug delay -n node1 -n node3 0.1", "node2").checked()
    tools.check_who_served()


def test_dead_master(tools: Tools) -> None:
    """What was acknowledged before the old master died is on the new one."""
    cluster = tools.cluster
    cluster.run("gnt-cluster add-tags last", "node2").checked()
    jobs = tools.jobs("node2")
    os.kill(int(Path(tools.paths("node2").pid).read_text(encoding="ascii")), signal.SIGKILL)
    cluster.daemon_util("stop ganeti-noded", "node2").checked()
    done = cluster.run("gnt-cluster master-failover", "node1", LONG)
    assert "Could not disable the master role on the old master" in done.out + done.err, done
    assert tools.master_by_ssconf("node1") == tools.master_by_config("node1") == "node1"
    assert tools.master_by_ssconf("node3") == "node1"
    assert tools.jobs("node1") == jobs
    assert cluster.run("gnt-cluster list-tags").checked().out.split() == ["kept", "last"]
    # The old master loses the vote, and is told once its node daemon is there.
    assert cluster.daemon_util("start ganeti-luxid", "node2").code == 1
    cluster.daemon_util("start ganeti-noded", "node2").checked()
    told = equal_to("node1")
    until("node2 is told", lambda: tools.master_by_ssconf("node2"), told, 90)
    until("node2 has config.data", lambda: tools.master_by_config("node2"), told, 90)
    assert cluster.daemon_util("start ganeti-luxid", "node2").code == 11
    tools.check_who_served()


def test_old_master_changes_something_last(tools: Tools) -> None:
    """What it acknowledges between the change of the master and its own stop is kept."""
    cluster = tools.cluster
    assert cluster.daemon_util("start ganeti-wconfd", "node2").code == 11
    tools.only_wconfd("node2").checked()
    cluster.daemon_util("check ganeti-wconfd", "node2").checked()
    assert cluster.daemon_util("check ganeti-luxid", "node2").code != 0
    tools.only_wconfd("node2").checked()  # once is enough
    wrong = cluster.run(f"/usr/bin/python3 -c '{PROMOTE}' node3", "node2")
    assert "Only this node, node2, may become the master" in wrong.out + wrong.err, wrong
    assert tools.master_by_config("node2") == "node1"
    # What it changes before that isn't overwritten either.
    cluster.run("gnt-cluster add-tags between").checked()
    late = cluster.run(f"/usr/bin/python3 -c '{PROMOTE}' node2", "node2")
    assert "another program has changed it" in late.out + late.err, late
    assert tools.master_by_config("node2") == "node1"
    cluster.daemon_util("stop ganeti-wconfd", "node2").checked()
    assert "between" in tools.tags("node2")
    tools.only_wconfd("node2").checked()
    cluster.run(f"/usr/bin/python3 -c '{PROMOTE}' node2", "node2").checked()
    assert tools.master_by_config("node2") == tools.master_by_ssconf("node3") == "node2"
    serial = tools.config("node2")["serial_no"]

    cluster.run("gnt-cluster add-tags too-late").checked()
    assert tools.master_by_config("node2") == "node1"  # its copy is the old master's again
    cluster.daemon_util("stop ganeti-luxid").checked()
    cluster.daemon_util("stop ganeti-wconfd", "node2").checked()
    tools.check_files("node2")
    assert tools.config("node2")["serial_no"] > serial
    assert {"between", "too-late"} <= set(tools.tags("node2"))
    cluster.daemon_util("start ganeti-luxid", "node2").checked()
    assert "too-late" in cluster.run("gnt-cluster list-tags", "node2").checked().out
    tools.check_who_served()


def test_left_over(tools: Tools) -> None:
    """What a tool that died has left makes way for the master daemon."""
    cluster = tools.cluster
    cluster.daemon_util("stop ganeti-luxid", "node2").checked()
    cluster.daemon_util("start ganeti-wconfd", "node2").checked()
    assert cluster.run("gnt-debug wconfd echo alone", "node2").checked().out == "Answer: alone\n"
    refused = cluster.run(f"/usr/bin/python3 -c '{PROMOTE}' node1", "node2")
    assert "gnt-cluster master-failover on that node" in refused.out + refused.err, refused
    cluster.daemon_util("rotate-logs ganeti-wconfd", "node2").checked()
    cluster.daemon_util("check-and-start ganeti-luxid", "node2").checked()
    cluster.daemon_util("check ganeti-luxid", "node2").checked()
    cluster.run("gnt-debug delay 0.1", "node2").checked()
    cluster.daemon_util("start ganeti-wconfd", "node2").checked()  # it is there
    tools.check_who_served()
