"""Other clients of the real Ganeti: htools, which read the whole cluster, and the remote API."""

from __future__ import annotations

import base64
import json
import re
import shlex
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional import recorded
from tests.functional.conftest import require
from tests.functional.remoteapi import may_connect, remote_api


@pytest.fixture(scope="module")
def daemon(module_folder: Path) -> Iterator[DaemonProcess]:
    """A daemon on the cluster of the first instances, with jobs of two kinds."""
    require("gnt-cluster", "ganeti-3.0")
    # The remote API runs as another user.
    module_folder.chmod(0o755)
    root = module_folder / "node1"
    document = recorded.with_first_instances()
    rich = recorded.rich()
    document.update(networks=rich["networks"], filters=rich["filters"])
    document["filters"].pop("fafa0000-0000-4000-8000-000000000001")  # it pauses jobs
    # hspace itself miscounts where an instance is forthcoming.
    document["instances"] = {
        uuid: one for uuid, one in document["instances"].items() if not one.get("forthcoming")
    }
    recorded.prepare(root, document, running=recorded.FIRST_RUNNING)
    with DaemonProcess(root, *may_connect()) as daemon:
        client = daemon.client()
        for duration in (0.001, 0.0):
            job = client.submit_job([{"OP_ID": "OP_TEST_DELAY", "duration": duration}])
            client.wait_for_job_change(job, ["end_ts"], [None])
        yield daemon


def tool(daemon: DaemonProcess, command: str) -> str:
    """Runs a command that must end well and say nothing on standard error."""
    done = daemon.tool(shlex.split(command))
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


# -- htools ------------------------------------------------------------------------------------


def test_hbal(daemon: DaemonProcess) -> None:
    """Hbal reads nodes, instances and groups from the socket, and finds the cluster sound."""
    require("hbal", "ganeti-htools-3.0")
    done = daemon.tool(["hbal", f"--luxi={daemon.socket}", "-C", "-p"])
    assert done.returncode == 0, done
    out = done.stdout
    assert "Loaded 3 nodes, 6 instances\n" in out
    assert "Group size 3 nodes, 6 instances\nSelected node group: default\n" in out
    assert "Initial check done: 0 bad nodes, 0 bad instances.\n" in out
    # Memory: in all, the node's own, its instances'; unknown; free.
    for row in ("node1 65536 1024 256 0 64256", "node3 65536 1024 0 0 64512"):
        assert f" {row} " in re.sub(" +", " ", done.stderr), done.stderr
    # The same by the tools' own way to the socket.
    assert "Loaded 3 nodes, 6 instances\n" in tool(daemon, "hbal -L")


def test_hspace(daemon: DaemonProcess) -> None:
    """Hspace computes how many more instances fit, from the live room on the nodes."""
    require("hspace", "ganeti-htools-3.0")
    out = tool(daemon, f"hspace --luxi={daemon.socket} --machine-readable")
    values = dict(line.split("=", 1) for line in out.splitlines() if "=" in line)
    assert values["HTS_OK"] == "1", out
    assert values["HTS_CLUSTER_NODES"] == "3"
    assert values["HTS_INI_INST_CNT"] == "6"
    assert float(values["HTS_CLUSTER_MEM"]) == 3 * 65536


def test_hinfo(daemon: DaemonProcess) -> None:
    """Hinfo shows the cluster and its score."""
    require("hinfo", "ganeti-htools-3.0")
    out = tool(daemon, f"hinfo --luxi={daemon.socket}")
    assert "Loaded 3 nodes, 6 instances, 1 node group\n" in out
    assert re.search(r"(?m)^Cluster score: \d", out), out


def test_gnt_cluster_info(daemon: DaemonProcess) -> None:
    """The cluster's parameters are shown as they were recorded."""
    out = tool(daemon, "gnt-cluster info")
    lines = out.splitlines()
    for line in (
        "Cluster name: cluster",
        "Cluster UUID: f364ed65-1a20-4523-8f28-4065a3c209c5",
        "Creation time: 2026-11-24 02:25:43",
        "Master node: node1",
        "Default hypervisor: fake",
        "Enabled hypervisors: fake",
        "  maximal number of jobs simultaneously tracked by the scheduler: 30",
        "  master netdev: lo",
        "  lvm volume group: None",
        "  default instance allocator: hail",
        "  enabled disk templates: diskless, file",
        "    maxmem: 128",
        "    link: 100",
        "  allowed disk templates: diskless, file",
        "    interval: 5.000s",
    ):
        assert line in lines, out


# -- the remote API ------------------------------------------------------------------------------


Get = Callable[..., Any]


@pytest.fixture(scope="module")
def rapi(daemon: DaemonProcess) -> Iterator[Get]:
    """Runs ganeti-rapi beside the daemon; gives what a path answers."""
    login = base64.b64encode(b"tester:password").decode()

    def get(path: str, code: int = 200) -> Any:
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}")
        request.add_header("Authorization", f"Basic {login}")
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:
                status, body = reply.status, reply.read()
        except urllib.error.HTTPError as error:
            with error:
                status, body = error.code, error.read()
        assert status == code, body
        return json.loads(body)

    # Some resources are only for those who name themselves.
    with remote_api(daemon, "tester password read\n", "--no-ssl") as port:
        yield get


