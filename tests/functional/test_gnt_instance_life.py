"""Debian's own gnt-instance and ganeti-watcher against the daemon on simulated nodes.

Instances are started, stopped, rebooted, looked at, and brought back by the watcher. Exit codes
and output are those that Ganeti 3.0.2 gave for the same commands (recorded once), but for what
docs/differences.rst names.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock

from ganeti_masterd.config.document import encode
from ganeti_masterd.config.objects import Nic
from ganeti_masterd.simulation.cluster import SimulatedNodes
from ganeti_masterd.startup import simulated_root
from ganeti_masterd.startup.configuration import read_config
from ganeti_masterd.startup.paths import Paths
from ganeti_masterd.testing.context import SynchronousContext
from ganeti_masterd.testing.daemon import DaemonProcess
from ganeti_masterd.timing import Timers
from tests.functional.conftest import require
from tests.functional.waiting import job_is, until
from tests.logical_units.instances.scene import make_instance

#: Where the watcher finds what starts the other daemons of a master.
DAEMON_UTIL = "/usr/lib/ganeti/daemon-util"


class Said(NamedTuple):
    """What a command did: exit code, standard output and error."""

    code: int
    out: str = ""
    err: str = ""


def prepare(root: Path) -> None:
    """Makes a root of three nodes with four instances, shut down, and their disks."""
    paths = Paths(str(root))
    simulated_root.prepare(paths, 3)
    nodes = SimulatedNodes(
        Timers(Clock()), root=str(root), master="node1", in_disk_thread=maybeDeferred
    )
    nodes.start()
    ctx = SynchronousContext(read_config(paths), nodes)
    nic = Nic(mac="aa:00:00:00:00:01", uuid="00000000-0000-4000-8000-000000000001")
    for number, template, at, tags in (
        (1, "drbd", ("node1", "node2"), ("prod",)),
        (2, "plain", ("node2",), ("prod",)),
        (3, "file", ("node3",), ()),
        (4, "diskless", ("node2",), ()),
    ):
        make_instance(
            ctx,
            f"instance{number}",
            template,
            at,
            uuid=f"00000000-0000-4000-8000-00000000010{number}",
            tags=tags,
            nics=[nic] if number == 1 else (),
            osparams_private={"password": "geheim"},
        )
    nodes.close()
    Path(paths.config).write_bytes(encode(ctx.snapshot()))
    simulated_root.write_ssconf(paths, ctx.snapshot())


@pytest.fixture
def daemon(folder: Path) -> Iterator[DaemonProcess]:
    """A new cluster for each test."""
    require("gnt-instance", "ganeti-3.0")
    prepare(folder / "node1")
    with DaemonProcess(folder / "node1") as daemon:
        yield daemon


def normal(text: str) -> str:
    """Returns output without what differs from run to run."""
    text = re.sub(r"\b\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}\b", "DATE", text)
    text = re.sub(r"\b(jobs?) \d+(, \d+)*", r"\1 N", text, flags=re.IGNORECASE)
    return re.sub(r"(?m) +$", "", text)


def gnt(daemon: DaemonProcess, command: str) -> Said:
    """Runs a command line of the tools."""
    done = daemon.tool(shlex.split(command))
    return Said(done.returncode, normal(done.stdout), normal(done.stderr))


def throw(daemon: DaemonProcess, *words: str) -> None:
    """Throws a switch of the simulated cluster."""
    done = daemon.tool([sys.executable, "-m", "ganeti_masterd.simulation", *words])
    assert done.returncode == 0, done.stderr


def waited(number: int, *lines: str, failed: str = "") -> Said:
    """Returns what a command says that waits for a job on an instance."""
    out = "".join(f"{line}\n" for line in (f"Waiting for job N for instance{number} ...", *lines))
    if not failed:
        return Said(0, out)
    return Said(1, out, f"Job N for instance{number} has failed: {failed}\n")


def refused(text: str, code: str) -> str:
    """Returns how the tools tell of an ``OpPrereqError``."""
    return (
        "Failure: prerequisites not met for this operation:\n"
        f"error type: {code}, error details:\n{text}"
    )


def failed(text: str) -> str:
    """Returns how the tools tell of an ``OpExecError``."""
    return f"Failure: command execution error:\n{text}"


def states(*found: str) -> Said:
    """Returns a list of the instances' states."""
    rows = "".join(f"instance{number} {state}\n" for number, state in enumerate(found, 1))
    return Said(0, rows)


