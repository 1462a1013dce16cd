"""The workloads and what is wanted of each figure, as declared values.

Another figure is another entry of :data:`WORKLOADS`.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from bench.clusters import Prepare, cluster
from bench.evacuating import evacuation
from bench.figures import AtLeast, AtMost, Figure, Limit
from bench.instances import creation, switching
from bench.job_runs import Values, burst, jobs, sustained
from bench.loads import Beside, Burst, Query
from bench.overhead import moving
from bench.overhead import prepare as slow_nodes
from bench.queues import full_queue
from bench.site import Site
from bench.sizes import SIZES, changes, large_cluster
from bench.standing import Idlers, Parked, live_memory, million, rest, start
from bench.standing import full_queue as beside_full_queue
from bench.viewers import OPTION, watched

CONFIG_FIELDS = ["cluster_name", "master_node", "drain_flag"]

#: A cluster without other candidates: simulated ones live in the daemon's own process,
#: and what they do with each job's file is its CPU. The last of two options counts.
ALONE = ("--simulate=1",)


class Workload(Struct, frozen=True):
    """A run that gives one or more figures.

    ``run`` returns a value for each figure's key. Each workload gets a daemon
    of its own with ``options``, on an empty root unless ``prepare`` makes its
    cluster. ``peer`` says whether another daemon's socket can be measured too.
    """

    name: str
    about: str
    run: Callable[[Site], Values]
    figures: tuple[Figure, ...]
    limit: Limit | None = None
    peer: bool = True
    options: tuple[str, ...] = ()
    prepare: Prepare | None = None


# -- queries ------------------------------------------------------------------


def ask(method: str, args: list[object], clients: int) -> Callable[[Site], Values]:
    """Returns the run of clients that ask one thing again and again."""

    def run(site: Site) -> Values:
        measured = site.load(Query(method=method, args=args, clients=clients, seconds=site.seconds))
        return {"rate": measured.rate, "p99": measured.p99 * 1e3}

    return run


def query_jobs(site: Site) -> Values:
    """Asks for id and status of 2,000 finished jobs."""
    site.load(Burst(jobs=2000))
    measured = site.load(
        Query(method="QueryJobs", args=[None, ["id", "status"]], clients=1, seconds=site.seconds)
    )
    return {"median": measured.median * 1e3, "p99": measured.p99 * 1e3}


def rows(what: str, fields: list[str]) -> Callable[[Site], Values]:
    """Returns the run of one client that asks for all rows of a resource."""

    def run(site: Site) -> Values:
        load = Query(method="Query", args=[what, fields, None], clients=1, seconds=site.seconds)
        measured = site.load(load)
        return {"median": measured.median * 1e3, "p99": measured.p99 * 1e3}

    return run


def large_rows(site: Site) -> Values:
    """Asks for all of many instances, alone, then beside a client with small questions."""
    args = ["instance", ["name", "admin_state"], None]
    alone = site.load(Query(method="Query", args=args, clients=1, seconds=site.seconds))
    beside = site.load(Beside(method="Query", args=args, seconds=site.seconds))
    return {
        "median": alone.median * 1e3,
        "beside": beside.large * 1e3,
        "small": beside.p99 * 1e3,
        "worst": beside.worst * 1e3,
    }


P99 = Figure("p99", "99th percentile", "ms")


#: Another client's small request, beside many that do nothing.
BESIDE = (
    Figure("times", "another client's median, against none", "times", wanted=AtMost(2.0)),
    Figure("times99", "its 99th percentile, against none", "times"),
    Figure("p99", "its 99th percentile", "ms"),
)


def at_least(ratio: float, title: str = "rate") -> Figure:
    """Returns the figure of a rate that is wanted as a share of the machine's limit."""
    return Figure("rate", title, "1/s", wanted=AtLeast(ratio), limit=True)


#: The figures of many clients, and of one large submission, on however many nodes.
JOBS = (at_least(0.4), P99, Figure("cpu", "daemon's CPU a job", "ms"))
BURST = (
    Figure("acknowledged", "acknowledged after", "s", wanted=AtMost(0.2)),
    at_least(0.6, "rate until all done"),
)

