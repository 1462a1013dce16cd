"""Instances leave a simulated node: how long it takes, against how long mirrors are filled."""

from __future__ import annotations

from collections import Counter
from time import perf_counter
from typing import Any

from bench.job_runs import Values
from bench.process import DidNotRun
from bench.site import Site
from ganeti_masterd.luxi.blocking import BlockingClient
from ganeti_masterd.simulation.control import main as switch

#: How many mirrored instances leave the node, of a cluster of so many.
EVACUATED = 50
NODES = 20

#: MiB of each disk, and the seconds in which a mirror is filled.
SIZE = 256
FILLED_IN = 8.0

LEFT = "node2"


def evacuation(site: Site) -> Values:
    """Has all mirrors leave one node; the bound is that each node is filled by one at a time."""
    daemon = site.own()
    filled_in = FILLED_IN / (4 if site.quick else 1)
    with BlockingClient(str(daemon.path), timeout=120) as client:
        end(client, client.call("SubmitManyJobs", [[_creation(n)] for n in range(EVACUATED)]))
        root = str(daemon.folder / "node1")
        if switch(["--root", root, "sync-speed", f"{SIZE / filled_in:g}"]):
            raise DidNotRun("the speed of mirrors could not be set")
        cpu, begun = daemon.cpu_seconds(), perf_counter()
        evacuation = {
            "OP_ID": "OP_NODE_EVACUATE",
            "node_name": LEFT,
            "mode": "secondary-only",
            "iallocator": "builtin",
        }
        (job,) = end(client, [(True, client.call("SubmitJob", [evacuation]))])
        ((results,),) = client.call("QueryJobs", [job], ["opresult"])
        moves = end(client, results[0]["jobs"])
        took, cpu = perf_counter() - begun, daemon.cpu_seconds() - cpu
        rows = client.call("Query", "instance", ["snodes"], None)["data"]
    targets = Counter(name for ((_, names),) in rows for name in names)
    if len(moves) != EVACUATED or targets[LEFT]:
        raise DidNotRun(f"{len(moves)} instances moved, {targets[LEFT]} stayed")
    bound = filled_in * max(targets.values())
    return {
        "took": took,
        "most": max(targets.values()),
        "bound": bound,
        "times": took / bound,
        "cpu": cpu / EVACUATED * 1e3,
    }


def _creation(number: int) -> dict[str, Any]:
    """Returns the creation of an instance whose mirror is on the node that is left."""
    others = [f"node{other}" for other in range(1, NODES + 1) if f"node{other}" != LEFT]
    return {
        "OP_ID": "OP_INSTANCE_CREATE",
        "instance_name": f"leaving{number}",
        "mode": "create",
        "disk_template": "drbd",
        "disks": [{"size": SIZE}],
        "nics": [],
        "os_type": "noop",
        "name_check": False,
        "ip_check": False,
        "pnode": others[number % len(others)],
        "snode": LEFT,
    }


def end(client: BlockingClient, submitted: list[Any]) -> list[int]:
    """Waits until jobs have ended; returns their ids. Raises if one did not succeed."""
    jobs = [job for good, job in submitted if good]
    for job in jobs:
        status = None
        while status not in ("success", "error", "canceled"):
            answer = client.call("WaitForJobChange", job, ["status"], [status], -1, 25)
            if isinstance(answer, list):
                ((status,), _) = answer
        if status != "success":
            ((results,),) = client.call("QueryJobs", [job], ["opresult"])
            raise DidNotRun(f"job {job} ended with {status}: {results}")
    return jobs
