"""The runs of jobs: clients that do one after another, bursts, a minute of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from time import perf_counter, sleep

import msgspec
from msgspec import Struct

from bench.loads import Burst, Jobs
from bench.site import Site

#: How long the files of a minute's jobs may take to appear, in seconds.
FOLLOW_LIMIT = 60.0

#: How many bursts are run, one after another.
BURSTS = 3

#: A value for each figure's key.
Values = Mapping[str, float]


def jobs(clients: int) -> Callable[[Site], Values]:
    """Returns the run of clients that each do one job after another."""

    def run(site: Site) -> Values:
        before = site.daemon.cpu_seconds() if site.daemon else 0.0
        measured = site.load(Jobs(clients=clients, seconds=site.seconds))
        values = {"rate": measured.rate, "p99": measured.p99 * 1e3}
        if site.daemon:
            used = site.daemon.cpu_seconds() - before
            values["cpu"] = used / max(1, measured.count) * 1e3
        return values

    return run


class _OpStatus(Struct):
    status: str


class _JobFile(Struct):
    ops: list[_OpStatus]


def files_behind(queue: Path, first: int, last: int) -> int:
    """Returns how many jobs of a range have no file that shows their success."""
    behind = 0
    decoder = msgspec.json.Decoder(_JobFile)
    for job in range(first, last + 1):
        try:
            data = (queue / f"job-{job}").read_bytes()
        except FileNotFoundError:
            behind += 1
        else:
            behind += any(op.status != "success" for op in decoder.decode(data).ops)
    return behind


def await_files(queue: Path, last: int) -> float:
    """Waits until the queue's files show the success of the newest jobs; returns the seconds.

    Files follow in order, so these tell when the others are worth a look.
    """
    begun = perf_counter()
    while files_behind(queue, max(1, last - 20), last) and perf_counter() - begun < FOLLOW_LIMIT:
        sleep(0.02)
    return perf_counter() - begun


def burst(site: Site) -> Values:
    """Runs large submissions: the median of three, as each is over in a second.

    A small one, once, on a peer that may take a second a job.
    """
    if site.daemon is None:
        runs = [site.load(Burst(jobs=50))]
    else:
        runs = []
        for _ in range(1 if site.quick else BURSTS):
            runs.append(site.load(Burst(jobs=2000)))
            await_files(site.daemon.queue, runs[-1].last_job)
    return {
        "acknowledged": max(each.acknowledged for each in runs),
        "rate": median(each.rate for each in runs),
    }


def sustained(site: Site) -> Values:
    """Runs sixteen clients for a minute, then waits until the queue's files show it."""
    queue = site.own().queue
    measured = site.load(Jobs(clients=16, seconds=10.0 if site.quick else 60.0))
    last = measured.last_job
    follow = await_files(queue, last)
    behind = files_behind(queue, last - measured.count + 1, last)
    if behind:
        site.remarks.append(f"{behind} job files were still missing or old after {follow:.0f} s")
    return {
        "rate": measured.rate,
        "slowest": measured.slowest,
        "follow": follow if not behind else float("inf"),
        "rss": site.own().resident_bytes() / 2**20,
    }
