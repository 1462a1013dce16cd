"""Debian's own gnt-instance moves instances between simulated nodes: failover, migrate, move.

``tests/data/gnt_moves.json`` has commands with the exit code and output that Ganeti 3.0.2 gave for
them on a real cluster (recorded once). The daemon says the same, but for what docs/differences.rst
names.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import ganeti_masterd.simulation
from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.conftest import require

#: Five nodes in two groups with all kinds of storage, as those of the recording.
CLUSTER = Path(ganeti_masterd.simulation.__file__).with_name("clusters") / "recorded.toml"

RECORDED = json.loads(
    (Path(__file__).parents[1] / "data" / "gnt_moves.json").read_text(encoding="utf-8")
)

ADD = "gnt-instance add --no-ip-check --no-name-check "

#: The instances of the recording.
INSTANCES = (
    f"{ADD} -t drbd -n node1:node2 -o demo+plain -s 64M --net 0:link=br0 instance1",
    f"{ADD} -t plain -n node1 -o demo+plain -s 64M --no-nics instance2",
    f"{ADD} -t sharedfile -n node1 -o demo+plain -s 32M --no-nics instance3",
    f"{ADD} -t file -n node2 -o noop -s 16M --no-nics instance4",
    f"{ADD} -t diskless -n node2 -o noop --no-nics instance5",
    f"{ADD} -t ext -n node2 -o noop --disk 0:size=32M,provider=filestore --no-nics instance6",
    f"{ADD} -t drbd -n node3:node2 -o noop -s 64M --no-start --no-nics instance7",
)

#: What our daemon says instead of what was recorded: (in the command, recorded, ours).
DIFFERENT = (
    # Disks have an index; a name only where somebody gave them one.
    ("instance6", "instance's disks None from", "instance's disks disk/0 from"),
    # What fails half-way is told with the command that goes on.
    (
        "--cleanup instance1; gnt-instance startup",
        "* instance running on: \n",
        "* instance running on: \n"
        " - WARNING: Cleanup after a migration failed at the step: find the nodes on which "
        "instance1 runs. Nothing is changed\n"
        "      Hint: To go on: gnt-instance migrate --cleanup instance1\n",
    ),
    # Room is looked for before the instance is stopped.
    (
        "fill node1",
        " - INFO: Shutting down instance instance2 on source node node3\n"
        " - WARNING: Device creation failed\n",
        "",
    ),
    ("fill node1", "instance2 node3        ERROR_down", "instance2 node3        running"),
    (
        "fill node1",
        "Failure: command execution error:\n"
        "Can't create block device <LogicalVolume(/dev/xenvg/UUID.disk0, visible as /dev/disk/0, "
        "size=64m)> on node node1 for instance instance2: Can't create block device: Not enough "
        "free space: required 64, available 16.0\n",
        "Failure: prerequisites not met for this operation:\n"
        "error type: insufficient_resources, error details:\n"
        "Not enough disk space on target node node1 vg xenvg: required 64 MiB, available 16 MiB\n",
    ),
)


class Said(NamedTuple):
    """What a command did: exit code, standard output and error."""

    code: int
    out: str = ""
    err: str = ""


@pytest.fixture(scope="module")
def daemon(module_folder: Path) -> Iterator[DaemonProcess]:
    """One cluster for the whole module, whose mirrors are in sync at once."""
    require("gnt-instance", "ganeti-3.0")
    require("/usr/lib/ganeti/iallocators/hail", "ganeti-htools-3.0")
    with DaemonProcess(module_folder / "node1", nodes=str(CLUSTER)) as daemon:
        assert run(daemon, "$BLK sync 0").code == 0
        for command in INSTANCES:
            said = run(daemon, command)
            assert said.code == 0, said
        yield daemon


def run(daemon: DaemonProcess, command: str) -> Said:
    """Runs commands of the shell; returns what they say without what differs from run to run.

    ``$BLK`` throws a switch of the simulated cluster.
    """
    switches = f'BLK="{sys.executable} -m ganeti_masterd.simulation"\n'
    done = daemon.tool(["sh", "-c", switches + command])
    return Said(done.returncode, normal(done.stdout), normal(done.stderr))


def normal(text: str) -> str:
    """Returns output without times, ids of jobs, paths and uuids."""
    text = re.sub(r"(?m)^\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4} ", "", text)
    text = re.sub(r"\b([Jj]obs?) \d+(, \d+)*", r"\1 N", text)
    text = re.sub(r"for file \S+", "for file FILE", text)
    return re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UUID", text)


def expected(entry: dict[str, str | int]) -> Said:
    """Returns what our daemon says to a command that was recorded."""
    out, err = str(entry["out"]), str(entry["err"])
    for part, recorded, ours in DIFFERENT:
        if part in str(entry["command"]):
            out, err = out.replace(recorded, ours), err.replace(recorded, ours)
    return Said(int(entry["code"]), out, err)


def test_recorded(daemon: DaemonProcess) -> None:
    """Each command gives the exit code and the output that it gives with Ganeti 3.0.2."""
    for entry in RECORDED:
        command = entry["command"]
        assert (command, run(daemon, command)) == (command, expected(entry))


def test_dead_node(daemon: DaemonProcess) -> None:
    """An instance is failed over from a dead node, which then comes back."""
    name = "dead.example.com"
    assert run(daemon, f"{ADD} -t drbd -n node2:node3 -o noop -s 64M --no-nics {name}").code == 0
    assert run(daemon, "$BLK power node2 off").code == 0
    refused = run(daemon, f"gnt-instance failover -f {name}")
    assert refused.code == 1
    assert "is degraded on target node, aborting failover" in refused.err
    assert run(daemon, "gnt-node modify -f -O yes node2").code == 0
    done = run(daemon, f"gnt-instance failover -f {name}")
    assert done.code == 0, done
    assert "please make sure node node2 is down" in done.out
    where = f"gnt-instance list --no-headers --separator=' ' -o pnode,status {name}"
    assert run(daemon, where).out == "node3 running\n"
    assert run(daemon, "$BLK power node2 on").code == 0
    assert run(daemon, "gnt-node modify -f -O no node2").code == 0
    assert run(daemon, f"gnt-instance activate-disks {name}").code == 0
    assert run(daemon, f"gnt-instance migrate -f {name}").code == 0
    assert run(daemon, where).out == "node2 running\n"


def test_fails_half_way(daemon: DaemonProcess) -> None:
    """The log says what was taken back; the same command again succeeds."""
    name = "half.example.com"
    add = f"{ADD} -H kvm -t drbd -n node2:node3 -o noop -s 64M --no-nics {name}"
    enabled = run(daemon, "gnt-cluster modify --enabled-hypervisors=fake,kvm")
    assert enabled.code == 0, enabled
    made = run(daemon, add)
    assert made.code == 0, made
    assert run(daemon, f"$BLK fail-migration {name} 0").code == 0
    failed = run(daemon, f"gnt-instance migrate -f {name}")
    assert failed.code == 1
    assert failed.err == (
        "Failure: command execution error:\n"
        f"Could not migrate instance {name}: hypervisor returned failure\n"
    )
    assert failed.out.splitlines()[-1].endswith("What it had done before was taken back")
    assert run(daemon, f"$BLK fail-migration {name} never").code == 0
    assert run(daemon, f"gnt-instance migrate -f {name}").code == 0
    where = f"gnt-instance list --no-headers --separator=' ' -o pnode,status {name}"
    assert run(daemon, where).out == "node3 running\n"
    cleaned = run(daemon, f"gnt-instance migrate -f --cleanup {name}")
    assert "* instance running on: node3\n" in cleaned.out
    assert cleaned.code == 0
