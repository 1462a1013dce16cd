"""The same loads on a real cluster, first against luxid, then against the daemon in its place.

The cluster is the one of the functional tests: Debian's Ganeti 3.0 on three
virtual nodes, of which two are remote master candidates. Its node daemons take
about 12 ms of CPU a call, on the same machine, so these figures are theirs as
much as the master daemon's.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from time import sleep
from typing import Any

from bench.figures import AtMost, Figure, Line, Times
from bench.load import NO_OP
from bench.loads import Counted, Jobs, Query
from bench.process import DidNotRun
from bench.site import Site
from ganeti_masterd.luxi.blocking import BlockingClient
from tests.functional.realcluster import PROGRAMS, RealCluster, real_cluster
from tests.functional.waiting import equal_to, until

NAME = "takeover"
ABOUT = "a real cluster, luxid the peer"

FIGURES = (
    Figure("nodes", "3 live nodes, median", "ms", wanted=AtMost(60.0)),
    Figure("jobs", "jobs, 16 clients, --ack=candidates", "1/s", wanted=Times(8.0)),
    Figure("submissions", "submissions, 16 clients, --ack=local", "1/s", wanted=Times(50.0)),
)

#: Calls no node, as luxid's job doesn't on the master: what is left is what the queue costs.
JOB = {**NO_OP, "on_master": False}

LIVE = ["node", ["name", "mtotal", "mfree", "dtotal", "dfree"], None]

#: Submissions at a time; luxid takes ten seconds or so for as many.
SUBMISSIONS = 320

#: Seconds in which a queue runs empty.
PATIENCE = 300.0


def missing() -> str | None:
    """Returns what a real cluster lacks here, null if nothing."""
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
    for program in PROGRAMS:
        if shutil.which(program, path=path) is None:
            return f"{program} is not installed"
    return None if os.getuid() == 0 else "a real cluster needs root"


def measure(folder: Path, quick: bool, remarks: list[str]) -> list[tuple[str, Line]]:
    """Measures both in one run; nothing, and a remark, where no real cluster can be.

    ``folder`` is where the cluster is made. What went wrong is added to ``remarks``.
    """
    if (lacking := missing()) is not None:
        remarks.append(f"{NAME}: not measured, as {lacking}")
        return []
    ours: dict[str, float] = {}
    peers: dict[str, float] = {}
    try:
        # Other users must get at it, so not below the folder of the other workloads.
        with real_cluster(parent=folder, kind=RealCluster) as cluster:
            peers = {**nodes_and_jobs(cluster, quick, remarks, "peer: ")}
            peers["submissions"] = submissions(cluster, remarks, "peer: ")
            cluster.stop_luxid()
            cluster.deploy()
            _start(cluster)
            ours = {**nodes_and_jobs(cluster, quick, remarks)}
            cluster.daemon_util("stop ganeti-luxid").checked()
            _start(cluster, "--ack=local")
            ours["submissions"] = submissions(cluster, remarks)
    except (AssertionError, DidNotRun) as error:
        remarks.append(f"{NAME}: {error}")
    return [
        (ABOUT, Line(NAME, figure, ours.get(figure.key), peer=peers.get(figure.key)))
        for figure in FIGURES
    ]


def nodes_and_jobs(
    cluster: RealCluster, quick: bool, remarks: list[str], of: str = ""
) -> dict[str, float]:
    """Measures live queries, then jobs; returns when the queue is empty."""
    site = Site(Path(cluster.paths.socket), None, quick)
    live = site.load(Query(method="Query", args=LIVE, clients=1, seconds=site.seconds))
    jobs = site.load(Jobs(clients=16, seconds=4 * site.seconds, on_master=False))
    _empty(cluster)
    remarks += [f"{NAME}: {of}{remark}" for remark in dict.fromkeys(site.remarks)]
    return {"nodes": live.median * 1e3, "jobs": jobs.rate}


def submissions(cluster: RealCluster, remarks: list[str], of: str = "") -> float:
    """Measures acknowledged submissions a second; returns when all jobs have ended."""
    site = Site(Path(cluster.paths.socket), None)
    load = Counted(method="SubmitJob", args=[[JOB]], clients=16, requests=SUBMISSIONS)
    measured = site.load(load)
    _empty(cluster)
    remarks += [f"{NAME}: {of}{remark}" for remark in dict.fromkeys(site.remarks)]
    return measured.rate


def _start(cluster: RealCluster, *options: str) -> None:
    """Starts the daemon; returns when both candidates have been brought up to date.

    The first time that takes a call for each job of luxid's.
    """
    current = "holds the queue and the configuration"
    before = cluster.log().count(current) if Path(cluster.paths.log).exists() else 0
    cluster.daemon_util(" ".join(["start ganeti-luxid", *options])).checked()
    until(
        "candidates are up to date",
        lambda: cluster.log().count(current),
        equal_to(before + 2),
        PATIENCE,
    )


def _empty(cluster: RealCluster) -> None:
    """Waits until all jobs have ended."""
    wanted: list[Any] = ["|", *(["=", "status", each] for each in ("queued", "waiting", "running"))]
    with BlockingClient(cluster.paths.socket, timeout=60) as client:
        for _ in range(int(PATIENCE)):
            if not client.query("job", ["id"], wanted)["data"]:
                return
            sleep(1)
    raise DidNotRun(f"jobs have not ended within {PATIENCE:g} s")
