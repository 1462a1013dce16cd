"""Runs that tell what it costs the daemon that much stands around, or that time goes by.

Connections that do nothing, clients that wait, jobs in the queue and the
archive, requests that were answered long ago: each is to cost the next small
request nothing. So each run here measures that request with and without them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

from bench.load import NO_OP
from bench.loads import Burst, Counted, Idle, Load, Measured, Waiters
from bench.process import Daemon
from bench.site import Site

#: How often each of two daemons is measured, in turns; the best of each counts.
TURNS = 4

#: How long a daemon that has nothing to do is watched, in seconds, and left alone before.
REST = 20.0
SETTLE = 3.0

#: A method and its arguments.
Question = tuple[str, list[Any]]

#: Small questions, most of which a usual client asks again and again.
SMALL: tuple[Question, ...] = (
    ("QueryConfigValues", [["cluster_name", "master_node", "drain_flag"]]),
    ("QueryClusterInfo", []),
    ("Query", ["node", ["name", "role", "group"], None]),
    ("Query", ["lock", ["name", "mode"], None]),
    ("QueryJobs", [[1], ["id", "status"]]),
)

#: What a client asks that looks at one job, and one that looks at all, archived ones too.
ONE_JOB = ["id", "status", "summary"]
EVERY_JOB = ["id", "status", "archived"]


def start(site: Site) -> dict[str, float]:
    """Fills the queue with 5,000 jobs, stops, and starts again; 3 times, the middle one."""
    daemon = site.own()
    for _ in range(5):
        last = site.load(Burst(jobs=1000)).last_job
    starts, stops = [], []
    for _ in range(3):
        stops.append(daemon.stop())
        # An answer about a job shows that the queue has been read.
        starts.append(daemon.start({"method": "QueryJobs", "args": [[last], ["id", "status"]]}))
    return {"start": sorted(starts)[1], "stop": sorted(stops)[1]}


class Idlers:
    """The run of so many connections that do nothing."""

    def __init__(self, connections: int, requests: int = 2000) -> None:
        self.connections = connections
        self.requests = requests

    def __call__(self, site: Site) -> dict[str, float]:
        """Measures one more client without and with them, and what each of them holds."""
        load = Idle(connections=self.connections, requests=self.requests)
        values, _ = _beside(site, load, self.connections)
        return values


class Parked:
    """The run of so many clients that wait for one job."""

    def __init__(self, clients: int, requests: int = 2000) -> None:
        self.clients = clients
        self.requests = requests

    def __call__(self, site: Site) -> dict[str, float]:
        """Measures one more client without and with them, and how fast all are told."""
        load = Waiters(clients=self.clients, requests=self.requests)
        values, measured = _beside(site, load, self.clients)
        return {**values, "release": measured.release * 1e3}


def _beside(site: Site, load: Idle | Waiters, clients: int) -> tuple[dict[str, float], Measured]:
    daemon = site.own()
    alone = site.load(Idle(connections=0, requests=load.requests))
    before = daemon.resident_bytes()
    daemon.forget_peak()
    beside = site.load(load)
    values = {
        "p99": beside.p99 * 1e3,
        "times": beside.median / alone.median,
        "times99": beside.p99 / alone.p99,
        "memory": (daemon.peak_bytes() - before) / clients / 1024,
    }
    return values, beside


def full_queue(site: Site) -> dict[str, float]:
    """Measures small requests here and at a second daemon, whose queue is empty."""
    full = site.own()
    folder = full.folder / "none"
    folder.mkdir()
    with Daemon(folder) as empty:
        empty.start()
        ratios = {
            "submit": _times(site, full.path, empty.path, "SubmitJob", [[NO_OP]], 300),
            "values": _times(site, full.path, empty.path, "QueryConfigValues", [["cluster_name"]]),
        }
        last = site.load(Burst(jobs=1)).last_job
        there = site.load(Burst(jobs=1), empty.path).last_job
        ratios["job"] = _times(
            site,
            full.path,
            empty.path,
            "QueryJobs",
            [[last], ONE_JOB],
            theirs=[[there], ONE_JOB],
        )
        empty.stop()
    before = full.resident_bytes()
    full.forget_peak()
    every = Counted(method="QueryJobs", args=[None, EVERY_JOB], clients=1, requests=1)
    return {
        **ratios,
        "start": full.start_seconds,
        "rss": before / 2**20,
        "every": site.load(every).median,
        "peak": (full.peak_bytes() - before) / 2**20,
    }


def _times(
    site: Site,
    full: Path,
    empty: Path,
    method: str,
    args: list[Any],
    requests: int = 2000,
    theirs: list[Any] | None = None,
) -> float:
    """Returns how many times as long the median request takes at the full daemon."""

    def best(path: Path, load: Load) -> float:
        return site.load(load, path).median

    here = Counted(method=method, args=args, clients=1, requests=requests)
    there = Counted(method=method, args=theirs or args, clients=1, requests=requests)
    pairs = [(best(full, here), best(empty, there)) for _ in range(TURNS)]
    return min(one for one, _ in pairs) / min(other for _, other in pairs)


def rest(site: Site) -> dict[str, float]:
    """Does nothing, and looks at what the daemon does meanwhile."""
    daemon = site.own()
    sleep(SETTLE)
    before, begun = daemon.cpu_seconds(), perf_counter()
    sleep(5.0 if site.quick else REST)
    return {"cpu": (daemon.cpu_seconds() - before) / (perf_counter() - begun) * 1e3}


def live_memory(site: Site) -> dict[str, float]:
    """Asks large live questions, a hundred first, then ten thousand (quick: five hundred)."""
    fields = ["name", "status", "oper_ram", "pnode", "beparams"]
    question = ("Query", ["instance", fields, None])
    return _memory(site, [question], first=100, more=500 if site.quick else 10000)


def million(site: Site) -> dict[str, float]:
    """Asks small questions of all kinds, 100,000 first, then 900,000 (quick: a tenth)."""
    share = 10 if site.quick else 1
    return _memory(site, SMALL, first=100000 // share, more=900000 // share)


def _memory(site: Site, questions: Sequence[Question], first: int, more: int) -> dict[str, float]:
    daemon = site.own()

    def asked(requests: int) -> float:
        each = requests // len(questions)
        for method, args in questions:
            measured = site.load(Counted(method=method, args=args, clients=4, requests=each))
            assert measured.count == each
        return daemon.resident_bytes() / 2**20

    before = asked(first)
    after = asked(more)
    return {"before": before, "after": after, "growth": after - before}
