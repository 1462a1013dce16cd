"""What takes long on an instance holds up nobody else: no other creation, and no slot."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ganeti_masterd.luxi.blocking import BlockingClient
from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.descriptions import description_in
from tests.functional.instance_kills import CREATION, instances
from tests.functional.waiting import FINAL, containing, equal_to, job_is, until

#: Three nodes whose mirrors take minutes to synchronize.
CLUSTER = """
[sync]
seconds = 600

[[node]]
name = "node1"

[[node]]
name = "node2"

[[node]]
name = "node3"
"""

#: Seconds for which a node wipes: longer than any machine takes for the other creation.
LONG = 3600.0


@pytest.fixture
def daemon(folder: Path) -> Iterator[DaemonProcess]:
    """A daemon on these nodes."""
    with DaemonProcess(folder / "node1", nodes=description_in(folder, CLUSTER)) as daemon:
        yield daemon


def creation(name: str, template: str = "plain", **more: Any) -> dict[str, Any]:
    """Returns an opcode that makes a small instance on node2; ``...`` leaves a parameter out."""
    found = {
        **CREATION,
        "instance_name": name,
        "disk_template": template,
        "disks": [{"size": 16}],
        **({} if template == "drbd" else {"snode": ...}),
        **more,
    }
    return {key: value for key, value in found.items() if value is not ...}


def log_of(master: BlockingClient, job: int) -> Callable[[], str]:
    """Returns what reads a job's log."""

    def read() -> str:
        ((logs,),) = master.query_jobs([job], ["oplog"])
        return "\n".join(str(line[-1]) for log in logs for line in log)

    return read


def status_of(master: BlockingClient, job: int) -> str:
    """Returns a job's status."""
    ((status,),) = master.query_jobs([job], ["status"])
    return str(status)


def end(master: BlockingClient, job: int, name: str) -> None:
    """Kills a creation that would go on for long; nothing of it is left."""
    assert master.cancel_job(job, kill=True)[0]
    assert job_is(master, job, *FINAL) == "error"
    assert name not in instances(master)


def test_sync_holds_no_slot(daemon: DaemonProcess) -> None:
    """With one slot, other jobs run while mirrors synchronize for minutes."""
    with daemon.client() as master:
        op: dict[str, Any] = {"OP_ID": "OP_CLUSTER_SET_PARAMS", "max_running_jobs": 1}
        job_is(master, master.submit_job([op]), "success")
        syncing = master.submit_job([creation("slow.example.com", "drbd")])
        until("it waits for the mirror", log_of(master, syncing), containing("to sync disks"))
        delay = {"OP_ID": "OP_TEST_DELAY", "duration": 0.01}
        job_is(master, master.submit_job([delay]), "success")
        job_is(master, master.submit_job([creation("quick.example.com")]), "success")
        assert status_of(master, syncing) == "running"
        end(master, syncing, "slow.example.com")


@pytest.mark.parametrize("allocated", [False, True])
def test_wipe_holds_up_no_creation(daemon: DaemonProcess, *, allocated: bool) -> None:
    """While the first is wiped, a second is made on the same node, or where an allocator says."""
    slow = {"kind": "delay", "call": "blockdev_wipe", "count": 1, "seconds": LONG}
    seen = {"kind": "error", "call": "test_delay"}
    (daemon.root / "simulation/faults.json").write_text(json.dumps([slow, seen]), encoding="ascii")
    more: dict[str, Any] = {"pnode": ...} if allocated else {}
    with daemon.client() as master:
        op: dict[str, Any] = {"OP_ID": "OP_CLUSTER_SET_PARAMS", "prealloc_wipe_disks": True}
        job_is(master, master.submit_job([op]), "success")
        delay = {"OP_ID": "OP_TEST_DELAY", "duration": 0.001, "on_nodes": ["node1"]}
        until(
            "the nodes know of the faults",
            lambda: job_is(master, master.submit_job([delay]), *FINAL),
            equal_to("error"),
        )
        first = master.submit_job([creation("one.example.com", **more)])
        until("it wipes", log_of(master, first), containing("Wiping disk 0"))
        second = master.submit_job([creation("two.example.com", **more)])
        job_is(master, second, "success")
        assert status_of(master, first) == "running"
    # A kill of the job would wait for the node.
    daemon.kill()
