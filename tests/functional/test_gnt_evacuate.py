"""Debian's own gnt-node, gnt-group and gnt-instance move many instances with the daemon.

On simulated nodes in two groups. Exit codes and output are those that Ganeti 3.0.2 gave for the
same commands (recorded once), but for what docs/differences.rst names, up to the jobs that are
submitted.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

import ganeti_masterd.simulation
from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.conftest import require
from tests.functional.gnt import Said

#: Five nodes in two groups with all kinds of storage, as those of the recording.
CLUSTER = Path(ganeti_masterd.simulation.__file__).with_name("clusters") / "recorded.toml"

ADD = "gnt-instance add --no-ip-check --no-name-check --no-nics -o demo+plain"


#: Has no instance moved, so that all tests find them in the same place.
STAY = json.dumps([["opcode", ["=~", "OP_ID", "OP_INSTANCE_(FAILOVER|MIGRATE|REPLACE_DISKS)"]]])

WALK = "INSTANCE_REPLACE_DISKS({0}),INSTANCE_MIGRATE({0}),INSTANCE_REPLACE_DISKS({0})"


@pytest.fixture(scope="module")
def daemon(module_folder: Path) -> Iterator[DaemonProcess]:
    """A cluster with two mirrored instances, one on plain disks and one without disks."""
    require("gnt-instance", "ganeti-3.0")
    require("/usr/lib/ganeti/iallocators/hail", "ganeti-htools-3.0")
    with DaemonProcess(module_folder / "node1", nodes=str(CLUSTER)) as daemon:
        for command in (
            f"{ADD} -t drbd --disk 0:size=64M -n node1:node2 instance1",
            f"{ADD} -t drbd --disk 0:size=64M -n node3:node2 instance7",
            f"{ADD} -t plain --disk 0:size=64M -n node4 instance4",
            f"{ADD} -t diskless --no-install --no-start -n node1 instance5",
            f"gnt-filter add --predicates={shlex.quote(STAY)} --action REJECT",
        ):
            done = gnt(daemon, command)
            assert done.code == 0, done
        yield daemon


def gnt(daemon: DaemonProcess, command: str) -> Said:
    """Runs a command line of the tools; returns what it says without times."""
    done = daemon.tool(shlex.split(command))
    out = re.sub(r"(?m)^\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4} ", "", done.stdout)
    return Said(done.returncode, out, done.stderr)


def moved(where: str, *, jobs: int = 0, what: str = "") -> list[str]:
    """Returns the lines on what an allocator found."""
    lines = [f" - INFO: Instances to be moved: {where}"]
    return [*lines, f" - INFO: Iallocator returned {jobs} job(s) for {what}"] if what else lines


CHANGED = moved("instance1 (to rack2)", jobs=1, what="changing group of instance 'instance1'")
OFF_NODE2 = " - INFO: Evacuating instances from node 'node2': instance1, instance7"
OFF_DEFAULT = moved(
    "instance1 (to rack2), instance5 (to rack2), instance7 (to rack2)",
    jobs=3,
    what="evacuating node group default",
)
LEFT = [WALK.format("instance1"), WALK.format("instance7"), "INSTANCE_MIGRATE(instance5)"]


@pytest.mark.parametrize(
    ("command", "lines", "jobs"),
    [
        (
            "gnt-node evacuate -f -s -I hail node2",
            [OFF_NODE2, *moved("instance1 (to node1, node3), instance7 (to node3, node1)")],
            ["INSTANCE_REPLACE_DISKS(instance1)", "INSTANCE_REPLACE_DISKS(instance7)"],
        ),
        (
            "gnt-node evacuate -f -s --early-release node2",
            [OFF_NODE2, *moved("instance1 (to node1, node3), instance7 (to node3, node1)")],
            ["INSTANCE_REPLACE_DISKS(instance1)", "INSTANCE_REPLACE_DISKS(instance7)"],
        ),
        (
            "gnt-node evacuate -f -s -n node4 node2",
            [OFF_NODE2],
            ["INSTANCE_REPLACE_DISKS(instance1)", "INSTANCE_REPLACE_DISKS(instance7)"],
        ),
        (
            "gnt-node evacuate -f -p -I hail node3",
            [
                " - INFO: Evacuating instances from node 'node3': instance7",
                *moved("instance7 (to node2, node3)"),
            ],
            ["INSTANCE_MIGRATE(instance7)"],
        ),
        (
            "gnt-node migrate -f node1",
            [],
            ["INSTANCE_MIGRATE(instance1)", "INSTANCE_MIGRATE(instance5)"],
        ),
        (
            "gnt-node migrate -f --non-live -n node2 node3",
            [],
            ["INSTANCE_MIGRATE(instance7)"],
        ),
        (
            "gnt-instance change-group --to rack2 -I hail instance1",
            CHANGED,
            [WALK.format("instance1")],
        ),
        ("gnt-instance change-group instance1", CHANGED, [WALK.format("instance1")]),
        ("gnt-group evacuate --to rack2 default", OFF_DEFAULT, LEFT),
        ("gnt-group evacuate -I hail default", OFF_DEFAULT, LEFT),
        (
            "gnt-group evacuate --sequential --force-failover default",
            [
                *OFF_DEFAULT,
                " - INFO: Will insist on failovers",
                " - INFO: Jobs will be submitted to run sequentially",
            ],
            [each.replace("MIGRATE", "FAILOVER") for each in LEFT],
        ),
    ],
)
def test_submitted(daemon: DaemonProcess, command: str, lines: list[str], jobs: list[str]) -> None:
    """The tool tells what will be moved, and waits for the jobs that do it."""
    said = gnt(daemon, command)
    before, submitted, rest = said.out.partition("Submitted jobs ")
    assert submitted, said
    assert before == "".join(f"{line}\n" for line in lines)
    numbers = rest.splitlines()[0].replace(",", "")
    listed = gnt(daemon, f"gnt-job list --no-headers -o summary {numbers}")
    assert sorted(line.strip() for line in listed.out.splitlines()) == sorted(jobs), listed


def refused(text: str, kind: str = "wrong_input") -> str:
    """Returns how the tools tell of an ``OpPrereqError``."""
    return f"Failure: prerequisites not met for this operation:\nerror type: {kind}, {text}\n"


PLAIN = "Unable to evacuate instances instance4 (Instances of type plain cannot be relocated)"


@pytest.mark.parametrize(
    ("command", "out", "error"),
    [
        (
            "gnt-node evacuate -f -p -I hail node4",
            f" - INFO: Evacuating instances from node 'node4': instance4\n - WARNING: {PLAIN}\n",
            f"Failure: command execution error:\n{PLAIN}\n",
        ),
        (
            "gnt-group evacuate rack2",
            f" - WARNING: {PLAIN}\n",
            f"Failure: command execution error:\n{PLAIN}\n",
        ),
        (
            "gnt-node evacuate -f -I hail node2",
            "",
            "Due to an issue with the iallocator interface it is not possible to evacuate all "
            "instances at once; specify explicitly whether to evacuate primary or secondary "
            "instances\n",
        ),
        (
            "gnt-node evacuate -f -s -n node3 node2",
            f"{OFF_NODE2}\n",
            "Node node3 is the primary node of instance instance7, cannot use it as secondary\n",
        ),
        (
            "gnt-node migrate -f -n node3 node3",
            "",
            "Node node3 can't be the target of its own instances\n",
        ),
        ("gnt-instance change-group --to default instance1", "", "used by the instance"),
        (
            "gnt-instance change-group --to nosuch instance1",
            "",
            refused("error details:\nNode group 'nosuch' not found", "unknown_entity"),
        ),
        ("gnt-group evacuate --to default default", "", "can not be used as a target group"),
        (
            "gnt-group evacuate nosuch",
            "",
            refused("error details:\nNode group 'nosuch' not found", "unknown_entity"),
        ),
    ],
)
def test_refused(daemon: DaemonProcess, command: str, out: str, error: str) -> None:
    """The tool says why nothing is submitted."""
    said = gnt(daemon, command)
    assert (said.code, said.out) == (1, out), said
    assert error in said.err, said


def test_nothing_to_do(daemon: DaemonProcess) -> None:
    """A group without instances is evacuated already."""
    for command in ("gnt-group add empty", "gnt-group assign-nodes empty node5"):
        assert gnt(daemon, command).code == 0
    said = gnt(daemon, "gnt-group evacuate empty")
    assert said == Said(
        0,
        " - INFO: No instances to evacuate from node group empty\n"
        "All instances evacuated successfully.\n",
        "",
    )
    for command in ("gnt-group assign-nodes rack2 node5", "gnt-group remove empty"):
        assert gnt(daemon, command).code == 0
