"""What the daemon itself takes of a migration and a failover, besides the calls to nodes."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from time import sleep, time

import msgspec
from msgspec import Struct

from bench.clusters import cluster
from bench.job_runs import Values
from bench.mirrored import end, mirrored
from bench.process import DidNotRun
from bench.site import Site
from ganeti_masterd.luxi.blocking import BlockingClient

#: Seconds that a node takes for each call: a Python process that answers over TLS takes as long.
LATENCY = 0.05

#: How often the instance moves in each way.
MOVES = 20

#: Calls that keep nodes up to date, for which no opcode waits.
BESIDES = frozenset(
    {
        "jobqueue_update",
        "jobqueue_rename",
        "upload_file",
        "upload_file_single",
        "write_ssconf_files",
    }
)

#: Seconds in which the log of calls is written.
WRITTEN_IN = 2.0


class _Called(Struct):
    """A line of the log of calls."""

    time: float
    call: str


def prepare(root: Path) -> None:
    """Makes three nodes that take their time, of which only the master is a candidate."""
    cluster(3, alone=True)(root)
    rules = [{"kind": "delay", "seconds": LATENCY}]
    (root / "simulation" / "faults.json").write_text(json.dumps(rules), encoding="ascii")


def moving(site: Site) -> Values:
    """Moves one mirrored instance to and fro."""
    count = MOVES // (5 if site.quick else 1)
    daemon = site.own()
    cpu = {"MIGRATE": 0.0, "FAILOVER": 0.0}
    spans: dict[str, list[tuple[float, float]]] = {"MIGRATE": [], "FAILOVER": []}
    with BlockingClient(str(daemon.path), timeout=120) as client:
        creation = mirrored("mover", 64, "node2", "node3")
        end(client, [(True, client.call("SubmitJob", [creation]))])
        for _ in range(count):
            for how, each in spans.items():
                used, begun = daemon.cpu_seconds(), time()
                opcode = {"OP_ID": f"OP_INSTANCE_{how}", "instance_name": "mover"}
                end(client, [(True, client.call("SubmitJob", [opcode]))])
                each.append((begun, time()))
                cpu[how] += daemon.cpu_seconds() - used
    sleep(WRITTEN_IN)
    log = daemon.folder / "node1" / "simulation" / "calls.log"
    decoder = msgspec.json.Decoder(_Called)
    calls = [decoder.decode(line) for line in log.read_bytes().splitlines()]
    times = sorted(each.time for each in calls if each.call not in BESIDES)
    values = {}
    for how, each in spans.items():
        rounds = median(_rounds(times, *span) for span in each)
        if not rounds:
            raise DidNotRun("no call was logged")
        nodes = rounds * LATENCY
        took = median(after - before for before, after in each)
        key = how.lower()
        values[key] = took / nodes
        values[f"{key}-own"] = (took - nodes) * 1e3
        values[f"{key}-cpu"] = cpu[how] / count * 1e3
        values[f"{key}-rounds"] = rounds
    return values


def _rounds(times: list[float], begun: float, ended: float) -> int:
    """Returns how many calls followed one another; those to several nodes at once count once."""
    rounds, last = 0, 0.0
    for moment in times:
        if begun <= moment <= ended and moment - last > LATENCY / 2:
            rounds, last = rounds + 1, moment
    return rounds