def names(rows: list[dict[str, Any]], key: str = "id") -> list[str]:
    """The names in a list of links or objects."""
    return [row[key] for row in rows]


NODES = ["node1", "node2", "node3"]
INSTANCES = [f"instance{number}" for number in range(1, 7)]


def test_rapi_info(rapi: Get) -> None:
    """The cluster's information, features and tags."""
    info = rapi("/2/info")
    assert (info["name"], info["master"]) == ("cluster", "node1")
    assert info["software_version"] == "3.0.2"
    assert rapi("/2/tags") == []
    assert "node-migrate-reqv1" in rapi("/2/features")
    assert rapi("/version") == 2


def test_rapi_nodes(rapi: Get) -> None:
    """Nodes, one by one and in bulk, with live values; role and tags."""
    assert names(rapi("/2/nodes")) == NODES
    bulk = rapi("/2/nodes?bulk=1")
    assert names(bulk, "name") == NODES
    assert [node["mtotal"] for node in bulk] == [65536] * 3
    assert [node["pinst_list"] for node in bulk] == [
        ["instance1", "instance5"],
        ["instance2", "instance4"],
        ["instance3", "instance6"],
    ]
    # One by one there is a field more, which the remote API itself adds.
    assert rapi("/2/nodes/node2") == {**bulk[1], "secondary_ip": "198.51.100.11"}
    assert rapi("/2/nodes/node1/role") == "master"
    assert rapi("/2/nodes/node3/role") == "master-candidate"
    assert rapi("/2/nodes/node2/tags") == []
    rapi("/2/nodes/nosuch", 404)


def test_rapi_instances(rapi: Get) -> None:
    """Instances, one by one and in bulk, with live values and consoles."""
    assert names(rapi("/2/instances")) == INSTANCES
    bulk = rapi("/2/instances?bulk=1")
    assert names(bulk, "name") == INSTANCES
    assert [row["status"] for row in bulk if row["oper_state"]] == ["running"] * 3
    assert rapi("/2/instances/instance4") == bulk[3]
    assert bulk[4]["disk.sizes"] == [16, 16]
    assert rapi("/2/instances/instance1/tags") == []
    assert rapi("/2/instances/instance1/console")["instance"] == "instance1"
    rapi("/2/instances/nosuch", 404)


def test_rapi_groups_and_networks(rapi: Get) -> None:
    """Groups and networks, one by one and in bulk."""
    assert names(rapi("/2/groups"), "name") == ["default"]
    (group,) = rapi("/2/groups?bulk=1")
    assert (group["node_cnt"], sorted(group["node_list"])) == (3, NODES)
    assert rapi("/2/groups/default") == group
    assert rapi("/2/groups/default/tags") == []
    rapi("/2/groups/nosuch", 404)
    assert sorted(names(rapi("/2/networks"), "name")) == ["net10", "net2"]
    networks = rapi("/2/networks?bulk=1")
    assert [network["gateway"] for network in networks] == [None, "192.0.2.1"]
    assert rapi("/2/networks/net10") == networks[1]
    assert rapi("/2/networks/net10/tags") == ["n1"]
    rapi("/2/networks/nosuch", 404)


def test_rapi_jobs_and_filters(rapi: Get) -> None:
    """Jobs, filter rules and operating systems."""
    jobs = rapi("/2/jobs")
    assert {int(name) for name in names(jobs)} >= {1, 2}
    bulk = rapi("/2/jobs?bulk=1")
    assert [job["status"] for job in bulk if job["id"] in (1, 2)] == ["success", "error"]
    assert rapi("/2/jobs/1")["summary"] == ["TEST_DELAY(1.0e-3)"]
    # A job that isn't there is no error, as with the real daemon.
    missing = rapi("/2/jobs/999999")
    assert missing == {**dict.fromkeys(missing), "id": 999999}
    (rule,) = rapi("/2/filters?bulk=1")
    assert rule["action"] == ["RATE_LIMIT", 4]
    assert rapi(f"/2/filters/{rule['uuid']}") == rule
    assert rapi("/2/os") == ["noop"]


def test_rapi_queries(rapi: Get) -> None:
    """Every resource can be queried with any fields, and its fields be listed."""
    answer = rapi("/2/query/node?fields=name,role,nosuch")
    assert answer["data"][1] == [[0, "node2"], [0, "C"], [1, None]]
    keys = {"network": "name", "lock": "name", "job": "id", "export": "node", "filter": "uuid"}
    for resource in ("node", "instance", "group", *keys):
        fields = rapi(f"/2/query/{resource}/fields")["fields"]
        assert [field["name"] for field in fields] == list(recorded.fields_of(resource))
        answer = rapi(f"/2/query/{resource}?fields={keys.get(resource, 'name')}")
        assert answer["data"] or resource == "lock"
