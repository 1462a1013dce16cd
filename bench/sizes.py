"""Runs on clusters of several sizes: what it costs that a cluster is large."""

from __future__ import annotations

from contextlib import ExitStack
from statistics import median
from time import process_time

from bench.clusters import cluster
from bench.job_runs import Values
from bench.loads import Burst, Changes, Counted
from bench.process import Daemon
from bench.site import Site
from ganeti_masterd.config.document import ConfigImage, parse
from ganeti_masterd.config.pages import Pages
from ganeti_masterd.journal.layout import QueueFiles
from ganeti_masterd.replication.calls import calls_for
from ganeti_masterd.replication.states import ConfigFile
from ganeti_masterd.rpc.wire import encode

#: Instances and nodes of the clusters that are compared, the smallest first. All of them
#: have ten candidates.
SIZES = ((10, 10), (1000, 100), (10000, 500))

#: How many candidates a change is sent to, and how many changes are measured.
CANDIDATES = 10
CHANGED = 50

#: All fields of instances that a plain list shows, from the configuration and live.
LISTED = ["name", "hypervisor", "os", "pnode", "status", "oper_ram", "admin_state", "tags"]
LISTINGS = 200


def changes(site: Site) -> Values:
    """Tags set by 1 and by 8 clients, on clusters of all sizes; the largest is the site's own.

    They are measured in turns, and the best of each counts.
    """
    daemons: dict[int, Daemon] = {}
    rates: dict[tuple[int, int], float] = {}
    cpu: dict[int, float] = {}
    turns = 2 if site.quick else 3
    with ExitStack() as stack:
        for instances, nodes in SIZES[:-1]:
            folder = site.own().folder / str(instances)
            folder.mkdir()
            prepare = cluster(nodes, instances)
            daemon = daemons[instances] = Daemon(folder, ("--simulate-log=off",), prepare)
            stack.enter_context(daemon)
            daemon.start()
        daemons[SIZES[-1][0]] = site.own()
        for _ in range(turns):
            for instances, daemon in daemons.items():
                for clients in (1, 8):
                    before = daemon.cpu_seconds()
                    load = Changes(clients=clients, seconds=site.seconds)
                    measured = site.load(load, daemon.path)
                    key = clients, instances
                    rates[key] = max(rates.get(key, 0.0), measured.rate)
                    if clients == 8:
                        cpu[instances] = (daemon.cpu_seconds() - before) / measured.count * 1e3
    first, last = SIZES[0][0], SIZES[-1][0]
    return {
        **{f"{clients}-{instances}": rate for (clients, instances), rate in rates.items()},
        "cpu-10": cpu[first],
        "cpu-10000": cpu[last],
        "times-1": rates[1, first] / rates[1, last],
        "times-8": rates[8, first] / rates[8, last],
        **to_candidates(site.own()),
    }


def to_candidates(daemon: Daemon) -> Values:
    """What one change is to candidates: the bytes of all requests, and the CPU to make them.

    Measured in this process, on the configuration of the daemon.
    """
    path = daemon.queue.parent / "config.data"
    files = QueueFiles(queue=str(daemon.queue), config=str(path))
    snapshot, pages = parse(path.read_bytes()), Pages()
    pages.compressed(snapshot)
    seconds: list[float] = []
    sent = 0
    for instance in list(snapshot.instances.values())[:CHANGED]:
        begun = process_time()
        snapshot = snapshot.with_object("instances", instance.with_tags(["bench"]))
        file = ConfigFile(ConfigImage(snapshot, pages))
        sent = 0
        for _ in range(CANDIDATES):
            ((_, arguments),) = calls_for([file], files)
            sent += len(encode(arguments))
        seconds.append(process_time() - begun)
    return {"sent": sent / 2**20, "made": median(seconds) * 1e3}


def large_cluster(site: Site) -> Values:
    """Starts with 10,000 instances, 500 nodes and 5,000 jobs; then lists all of it, often."""
    daemon = site.own()
    instances, _ = SIZES[-1]
    for _ in range(5):
        last = site.load(Burst(jobs=1000)).last_job
    starts = []
    for _ in range(1 if site.quick else 3):
        daemon.stop()
        starts.append(daemon.start({"method": "QueryJobs", "args": [[last], ["id", "status"]]}))
    at_start = daemon.resident_bytes()
    share = 10 if site.quick else 1
    for resource, fields in (("instance", LISTED), ("node", ["name", "role", "pinst_cnt"])):
        args = [resource, fields, None]
        site.load(Counted(method="Query", args=args, clients=2, requests=LISTINGS // share))
    after = daemon.resident_bytes()
    folder = daemon.folder / "empty"
    folder.mkdir()
    with Daemon(folder) as empty:
        empty.start()
        nothing = empty.resident_bytes()
        empty.stop()
    return {
        "start": sorted(starts)[len(starts) // 2],
        "rss": at_start / 2**20,
        "after": after / 2**20,
        "instance": (after - nothing) / instances / 1024,
    }
