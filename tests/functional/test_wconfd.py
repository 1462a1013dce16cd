"""The socket of wconfd, asked by Debian's own ``gnt-debug wconfd`` and ``gnt-cluster destroy``."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.conftest import need_peer, require
from tests.functional.realcluster import RealCluster, real_cluster
from tests.functional.waiting import job_is, jobs_end, process_ends, until

#: Reads the configuration as Ganeti's own commands do, and sends it through its objects.
ROUND_TRIP = """
import json, sys
sys.path.insert(0, "/usr/share/ganeti/3.0")
from ganeti import objects, wconfd
read = wconfd.Client().ReadConfig()
config = objects.ConfigData.FromDict(json.loads(json.dumps(read)))
config.UpgradeConfig()
print(json.dumps([read, config.ToDict()]))
"""

#: Locks the configuration as Ganeti's own tools do, prints what it calls itself, and waits.
LOCKING = """
import json, os, sys
sys.path.insert(0, "/usr/share/ganeti/3.0")
from ganeti import wconfd
from ganeti.utils import livelock
file = livelock.LiveLock("tool")
client = ["tool", file.GetPath(), os.getpid()]
assert wconfd.Client().LockConfig(client, False) is not None
print(json.dumps(client), flush=True)
sys.stdin.read()
"""

Make = Callable[..., DaemonProcess]


def wconfd(daemon: DaemonProcess, *command: str) -> tuple[int, str, str]:
    """Runs ``gnt-debug wconfd``; returns exit code, standard output and error."""
    require("gnt-debug", "ganeti-3.0")
    done = daemon.tool(["gnt-debug", "wconfd", *command])
    return done.returncode, done.stdout, done.stderr


def test_commands_without_locks(make_daemon: Make) -> None:
    """Each prints what it printed with Ganeti 3.0.2's own wconfd."""
    with make_daemon() as daemon:
        assert wconfd(daemon, "echo", "hello") == (0, "Answer: hello\n", "")
        assert wconfd(daemon, "cleanuplocks") == (0, "Stale locks cleaned up.\n", "")
        assert wconfd(daemon, "listalllocks") == (0, "Answer: []\n", "")
        assert wconfd(daemon, "listalllocksowners") == (0, "Answer: []\n", "")
        assert wconfd(daemon, "flushconfig") == (0, "Configuration flushed.\n", "")
        # A fault of this tool, which sends two of the three parts of a client.
        code, out, err = wconfd(daemon, "listlocks", "1")
        assert (code, out) == (1, "")
        assert err.startswith("Unhandled Ganeti error: RPC input: "), err
        assert "malformed client id: " in err
        assert stat.S_IMODE(Path(daemon.paths.wconfd_socket).stat().st_mode) == 0o600


def test_locks_of_a_job(make_daemon: Make) -> None:
    """The locks of a job that runs are listed, in the order of the real one, with their owner."""
    with make_daemon() as daemon:
        client = daemon.client()
        nodes = ["node2", "node3"]
        delay = {"OP_ID": "OP_TEST_DELAY", "duration": 3600.0, "on_master": False}
        job = client.submit_job([{**delay, "on_nodes": nodes, "no_locks": False}])
        job_is(client, job, "running")
        found = [row[0] for row in client.query_nodes(nodes, ["uuid"])]
        names = ["cluster/[lockset]", "cluster/BGL", "node/[lockset]"]
        names += sorted(f"node/{uuid}" for uuid in found)
        assert wconfd(daemon, "listalllocks") == (0, f"Answer: {names}\n", "")
        owner = [job, daemon.paths.pid, daemon.pid]
        owners = [
            [name, [] if "[" in name else [[owner, "shared" if "BGL" in name else "exclusive"]]]
            for name in names
        ]
        assert wconfd(daemon, "listalllocksowners") == (0, f"Answer: {owners}\n", "")
        client.cancel_job(job, kill=True)


