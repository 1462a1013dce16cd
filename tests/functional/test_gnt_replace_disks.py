"""Debian's own gnt-instance replaces disks with the daemon, on simulated nodes that break.

What it says where mirrors are whole ``test_gnt_instances.py`` compares with Ganeti 3.0.2.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import ganeti_masterd.simulation
from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.conftest import require
from tests.functional.gnt import Said

#: Five nodes in two groups with all kinds of storage, as those of the recording.
CLUSTER = Path(ganeti_masterd.simulation.__file__).with_name("clusters") / "recorded.toml"

ADD = "gnt-instance add --no-ip-check --no-name-check --no-nics -o demo+plain"


@pytest.fixture
def daemon(folder: Path) -> Iterator[DaemonProcess]:
    """A cluster with a mirrored instance that runs on node1, and a plain one."""
    require("gnt-instance", "ganeti-3.0")
    with DaemonProcess(folder / "node1", nodes=str(CLUSTER)) as daemon:
        for command in (
            f"{ADD} -t drbd --disk 0:size=256M --disk 1:size=88M -n node1:node2 instance1",
            f"{ADD} -t plain --disk 0:size=64M -n node2 instance2",
        ):
            done = gnt(daemon, command)
            assert done.code == 0, done
        yield daemon


def gnt(daemon: DaemonProcess, command: str) -> Said:
    """Runs a command line of the tools; returns what it says without times and progress."""
    done = daemon.tool(shlex.split(command))
    out = re.sub(r"(?m)^\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4} ", "", done.stdout)
    return Said(done.returncode, re.sub(r"(?m)^( - INFO: - device).*\n", "", out), done.stderr)


def throw(daemon: DaemonProcess, *words: str) -> str:
    """Throws a switch of the simulated cluster; returns what it shows."""
    done = daemon.tool([sys.executable, "-m", "ganeti_masterd.simulation", *words])
    assert done.returncode == 0, done.stderr
    return done.stdout


def head(disks: Sequence[int], secondary: str) -> list[str]:
    """Returns what is said in the beginning."""
    return [
        f"Replacing disk(s) {', '.join(map(str, disks))} for instance 'instance1'",
        "Current primary node: node1",
        f"Current secondary node: {secondary}",
        "STEP 1/6 Check device existence",
    ]


def peer(disks: Sequence[int], node: str) -> list[str]:
    """Returns what is said of the check of the node that has the data."""
    lines = [f" - INFO: Checking disk/{index} consistency on node {node}" for index in disks]
    return ["STEP 2/6 Check peer consistency", *lines]


def synced(removed: Sequence[str]) -> list[str]:
    """Returns what is said in the end."""
    return [
        "STEP 5/6 Sync devices",
        " - INFO: Waiting for instance instance1 to sync disks",
        " - INFO: Instance instance1's disks are in sync",
        "STEP 6/6 Removing old storage",
        *(f" - INFO: Remove logical volumes for {name}" for name in removed),
    ]


def in_place(
    target: str, other: str, disks: Sequence[int] = (0, 1), missing: str = "", before: str = ""
) -> Said:
    """Returns what is said where the volumes of a node are replaced."""
    lines = head(disks, "node2")
    for index in disks:
        lines += [f" - INFO: Checking disk/{index} on {node}" for node in (other, target)]
    lines += [" - INFO: Checking volume groups", *peer(disks, other)]
    lines += ["STEP 3/6 Allocate new storage"]
    lines += [f" - INFO: Adding storage on {target} for disk/{index}" for index in disks]
    lines += ["STEP 4/6 Changing drbd configuration"]
    for index in disks:
        lines += [
            f" - INFO: Detaching disk/{index} drbd from local storage",
            *([f" - INFO: Volumes missing on {target}: {missing}"] if missing else []),
            " - INFO: Renaming the old LVs on the target node",
            " - INFO: Renaming the new LVs on the target node",
            f" - INFO: Adding new mirror component on {target}",
        ]
    lines += synced([] if missing else [f"disk/{index}" for index in disks])
    return Said(0, before + "".join(f"{line}\n" for line in lines))


def refused(text: str, code: str = "wrong_input") -> Said:
    """Returns what is said of an ``OpPrereqError``."""
    return Said(
        1,
        "",
        "Failure: prerequisites not met for this operation:\n"
        f"error type: {code}, error details:\n{text}\n",
    )


REPLACE = "gnt-instance replace-disks"
CHECKED = "".join(
    f" - INFO: Checking disk/{index} on {node}\n" for index in (0, 1) for node in ("node1", "node2")
)


def verified(daemon: DaemonProcess) -> list[str]:
    """Returns what ``gnt-cluster verify`` finds, but for bridges that this cluster lacks."""
    found = gnt(daemon, "gnt-cluster verify").out.splitlines()
    bad = [line for line in found if "ERROR" in line or "WARNING" in line]
    return [line for line in bad if "missing bridges" not in line]


def test_lost_volumes(daemon: DaemonProcess) -> None:
    """Volumes of the secondary are gone: the tools say which, and mend it while it runs."""
    throw(daemon, "lose-lv", "node2", "instance1", "1")
    lost = gnt(daemon, "gnt-cluster verify-disks")
    assert lost.code == 1
    missing = re.findall(r"\t\S+ /dev/(\S+)", lost.out)
    assert [name.rpartition("_")[2] for name in missing] == ["data", "meta"]
    assert "Instance instance1 has missing logical volumes" in lost.out
    before = f"{CHECKED} - INFO: Faulty on node2: disk/1\n"
    expected = in_place("node2", "node1", [1], ", ".join(missing), before)
    assert gnt(daemon, f"{REPLACE} -a instance1") == expected
    done = gnt(daemon, "gnt-cluster verify-disks")
    assert (done.code, done.out.count("Activating disks")) == (0, 0)
    assert verified(daemon) == []


def test_degraded(daemon: DaemonProcess) -> None:
    """verify-disks finds each way in which a mirror can be degraded, and mends it."""
    for command in (
        ("detach", "node2", "instance1"),
        ("disconnect", "node1", "instance1"),
        ("down", "node2", "instance1"),
        ("reboot", "node2"),
    ):
        throw(daemon, *command)
        done = gnt(daemon, "gnt-cluster verify-disks")
        assert "Activating disks for instance 'instance1'" in done.out, command
        assert done.code == 0
        wait = "gnt-instance activate-disks --wait-for-sync instance1"
        assert gnt(daemon, wait).code == 0
        assert "Activating" not in gnt(daemon, "gnt-cluster verify-disks").out.replace(
            "Activating disks for instance 'instance2'", ""
        )


def test_offline_instance(daemon: DaemonProcess) -> None:
    """The disks of one that is marked offline are replaced, and are down before and after."""
    assert gnt(daemon, "gnt-instance shutdown instance1").code == 0
    assert gnt(daemon, "gnt-instance modify --offline instance1").code == 0
    for option in ("-s", "-p", "-a", "-n node3"):
        done = gnt(daemon, f"{REPLACE} {option} instance1")
        assert (done.code, done.err) == (0, ""), option
        assert throw(daemon, "proc", "node1").strip() == ""
    listed = gnt(daemon, "gnt-instance list --no-headers -o status,snodes,disks_active instance1")
    assert listed.out.split() == ["ADMIN_offline", "node3", "N"]
    assert verified(daemon) == []


def test_offline_secondary(daemon: DaemonProcess) -> None:
    """Another secondary node while the old one is offline; what is left there is named."""
    assert gnt(daemon, "gnt-node modify -O yes node2").code == 0
    assert gnt(daemon, f"{REPLACE} -s instance1") == refused(
        "Can't use offline node: node2", "wrong_state"
    )
    done = gnt(daemon, f"{REPLACE} -n node3 instance1")
    assert done.code == 0
    assert "Old secondary node2 is offline, automatically enabling early-release" in done.out
    left = re.findall(r"Can't remove LV (\S+) on node node2: Node is marked offline", done.out)
    assert len(left) == 4
    assert set(left) <= set(re.findall(r"xenvg/\S+?(?=\|)", throw(daemon, "lvs", "node2")))
