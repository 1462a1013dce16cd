"""Debian's own lists (``gnt-node list`` and its like) against the daemon on simulated nodes.

Where the real daemon was asked the same on the same configuration, the output
is the same but for what :mod:`tests.functional.recorded` calls not normal.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional import gnt, recorded
from tests.functional.conftest import require
from tests.functional.gnt import Gnt, Said

#: The daemon's own command, of this Python.
LUXI = f"{sys.executable} -c 'from ganeti_masterd.cli.main import main; main()'"

#: How the tools call the kinds of fields.
KINDS = {
    "bool": "Boolean",
    "float": "Floating-point number",
    "number": "Number",
    "other": "Custom",
    "text": "Text",
    "timestamp": "Timestamp",
    "unit": "Storage size",
}

#: Each list's command, and what it lists.
LISTS = {
    "gnt-node": "node",
    "gnt-instance": "instance",
    "gnt-group": "group",
    "gnt-network": "network",
    "gnt-backup": "export",
    "gnt-job": "job",
    "gnt-filter": "filter",
    "gnt-debug locks": "lock",
}


def on(daemon: DaemonProcess) -> Gnt:
    """Returns the function that runs a command line of the tools; ALL is a list's fields."""

    def run(command: str) -> Said:
        for tool, resource in LISTS.items():
            if command.startswith(f"{tool} "):
                command = re.sub(r"\bALL\b", ",".join(recorded.fields_of(resource)), command)
        return gnt.on(daemon)(command)

    return run


@pytest.fixture(scope="module")
def cluster(module_folder: Path) -> Iterator[Callable[..., Gnt]]:
    """Makes a daemon for a configuration, once for all tests of a name."""
    require("gnt-node", "ganeti-3.0")
    made: dict[str, DaemonProcess] = {}

    def make(name: str, document: Mapping[str, Any], **held: Any) -> Gnt:
        if name not in made:
            root = module_folder / name / "node1"
            recorded.prepare(root, document, **held)
            made[name] = DaemonProcess(root)
            made[name].start()
        return on(made[name])

    yield make
    for daemon in made.values():
        daemon.__exit__()


@pytest.fixture
def nodes(cluster: Callable[..., Gnt]) -> Gnt:
    """Three nodes and nothing else."""
    return cluster("nodes", recorded.without_instances())


@pytest.fixture
def instances(cluster: Callable[..., Gnt]) -> Gnt:
    """The same with seven instances, of which three run."""
    document = recorded.with_first_instances()
    return cluster("instances", document, running=recorded.FIRST_RUNNING)


@pytest.fixture
def rich(cluster: Callable[..., Gnt]) -> Gnt:
    """Nodes of every state, groups, networks, filter rules, exports."""
    exports = {"node1": {"exports": ["web2", "web10"]}, "node3": {"exports": []}}
    return cluster("rich", recorded.rich(), facts=exports)


# -- as it was recorded ------------------------------------------------------------------------


def rows(cluster: str) -> Any:
    """The recorded commands of a cluster, as parameters of a test."""
    found = recorded.recorded(cluster)
    return pytest.mark.parametrize("row", found, ids=[row["command"][:60] for row in found])


@rows("nodes")
def test_nodes_as_recorded(nodes: Gnt, row: dict[str, Any]) -> None:
    """Lists of nodes are what they were, but for the machines' sizes."""
    said = nodes(row["command"])
    assert (said.code, said.err) == (row["code"], row["err"])
    assert recorded.normal(said.out, True) == recorded.normal(row["out"], True)


@rows("instances")
def test_instances_as_recorded(instances: Gnt, row: dict[str, Any]) -> None:
    """Lists of instances are what they were."""
    said = instances(row["command"])
    assert (said.code, said.err) == (row["code"], row["err"])
    assert recorded.normal(said.out) == recorded.normal(row["out"])


# -- every list, every option --------------------------------------------------------------------

#: Fields of jobs that the tool itself can write in lines: it can't do so with lists.
JOB_LINES = ("archived", "id", "priority", "status", "summary")

#: The lists that take -F.
FILTERED = ("gnt-node", "gnt-instance", "gnt-group", "gnt-job")


def listing(tool: str) -> str:
    """The command line that lists with a tool."""
    return tool if tool == "gnt-debug locks" else f"{tool} list"


@pytest.fixture
def busy(rich: Gnt) -> Gnt:
    """The rich cluster with a finished job."""
    if rich("gnt-job list --no-headers").out == "":
        assert rich("gnt-debug delay 0.01").code == 0
    return rich


