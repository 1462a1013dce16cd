"""gnt-instance reinstall and rename, Debian's own tools, on simulated nodes.

What is expected was read off the real daemon 3.0.2 and its tools; ``docs/differences.rst`` says
where ours differs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.conftest import need_peer, require
from tests.functional.gnt import Gnt, Said, on
from tests.functional.realcluster import real_cluster

RECORDED = str(files("ganeti_masterd") / "simulation" / "clusters" / "recorded.toml")

VARYING = re.compile(
    r"(?m)^\w{3} \w{3} +\d+ [\d:]+ \d{4} |\b(?<=Job )\d+|(?<=job )\d+|(?<=after )\d+s"
)

ADD = "gnt-instance add --no-ip-check --no-name-check --no-start --net 0:mode=routed,ip=192.0.2.1 "
RENAME = "gnt-instance rename -f --no-ip-check --no-name-check "
RUNNING = " - INFO: Running instance OS create scripts...\n"
FINISHED = " - INFO: Instance OS create scripts have finished after N\n"


def plain(text: str) -> str:
    """Returns output without what differs from run to run."""
    return VARYING.sub(lambda found: "" if "20" in found[0] else "N", text)


@pytest.fixture(scope="module")
def daemon(module_folder: Path) -> Iterator[DaemonProcess]:
    """A daemon on the recorded cluster, with one instance on files that is down."""
    require("gnt-instance", "ganeti-3.0")
    with DaemonProcess(module_folder / "node1", nodes=RECORDED) as started:
        said = on(started)(f"{ADD} -t file -s 16M -n node3 -o demo+plain -O fs=ext4 instance1")
        assert said.code == 0, said
        yield started


@pytest.fixture
def gnt(daemon: DaemonProcess) -> Gnt:
    """Runs commands on it."""
    return on(daemon, plain)


def failed(kind: str, text: str) -> Said:
    """What a job that fails makes a tool say."""
    waiting = "Waiting for job N for instance1 ...\n"
    return Said(1, waiting, f"Job N for instance1 has failed: Failure: {kind}:\n{text}\n")


def test_reinstall(gnt: Gnt) -> None:
    """Another system, its parameters merged; scripts and nodes may refuse."""
    reinstall = "gnt-instance reinstall -f {} instance1".format
    waiting = "Waiting for job N for instance1 ...\n"
    assert gnt(reinstall("")) == Said(0, waiting + RUNNING + FINISHED)
    said = gnt(reinstall("-o demo+fancy -O dhcp=no --os-parameters-private root_pw=priv"))
    changing = "Changing OS scripts to 'demo+fancy'...\n"
    assert said == Said(0, waiting + changing + RUNNING + FINISHED)
    fields = "gnt-instance list --no-headers --separator=| -o name,os,custom_osparams,status"
    assert gnt(f"{fields} instance1").out.startswith("instance1|demo+fancy|")
    shown = gnt(f"{fields} instance1").out
    assert ("fs" in shown, "dhcp" in shown, "priv" in shown) == (True, True, False)
    said = gnt(reinstall("-o nosuch"))
    assert said == failed(
        "prerequisites not met for this operation",
        "error type: environment_error, error details:\nOS Parameters validation failed on node "
        "node3: Directory for OS nosuch not found in search path",
    )
    said = gnt(reinstall("-O fs=boom"))
    assert said.code == 1
    assert "Could not install OS for instance 'instance1' on node 'node3': " in said.err
    assert "instance instance1 is down, and what is on its disks may be neither" in said.err
    assert gnt(reinstall("-O fs=default")).code == 0


def test_rename(gnt: Gnt) -> None:
    """There and back; the paths go with the name."""
    said = gnt(RENAME + "instance1 instance11")
    script = " - INFO: Running instance OS rename script...\n"
    assert said == Said(0, script + "Instance 'instance1' renamed to 'instance11'\n")
    info = gnt("gnt-instance info instance11").out
    assert "/file-storage/instance11/" in info
    assert "/instance1/" not in info
    assert gnt("gnt-instance startup instance11").code == 0
    assert gnt(RENAME + "instance11 instance1") == Said(
        1,
        "",
        "Failure: prerequisites not met for this operation:\n"
        "error type: wrong_state, error details:\n"
        "Instance 'instance11' is marked to be up, cannot rename\n",
    )
    assert gnt("gnt-instance shutdown instance11").code == 0
    assert gnt(RENAME + "instance11 instance1").code == 0
    verified = gnt("gnt-cluster verify").out
    assert "* Verifying orphan volumes" in verified
    assert "instance1" not in verified


def test_real_nodes() -> None:
    """Real node daemons take the calls, and have the files where the configuration says."""
    need_peer()
    with real_cluster() as cluster:
        cluster.take_over()
        options = "--no-ip-check --no-name-check --no-start -o noop --no-nics"
        cluster.run(f"gnt-instance add {options} -t file -s 16M -n node2 instance1").checked()
        cluster.run("gnt-instance reinstall -f -O a=b instance1").checked()
        cluster.run(RENAME + "instance1 instance11").checked()
        info = cluster.run("gnt-instance info instance11").checked().out
        (path,) = set(re.findall(r"'(/\S*/instance11/\S*disk0)'", info))
        assert Path(path).exists()
        assert not Path(path.replace("/instance11/", "/instance1/")).parent.exists()
        cluster.run("gnt-instance startup instance11").checked()
        said = cluster.run("gnt-instance reinstall -f instance11")
        assert "Instance 'instance11' is marked to be up, cannot reinstall" in said.err