LIST = 'gnt-instance list --no-headers --separator=" " -o name,status'

ALREADY = "DATE  - INFO: Instance instance{} was already stopped, starting now"

#: Commands one after the other, each with what it says.
STORY: tuple[tuple[str, Said], ...] = (
    (LIST, states("ADMIN_down", "ADMIN_down", "ADMIN_down", "ADMIN_down")),
    ("gnt-instance startup instance1", waited(1)),
    ("gnt-instance startup instance1", waited(1)),
    ("gnt-instance startup --paused instance4", waited(4)),
    ("gnt-instance startup -B vcpus=99 instance4", waited(4)),
    (
        "gnt-instance startup -B bogus=1 instance4",
        waited(4, failed="Parameter Error: Unknown parameter 'bogus'"),
    ),
    (
        "gnt-instance startup -H bogus=1 instance4",
        waited(4, failed="Parameter Error: Unknown parameter 'bogus'"),
    ),
    (
        "gnt-instance startup nosuch",
        Said(
            1,
            "",
            refused("Selection filter does not match any instances", "wrong_input") + "\n",
        ),
    ),
    ("gnt-instance startup --no-remember instance2", waited(2)),
    (LIST, states("running", "ERROR_up", "ADMIN_down", "running")),
    ("gnt-instance shutdown --no-remember instance2", waited(2)),
    ("gnt-instance shutdown --timeout=0 instance1", waited(1)),
    ("gnt-instance shutdown instance1", waited(1)),
    ("gnt-instance startup instance1", waited(1)),
    ("gnt-instance reboot instance1", waited(1)),
    ("gnt-instance reboot --type=soft instance1", waited(1)),
    ("gnt-instance reboot --type=full instance1", waited(1)),
    ("gnt-instance reboot instance2", waited(2, ALREADY.format(2))),
    ("gnt-instance reboot --type=full --shutdown-timeout=3 instance2", waited(2)),
    (
        "gnt-instance console --show-cmd instance1",
        Said(0, "Console not available for fake hypervisor\n"),
    ),
    (
        "gnt-instance startup --force-multiple --all",
        Said(0, "Submitted jobs N\n" + "".join(waited(number).out for number in (1, 2, 3, 4))),
    ),
    (LIST, states("running", "running", "running", "running")),
    (
        "gnt-instance list --no-headers --separator=: "
        "-o name,oper_ram,oper_vcpus,disk_usage,oper_state instance1",
        Said(0, "instance1:128:1:192:Y\n"),
    ),
    (
        'gnt-instance list --no-headers -o name -F \'status == "running" and "prod" in tags\'',
        Said(0, "instance1\ninstance2\n"),
    ),
    (
        "gnt-node modify -O yes node2",
        Said(0, "Modified node node2\n - master_candidate -> False\n - offline -> True\n"),
    ),
    (LIST, states("running", "ERROR_nodeoffline", "running", "ERROR_nodeoffline")),
    (
        "gnt-instance shutdown instance2",
        waited(2, failed=refused("Can't use offline node: node2", "wrong_state")),
    ),
    (
        "gnt-instance shutdown --ignore-offline instance2",
        waited(
            2,
            "DATE  - WARNING: Ignoring offline primary node",
            "DATE  - INFO: Primary node offline, marked instance as stopped",
        ),
    ),
    (
        "gnt-instance startup --ignore-offline instance2",
        waited(
            2,
            "DATE  - WARNING: Ignoring offline primary node",
            "DATE  - INFO: Primary node offline, marked instance as started",
        ),
    ),
)