@pytest.mark.parametrize("tool", [tool for tool in LISTS if tool != "gnt-debug locks"])
def test_list_fields(rich: Gnt, tool: str) -> None:
    """Every field has the real name, type and title, in the real order; the texts are our own."""
    said = rich(f"{tool} list-fields --no-headers --separator='|'")
    assert (said.code, said.err) == (0, "")
    rows = [line.split("|", 3) for line in said.out.splitlines()]
    fields = recorded.fields_of(LISTS[tool])
    assert [row[:3] for row in rows] == [
        [name, KINDS[field["kind"]], field["title"]] for name, field in fields.items()
    ]
    assert all(row[3].strip() for row in rows)


def test_list_fields_named(rich: Gnt) -> None:
    """Fields can be named; one that doesn't exist is told as unknown, with exit code 14."""
    said = rich("gnt-node list-fields --no-headers --separator='|' role name")
    assert [line.split("|")[0] for line in said.out.splitlines()] == ["role", "name"]
    said = rich("gnt-node list-fields name nosuch")
    assert (said.code, said.out.split()[-8:-5]) == (14, ["nosuch", "Unknown", "nosuch"])


@pytest.mark.parametrize("tool", LISTS)
def test_all_fields(busy: Gnt, tool: str) -> None:
    """All fields at once are answered, as a table, in lines, and in words; titles as declared."""
    fields = recorded.fields_of(LISTS[tool])
    if tool == "gnt-job":
        fields = {name: fields[name] for name in JOB_LINES}
    said = busy(f"{listing(tool)} -o {','.join(fields)} --separator='|'")
    assert (said.code, said.err) == (0, "")
    head, *rows = [line.split("|") for line in said.out.splitlines()]
    assert head == [field["title"] for field in fields.values()]
    assert all(len(row) == len(fields) for row in rows)
    assert bool(rows) is (tool != "gnt-debug locks")
    assert "??" not in {cell for row in rows for cell in row}
    for options in ("-v", "--no-headers"):
        said = busy(f"{listing(tool)} -o ALL {options}")
        assert (said.code, said.err) == (0, "")
        # No cell of these clusters has a newline.
        assert len(said.out.splitlines()) == len(rows) + (options == "-v")


@pytest.mark.parametrize("units", ["h", "m", "g", "t"])
def test_units(rich: Gnt, units: str) -> None:
    """Sizes are shown in the unit that is asked for."""
    memory = {"h": "64.0G", "m": "65536", "g": "64.0", "t": "0.1"}
    said = rich(f"gnt-node list --units={units} --no-headers -o name,mtotal node1")
    assert said == Said(0, f"node1 {memory[units]}\n")
    disk = {"h": "512M", "m": "512", "g": "0.5", "t": "0.0"}
    said = rich(f"gnt-instance list --units={units} --no-headers -o name,disk_usage web10")
    assert said == Said(0, f"web10.example.com {disk[units]}\n")


