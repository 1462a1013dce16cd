"""Groups, networks, systems and allocators by Debian's own tools, on simulated nodes.

What is expected was read off the real daemon 3.0.2, its tools and its code;
``docs/differences.rst`` says where ours differs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional import recorded
from tests.functional.conftest import require
from tests.functional.gnt import Gnt, on

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
STAMP = re.compile(r"(?m)^\w{3} \w{3} +\d+ [\d:]+ \d{4} ")


def plain(text: str) -> str:
    """Returns output without what differs from run to run."""
    return UUID.sub("UUID", STAMP.sub("", text))


@pytest.fixture(scope="module")
def daemon(module_folder: Path) -> Iterator[DaemonProcess]:
    """One daemon for the whole module, with three nodes, seven instances and a hook."""
    require("gnt-group", "ganeti-3.0")
    root = module_folder / "node1"
    document = recorded.with_first_instances()
    recorded.prepare(root, document, running=recorded.FIRST_RUNNING)
    hook = "#!/bin/sh\nenv >> $(dirname $(dirname $(dirname $(dirname $0))))/hooks.log\n"
    for name in ("config-update-post.d", "network-connect-pre.d", "group-rename-post.d"):
        folder = root / "etc/ganeti/hooks" / name
        folder.mkdir(parents=True)
        (folder / "write").write_text(hook)
        (folder / "write").chmod(0o755)
    with DaemonProcess(root) as started:
        yield started


@pytest.fixture
def gnt(daemon: DaemonProcess) -> Gnt:
    """Runs commands on it."""
    return on(daemon, plain)


def fine(gnt: Gnt, command: str) -> str:
    """Runs a command that must succeed without a word on standard error; returns its output."""
    said = gnt(command)
    assert (said.code, said.err) == (0, ""), said
    return said.out


def refused(gnt: Gnt, command: str, code: str, words: str) -> None:
    """Runs a command that must be refused with a code and words, and prints nothing else."""
    said = gnt(command)
    assert said.code == 1
    assert said.err == (
        "Failure: prerequisites not met for this operation:\n"
        f"error type: {code}, error details:\n{words}\n"
    )


def hook_log(daemon: DaemonProcess, name: str, value: str) -> list[str]:
    """Returns what hooks were told, once for each run in which ``name`` was ``value``."""
    text = (daemon.root / "etc/hooks.log").read_text()
    assert f"{name}={value}" in text
    return text.splitlines()


def test_groups(gnt: Gnt, daemon: DaemonProcess) -> None:
    """A group is made, named, changed, filled, emptied and removed."""
    assert fine(gnt, "gnt-group add --alloc-policy=last_resort g1") == ""
    refused(
        gnt,
        "gnt-group add g1",
        "already_exists",
        "Desired group name 'g1' already exists as a node group (UUID: UUID)",
    )
    assert fine(gnt, "gnt-group rename g1 g2") == ""
    hook_log(daemon, "GANETI_NEW_NAME", "g2")
    hook_log(daemon, "GANETI_HOOKS_PATH", "config-update")
    refused(
        gnt,
        "gnt-group rename g2 default",
        "already_exists",
        "Desired new name 'default' clashes with existing node group (UUID: UUID)",
    )
    assert fine(gnt, "gnt-group assign-nodes g2 node3") == ""
    refused(
        gnt,
        "gnt-group remove g2",
        "wrong_state",
        "Group 'g2' not empty, has the following nodes: node3",
    )
    assert fine(gnt, "gnt-group modify --node-parameters spindle_count=3 g2") == (
        "Modified node group g2\n - ndparams -> {'spindle_count': 3}\n"
    )
    said = gnt("gnt-group modify --node-parameters nosuch=3 g2")
    assert (said.code, said.err) == (1, "Parameter Error: Unknown parameter 'nosuch'\n")
    assert fine(gnt, "gnt-group list --no-headers -o name,node_cnt,alloc_policy,node_list") == (
        "default 2 preferred   node1,node2\ng2      1 last_resort node3\n"
    )
    assert fine(gnt, "gnt-group assign-nodes default node3") == ""
    assert fine(gnt, "gnt-group remove g2") == ""
    refused(gnt, "gnt-group remove g2", "unknown_entity", "Node group 'g2' not found")
    assert fine(gnt, "gnt-group list --no-headers -o name,node_cnt") == "default 3\n"


def test_policy(gnt: Gnt) -> None:
    """A group's policy is checked, and instances that break it are named."""
    assert fine(
        gnt,
        "gnt-group modify --ipolicy-bounds-specs"
        " min:memory-size=4,cpu-count=1,disk-count=0,disk-size=0,nic-count=0,spindle-use=0/"
        "max:memory-size=64,cpu-count=9,disk-count=9,disk-size=9999,nic-count=9,spindle-use=9"
        " default",
    ) == (
        " - WARNING: After the ipolicy change the following instances violate them:"
        " instance1, instance2, instance3, instance4, instance5, instance6, instance8\n"
    )
    fine(gnt, "gnt-group modify --ipolicy-bounds-specs default default")
    said = gnt("gnt-group modify --ipolicy-disk-templates rbd default")
    assert said.code == 1
    assert "not enabled on the cluster: rbd" in said.err


