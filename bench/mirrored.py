"""Jobs on mirrored instances whose nodes are named: what makes one, and the wait for them."""

from __future__ import annotations

from typing import Any

from bench.load import CREATE, FINAL
from bench.process import DidNotRun
from ganeti_masterd.luxi.blocking import BlockingClient


def mirrored(name: str, size: int, primary: str, secondary: str) -> dict[str, Any]:
    """Returns the opcode that makes an instance with one disk (MiB) and no NIC on two nodes."""
    found = {
        **CREATE,
        "instance_name": name,
        "disks": [{"size": size}],
        "nics": [],
        "pnode": primary,
        "snode": secondary,
    }
    del found["iallocator"]
    return found


def end(client: BlockingClient, submitted: list[Any]) -> list[int]:
    """Waits until jobs have ended; returns their ids. Raises if one did not succeed."""
    jobs = [job for good, job in submitted if good]
    for job in jobs:
        status = None
        while status not in FINAL:
            answer = client.call("WaitForJobChange", job, ["status"], [status], -1, 25)
            if isinstance(answer, list):
                ((status,), _) = answer
        if status != "success":
            ((results,),) = client.call("QueryJobs", [job], ["opresult"])
            raise DidNotRun(f"job {job} ended with {status}: {results}")
    return jobs
