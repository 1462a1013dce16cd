"""Debian's own gnt-instance makes instances with the daemon, on simulated nodes.

Exit codes and output are those that Ganeti 3.0.2 gave for the same commands (recorded once), but
for what docs/differences.rst names.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import ganeti_masterd.simulation
from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.conftest import require
from tests.functional.instance_kills import CREATION
from tests.functional.waiting import until

#: Five nodes in two groups with all kinds of storage, as those of the recording.
CLUSTER = Path(ganeti_masterd.simulation.__file__).with_name("clusters") / "recorded.toml"

ADD = "gnt-instance add --no-ip-check --no-name-check --no-nics "


class Said(NamedTuple):
    """What a command did: exit code, standard output and error."""

    code: int
    out: str = ""
    err: str = ""


@pytest.fixture(scope="module")
def daemon(module_folder: Path) -> Iterator[DaemonProcess]:
    """One cluster for the whole module."""
    require("gnt-instance", "ganeti-3.0")
    with DaemonProcess(module_folder / "node1", nodes=str(CLUSTER)) as daemon:
        yield daemon


def gnt(daemon: DaemonProcess, command: str) -> Said:
    """Runs a command line of the tools; returns what it says without times."""
    done = daemon.tool(shlex.split(command))
    out = re.sub(r"(?m)^\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4} ", "", done.stdout)
    return Said(done.returncode, re.sub(r"(?m)^( - INFO: - device).*\n", "", out), done.stderr)


def made(name: str, *, disks: str = "", lines: str = "", after: str = "") -> Said:
    """Returns what is said of an instance that is made, installed and started."""
    script = "* running the instance OS create scripts...\n" if disks or lines else ""
    return Said(
        0,
        f"{disks}* creating instance disks...\nadding instance {name} to cluster config\n"
        f"adding disks to cluster config\n{lines}{script}{after or '* starting instance...'}\n",
    )


def refused(text: str, code: str) -> Said:
    """Returns what is said of a creation that is refused."""
    return Said(
        1,
        "",
        "Failure: prerequisites not met for this operation:\n"
        f"error type: {code}, error details:\n{text}\n",
    )


def synced(name: str) -> str:
    """Returns what is said of mirrors that are waited for."""
    return (
        f" - INFO: Waiting for instance {name} to sync disks\n"
        f" - INFO: Instance {name}'s disks are in sync\n"
    )


#: Commands one after the other, each with what it says.
STORY: tuple[tuple[str, Said], ...] = (
    (
        f"{ADD} -t plain -n node1 -o demo+plain -s 512M -B memory=256,vcpus=2 instance1",
        made("instance1", disks="* disk 0, size 512M\n"),
    ),
    (
        f"{ADD} -t drbd -n node1:node2 -o demo+fancy -s 256M --tags red,blue instance2",
        made("instance2", lines=synced("instance2")),
    ),
    (
        f"{ADD} -t file -n node2 -o demo+plain --disk 0:size=64M --file-storage-dir sub instance3",
        made("instance3", disks="* disk 0, size 64M\n"),
    ),
    (
        f"{ADD} -t ext -n node1 -o demo+plain --disk 0:size=64M,provider=filestore,pool=gold "
        "instance5",
        made("instance5", disks="* disk 0, size 64M\n"),
    ),
    (f"{ADD} -t diskless -n node2 -o demo+plain instance6", made("instance6")),
    (
        f"{ADD} -t plain -n node1 -o demo+plain -s 64M instance1",
        refused("Instance 'instance1' is already in the cluster", "already_exists"),
    ),
    (
        f"{ADD} -t plain -n node1 -o demo -s 64M instance20",
        refused(
            "OS Parameters validation failed on node node1: OS name 'demo' must include a variant",
            "environment_error",
        ),
    ),
    (
        f"{ADD} -t drbd -n node1 -o noop -s 64M instance22",
        refused("The networked disk templates need a mirror node", "wrong_input"),
    ),
    (
        f"{ADD} -t drbd -n node1:node1 -o noop -s 64M instance22",
        refused("The secondary node cannot be the primary node", "wrong_input"),
    ),
    (
        f"{ADD} -t plain -n node1 -o noop --disk 0:size=64M,name=a --disk 1:size=64M,name=a "
        "instance24",
        refused("disk name 'a' already used", "resource_not_unique"),
    ),
    (
        f"{ADD} -t plain -n node1 -o demo+plain -O fs=boom -s 64M instance21",
        Said(
            1,
            "* disk 0, size 64M\n* creating instance disks...\n"
            "adding instance instance21 to cluster config\nadding disks to cluster config\n"
            "* running the instance OS create scripts...\n",
            "Failure: command execution error:\n"
            "Could not add os for instance instance21 on node node1: OS create script failed "
            "(exited with exit code 3), last lines in the log file:\ndemo: told to fail; instance "
            "instance21 is in the cluster, marked to be down, and its operating system is not "
            "installed\n",
        ),
    ),
    (
        f"{ADD} -t plain -n node1 -o noop -s 64M --dry-run instance31",
        Said(0, " - INFO: dry-run mode requested, not actually executing the operation\n"),
    ),
    (
        f"{ADD} -t drbd -n node1:node2 -o demo+plain -s 64M --forthcoming instance31",
        Said(
            0,
            "Instance is forthcoming, not creating disks\n"
            "adding instance instance31 to cluster config\nadding disks to cluster config\n"
            "Instance is forthcoming; not creating the actual instance\n",
        ),
    ),
    (
        f"{ADD} -t drbd -n node1:node2 -o demo+plain -s 64M --commit instance31",
        Said(
            0,
            " - INFO: Nodes of instance instance31: ['node1', 'node2']\n"
            + made("instance31", lines=synced("instance31")).out,
        ),
    ),
    (
        f"{ADD} -t diskless -n node1 -o noop --commit instance32",
        refused("Instance instance32 unknown", "wrong_input"),
    ),
    (
        "gnt-instance list --no-headers --separator=: "
        "-o name,disk_template,pnode,snodes,status,disk.sizes,tags",
        Said(
            0,
            "instance1:plain:node1::running:512:\n"
            "instance2:drbd:node1:node2:running:256:blue,red\n"
            "instance3:file:node2::running:64:\n"
            "instance5:ext:node1::running:64:\n"
            "instance6:diskless:node2::running::\n"
            "instance21:plain:node1::ADMIN_down:64:\n"
            "instance31:drbd:node1:node2:running:64:\n",
        ),
    ),
)


def test_story(daemon: DaemonProcess) -> None:
    """Each command gives the exit code and the output that it gives with Ganeti 3.0.2."""
    for command, expected in STORY:
        assert (command, gnt(daemon, command)) == (command, expected)


def test_allocators(daemon: DaemonProcess) -> None:
    """An allocator decides: hail, among all nodes or among those that are free."""
    require("/usr/lib/ganeti/iallocators/hail", "ganeti-htools-3.0")
    for more in ("-I hail", "--opportunistic-locking -I hail", ""):
        name = f"hailed{len(more)}"
        done = gnt(daemon, f"{ADD} -t plain {more} -o noop -s 64M --no-start {name}")
        assert done.code == 0, done
        assert f" - INFO: Selected nodes for instance {name} via iallocator hail: " in done.out


def test_many(daemon: DaemonProcess, module_folder: Path) -> None:
    """Many instances are placed at once, and made by a job each."""
    common = {"mode": "create", "nics": [], "os_type": "noop"}
    common |= {"name_check": False, "ip_check": False}
    batch = [
        {"instance_name": f"many{number}", "disk_template": "plain", "disks": [{"size": 64}]}
        | common
        for number in range(3)
    ]
    file = module_folder / "batch.json"
    file.write_text(json.dumps(batch), encoding="utf-8")
    done = gnt(daemon, f"gnt-instance batch-create {file}")
    assert (done.code, done.err) == (0, "")
    assert done.out.endswith("All instances created successfully.\n")
    empty = module_folder / "empty.json"
    empty.write_text("[]", encoding="utf-8")
    assert gnt(daemon, f"gnt-instance batch-create {empty}") == refused(
        "There are no instances to be made", "wrong_input"
    )


def test_killed(daemon: DaemonProcess, module_folder: Path) -> None:
    """A creation that is killed while disks are in the making leaves nothing of itself."""
    faults = Path(daemon.root) / "simulation/faults.json"
    rows = gnt(daemon, "gnt-node list --no-headers -o name,dfree,mfree,pinst_cnt")
    volumes = gnt(daemon, "gnt-node volumes --no-headers")
    client = daemon.client()
    faults.write_text(
        json.dumps([{"kind": "delay", "call": "blockdev_getmirrorstatus", "seconds": 60.0}])
    )
    job = client.submit_job(
        [
            {
                **CREATION,
                "instance_name": "doomed",
                "disks": [{"size": 64}],
                "pnode": "node1",
                "snode": "node2",
            }
        ]
    )
    until(
        "the instance is published",
        lambda: "adding disks" in str(client.query_jobs([job], ["oplog"])),
    )
    assert gnt(daemon, f"gnt-job cancel --kill --yes-do-it {job}").code == 0
    gnt(daemon, f"gnt-job wait {job}")
    faults.unlink()
    assert client.query_jobs([job], ["status"]) == [["error"]]
    assert gnt(daemon, "gnt-instance list --no-headers -o name doomed").code != 0
    assert gnt(daemon, "gnt-node volumes --no-headers") == volumes
    assert gnt(daemon, "gnt-node list --no-headers -o name,dfree,mfree,pinst_cnt") == rows