def test_networks(gnt: Gnt, daemon: DaemonProcess) -> None:
    """A network is made, changed, connected, disconnected and removed."""
    told = fine(gnt, "gnt-network add --network 198.51.100.0/24 --gateway 198.51.100.254 n1")
    assert sorted(told.splitlines()) == [
        " - INFO: Reserved IP address of node 'node1' (198.51.100.10)",
        " - INFO: Reserved IP address of node 'node2' (198.51.100.11)",
        " - INFO: Reserved IP address of node 'node3' (198.51.100.12)",
        " - INFO: Reserved cluster master IP address (198.51.100.1)",
    ]
    said = gnt("gnt-network add --network 10.0.0.0/8 n2")
    assert (said.code, said.err) == (
        1,
        "Failure: command execution error:\nCannot create IP address pool for network 'n2':"
        " A big network with 16777216 host(s) is currently not supported. please specify at most"
        " a /16 network\n",
    )
    said = gnt("gnt-network connect -N mode=bridged,link=br0 n1 default")
    assert said.code == 1
    assert "IP addresses from network 'n1', which is about to connect to node group 'default'," in (
        said.out
    )
    assert "Conflicting IP addresses found" in said.err
    fine(gnt, "gnt-network connect --no-conflicts-check -N mode=bridged,link=br0 n1 default")
    hook_log(daemon, "GANETI_GROUP_NETWORK_LINK", "br0")
    said = gnt("gnt-network remove -f n1")
    assert said.out == (
        " - WARNING: Network 'n1' is connected to the following node groups: default\n"
    )
    assert said.err.endswith("error type: wrong_state, error details:\nNetwork still connected\n")
    fine(gnt, "gnt-network modify --add-reserved-ips 198.51.100.40 n1")
    assert fine(gnt, "gnt-network modify --add-reserved-ips 198.51.100.40 n1") == (
        " - WARNING: Cannot reserve IP address 198.51.100.40: IP 198.51.100.40 is already"
        " externally reserved\n"
    )
    refused(
        gnt,
        "gnt-network modify --gateway 198.51.100.40 n1",
        "wrong_state",
        "Gateway IP address '198.51.100.40' is already reserved",
    )
    fine(gnt, "gnt-network modify --gateway 198.51.100.253 --mac-prefix aa:00:0F n1")
    shown = fine(gnt, "gnt-network list --no-headers -o gateway,mac_prefix,group_list n1")
    assert shown == "198.51.100.253 aa:00:0f default (bridged, br0, )\n"
    fine(gnt, "gnt-network disconnect n1 default")
    assert fine(gnt, "gnt-network disconnect n1 default") == (
        " - WARNING: Network 'n1' is not mapped to group 'default'\n"
    )
    fine(gnt, "gnt-network remove -f n1")
    assert fine(gnt, "gnt-network list --no-headers") == ""


def test_systems(gnt: Gnt) -> None:
    """Operating systems and storage providers are told as the real daemon tells them."""
    assert fine(gnt, "gnt-os list") == "Name\nnoop\n"
    node = (
        "  Node: UUID, status: valid (path: /usr/share/ganeti/os/noop) [API versions: 5, 10]"
        " [trusted]\n"
    )
    assert fine(gnt, "gnt-os diagnose") == f"OS: noop [global status: valid]\n{3 * node}\n"
    assert fine(gnt, "gnt-os info nosuch") == "nosuch: \n\n"
    for command, words in (
        ("diagnose", "Can't get the list of ExtStorage providers\n"),
        ("info", "Can't get the ExtStorage providers list\n"),
    ):
        assert gnt(f"gnt-storage {command}") == (1, "", words)


NEW = "-t diskless --memory 128 --vcpus 1 --nics '' --disks 16 -o noop newinst"


