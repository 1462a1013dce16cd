"""Instances leave a simulated node: how long it takes, against how long mirrors are filled."""

from __future__ import annotations

from collections import Counter
from time import perf_counter

from bench.job_runs import Values
from bench.mirrored import end, mirrored
from bench.process import DidNotRun
from bench.site import Site
from ganeti_masterd.luxi.blocking import BlockingClient
from ganeti_masterd.simulation.control import main as switch

#: How many mirrored instances leave the node, of a cluster of so many.
EVACUATED = 50
NODES = 20

#: MiB of each disk, and the seconds in which a mirror is filled. Their ratio must stay below the
#: rate at which DRBD lets mirrors sync (60 MiB/s), or filling takes longer than the bound says.
SIZE = 256
FILLED_IN = 8.0

LEFT = "node2"


def evacuation(site: Site) -> Values:
    """Has all mirrors leave one node; the bound is that each node is filled by one at a time."""
    daemon = site.own()
    share = 4 if site.quick else 1
    size, filled_in = SIZE // share, FILLED_IN / share
    with BlockingClient(str(daemon.path), timeout=120) as client:
        others = [f"node{other}" for other in range(1, NODES + 1) if f"node{other}" != LEFT]
        made = [
            [mirrored(f"leaving{number}", size, others[number % len(others)], LEFT)]
            for number in range(EVACUATED)
        ]
        end(client, client.call("SubmitManyJobs", made))
        root = str(daemon.folder / "node1")
        if switch(["--root", root, "sync-speed", f"{size / filled_in:g}"]):
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