WORKLOADS: tuple[Workload, ...] = (
    Workload(
        "jobs-1",
        "no-op jobs, one client",
        jobs(1),
        (at_least(0.09), P99, Figure("cpu", "daemon's CPU a job", "ms")),
        limit=Limit.DURABLE,
    ),
    Workload(
        "jobs-16",
        "no-op jobs, 16 clients",
        jobs(16),
        JOBS,
        limit=Limit.DURABLE,
    ),
    Workload(
        "jobs-16-alone",
        "no-op jobs, 16 clients, one node",
        jobs(16),
        JOBS,
        limit=Limit.DURABLE,
        peer=False,
        options=ALONE,
    ),
    Workload(
        "burst",
        "2,000 no-op jobs at once",
        burst,
        BURST,
        limit=Limit.DURABLE,
    ),
    Workload(
        "burst-alone",
        "2,000 no-op jobs at once, one node",
        burst,
        BURST,
        limit=Limit.DURABLE,
        peer=False,
        options=ALONE,
    ),
    Workload(
        "viewers",
        "bursts beside 16 viewers of events, 8 never read",
        watched,
        (
            Figure("alone", "rate without viewers", "1/s"),
            Figure("times", "time of a burst, against none", "times", wanted=AtMost(1.05)),
            Figure("times-cpu", "daemon's CPU, against none", "times"),
            Figure("memory", "memory that a burst takes beside them", "MiB", AtMost(64.0)),
            Figure("sent", "what one of them gets of a burst", "MiB"),
        ),
        peer=False,
        options=(OPTION,),
    ),
    Workload(
        "sustained",
        "16 clients for a minute",
        sustained,
        (
            at_least(0.4),
            Figure("slowest", "slowest tenth", "1/s", limit=True),
            Figure("follow", "files complete after", "s", wanted=AtMost(5.0)),
            Figure("rss", "memory at the end", "MiB"),
        ),
        limit=Limit.DURABLE,
        peer=False,
    ),
    Workload(
        "changes",
        "a tag of an instance, job after job",
        changes,
        (
            *(
                Figure(f"{clients}-{instances}", f"{clients} {who}, {instances:,} instances", "1/s")
                for clients, who in ((1, "client"), (8, "clients"))
                for instances, _ in SIZES
            ),
            Figure("times-1", "1 client: 10 against 10,000", "times", wanted=AtMost(2.0)),
            Figure("times-8", "8 clients: 10 against 10,000", "times", wanted=AtMost(2.0)),
            Figure("cpu-10", "daemon's CPU a job, 10 instances", "ms"),
            Figure("cpu-10000", "daemon's CPU a job, 10,000 instances", "ms"),
            Figure("sent", "a change to 10 candidates, 10,000 instances", "MiB"),
            Figure("made", "CPU to make that", "ms"),
        ),
        peer=False,
        options=("--simulate-log=off",),
        prepare=cluster(500, 10000),
    ),
    Workload(
        "create",
        "1,000 drbd instances, 100 nodes, 16 clients",
        creation,
        (
            Figure("rate", "rate", "1/s", wanted=AtLeast(0.05), limit=True),
            Figure("slowest", "slowest fifth", "1/s"),
            P99,
            Figure("cpu", "CPU a creation, daemon and nodes", "ms"),
            Figure("growth", "CPU of the last fifth, against the first", "times", AtMost(1.25)),
            Figure("faults", "verifications that find something", "jobs", AtMost(0)),
        ),
        limit=Limit.DURABLE,
        peer=False,
        options=("--simulate-log=off",),
        prepare=cluster(100),
    ),
    Workload(
        "switch",
        "instances stopped and started, 8 clients",
        switching,
        (
            Figure("few", "starts among 10", "1/s"),
            Figure("many", "starts among 10,000", "1/s"),
            Figure("cpu", "daemon's CPU a start among 10,000", "ms"),
            Figure("times", "that, against one among 10", "times", AtMost(1.5)),
            Figure("times-stop", "the same of a stop", "times", AtMost(1.5)),
            Figure("list", "all 10,000 listed live, median", "ms"),
        ),
        peer=False,
        options=("--simulate-log=off",),
        prepare=cluster(500, 10000),
    ),
    Workload(
        "evacuate",
        "50 mirrors leave one of 20 nodes",
        evacuation,
        (
            Figure("took", "until all are elsewhere", "s"),
            Figure("most", "most that one node gets", "mirrors"),
            Figure("bound", "the mirrors alone, one after the other on each node", "s"),
            Figure("times", "against the mirrors alone", "times", wanted=AtMost(1.25)),
            Figure("cpu", "CPU an instance, daemon and nodes", "ms"),
        ),
        peer=False,
        options=("--simulate-log=off",),
        prepare=cluster(20),
    ),
    Workload(
        "move",
        "a migration, a failover; 50 ms a node call",
        moving,
        (
            Figure("migrate", "migration, against its nodes' time", "times", AtMost(1.15)),
            Figure("migrate-own", "what the daemon adds", "ms"),
            Figure("migrate-cpu", "CPU of it, daemon and nodes", "ms"),
            Figure("migrate-rounds", "calls one after the other", "calls"),
            Figure("failover", "failover, against its nodes' time", "times", AtMost(1.15)),
            Figure("failover-own", "what the daemon adds", "ms"),
            Figure("failover-cpu", "CPU of it, daemon and nodes", "ms"),
            Figure("failover-rounds", "calls one after the other", "calls"),
        ),
        peer=False,
        options=("--simulate-log=buffered",),
        prepare=slow_nodes,
    ),
    Workload(
        "info-1",
        "QueryClusterInfo, 1 client",
        ask("QueryClusterInfo", [], 1),
        (Figure("rate", "rate", "1/s", limit=True), P99),
        limit=Limit.LINE_1,
    ),
    Workload(
        "info-16",
        "QueryClusterInfo, 16 clients",
        ask("QueryClusterInfo", [], 16),
        (at_least(0.7), P99),
        limit=Limit.LINE_16,
    ),
    Workload(
        "values-1",
        "QueryConfigValues, 1 client",
        ask("QueryConfigValues", [CONFIG_FIELDS], 1),
        (Figure("rate", "rate", "1/s", limit=True), P99),
        limit=Limit.LINE_1,
    ),
    Workload(
        "values-16",
        "QueryConfigValues, 16 clients",
        ask("QueryConfigValues", [CONFIG_FIELDS], 16),
        (at_least(0.7), P99),
        limit=Limit.LINE_16,
    ),
    Workload(
        "query-jobs",
        "QueryJobs, 2,000 finished jobs",
        query_jobs,
        (Figure("median", "median", "ms", wanted=AtMost(8.0)), P99),
        peer=False,
    ),
    Workload(
        "nodes-16",
        "nodes: name, role, group; 16 clients",
        ask("Query", ["node", ["name", "role", "group"], None], 16),
        (at_least(0.6), P99),
        limit=Limit.LINE_16,
    ),
    Workload(
        "instances-1000",
        "1,000 instances, not live",
        rows("instance", ["name", "admin_state"]),
        (Figure("median", "median", "ms", wanted=AtMost(6.0)), P99),
        peer=False,
        prepare=cluster(100, 1000),
    ),
    Workload(
        "instances-10000",
        "10,000 instances, not live",
        large_rows,
        (
            Figure("median", "median", "ms", wanted=AtMost(60.0)),
            Figure("beside", "median beside small queries", "ms"),
            Figure("small", "their 99th percentile", "ms", wanted=AtMost(10.0)),
            Figure("worst", "their worst", "ms"),
        ),
        peer=False,
        prepare=cluster(500, 10000),
    ),
    Workload(
        "live-nodes",
        "100 live nodes of 20 ms each",
        rows("node", ["name", "mtotal", "mfree", "dtotal", "dfree"]),
        (Figure("median", "median", "ms", wanted=AtMost(60.0)), P99),
        peer=False,
        prepare=cluster(100, latency=0.02),
    ),
    Workload(
        "live-memory",
        "10,000 queries of 1,000 live instances",
        live_memory,
        (
            Figure("before", "memory after the first 100", "MiB"),
            Figure("after", "memory after all", "MiB"),
            Figure("growth", "growth", "MiB", wanted=AtMost(2.0)),
        ),
        peer=False,
        options=("--simulate-log=off",),
        prepare=cluster(100, 1000),
    ),
    Workload(
        "start",
        "start with 5,000 jobs",
        start,
        (
            Figure("start", "first answer after", "s", wanted=AtMost(1.0), limit=True),
            Figure("stop", "clean stop", "s"),
        ),
        limit=Limit.START,
        peer=False,
    ),
    Workload(
        "large",
        "10,000 instances, 500 nodes, 5,000 jobs",
        large_cluster,
        (
            Figure("start", "first answer after", "s", wanted=AtMost(6.0), limit=True),
            Figure("rss", "memory then", "MiB"),
            Figure("after", "memory after 200 listings", "MiB"),
            Figure(
                "instance",
                "what an instance adds to it",
                "KiB",
                wanted=AtMost(25.0),
            ),
        ),
        limit=Limit.START,
        peer=False,
        prepare=cluster(500, 10000),
    ),
    Workload(
        "idle",
        "10,000 idle connections",
        Idlers(10000),
        (
            *BESIDE,
            Figure("memory", "memory a connection", "KiB"),
        ),
        peer=False,  # luxid 3.0.2 dies past 1,024 descriptors
        options=("--max-connections=10100",),
    ),
    Workload(
        "waiters",
        "5,000 clients wait for a job",
        Parked(5000),
        (
            *BESIDE,
            Figure("release", "first to last told", "ms"),
            Figure("memory", "memory a waiting client", "KiB"),
        ),
        peer=False,  # luxid 3.0.2 dies past 1,024 descriptors
        options=("--max-connections=5100",),
    ),
    Workload(
        "full-queue",
        "100,000 archived, 10,000 live jobs",
        beside_full_queue,
        (
            Figure("submit", "a submission, against none", "times", wanted=AtMost(1.25)),
            Figure("values", "QueryConfigValues, against none", "times", wanted=AtMost(1.25)),
            Figure("job", "QueryJobs of one job, against none", "times", wanted=AtMost(1.25)),
            Figure("start", "first answer after", "s"),
            Figure("rss", "memory", "MiB"),
            Figure("every", "QueryJobs of all of them", "s"),
            Figure("peak", "memory that it takes meanwhile", "MiB", wanted=AtMost(64.0)),
        ),
        peer=False,
        # The job that the others wait for runs for hours.
        options=("--stop-timeout=0",),
        prepare=full_queue(100000, 10000),
    ),
    Workload(
        "rest",
        "nothing to do",
        rest,
        (Figure("cpu", "CPU a second", "ms", wanted=AtMost(5.0)),),
        peer=False,
    ),
    Workload(
        "million",
        "1,000,000 requests",
        million,
        (
            Figure("before", "memory after a tenth", "MiB"),
            Figure("after", "memory after all", "MiB", wanted=AtMost(80.0)),
            Figure("growth", "growth", "MiB", wanted=AtMost(2.0)),
        ),
        peer=False,
    ),
)
