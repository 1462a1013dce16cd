"""Instances on real node daemons with LVM and DRBD: luxid first, then the daemon in its place.

GANETI_MASTERD_REFERENCE names the folder with the programs that make such a cluster, as for
``tests/soak/test_recorded_instances.py``; without it nothing is measured. The node daemons write a
line for each call that they have answered, ``noded_rpc.jsonl`` below the cluster's folder.

Node daemons, master daemon and load share one machine, so rates are as much theirs as the master's.
From these lines comes what a master adds to its nodes' time: each moment in which at least one node
was working on a call counts as the nodes'. The lines leave out the time in which a node daemon
accepts a connection, sets up TLS, and starts the process that answers. So each stretch of such
moments is lengthened by what a live query of one node takes besides its call.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import sleep, time
from typing import Any

import msgspec
from msgspec import Struct

from bench.figures import AtMost, Figure, Line, Times
from bench.load import REMOVE
from bench.loads import Instances, Measured
from bench.mirrored import end, mirrored
from bench.process import DidNotRun
from bench.site import Site
from bench.takeover import missing
from ganeti_masterd.luxi.blocking import BlockingClient
from tests.functional.realcluster import NET, RealCluster

NAME = "reference"
ABOUT = "instances on real node daemons, luxid the peer"

#: The templates, each with what a creation says of its disks.
TEMPLATES: Mapping[str, Mapping[str, Any]] = {
    "diskless": {"disk_template": "diskless", "disks": [], "nics": []},
    "drbd": {"disk_template": "drbd", "disks": [{"size": 128}], "nics": []},
}

#: Primary and secondary nodes of instances, by turns; the master has enough to do.
PLACES = [["node2", "node3"], ["node3", "node2"]]

#: How many clients there are beside the one, and how many pairs each of them does.
CLIENTS = 8
PAIRS = 2

#: Instances of one batch.
BATCH = 20

#: How often each is measured; the median counts.
RUNS = 3

#: How many live queries tell what a call takes besides the node's work.
PROBES = 5

#: Seconds in which the last line of the tap is written.
WRITTEN_IN = 0.5


def _times(key: str, title: str) -> Figure:
    return Figure(key, title, "times", AtMost(1.15))


FIGURES = (
    *(
        figure
        for template, factor in (("diskless", 5.0), ("drbd", 4.0))
        for figure in (
            _times(f"{template}-1", f"{template}: add and remove, against the nodes' time"),
            Figure(f"{template}-took", f"{template}: that pair", "s"),
            Figure(f"{template}-8", f"{template}: pairs, {CLIENTS} clients", "1/s", Times(factor)),
            Figure(f"{template}-cpu", f"{template}: node daemons' CPU a pair then", "s"),
            Figure(f"{template}-share", f"{template}: that, of all processors' time", "times"),
        )
    ),
    Figure("batch", f"{BATCH} drbd instances at once", "1/s", Times(4.0)),
    _times("migrate", "migration, against the nodes' time"),
    Figure("migrate-took", "migration", "s"),
    _times("failover", "failover, against the nodes' time"),
    Figure("failover-took", "failover", "s"),
)


class TappedCall(Struct):
    """A line of the tap: when a node began with a call (``t``), and for how many ms."""

    t: float
    ms: float


def stretches(calls: list[TappedCall], begun: float, ended: float) -> tuple[float, int]:
    """Returns the seconds of a span with at least one node at work, and in how many pieces. Pure.

    Calls that overlap are one piece.
    """
    total, pieces, reached = 0.0, 0, begun
    for start, stop in sorted((call.t, min(ended, call.t + call.ms / 1e3)) for call in calls):
        if stop <= begun or start >= ended:
            continue
        if start > reached or not pieces:
            pieces += 1
        total += max(0.0, stop - max(start, reached))
        reached = max(reached, stop)
    return total, pieces


class Tap:
    """The calls that nodes have answered, as their daemons write them down."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._decoder = msgspec.json.Decoder(TappedCall)

    def position(self) -> int:
        """Returns how much has been written by now."""
        return self.path.stat().st_size if self.path.exists() else 0

    def since(self, position: int) -> list[TappedCall]:
        """Returns the calls since then, once the last is written."""
        sleep(WRITTEN_IN)
        with self.path.open("rb") as file:
            file.seek(position)
            return [self._decoder.decode(line) for line in file]


