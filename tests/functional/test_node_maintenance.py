"""``gnt-luxi node-maintenance`` against the daemon on simulated nodes: there, and back again."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ganeti_masterd.simulation
from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.conftest import require

#: Five nodes in two groups with all kinds of storage.
CLUSTER = Path(ganeti_masterd.simulation.__file__).with_name("clusters") / "recorded.toml"

ADD = "gnt-instance add --no-ip-check --no-name-check --no-nics -o demo+plain"


@pytest.fixture
def daemon(folder: Path) -> Iterator[DaemonProcess]:
    """Node2 is the primary of two instances that can move, and holds the mirror of another."""
    require("gnt-instance", "ganeti-3.0")
    with DaemonProcess(folder / "node1", nodes=str(CLUSTER)) as daemon:
        for command in (
            f"{ADD} -t drbd --disk 0:size=64M -n node2:node3 db",
            f"{ADD} -t drbd --disk 0:size=64M --no-start -n node2:node1 idle",
            f"{ADD} -t drbd --disk 0:size=64M -n node3:node2 web",
        ):
            done = daemon.tool(shlex.split(command))
            assert done.returncode == 0, done
        yield daemon


def maintain(daemon: DaemonProcess, *words: str, code: int = 0) -> Any:
    """Runs the command; returns what it says as JSON."""
    program = "from ganeti_masterd.cli.main import main; main()"
    line = [sys.executable, "-c", program, "--root", str(daemon.root), "--json"]
    done = daemon.tool([*line, "node-maintenance", *words])
    assert done.returncode == code, done
    return json.loads(done.stdout)


def where(daemon: DaemonProcess) -> dict[str, list[str]]:
    """Returns nodes and state of each instance."""
    done = daemon.tool(
        shlex.split("gnt-instance list --no-headers --separator=: -o name,pnode,snodes,status")
    )
    rows = [line.split(":") for line in done.stdout.splitlines()]
    return {name: rest for name, *rest in rows}


def test_there_and_back(daemon: DaemonProcess) -> None:
    """The node is empty, and drained; then all is where it was."""
    before = where(daemon)
    plan = maintain(daemon, "node2", "--plan")["plan"]
    assert [(each["instance"], each["action"]) for each in plan] == [
        ("db", "move"),
        ("idle", "move"),
        ("db", "mirror"),
        ("idle", "mirror"),
        ("web", "mirror"),
    ]
    assert plan[-1]["to"] == "node1"
    assert where(daemon) == before

    said = maintain(daemon, "node2", "--yes")
    assert (said["running"], said["unprotected"], said["may_be_off"]) == ([], [], True)
    after = where(daemon)
    assert [nodes[0] for nodes in after.values()] == ["node3", "node1", "node3"]
    assert all("node2" not in nodes for nodes in after.values())
    # Again: there is nothing left to do.
    assert maintain(daemon, "node2", "--yes")["may_be_off"]

    assert maintain(daemon, "node2", "--undo", "--yes")["missing"] == []
    assert where(daemon) == before
    tags = daemon.tool(["gnt-cluster", "search-tags", "maintenance"])
    assert "maintenance:" not in tags.stdout
    drained = daemon.tool(["gnt-node", "list", "--no-headers", "-o", "drained", "node2"])
    assert drained.stdout.strip() == "N"


def test_what_can_not_move(daemon: DaemonProcess) -> None:
    """An instance on plain disks keeps the node from being switched off, until it is stopped."""
    assert (
        daemon.tool(shlex.split(f"{ADD} -t plain --disk 0:size=64M -n node2 here")).returncode == 0
    )
    said = maintain(daemon, "node2", "--yes", "--keep-mirrors", code=1)
    assert (said["running"], said["may_be_off"]) == (["here"], False)
    assert sorted(said["unprotected"]) == ["db", "idle", "web"]
    assert daemon.tool(["gnt-instance", "shutdown", "here"]).returncode == 0
    assert maintain(daemon, "node2", "--yes", "--keep-mirrors")["may_be_off"]