LINES = "--no-headers --separator=:"
SHOWN: dict[str, str] = {
    # nodes that are offline, drained, plain, not fit for instances; names up to a dot
    f"gnt-node list {LINES} -o name,role,group,pinst_cnt,powered,ndp/spindle_count": (
        "node1:M:default:3:-:1\nnode2:C:default:2:-:4\nnode3:C:default:3:-:1\n"
        "node4.example.com:O:rack10:2:-:7\nnode5.example.com:D:rack10:1:-:7\n"
        "node10.example.com:R:rack10:0:Y:7\nnode11.example.com:R:rack10:1:N:7\n"
    ),
    f"gnt-node list {LINES} -o name,mfree node11 node4": (
        "node11.example.com:64512\nnode4.example.com:*\n"
    ),
    f"gnt-node list {LINES} -v -o name,mfree node4": "node4.example.com:(offline)\n",
    f"gnt-node list {LINES} -o name 'node?'": "node1\nnode2\nnode3\nnode4.example.com\n"
    "node5.example.com\n",
    f"gnt-node list {LINES} -o name -F 'drained or offline'": (
        "node4.example.com\nnode5.example.com\n"
    ),
    f"gnt-node list {LINES} -o name -F 'not (group == \"default\") and mfree > 1024'": (
        # What is offline has no memory to judge by, and passes, as with the real daemon.
        "node4.example.com\nnode5.example.com\nnode10.example.com\nnode11.example.com\n"
    ),
    f"gnt-node list {LINES} -o name -F '\"beta\" in tags'": "node2\n",
    f'gnt-node list {LINES} -o name -F \'name == "node11" or name == "node4"\'': (
        "node11.example.com\nnode4.example.com\n"
    ),
    # instances
    f"gnt-instance list {LINES} -o name,pnode,status,oper_ram web10 web1 instance1": (
        "web10.example.com:node4.example.com:ERROR_nodeoffline:*\n"
        "web1.example.com:node5.example.com:ERROR_down:-\ninstance1:node3:ERROR_down:-\n"
    ),
    f"gnt-instance list {LINES} -o name -F 'status =~ m/^ERROR_node/'": (
        "web2.example.com\nweb10.example.com\n"
    ),
    f'gnt-instance list {LINES} -o name -F \'"node11.example.com" not in snodes and '
    'pnode =* "node1?"\'': "web3.example.com\n",
    # groups
    f"gnt-group list {LINES} -o name,node_cnt,pinst_cnt,alloc_policy,tags": (
        "default:3:8:preferred:[]\nrack9:0:0:unallocable:[]\nrack10:4:4:last_resort:['a', 'z']\n"
    ),
    f"gnt-group list {LINES} -o name rack10 default": "rack10\ndefault\n",
    f"gnt-group list {LINES} -o name -F 'node_cnt > 3 or alloc_policy == \"preferred\"'": (
        "default\nrack10\n"
    ),
    # networks
    f"gnt-network list {LINES} -o name,network,gateway,free_count,reserved_count,tags": (
        "net2:192.0.2.64/28:-:0:0:\nnet10:192.0.2.0/27:192.0.2.1:26:6:n1\n"
    ),
    f"gnt-network list {LINES} -o group_list,inst_list,map": (
        "rack10 (openvswitch, ovs1, .10), rack9 (routed, 7, ):web1.example.com:\n"
        "rack10 (bridged, br0, ):web1.example.com:XX...XX..X.....................X\n"
    ),
    f"gnt-network list {LINES} -o name net10 net2": "net10\nnet2\n",
    # exports: on nodes that have a folder for them
    f"gnt-backup list {LINES}": (
        "node1:web10\nnode1:web2\nnode2:?\nnode4.example.com:*\nnode5.example.com:?\n"
        "node10.example.com:?\nnode11.example.com:?\n"
    ),
    f"gnt-backup list {LINES} -v --node node3 --node node2": "node2:(nodata)\n",
    # filter rules
    f"gnt-filter list {LINES} -o priority,action,watermark": (
        "3:PAUSE:12\n1:['RATE_LIMIT', 4]:2\n"
    ),
    f"gnt-filter list {LINES} -o predicates fafa0000-0000-4000-8000-000000000001": (
        "[['jobid', ['>', 'id', 'watermark']], ['opcode', ['==', 'OP_ID', 'OP_TEST_DELAY']]]\n"
    ),
    # nothing to show
    "gnt-debug locks": "Name Mode Owner Pending\n",
}


@pytest.mark.parametrize("command", SHOWN, ids=lambda command: command[:70])
def test_shows(rich: Gnt, command: str) -> None:
    """Rows, their order and their values are as the configuration has them."""
    assert rich(command) == Said(0, SHOWN[command])


def not_found(kind: str, name: str) -> str:
    """What the tools print for an object that isn't there."""
    return (
        "Failure: prerequisites not met for this operation:\n"
        f"error type: unknown_entity, error details:\n{kind} name {name} not found\n"
    )


REFUSED: dict[str, str] = {
    "gnt-group list nosuch": not_found("NodeGroup", "nosuch"),
    "gnt-network list nosuch": not_found("Network", "nosuch"),
    "gnt-backup list --node nosuch": not_found("Node", "nosuch"),
    "gnt-group list -F 'node_cnt == \"x\"'": (
        "Failure: unknown/wrong parameter name "
        "'Invalid types in comparison, trying to compare 3 with 'QuotedString \"x\"''\n"
    ),
    "gnt-group list -F 'nosuch'": (
        "Failure: unknown/wrong parameter name 'Can't find field named 'nosuch''\n"
    ),
    "gnt-node list -F 'mfree'": (
        "Failure: unknown/wrong parameter name 'Unexpected value '64512' in boolean context'\n"
    ),
}


@pytest.mark.parametrize("command", REFUSED)
def test_refuses(rich: Gnt, command: str) -> None:
    """What doesn't exist or makes no sense is refused in the real daemon's words."""
    assert rich(command) == Said(1, err=REFUSED[command])


@pytest.mark.parametrize("tool", FILTERED)
def test_filter_that_is_none(rich: Gnt, tool: str) -> None:
    """A text that is no filter does not get as far as the daemon."""
    said = rich(f"{tool} list -F 'a ='")
    assert said.code == 1
    assert said.err.startswith("Error while parsing query filter: ")


def test_unknown_fields(rich: Gnt) -> None:
    """Fields that don't exist are shown as such beside those that do, with exit code 14."""
    for tool, first in (("gnt-group", "default"), ("gnt-network", "net2"), ("gnt-backup", "node1")):
        name = "node" if tool == "gnt-backup" else "name"
        said = rich(f"{tool} list --no-headers -o {name},nosuch")
        assert said.code == 14
        assert said.err == "Warning: Queried for unknown fields nosuch\n"
        assert said.out.splitlines()[0].split() == [first, "??"]


