"""Ganeti's own tools move instances to the end: gnt-node, gnt-group, htools, the remote API.

All on one cluster of simulated nodes in two groups. Each test begins with its instances on nodes of
its own choice; in the end none was ever seen to run twice.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import ganeti_masterd.simulation
from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.conftest import require
from tests.functional.instance_kills import CREATION
from tests.functional.remoteapi import RapiClient, may_connect, remote_api
from tests.functional.waiting import jobs_end
from tests.rpc import pki

#: Five nodes in two groups with all kinds of storage.
CLUSTER = Path(ganeti_masterd.simulation.__file__).with_name("clusters") / "recorded.toml"

#: Says that each node has power, whatever it was told before.
OOB = "#!/bin/sh\n[ $1 = power-status ] && echo '{\"powered\": true}'\nexit 0\n"

USERS = "tester secret write\n"

#: Primary and secondary node by the names of instances.
Places = Mapping[str, tuple[str, str]]


@pytest.fixture(scope="module")
def daemon(module_folder: Path) -> Iterator[DaemonProcess]:
    """A cluster whose mirrors are in sync at once, and whose nodes have an out-of-band program."""
    require("gnt-instance", "ganeti-3.0")
    require("hbal", "ganeti-htools-3.0")
    module_folder.chmod(0o755)  # the remote API runs as another user
    root = module_folder / "node1"
    program = root / "usr/local/sbin/oob"
    program.parent.mkdir(parents=True)
    program.write_text(OOB, encoding="ascii")
    program.chmod(0o755)
    with DaemonProcess(root, *may_connect(), nodes=str(CLUSTER)) as daemon:
        switch(daemon, "sync 0")
        run(daemon, "gnt-cluster modify --node-parameters oob_program=/usr/local/sbin/oob")
        yield daemon
        assert "Must never be:" not in daemon.log_text()


def run(daemon: DaemonProcess, command: str, code: int = 0) -> str:
    """Runs a command line; returns its output."""
    done = daemon.tool(shlex.split(command))
    assert done.returncode == code, done
    return done.stdout


def switch(daemon: DaemonProcess, words: str) -> None:
    """Throws a switch of the simulated cluster."""
    run(daemon, f"{sys.executable} -m ganeti_masterd.simulation {words}")


@pytest.fixture
def placed(daemon: DaemonProcess) -> Iterator[Places]:
    """Three mirrored instances, all with node1; after the test they are removed."""
    places = {"one": ("node1", "node2"), "two": ("node1", "node2"), "three": ("node2", "node1")}
    client = daemon.client()
    client.submit_many_jobs(
        [
            [
                {
                    **CREATION,
                    "instance_name": name,
                    "disks": [{"size": 64}],
                    "pnode": nodes[0],
                    "snode": nodes[1],
                }
            ]
            for name, nodes in places.items()
        ]
    )
    jobs_end(client)
    assert where(daemon) == {name: (*nodes, "running") for name, nodes in places.items()}
    yield places
    client.submit_many_jobs(
        [[{"OP_ID": "OP_INSTANCE_REMOVE", "instance_name": name}] for name in where(daemon)]
    )
    jobs_end(client)
    assert where(daemon) == {}


def where(daemon: DaemonProcess) -> dict[str, tuple[str, str, str]]:
    """Returns primary node, secondary node and status of each instance, asked of the nodes."""
    rows = daemon.client().query("instance", ["name", "pnode", "snodes", "status"])["data"]
    return {
        name: (primary, secondaries[0], status)
        for (_, name), (_, primary), (_, secondaries), (_, status) in rows
    }


def test_nodes(daemon: DaemonProcess, placed: Places) -> None:
    """gnt-node migrates, fails over, and evacuates both ways, until the node is empty."""
    out = run(daemon, "gnt-node migrate -f node1")
    assert "All instances migrated successfully." in out
    expected = dict.fromkeys(placed, ("node2", "node1", "running"))
    assert where(daemon) == expected
    out = run(daemon, "gnt-node failover -f node2")
    assert "All 3 instance(s) failed over successfully." in out
    expected = dict.fromkeys(placed, ("node1", "node2", "running"))
    assert where(daemon) == expected
    run(daemon, "gnt-node evacuate -f -p -I hail node1")
    assert where(daemon) == dict.fromkeys(placed, ("node2", "node1", "running"))
    out = run(daemon, "gnt-node evacuate -f -s node1")
    assert "All instances evacuated successfully." in out
    assert where(daemon) == dict.fromkeys(placed, ("node2", "node3", "running"))


def test_groups(daemon: DaemonProcess, placed: Places) -> None:
    """gnt-group evacuates a group into another one, and back into the one that is left."""
    out = run(daemon, "gnt-group evacuate -I hail --to rack2 default")
    assert "All instances evacuated successfully." in out
    assert {frozenset(nodes[:2]) for nodes in where(daemon).values()} == {
        frozenset(("node4", "node5"))
    }
    run(daemon, "gnt-group evacuate rack2")
    there = {node for nodes in where(daemon).values() for node in nodes}
    assert there <= {"node1", "node2", "node3", "running"}


def test_balance(daemon: DaemonProcess, placed: Places) -> None:
    """Hbal carries out its own plan, after which it finds nothing better."""
    out = run(daemon, "hbal -L -X -G default")
    assert "Got job IDs" in out
    assert {"node3"} <= {node for nodes in where(daemon).values() for node in nodes}
    assert {status for *_, status in where(daemon).values()} == {"running"}
    assert "No solution found" in run(daemon, "hbal -L -X -G default")


def test_repair(daemon: DaemonProcess, placed: Places) -> None:
    """Harep fails over what was on a dead node, and gives it a new secondary."""
    run(daemon, "gnt-cluster add-tags ganeti:watcher:autorepair:failover")
    switch(daemon, "power node2 off")
    run(daemon, "gnt-node modify -f -O yes node2")
    for _ in range(2):
        run(daemon, "harep -L --job-delay=0")
        jobs_end(daemon.client())
    found = where(daemon)
    assert {status for *_, status in found.values()} == {"running"}, found
    assert not any("node2" in nodes for nodes in found.values()), found
    assert "Healthy: 3" in run(daemon, "harep -L")
    run(daemon, "gnt-cluster remove-tags ganeti:watcher:autorepair:failover")
    switch(daemon, "power node2 on")
    run(daemon, "gnt-node modify -f -O no -C yes node2")


def test_power(daemon: DaemonProcess, placed: Places) -> None:
    """An emergency power off stops the nodes' instances, then the nodes; hsqueeze likewise."""
    out = run(daemon, "gnt-cluster epo -f node2 node3")
    assert "All instances have been stopped successfully" in out
    assert {status for *_, status in where(daemon).values()} == {"ERROR_down"}
    powered = "gnt-node list --no-headers --separator=: -o name,powered,offline"
    assert run(daemon, powered).split()[1:3] == ["node2:N:N", "node3:N:N"]
    # That nodes are there again gnt-cluster epo --on finds out by addresses of their own.
    run(daemon, "gnt-node power -f --power-delay=0 on node2 node3")
    run(daemon, "gnt-instance startup --all --force-multiple")
    assert where(daemon) == {name: (*nodes, "running") for name, nodes in placed.items()}
    out = run(daemon, "hsqueeze -L -X")
    squeezed = re.findall(r"(?m)^node\d$", out)
    assert {"node4", "node5"} <= set(squeezed)
    jobs_end(daemon.client())
    states = dict(line.split(":", 1) for line in run(daemon, powered).split())
    assert {states[node] for node in squeezed} == {"N:Y"}
    assert {state for node, state in states.items() if node not in squeezed} == {"Y:N"}
    run(daemon, f"gnt-node power -f --power-delay=0 on {' '.join(squeezed)}")
    for node in squeezed:
        run(daemon, f"gnt-node modify -f -O no {node}")