def answer(gnt: Gnt, allocator: str, request: str) -> dict[str, Any]:
    """Returns what an allocator says to a request of gnt-debug."""
    text = fine(gnt, f"gnt-debug iallocator --dir out -I {allocator} {request}")
    said: dict[str, Any] = json.loads(text)
    return said


def hail() -> None:
    """Skips the test, or fails it in CI, without hail."""
    require("/usr/lib/ganeti/iallocators/hail", "ganeti-htools-3.0")


def test_new_instance_by_hail(gnt: Gnt) -> None:
    """The real hail understands what it is told of the cluster, and places an instance."""
    hail()
    said = answer(gnt, "hail", f"-m allocate {NEW}")
    assert said["success"]
    assert said["info"].startswith("Request successful: Selected group: default")
    assert len(said["result"]) == 1
    on_files = NEW.replace("diskless", "file")
    assert len(answer(gnt, "hail", f"-m allocate {on_files}")["result"]) == 1
    several = answer(gnt, "hail", f"-m multi-allocate {NEW}")
    assert several["success"]
    assert len(several["result"][0]) == 2


@pytest.mark.parametrize("allocator", ["hail", "builtin"])
def test_instances_that_move(gnt: Gnt, allocator: str) -> None:
    """The real hail and the built-in allocator both move instances that are there."""
    if allocator == "hail":
        hail()
    said = answer(gnt, allocator, "-m relocate instance1")
    assert said["success"], said
    assert len(said["result"]) == 1
    said = answer(gnt, allocator, "-m node-evacuate --evac-mode primary-only instance1")
    moved, failed, jobs = said["result"]
    assert ([one[0] for one in moved], failed) == (["instance1"], [])
    assert [[op["OP_ID"] for op in job] for job in jobs] == [["OP_INSTANCE_MIGRATE"]]


def test_change_of_group(gnt: Gnt) -> None:
    """Both understand who shall go where; the built-in allocator finds the way."""
    hail()
    fine(gnt, "gnt-group add far")
    fine(gnt, "gnt-group assign-nodes far node3")
    request = "-m change-group --target-groups far instance1"
    try:
        by_hail, by_builtin = (answer(gnt, name, request) for name in ("hail", "builtin"))
    finally:
        fine(gnt, "gnt-group assign-nodes default node3")
        fine(gnt, "gnt-group remove far")
    # hail wants N+1 in the whole group also for instances without a secondary.
    moved, failed, _ = by_hail["result"]
    assert [one[0] for one in [*moved, *failed]] == ["instance1"]
    moved, failed, ((op,),) = by_builtin["result"]
    assert (moved, failed) == ([["instance1", "far", ["node3"]]], [])
    assert (op["OP_ID"], op["target_node"]) == ("OP_INSTANCE_MIGRATE", "node3")


def test_built_in(gnt: Gnt) -> None:
    """The built-in allocator places an instance, and says why it places none."""
    said = answer(gnt, "builtin", f"-m allocate {NEW}")
    assert said["info"].startswith("Selected group default (preferred), score ")
    assert len(said["result"]) == 1
    said = answer(gnt, "builtin", f"-m allocate {NEW.replace('128', '99999')}")
    assert said["success"] is False
    assert said["info"].startswith("No place found: group default: ")


def test_what_is_told(gnt: Gnt) -> None:
    """The document is shown; the real daemon fails at that (bytes where a text is declared)."""
    told = json.loads(fine(gnt, f"gnt-debug iallocator --dir in -I hail -m allocate {NEW}"))
    assert told["version"] == 2
    assert set(told["nodes"]) == {"node1", "node2", "node3"}
    assert told["request"]["name"] == "newinst"


def test_allocators_that_are_refused(gnt: Gnt) -> None:
    """An allocator must be named, and installed; its request must make sense."""
    refused(
        gnt,
        f"gnt-debug iallocator --dir out -m allocate {NEW}",
        "wrong_input",
        "Missing allocator name",
    )
    refused(
        gnt,
        "gnt-debug iallocator --dir out -I hail -m relocate nosuch",
        "unknown_entity",
        "Instance 'nosuch' not known",
    )
    said = gnt(f"gnt-debug iallocator --dir out -I nosuch -m allocate {NEW}")
    assert (said.code, said.err) == (
        1,
        "Failure: command execution error:\nThe iallocator 'nosuch' is not installed on node"
        " node1\n",
    )


def test_nothing_is_left(gnt: Gnt) -> None:
    """After all that no lock is held and the configuration is sound."""
    assert fine(gnt, "gnt-debug locks --no-headers") == ""