def test_locked_by_a_tool(make_daemon: Make) -> None:
    """A tool's lock is listed, a job waits for it, and the death of the tool frees it."""
    require("gnt-cluster", "ganeti-3.0")
    with make_daemon() as daemon:
        environment = {
            "GANETI_ROOTDIR": daemon.paths.root,
            "GANETI_HOSTNAME": Path(daemon.paths.root).name,
        }
        tool = subprocess.Popen(
            ["/usr/bin/python3", "-c", LOCKING],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert tool.stdout is not None
            client = json.loads(tool.stdout.readline())
            assert wconfd(daemon, "listalllocks")[1] == "Answer: ['cluster/config']\n"
            owners = wconfd(daemon, "listalllocksowners")[1]
            assert owners == f"Answer: {[['cluster/config', [[client, 'exclusive']]]]}\n"
            opcode = {"OP_ID": "OP_TAGS_SET", "kind": "cluster", "name": None, "tags": ["job"]}
            job = daemon.client().submit_job([opcode])
            job_is(daemon.client(), job, "running")
            assert wconfd(daemon, "cleanuplocks")[0] == 0  # it lives
            assert wconfd(daemon, "listalllocks")[1].count("cluster/config") == 1
        finally:
            tool.kill()
            tool.communicate()
        assert wconfd(daemon, "cleanuplocks")[0] == 0
        jobs_end(daemon.client())
        assert daemon.tool(["gnt-cluster", "list-tags"]).stdout == "job\n"
        assert "has died and left the configuration locked" in daemon.log_text()


def test_flush(make_daemon: Make) -> None:
    """What a tool was told of is in config.data once the flush is answered."""
    with make_daemon() as daemon:
        for number in range(5):
            daemon.tool(["gnt-cluster", "add-tags", f"tag{number}"]).check_returncode()
            assert wconfd(daemon, "flushconfig")[0] == 0
            written = json.loads(Path(daemon.paths.config).read_bytes())
            assert f"tag{number}" in written["cluster"]["tags"]


def test_configuration_is_whole(make_daemon: Make) -> None:
    """Ganeti's own client reads config.data as it is, and its own objects keep every key of it."""
    require("gnt-cluster", "ganeti-3.0")
    with make_daemon() as daemon:
        daemon.tool(["gnt-cluster", "add-tags", "ünïcode-tag"])
        daemon.tool(["gnt-network", "add", "--network=192.0.2.0/24", "net"]).check_returncode()
        assert wconfd(daemon, "flushconfig")[0] == 0
        done = daemon.tool(["/usr/bin/python3", "-c", ROUND_TRIP])
        assert done.returncode == 0, done.stderr
        read, kept = json.loads(done.stdout)
        assert read == json.loads(Path(daemon.paths.config).read_bytes())
        # As Ganeti's own wconfd answers it: the objects drop this key, and it is always empty.
        assert [group.pop("members") for group in read["nodegroups"].values()] == [[]]
        assert kept == read


def test_destroy_with_simulated_nodes(make_daemon: Make) -> None:
    """The command ends in order, though there is no node daemon that it could ask to stop."""
    require("gnt-cluster", "ganeti-3.0")
    with make_daemon(nodes=1) as daemon:
        done = daemon.tool(["gnt-cluster", "destroy", "--yes-do-it"])
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        assert "Traceback" not in done.stderr
        jobs = daemon.tool(["gnt-job", "list", "--no-headers", "-o", "status,summary"])
        assert jobs.stdout.split()[-2:] == ["success", "CLUSTER_DESTROY"]
        daemon.stop()


def test_destroy_refused(make_daemon: Make) -> None:
    """A cluster with other nodes goes on as it was."""
    require("gnt-cluster", "ganeti-3.0")
    with make_daemon(nodes=2) as daemon:
        done = daemon.tool(["gnt-cluster", "destroy", "--yes-do-it"])
        assert done.returncode == 1
        assert "There are still 1 node(s) in this cluster." in done.stderr
        assert wconfd(daemon, "echo", "alive")[0] == 0


@pytest.fixture
def alone() -> Iterator[RealCluster]:
    """A real cluster of one node, gnt-masterd its master daemon."""
    need_peer()
    with real_cluster(["node1"]) as cluster:
        cluster.take_over()
        yield cluster


def test_destroy_of_a_real_cluster(alone: RealCluster) -> None:
    """The node is left as the real daemons leave it, and a new cluster can be made there."""
    alone.run("gnt-debug delay 0.01").checked()
    pid = alone.pid()
    done = alone.run("gnt-cluster destroy --yes-do-it")
    assert (done.code, done.out, done.err) == (0, "", "")
    process_ends(pid)
    until("noded ends", alone.names, lambda names: "ganeti-noded" not in names)
    assert set(alone.names()) <= {"sshd"}
    assert "The master daemon has stopped" in alone.log()
    assert "Traceback" not in alone.log()
    left = [path for path in Path(alone.paths.data).rglob("*") if path.is_file()]
    assert {path.name for path in left} <= {"history.db", "journal.db", "journal.tip", "lock"}, left
    assert not Path(alone.paths.socket).exists()
    assert not Path(alone.paths.wconfd_socket).exists()
    assert not Path(alone.paths.pid).exists()

    alone.init()  # daemon-util starts gnt-masterd, which finds no journal of the old cluster
    assert alone.names().count("ganeti-luxid") == 0
    assert alone.pid() != pid
    assert alone.run("gnt-job list --no-headers -o status,summary").checked().out.split() == [
        "success",
        "CLUSTER_POST_INIT",
    ]