# -- what changes --------------------------------------------------------------------------------


def test_jobs(nodes: Gnt) -> None:
    """Jobs are listed by id, state and filter, their fields in each form."""
    for command in ("gnt-debug delay 0.01", "gnt-debug delay 0", "gnt-debug delay 0.02"):
        nodes(command)
    lines = "gnt-job list --no-headers --separator=:"
    ids = [int(line) for line in nodes(f"{lines} -o id").out.split()]
    assert ids == sorted(ids)
    first, bad, last = ids[-3:]
    shown = "-o id,status,priority,opstatus"
    assert nodes(f"{lines} {shown} {last} {bad}") == Said(
        0, f"{last}:success:0:['success']\n{bad}:error:0:['error']\n"
    )
    assert nodes(f"{lines} -o id -F 'status == \"error\" and id >= {bad}'") == Said(0, f"{bad}\n")
    assert nodes(f"{lines} -o id -F 'id == {first} or id == {last}'").out == f"{first}\n{last}\n"
    assert nodes(f"{lines} -o id,status -v 999999") == Said(0, "999999:(unavail)\n")
    said = nodes("gnt-job list -F 'status == 5'")
    assert said.code == 1
    assert "Invalid types in comparison" in said.err


def test_locks_of_jobs(nodes: Gnt) -> None:
    """Locks show who holds them and who waits, in the order of their turn."""
    holder, *waiters = [
        int(re.fullmatch(r"JobID: (\d+)\n", nodes(command).err)[1])  # type: ignore[index]
        for command in (
            "gnt-debug delay --submit -n node2 -r 600 0.1",
            "gnt-debug delay --submit --no-master -n node2 -n node3 1",
            "gnt-debug delay --submit --no-master -n node2 1",
        )
    ]
    try:
        said = nodes("gnt-debug locks --no-headers --separator=: -o name,mode,owner,pending")
        assert (said.code, said.err) == (0, "")
        lines = [line.split(":", 3) for line in said.out.splitlines()]
        rows = {name: rest for name, *rest in lines}
        everyone = ",".join(map(str, (holder, *waiters)))
        assert rows["cluster/BGL"] == ["shared", everyone, "-"]
        uuid = nodes("gnt-node list --no-headers -o uuid node2").out.strip()
        pending = ", ".join(f"exclusive:{waiter}" for waiter in waiters)
        assert rows[f"node/{uuid}"] == ["exclusive", str(holder), pending]
    finally:
        for job in (*reversed(waiters), holder):
            nodes(f"gnt-job cancel --kill --yes-do-it {job}")
    for job in (*waiters, holder):
        assert nodes(f"gnt-job wait {job}").code == 1
    assert nodes("gnt-debug locks") == Said(0, SHOWN["gnt-debug locks"])


# -- the daemon's own lists ------------------------------------------------------------------------


def test_the_daemon_s_own_command(rich: Gnt) -> None:
    """gnt-luxi lists every resource, also by filters that no other tool can give."""

    def lists(command: str) -> list[str]:
        said = rich(f"{LUXI} {command}")
        assert (said.code, said.err) == (0, "")
        return said.out.splitlines()

    assert lists("nodes -o name,mfree node11 node4") == [
        "node11.example.com\t64512",
        "node4.example.com\t*",
    ]
    assert lists("nodes -o name -F 'name =~ m/^node[12]$/ and not master'") == ["node2"]
    assert lists("""networks -o name -F '"n1" in tags'""") == ["net10"]
    assert lists("""exports -F 'export =* "web1*"'""") == [
        *("node1\tweb10", "node2\t?", "node4.example.com\t*", "node5.example.com\t?"),
        *("node10.example.com\t?", "node11.example.com\t?"),
    ]
    assert lists("filters -o priority -F 'priority < 2'") == ["1"]
    assert lists("os -o name,valid") == ["noop\tY"]
    assert lists("cluster -o cluster_name,master_node") == ["cluster\tnode1"]
    assert lists("extstorage") == lists("locks") == []
    for listing in ("instances", "groups", "jobs"):
        assert lists(f"fields {listing}")
        lists(listing)


def test_filters_that_are_refused(rich: Gnt) -> None:
    """What is no filter is shown with its place; what the daemon refuses, in its words."""
    said = rich(f"{LUXI} nodes -F 'a ='")
    assert said.code == 2
    assert said.err.endswith("a number or a quoted text, but the filter ends\n  a =\n     ^\n")
    said = rich(f"{LUXI} nodes -F '{'not ' * 60}master'")
    assert said.code == 1
    assert said.err.endswith("(wrong_input): The filter is nested deeper than 50 levels\n")