def test_story(daemon: DaemonProcess) -> None:
    """Each command gives the exit code and the output that it gives with Ganeti 3.0.2."""
    for command, expected in STORY:
        assert (command, gnt(daemon, command)) == (command, expected)


def test_info(daemon: DaemonProcess) -> None:
    """An instance is described with what its nodes say, or without."""
    assert gnt(daemon, "gnt-instance startup instance1").code == 0
    live = gnt(daemon, "gnt-instance info instance1")
    assert (live.code, live.err) == (0, "")
    for line in (
        "- Instance name: instance1",
        "  State: configured to be up, actual state is up",
        "    - primary: node1",
        "    - secondaries: node2 (group default, group UUID ",
        "      MAC: aa:00:00:00:00:01",
        "  Disk template: drbd",
        "    - disk/0: drbd, size 64M",
        "      nodeA: node1, minor=0",
        "      nodeB: node2, minor=0",
        "      on primary: /dev/drbd0 (147:0) in sync, status ok",
        "      on secondary: /dev/drbd0 (147:0) in sync, status ok",
        "        - child 1: plain, size 128M",
    ):
        assert line in live.out
    static = gnt(daemon, "gnt-instance info --static instance1")
    assert "  State: configured to be up\n" in static.out
    assert "on primary" not in static.out
    assert "geheim" not in live.out + static.out
    everything = gnt(daemon, "gnt-instance info --all")
    assert [line for line in everything.out.splitlines() if line.startswith("- Instance")] == [
        f"- Instance name: instance{number}" for number in (1, 2, 3, 4)
    ]


def test_crash(daemon: DaemonProcess) -> None:
    """An instance that died is told as down, and a reboot starts it."""
    assert gnt(daemon, "gnt-instance startup instance1").code == 0
    throw(daemon, "crash", "node1", "instance1")
    one = f"{LIST} instance1"
    assert gnt(daemon, one) == Said(0, "instance1 ERROR_down\n")
    assert gnt(daemon, "gnt-instance reboot instance1") == waited(1, ALREADY.format(1))
    assert gnt(daemon, one) == Said(0, "instance1 running\n")


def test_lost_disk(daemon: DaemonProcess) -> None:
    """An instance whose disk is gone isn't started; it stays marked as up."""
    throw(daemon, "lose-lv", "node2", "instance2")
    done = gnt(daemon, "gnt-instance startup instance2")
    assert done.code == 1
    assert done.err == (f"Job N for instance2 has failed: {failed('Disk consistency error')}\n")
    assert (
        "WARNING: Could not prepare block device disk/0 on node node2 (is_primary=True" in done.out
    )
    assert gnt(daemon, f"{LIST} instance2") == Said(0, "instance2 ERROR_down\n")


def test_killed_start(daemon: DaemonProcess) -> None:
    """A start that is killed while its node takes its time leaves the instance as it was."""
    slow = [{"kind": "delay", "call": "instance_start", "seconds": 3600}]
    Path(daemon.root, "simulation/faults.json").write_text(json.dumps(slow))
    submitted = daemon.tool(["gnt-instance", "startup", "--submit", "instance1"])
    assert submitted.returncode == 0, submitted.stderr
    job = re.findall(r"\d+", submitted.stdout)[-1]
    log = Path(daemon.root, "simulation/calls.log")
    until(
        "all disks are assembled",
        lambda: log.read_text().count("blockdev_assemble"),
        lambda count: count >= 3,
    )
    assert gnt(daemon, f"{LIST} instance1") == Said(0, "instance1 ERROR_down\n")
    assert gnt(daemon, f"gnt-job cancel --kill --yes-do-it {job}").code == 0
    job_is(daemon.client(), int(job), "error")
    assert gnt(daemon, f"{LIST},disks_active instance1") == Said(0, "instance1 ADMIN_down N\n")


