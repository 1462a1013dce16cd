"""The real hail (Debian's ganeti-htools) as allocator: every mode, asked through a node's call.

Two groups of three nodes; two mirrored instances in the first of them, one on files, one
without disks. hail's answers are read as the opcodes that move instances read them.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from ganeti_masterd.allocation import results
from ganeti_masterd.config.document import encode
from ganeti_masterd.config.newcluster import new_cluster
from ganeti_masterd.config.objects import Network, Nic, NodeGroup
from ganeti_masterd.config.reservations import with_ports
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional import recorded
from tests.functional.conftest import require
from tests.logical_units.cluster import with_instance

Ask = Callable[[str], Any]

#: What an instance is that is to be placed.
NEW = "--memory 128 --vcpus 1 --nics '' -o noop new"

DEFAULT = {"node1", "node2", "node3"}
FAR = {"node4", "node5", "node6"}

#: A network to which only the first group is connected.
LAN = "a0000000-0000-4000-8000-000000000001"

#: Instances: their nodes and their template.
INSTANCES = {
    "web": (("node2", "node3"), "drbd"),
    "db": (("node1", "node2"), "drbd"),
    "files": (("node1",), "file"),
    "solo": (("node2",), "diskless"),
}


def cluster() -> Snapshot:
    """Returns the configuration."""
    snapshot = new_cluster("cluster", 6, time.time())
    far = NodeGroup(name="far", uuid="f0000000-0000-4000-8000-000000000001")
    snapshot = snapshot.with_object("nodegroups", far)
    for name in FAR:
        snapshot = snapshot.with_object("nodes", replace(snapshot.node(name), group=far.uuid))
    snapshot = snapshot.with_object(
        "networks", Network(name="lan", uuid=LAN, network="192.0.2.0/24")
    )
    default = replace(
        snapshot.group("default"), networks={LAN: {"mode": "routed", "link": "x", "vlan": ""}}
    )
    snapshot = snapshot.with_object("nodegroups", default)
    for name, (nodes, template) in INSTANCES.items():
        snapshot = with_instance(
            snapshot,
            name,
            nodes,
            template=template,
            admin_state="up",
            os="noop",
            disks_active=True,
            nics=[Nic(mac="aa:00:00:00:00:01", uuid="n-1", network=LAN)] if name == "solo" else (),
        )
    return snapshot.with_object("cluster", with_ports(snapshot.cluster, [11000, 11001]))


@pytest.fixture(scope="module")
def ask(module_folder: Path) -> Iterator[Ask]:
    """Asks hail by ``gnt-debug iallocator``; returns the result, or fails if it has none."""
    require("/usr/lib/ganeti/iallocators/hail", "ganeti-htools-3.0")
    require("gnt-debug", "ganeti-3.0")
    running: dict[str, dict[str, int]] = {}
    for name, (nodes, _) in INSTANCES.items():
        running.setdefault(nodes[0], {})[name] = 128
    recorded.prepare(module_folder / "node1", json.loads(encode(cluster())), running=running)
    with DaemonProcess(module_folder / "node1") as daemon:

        def run(request: str) -> Any:
            words = shlex.split(f"gnt-debug iallocator --dir out -I hail {request}")
            done = daemon.tool(words)
            assert (done.returncode, done.stderr) == (0, ""), done
            said = json.loads(done.stdout)
            assert said["success"] or not said["result"]
            return said["result"] if said["success"] else said["info"]

        yield run


def kinds(moves: results.Moves) -> list[list[str]]:
    """Returns what the jobs do that move instances."""
    return [[op.op_id for op in job] for job in moves.jobs]


def test_allocate(ask: Ask) -> None:
    """A mirrored instance gets two nodes of one group; what is too large gets none, and why."""
    found = set(results.nodes(ask(f"-m allocate -t drbd --disks 1024 {NEW}"), 2))
    assert found < DEFAULT or found < FAR
    refusal = ask(f"-m allocate -t drbd --disks 99999999 {NEW}")
    for name in ("default", "far"):
        reason = (
            f"Group {name} (preferred): No valid allocation solutions, failure reasons: FailDisk"
        )
        assert reason in refusal


def test_multi_allocate(ask: Ask) -> None:
    """Several at once, each with its nodes."""
    found = results.placements(ask(f"-m multi-allocate -t drbd --disks 1024 {NEW}"))
    assert found.failed == []
    assert [name for name, _ in found.placed] == ["new0", "new1"]
    assert all(len(set(nodes)) == 2 for _, nodes in found.placed)


def test_relocate(ask: Ask) -> None:
    """A mirrored instance gets another secondary, one without disks another primary."""
    assert results.nodes(ask("-m relocate web"), 1) == ["node1"]
    assert set(results.nodes(ask("-m relocate solo"), 1)) < {"node1", "node3"}


def test_evacuate_primary(ask: Ask) -> None:
    """An instance goes to its secondary, one without disks elsewhere; on files it stays."""
    moves = results.moves(ask("-m node-evacuate --evac-mode primary-only web solo files"))
    assert [(one.name, one.group) for one in moves.moved] == [
        ("web", "default"),
        ("solo", "default"),
    ]
    assert moves.moved[0].nodes == ["node3", "node2"]
    assert kinds(moves) == [["OP_INSTANCE_MIGRATE"], ["OP_INSTANCE_MIGRATE"]]
    assert [one.name for one in moves.failed] == ["files"]


def test_evacuate_secondary(ask: Ask) -> None:
    """A mirror gets another secondary."""
    moves = results.moves(ask("-m node-evacuate --evac-mode secondary-only web"))
    assert [one.nodes for one in moves.moved] == [["node2", "node1"]]
    assert kinds(moves) == [["OP_INSTANCE_REPLACE_DISKS"]]


def test_evacuate_all(ask: Ask) -> None:
    """Off both of its nodes an instance can't go where there is only one more."""
    moves = results.moves(ask("-m node-evacuate --evac-mode all web"))
    assert (moves.moved, moves.jobs) == ([], [])
    assert [one.name for one in moves.failed] == ["web"]


@pytest.mark.parametrize("targets", ["--target-groups far", ""])
def test_change_group(ask: Ask, targets: str) -> None:
    """Mirrored instances go into the other group, in three steps each."""
    moves = results.moves(ask(f"-m change-group {targets} web db"))
    assert [(one.name, one.group) for one in moves.moved] == [("web", "far"), ("db", "far")]
    assert all(set(one.nodes) < FAR for one in moves.moved)
    steps = ["OP_INSTANCE_REPLACE_DISKS", "OP_INSTANCE_MIGRATE", "OP_INSTANCE_REPLACE_DISKS"]
    assert kinds(moves) == [steps, steps]


def test_networks(ask: Ask) -> None:
    """An instance can't go into a group that isn't connected to its network."""
    moves = results.moves(ask("-m change-group --target-groups far solo web"))
    assert [one.name for one in moves.moved] == ["web"]
    assert [one.name for one in moves.failed] == ["solo"]


def test_change_to_the_same_group(ask: Ask) -> None:
    """There is no way into the group where an instance is."""
    moves = results.moves(ask("-m change-group --target-groups default web"))
    assert (moves.moved, [one.name for one in moves.failed]) == ([], ["web"])
    assert moves.failed[0].reason is not None
    assert moves.failed[0].reason.startswith("no groups for evacuation")
