"""Runs that make, start and stop instances on simulated nodes."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from bench.clusters import cluster
from bench.job_runs import Values
from bench.loads import Counted, Instances, Measured
from bench.process import Daemon, DidNotRun
from bench.site import Site
from bench.sizes import LISTED, SIZES
from ganeti_masterd.luxi.blocking import BlockingClient

#: How many instances are made, by how many clients, and in how many equal parts: the first and
#: the last part tell whether a creation costs more the more instances there are.
CREATED = 1000
CREATORS = 16
PARTS = 5

#: How many instances are stopped and started again on each cluster, and by how many clients.
SWITCHED = 200
SWITCHERS = 8


def creation(site: Site) -> Values:
    """Makes mirrored instances, then has the cluster verified."""
    part = CREATED // PARTS // (5 if site.quick else 1)
    measured: list[Measured] = []
    cpu: list[float] = []
    for number in range(PARTS):
        load = Instances(action="create", clients=CREATORS, count=part, first=1 + number * part)
        run, seconds = _with_cpu(site, site.own(), load)
        measured.append(run)
        cpu.append(seconds)
    seconds = sum(each.seconds for each in measured)
    return {
        "rate": PARTS * part / seconds,
        "slowest": min(each.rate for each in measured),
        "p99": max(each.p99 for each in measured) * 1e3,
        "cpu": sum(cpu) / PARTS,
        "growth": cpu[-1] / cpu[0],
        "faults": verification(site.own()),
    }


def _with_cpu(site: Site, daemon: Daemon, load: Instances) -> tuple[Measured, float]:
    """Returns what a load gave, and the daemon's CPU for each of its jobs in ms."""
    before = daemon.cpu_seconds()
    measured = site.load(load, daemon.path)
    return measured, (daemon.cpu_seconds() - before) / max(1, measured.count) * 1e3


def verification(daemon: Daemon) -> int:
    """Returns how many jobs of a verification of the whole cluster found something."""
    with BlockingClient(str(daemon.path), timeout=120) as client:
        first = client.call("SubmitJob", [{"OP_ID": "OP_CLUSTER_VERIFY", "reason": []}])
        ((status, results),) = _ended(client, [first])
        if status != "success":
            raise DidNotRun(f"the verification ended with {status}")
        jobs = [job for _, job in results[0]["jobs"]]
        ended = _ended(client, jobs)
    return sum(status != "success" or results != [True] for status, results in ended)


def _ended(client: BlockingClient, jobs: list[int]) -> list[tuple[str, list[Any]]]:
    """Waits until jobs have ended; returns status and results of each."""
    for job in jobs:
        status = None
        while status not in ("success", "error", "canceled"):
            answer = client.call("WaitForJobChange", job, ["status"], [status], -1, 25)
            if isinstance(answer, list):
                status = answer[0][0]
    return [tuple(row) for row in client.call("QueryJobs", jobs, ["status", "opresult"])]


def switching(site: Site) -> Values:
    """Stops and starts instances among few and among 10,000; lists the many and tags some.

    Both clusters have as many nodes: one without disks is looked for on all of its group.
    They are measured in turns, and all CPU of each counts: a turn alone is few ticks of its clock.
    """
    few, (most, nodes) = SIZES[0], SIZES[-1]
    cpu: dict[tuple[str, int], float] = {}
    rates: dict[int, float] = {}
    with ExitStack() as stack:
        folder = site.own().folder / "few"
        folder.mkdir()
        small = Daemon(folder, ("--simulate-log=off",), cluster(nodes, few[0]))
        stack.enter_context(small)
        small.start()
        turns = SWITCHED // few[0] * (1 if site.quick else 3)
        for _ in range(turns):
            for size, daemon in ((few[0], small), (most, site.own())):
                for action in ("shutdown", "startup"):
                    load = Instances(
                        action=action, clients=SWITCHERS, count=few[0], prefix="instance"
                    )
                    run, used = _with_cpu(site, daemon, load)
                    key = action, size
                    cpu[key] = cpu.get(key, 0.0) + used
                    if action == "startup":
                        rates[size] = max(rates.get(size, 0.0), run.rate)
    listing = Counted(method="Query", args=["instance", LISTED, None], clients=1, requests=5)
    return {
        "few": rates[few[0]],
        "many": rates[most],
        "cpu": cpu["startup", most] / turns,
        "times": cpu["startup", most] / cpu["startup", few[0]],
        "times-stop": cpu["shutdown", most] / cpu["shutdown", few[0]],
        "list": site.load(listing).median * 1e3,
    }
