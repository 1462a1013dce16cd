"""What values opcodes take: as luxid 3.0.2 and its jobs, but for what is listed.

Each opcode of ``opcode_checks.json`` was submitted to a real cluster, most of them as a dry run,
and is submitted here to a daemon with simulated nodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ganeti_masterd.errors import GenericError
from ganeti_masterd.luxi.blocking import BlockingClient
from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.ledger import FINAL
from tests.functional.waiting import job_is


class Case(msgspec.Struct, array_like=True):
    """An opcode with its parameters, and whether it was taken and its job went well."""

    op_id: str
    parameters: dict[str, Any]
    taken: bool


CASES = msgspec.json.decode(
    (Path(__file__).parents[1] / "data" / "opcode_checks.json").read_bytes(), type=list[Case]
)

#: Opcodes that only look, and those that have no dry run.
IN_EARNEST = ("OP_TAGS_GET", "OP_TAGS_SEARCH", "OP_QUERY", "OP_OS_D", "OP_NODE_QUERY", "OP_TEST")


@pytest.fixture(scope="module")
def daemon(module_folder: Path) -> Iterator[DaemonProcess]:
    """A daemon whose nodes have what those of the real cluster had."""
    with DaemonProcess(module_folder / "node1") as daemon:
        yield daemon


def is_taken(client: BlockingClient, case: Case) -> bool:
    """Submits an opcode; whether it was taken and its job went well."""
    op = {"OP_ID": case.op_id, **case.parameters}
    if not case.op_id.startswith(IN_EARNEST):
        op["dry_run"] = True
    try:
        job = client.submit_job([op])
    except GenericError:
        return False
    return job_is(client, job, *FINAL) == "success"


def reason(case: Case) -> str | None:
    """Why an opcode is not treated as by the real daemon; None if it is not listed."""
    for op_id, name, values, why in DIFFERENT:
        if case.op_id == op_id and name in case.parameters and case.parameters[name] in values:
            return why
    return None


def test_as_recorded(daemon: DaemonProcess) -> None:
    """An opcode is taken or refused as by the real daemon, unless it is listed."""
    client = daemon.client(timeout=60)
    different = [case for case in CASES if is_taken(client, case) != case.taken]
    assert [case for case in different if reason(case) is None] == []
    unneeded = {why for *_, why in DIFFERENT} - {reason(case) for case in different}
    assert unneeded == set(), "listed, and not needed"


_CLUSTER = "OP_CLUSTER_SET_PARAMS"
_NOT_ABSOLUTE = ("relative", "./x")

#: What is otherwise here: the opcode, a parameter, its values, and why.
DIFFERENT: tuple[tuple[str, str, Sequence[Any], str], ...] = (
    (_CLUSTER, "file_storage_dir", _NOT_ABSOLUTE, "a path has to be absolute"),
    (_CLUSTER, "shared_file_storage_dir", _NOT_ABSOLUTE, "a shared path has to be absolute"),
    (_CLUSTER, "gluster_storage_dir", _NOT_ABSOLUTE, "a path of gluster has to be absolute"),
    (_CLUSTER, "reserved_lvs", (["("], ["(?=x)"]), "patterns are those of RE2"),
    (_CLUSTER, "enabled_hypervisors", ([],), "some hypervisor has to be enabled"),
    (_CLUSTER, "beparams", ({"minmem": "1024", "maxmem": "512"},), "minmem above maxmem"),
    (_CLUSTER, "beparams", ({"vcpus": 0},), "no processor"),
    (_CLUSTER, "nicparams", ({"mode": "routed", "link": ""},), "luxid takes no empty link"),
    (_CLUSTER, "ndparams", ({"ssh_port": 0}, {"ssh_port": 70000}), "no port"),
    (_CLUSTER, "os_hvp", ({"noop": {"kvm": None}},), "null takes away what there is not"),
    (
        _CLUSTER,
        "data_collector_interval",
        ({"cpu-avg-load": 0}, {"cpu-avg-load": -1}, {"cpu-avg-load": 5.5}),
        "an interval is a whole number above zero",
    ),
    ("OP_GROUP_ADD", "group_name", ("00000000-0000-4000-8000-000000000000",), "looks like a uuid"),
    ("OP_GROUP_ADD", "group_name", ("g" * 300,), "a name has at most 255 bytes"),
    ("OP_GROUP_ADD", "ndparams", ({"spindle_count": "default"},), "a group's own default"),
    (
        "OP_GROUP_ADD",
        "ipolicy",
        ({"minmax": []}, {"vcpu-ratio": "default"}),
        "what a group's policy leaves to the cluster",
    ),
    ("OP_NETWORK_ADD", "gateway6", ("2001:db9::1",), "a gateway that the network can't reach"),
    ("OP_NETWORK_ADD", "tags", (["a\n"],), "a tag ends where it seems to"),
    ("OP_TAGS_SET", "tags", (["a\n"],), "a tag ends where it seems to, here too"),
    ("OP_QUERY", "what", ("node", "export"), "resources that luxid serves by LUXI alone"),
    ("OP_TAGS_SEARCH", "pattern", ("(?=a)",), "patterns of tags are those of RE2"),
)