class ReferenceRun:
    """The loads on one cluster, under either master daemon."""

    def __init__(self, cluster: RealCluster, quick: bool, remarks: list[str], of: str = "") -> None:
        self._cluster = cluster
        self._runs, self._pairs_each = (1, 1) if quick else (RUNS, PAIRS)
        self._remarks = remarks
        self._of = of
        self._tap = Tap(cluster.folder / "noded_rpc.jsonl")
        self._made = 0
        #: Seconds that a call takes besides the node's work on it.
        self._connecting = 0.0

    def measure(self) -> dict[str, float]:
        """Runs all loads; returns a value for each figure."""
        runs = [self._once() for _ in range(self._runs)]
        return {key: median(run[key] for run in runs) for key in runs[0]}

    def _once(self) -> dict[str, float]:
        values: dict[str, float] = {}
        with BlockingClient(self._cluster.paths.socket, timeout=300) as client:
            self._connecting = self.connecting(client)
            for template in TEMPLATES:
                values |= self._pair(client, template)
                values |= self._pairs(template)
            values["batch"] = self._batch(client)
            values |= self._moves(client)
        return values

    def connecting(self, client: BlockingClient) -> float:
        """Returns the median of the seconds that a live query takes besides its call."""
        found = []
        for _ in range(PROBES):
            position, begun = self._tap.position(), time()
            client.call("Query", "node", ["mfree"], ["=", "name", PLACES[0][0]])
            ended = time()
            busy, _pieces = stretches(self._tap.since(position), begun, ended)
            found.append(ended - begun - busy)
        return median(found)

    def _creation(self, template: str) -> dict[str, Any]:
        self._made += 1
        opcode = mirrored(f"instance{self._made}", 128, *PLACES[self._made % len(PLACES)])
        opcode |= {**TEMPLATES[template], "reason": []}
        if template == "diskless":
            del opcode["snode"]
        return opcode

    def _spent(self, client: BlockingClient, *opcodes: Mapping[str, Any]) -> tuple[float, float]:
        """Returns the seconds that jobs took, one after the other, and those of the nodes."""
        position, begun = self._tap.position(), time()
        for opcode in opcodes:
            end(client, [(True, client.call("SubmitJob", [{**opcode, "reason": []}]))])
        ended = time()
        busy, pieces = stretches(self._tap.since(position), begun, ended)
        if not pieces:
            raise DidNotRun(f"the node daemons wrote no line to {self._tap.path}")
        return ended - begun, busy + pieces * self._connecting

    def _pair(self, client: BlockingClient, template: str) -> dict[str, float]:
        creation = self._creation(template)
        removal = {**REMOVE, "instance_name": creation["instance_name"]}
        took, nodes = self._spent(client, creation, removal)
        return {f"{template}-1": took / nodes, f"{template}-took": took}

    def _pairs(self, template: str) -> dict[str, float]:
        places = PLACES if template == "drbd" else [place[:1] for place in PLACES]
        count = CLIENTS * self._pairs_each
        load = Instances(
            action="pair",
            clients=CLIENTS,
            count=count,
            first=self._made + 1,
            prefix="instance",
            places=places,
            more=dict(TEMPLATES[template]),
        )
        self._made += count
        site = Site(Path(self._cluster.paths.socket), None)
        before = self._nodes_cpu()
        measured: Measured = site.load(load)
        cpu = self._nodes_cpu() - before
        self._remarks += [f"{NAME}: {self._of}{each}" for each in dict.fromkeys(site.remarks)]
        return {
            f"{template}-8": count / measured.seconds,
            f"{template}-cpu": cpu / count,
            f"{template}-share": cpu / measured.seconds / (os.cpu_count() or 1),
        }

    def _batch(self, client: BlockingClient) -> float:
        created = [self._creation("drbd") for _ in range(BATCH)]
        begun = time()
        opcode = {"OP_ID": "OP_INSTANCE_MULTI_ALLOC", "instances": created, "reason": []}
        (job,) = end(client, [(True, client.call("SubmitJob", [opcode]))])
        ((results,),) = client.call("QueryJobs", [job], ["opresult"])
        end(client, results[0]["jobs"])
        took = time() - begun
        for each in created:
            removal = {**REMOVE, "instance_name": each["instance_name"], "reason": []}
            end(client, [(True, client.call("SubmitJob", [removal]))])
        return BATCH / took

    def _moves(self, client: BlockingClient) -> dict[str, float]:
        creation = self._creation("drbd")
        about = {"instance_name": creation["instance_name"]}
        self._spent(client, creation)
        values = {}
        for how in ("MIGRATE", "FAILOVER"):
            took, nodes = self._spent(client, {"OP_ID": f"OP_INSTANCE_{how}", **about})
            values[how.lower()] = took / nodes
            values[f"{how.lower()}-took"] = took
        self._spent(client, {**REMOVE, **about})
        return values

    def _nodes_cpu(self) -> float:
        """Returns the seconds of CPU of the node daemons and of what they ran and awaited."""
        ticks = 0
        for pid in self._cluster.processes():
            try:
                line = Path(f"/proc/{pid}/cmdline").read_bytes()
                stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
            except OSError:
                continue
            if b"/ganeti-noded" in line:
                ticks += sum(map(int, stat.rpartition(")")[2].split()[11:15]))
        return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def reference_cluster(programs: str, folder: Path) -> Iterator[RealCluster]:
    """A cluster of the reference's, below ``folder``, under luxid; it is gone afterwards."""
    root = Path(tempfile.mkdtemp(prefix="gnt-", dir=folder))
    cluster = RealCluster(root)
    environment = {
        **os.environ,
        "DISKS": "1",
        "VC_NS": cluster.namespace,
        "VC_ROOT": str(root),
        "VC_NET": NET,
    }

    def run(*command: str) -> None:
        done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
        if done.returncode:
            said = (done.stdout + done.stderr)[-500:].strip()
            raise DidNotRun(f"{command[0]}: {done.returncode}: {said}")

    try:
        run(f"{programs}/up.sh")
        # Mirrors are filled at once: how long that takes is no master's doing.
        run(f"{programs}/blockdev/ctl.py", "sync", "0")
        yield cluster
    finally:
        subprocess.run([f"{programs}/down.sh"], env=environment, check=False, capture_output=True)
        shutil.rmtree(root, ignore_errors=True)


def measure(folder: Path, quick: bool, remarks: list[str]) -> list[tuple[str, Line]]:
    """Measures both in one run; nothing, and a remark, where the reference isn't there.

    ``folder`` is where the cluster is made. What went wrong is added to ``remarks``.
    """
    programs = os.environ.get("GANETI_MASTERD_REFERENCE", "")
    lacking = missing() if programs else "GANETI_MASTERD_REFERENCE names no folder"
    if lacking is not None:
        remarks.append(f"{NAME}: not measured, as {lacking}")
        return []
    ours: dict[str, float] = {}
    peers: dict[str, float] = {}
    try:
        # Other users must get at it, so not below the folder of the other workloads.
        with reference_cluster(programs, folder) as cluster:
            peers = ReferenceRun(cluster, quick, remarks, "peer: ").measure()
            cluster.take_over()
            ours = ReferenceRun(cluster, quick, remarks).measure()
    except (AssertionError, DidNotRun, OSError) as error:
        remarks.append(f"{NAME}: {error}")
    return [
        (ABOUT, Line(NAME, figure, ours.get(figure.key), peer=peers.get(figure.key)))
        for figure in FIGURES
    ]