def test_remote_api(daemon: DaemonProcess, placed: Places, module_folder: Path) -> None:
    """The remote API's own client migrates, fails over, replaces disks and evacuates."""
    require("ganeti-rapi", "ganeti-3.0")
    certificate = module_folder / "rapi.pem"
    pki.identity("rapi").write(str(certificate))
    certificate.chmod(0o644)
    options = (f"--ssl-key={certificate}", f"--ssl-cert={certificate}")
    with remote_api(daemon, USERS, *options) as port:
        rapi = RapiClient(port, "tester", "secret")
        replace: dict[str, Any] = {"mode": "replace_new_secondary", "remote_node": "node3"}
        answers = rapi.calls(
            ("MigrateInstance", ["one"], {"mode": "live"}),
            ("FailoverInstance", ["one"], {}),
            ("MigrateInstance", ["one"], {"cleanup": True}),
            ("ReplaceInstanceDisks", ["one"], {"mode": "replace_auto"}),
            ("ReplaceInstanceDisks", ["one"], {"mode": "replace_on_secondary", "disks": [0]}),
            ("ReplaceInstanceDisks", ["one"], replace),
            ("FailoverInstance", ["two"], {"ignore_consistency": True}),
            ("MigrateNode", ["node2"], {"mode": "live"}),
            ("EvacuateNode", ["node1"], {"mode": "primary-only", "iallocator": "hail"}),
            ("EvacuateNode", ["node1"], {"mode": "secondary-only", "iallocator": "hail"}),
        )
        assert [answer["status"] for answer in answers] == ["success"] * len(answers), answers
        jobs_end(daemon.client())
        (elsewhere,) = {"node1", "node2", "node3"} - set(where(daemon)["one"])
        refused, unknown = rapi.calls(
            ("MigrateInstance", ["one"], {"target_node": elsewhere}),
            ("FailoverInstance", ["nowhere"], {}),
        )
    assert refused["status"] == "error"
    assert "cannot be migrated to arbitrary nodes" in refused["opresult"][0][1][0]
    assert unknown["status"] == "error" or unknown["code"] == 404
    found = where(daemon)
    assert {status for *_, status in found.values()} == {"running"}, found
    assert not any("node1" in nodes for nodes in found.values()), found