def watch(daemon: DaemonProcess, *options: str) -> None:
    """Runs Debian's watcher as a whole, with nothing to start or stop other daemons."""
    Path(daemon.root, "var/lock").mkdir(exist_ok=True)
    script = f'mount --bind /bin/true {DAEMON_UTIL} && exec ganeti-watcher "$@"'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", "--wait-children", *options]
    done = daemon.tool(command)
    log = Path(daemon.root, "var/log/ganeti/watcher.log")
    assert done.returncode == 0, done.stderr + log.read_text()[-3000:]


def jobs(daemon: DaemonProcess) -> list[str]:
    """Returns the summaries of the jobs in the queue that the watcher submitted."""
    client = daemon.client()
    rows = client.query_jobs(None, ["summary", "ops"])
    return [
        ";".join(summary)
        for summary, ops in rows
        if any(source == "gnt:watcher" for op in ops for source, *_ in op.get("reason", ()))
    ]


@pytest.mark.skipif(os.getuid() != 0, reason="a mount of one's own needs root")
def test_watcher(daemon: DaemonProcess) -> None:
    """The watcher brings back what died, leaves alone what is to be down, and can be paused."""
    require("ganeti-watcher", "ganeti-3.0")
    for number in (1, 2, 3):
        assert gnt(daemon, f"gnt-instance startup instance{number}").code == 0
    watch(daemon)
    assert not [job for job in jobs(daemon) if "STARTUP" in job]
    throw(daemon, "crash", "node1", "instance1")
    throw(daemon, "crash", "node2", "instance2")
    assert gnt(daemon, "gnt-cluster watcher pause 1h").code == 0
    watch(daemon)
    assert gnt(daemon, LIST) == states("ERROR_down", "ERROR_down", "running", "ADMIN_down")
    assert gnt(daemon, "gnt-cluster watcher continue").code == 0
    watch(daemon)
    assert gnt(daemon, LIST) == states("running", "running", "running", "ADMIN_down")
    started = [job for job in jobs(daemon) if "STARTUP" in job]
    assert sorted(started) == ["INSTANCE_STARTUP(instance1)", "INSTANCE_STARTUP(instance2)"]
    watch(daemon, "--job-age=0")
    assert not [job for job in jobs(daemon) if "STARTUP" in job]
    status = Path(daemon.root, "var/run/ganeti/instance-status").read_text()
    assert status.splitlines()[:2] == ["instance1 running", "instance2 running"]


@pytest.mark.skipif(os.getuid() != 0, reason="a mount of one's own needs root")
def test_watcher_after_a_reboot(daemon: DaemonProcess) -> None:
    """When a node has rebooted, what ran there is started, and mirrors to it are made ready."""
    require("ganeti-watcher", "ganeti-3.0")
    for number in (1, 2):
        assert gnt(daemon, f"gnt-instance startup instance{number}").code == 0
    watch(daemon)
    # The first run knows no node's boot id, so that each counts as having rebooted.
    before = activating_and_starting(daemon)
    assert before == ["INSTANCE_ACTIVATE_DISKS(instance1)"]
    throw(daemon, "reboot", "node2")
    assert gnt(daemon, f"{LIST} instance1 instance2") == states("running", "ERROR_down")
    watch(daemon)
    assert gnt(daemon, f"{LIST} instance1 instance2") == states("running", "running")
    after = ["INSTANCE_STARTUP(instance2)", "INSTANCE_ACTIVATE_DISKS(instance1)"]
    assert activating_and_starting(daemon) == before + after
    info = gnt(daemon, "gnt-instance info instance1").out
    assert "      on secondary: /dev/drbd0 (147:0) in sync, status ok\n" in info


def activating_and_starting(daemon: DaemonProcess) -> list[str]:
    """Returns the summaries of the watcher's jobs, those that only verify left out."""
    return [job for job in jobs(daemon) if "VERIFY_DISKS" not in job]
