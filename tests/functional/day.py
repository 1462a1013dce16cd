"""A day in the life of a cluster of simulated nodes: people, tools and misfortune, all at once.

People create, change, move and remove instances; Ganeti's own tools balance, watch and back up;
nodes die and come back; the daemon is killed, and replaced. In the end the cluster must be whole,
and the end of every job that anybody was promised must be explained (:data:`EXPLAINED`).
"""

from __future__ import annotations

import contextlib
import random
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ganeti_masterd.errors import JobQueueError
from ganeti_masterd.luxi.blocking import BlockingClient
from ganeti_masterd.luxi.failures import CallFailed
from ganeti_masterd.simulation.control import CONTROL
from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.conftest import require
from tests.functional.descriptions import description_in
from tests.functional.ledger import FINAL
from tests.functional.remoteapi import RapiClient, may_connect, remote_api
from tests.functional.waiting import job_is, jobs_end, until
from tests.rpc import pki

#: The head of a cluster's description; its nodes follow.
CLUSTER = """\
[cluster]
disk_templates = ["drbd", "plain"]
hypervisors = ["kvm"]
migration_speed = 4000
transfer_speed = 4000

[sync]
speed = 2000

[every_node]
memory = 65536
cpus = 32
exports = true

[[every_node.volume_group]]
name = "xenvg"
physical_volume = [{ name = "/dev/sda", size = 524288 }]
"""

#: What a job's error says if the daemon was killed while it ran.
KILLED = "stopped uncleanly while this opcode ran"

#: How the end of a job that failed is explained: what its error says, and why it may.
EXPLAINED: Mapping[str, str] = {
    KILLED: "the daemon was killed",
    "disk layout 'plain' does not allow": "its disks are on one node only",
    "expected one secondary but found 0": "its disks are on one node only",
    "is marked to be up, cannot reinstall": "it runs",
    r"please use failover: Instance \S+ is not running": "it doesn't run",
    r"Instance '\S+' not known": "somebody else removed it",
    "Can't use offline node": "a node is dead, and marked so",
    "Can't contact node": "a node is dead",
    "Can't activate the instance's disks": "a node is dead, or its mirror is not whole yet",
    "Disk consistency error": "a node is dead",
    "No route to host": "a node is dead",
    "Node is marked offline": "a node is dead, and marked so",
    "primary node offline, cannot reinstall": "a node is dead, and marked so",
    "not fully synchronized on target node": "its mirror is not whole yet",
    "is degraded on target node": "its mirror is not whole",
    "some of its disks are degraded": "its mirror is not whole",
    "are degraded, so that what earlier replacements have left stays": "its mirror is not whole",
    "cannot grow diskless device": "its mirror is not whole",
    "need a connected peer to resize": "its mirror is not whole",
    "has volumes that are called as those of instance": "it was moved away from there while dead",
    "has degraded storage, unsafe to replace disks": "its mirror is not whole",
    r"DRBD device \S+ of instance \S+ is degraded on node": "its mirror is not whole",
    "runs on node .*, which is not its primary node": "a migration was cut off",
    "Disks seem to be not properly activated": "its node was started anew",
    "Please run activate-disks on instance": "its primary node is dead",
}

#: Errors that don't tell the cause: what the error says, what the job's log says, and why it may.
EXPLAINED_BY_LOG: Sequence[tuple[str, str, str]] = (
    ("could not be imported", "Didn't become ready after", "its node was started anew meanwhile"),
    (
        "Can't remove instance's disks",
        "Could not remove disk .* (Node is marked offline|.*No route to host)",
        "a node is dead",
    ),
    (
        "Cannot activate block devices",
        "Could not prepare block device .* (Node is marked offline|.*No route to host)",
        "a node is dead",
    ),
    (
        "Cannot activate block devices",
        "Multiple primaries not allowed by config",
        "a migration was cut off",
    ),
)

#: Seconds that all jobs have to end in once the day is over.
EVENING = 300.0

#: Seconds after which something is tried again that the daemon couldn't take or finish.
AGAIN = 0.5


@dataclass(frozen=True)
class Size:
    """How large the cluster is, and how much is done there at a time."""

    nodes: int
    instances: int
    people: int


@dataclass
class Diary:
    """What was promised to whom, and what else happened."""

    #: Who submitted each acknowledged job.
    jobs: dict[int, str] = field(default_factory=dict)
    #: How often something was done, or failed to be.
    counts: Counter[str] = field(default_factory=Counter)
    #: What must never happen.
    faults: list[str] = field(default_factory=list)
    #: How long each part of the day took, seconds; of what comes again and again the longest.
    seconds: dict[str, float] = field(default_factory=dict)

    def note_time(self, part: str, seconds: float) -> None:
        """Notes how long a part of the day took, if it never took longer."""
        self.seconds[part] = max(seconds, self.seconds.get(part, 0.0))

    def acknowledge(self, who: str, jobs: Sequence[int]) -> None:
        """Notes jobs that were acknowledged; no id may be given twice."""
        for job in jobs:
            if job in self.jobs:
                self.faults.append(f"job {job} was given to {self.jobs[job]} and to {who}")
            self.jobs[job] = who

    @contextlib.contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Notes how long the body took."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self.note_time(part, time.monotonic() - begun)

    def __str__(self) -> str:
        """All that it counted and measured, line by line."""
        counts = [f"{what}: {count}" for what, count in sorted(self.counts.items())]
        return "\n".join([*counts, *(f"{part}: {s:.1f} s" for part, s in self.seconds.items())])


@contextlib.contextmanager
def began(folder: Path, size: Size, seed: int) -> Iterator[Day]:
    """A daemon, the remote API beside it, and a day on them."""
    require("ganeti-watcher", "ganeti-3.0")
    require("hbal", "ganeti-htools-3.0")
    folder.chmod(0o755)  # the remote API runs as another user
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # What a node has done is on the disk before it answers, as on a real one.
    options = (*may_connect(), f"--monitoring=tcp:{port}", "--simulate-log=synced")
    daemon = DaemonProcess(folder / "node1", *options, nodes=describe(folder, size))
    Path(daemon.root, "var/lock").mkdir(parents=True)
    with daemon:
        certificate = folder / "rapi.pem"
        pki.identity("rapi").write(str(certificate))
        certificate.chmod(0o644)
        secured = (f"--ssl-key={certificate}", f"--ssl-cert={certificate}")
        with remote_api(daemon, "tester secret write\n", *secured) as rapi:
            api = RapiClient(rapi, "tester", "secret")
            yield Day(daemon, size, seed, f"http://127.0.0.1:{port}", api)


def describe(folder: Path, size: Size) -> str:
    """Writes the description of the cluster; returns its path."""
    nodes = "".join(f'\n[[node]]\nname = "node{n}"\n' for n in range(1, size.nodes + 1))
    return description_in(folder, CLUSTER + nodes)


class Actor(threading.Thread):
    """Somebody or something that does one thing after another until the day ends.

    The daemon may be gone at any moment; then the actor waits until it answers again.
    """

    #: Seconds between two acts, at random up to twice as many.
    pause = 0.5

    def __init__(self, day: Day, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.day = day
        self.diary = day.diary
        self.random = random.Random(f"{day.seed} {name}")
        self._over = threading.Event()

    def run(self) -> None:
        """Acts, until it is told that the day is over."""
        try:
            while not self._over.wait(self.random.uniform(0, 2 * self.pause)):
                try:
                    with self.diary.timed(f"longest act of {self.name}"):
                        self.act()
                except (CallFailed, JobQueueError):  # it is gone, or about to
                    self.diary.counts["nobody answered"] += 1
            self.finish()
        except BaseException as error:  # it would end unseen
            self.diary.faults.append(f"{self.name}: {error!r}")
            raise

    def end(self) -> None:
        """Tells it that the day is over."""
        self._over.set()

    def act(self) -> None:
        """Does one thing; raises :exc:`CallFailed` if the daemon doesn't answer."""
        raise NotImplementedError

    def finish(self) -> None:
        """Puts back what it has disturbed."""

    @contextlib.contextmanager
    def master(self) -> Iterator[BlockingClient]:
        """A client of the daemon."""
        with BlockingClient(self.day.daemon.socket, timeout=60) as client:
            yield client

    def submit(self, client: BlockingClient, *ops: Mapping[str, Any]) -> int:
        """Submits a job and notes that it was acknowledged; returns its id."""
        job: int = client.submit_job([dict(op) for op in ops])
        self.diary.acknowledge(self.name, [job])
        self.diary.counts[str(ops[0]["OP_ID"])] += 1
        return job

    def done(self, client: BlockingClient, *ops: Mapping[str, Any]) -> int:
        """The same, and waits for its end, which may be a failure; returns the id."""
        job = self.submit(client, *ops)
        job_is(client, job, *FINAL, limit=EVENING)
        return job

    def insist(self, op: Mapping[str, Any]) -> None:
        """Has a job done, again and again as long as the daemon is killed meanwhile.

        So only for what may be done twice. Any other failure is one of the day.
        """
        limit = time.monotonic() + EVENING
        while not self._succeeds(op):
            assert time.monotonic() < limit, f"{op} was not done in {EVENING:g} s"
            time.sleep(AGAIN)

    def _succeeds(self, op: Mapping[str, Any]) -> bool:
        """Has a job done; returns False if the daemon was killed or stopped meanwhile."""
        try:
            with self.master() as client:
                job = self.done(client, op)
                ((status, results),) = client.query_jobs([job], ["status", "opresult"])
        except (CallFailed, JobQueueError):  # it is gone, or about to
            return False
        assert status == "success" or KILLED in str(results), f"{op}: {results}"
        return bool(status == "success")

    def instances(self, client: BlockingClient) -> list[dict[str, Any]]:
        """Returns name, nodes, state and template of every instance, by Ganeti's field names."""
        fields = ["name", "pnode", "snodes", "admin_state", "disk_template"]
        return [
            dict(zip(fields, (value for _, value in row), strict=True))
            for row in client.query("instance", fields)["data"]
        ]

    def tool(self, *command: str, limit: float = 300.0) -> tuple[int, str]:
        """Runs one of Ganeti's tools; returns its exit code and all that it printed."""
        done = self.day.daemon.tool(command, limit=limit)
        self.diary.counts[f"{command[0]}: {done.returncode}"] += 1
        said = done.stdout + done.stderr
        if done.returncode:
            print(f"{' '.join(command)}\n{said}")
        if "Traceback" in said:
            self.diary.faults.append(f"{' '.join(command)}:\n{said}")
        return done.returncode, said

    def switch(self, *words: str) -> None:
        """Throws a switch of the simulated cluster, as soon as there is a daemon.

        That an instance isn't where it was a moment ago is all that may go wrong.
        """

        def thrown() -> str:
            command = [sys.executable, "-m", "ganeti_masterd.simulation", *words]
            return self.day.daemon.tool(command).stderr

        nobody = str(Path(self.day.daemon.root, CONTROL))
        until(f"{words} is thrown", thrown, lambda said: not said.startswith(nobody))


class Person(Actor):
    """Somebody who has instances, and works with them and with those of others."""

    pause = 0.3

    def __init__(self, day: Day, name: str) -> None:
        super().__init__(day, name)
        self._made = 0

    def act(self) -> None:
        """Does what the moment suggests to one instance, and mostly waits for it."""
        with self.master() as client:
            found = self.instances(client)
            chosen = self.random.choice(found) if found else None
            op = self._op(chosen, len(found))
            if self.random.random() < 0.8:
                self.done(client, op)
            else:
                self.submit(client, op)

    def _op(self, chosen: Mapping[str, Any] | None, count: int) -> dict[str, Any]:
        deed = self.random.choices(*zip(*DEEDS.items(), strict=True))[0]
        if deed == "CREATE" or chosen is None:
            if count >= self.day.size.instances * 1.1 and chosen is not None:
                return _instance("REMOVE", chosen)
            self._made += 1
            return self.day.creation(f"{self.name}-{self._made}", self.random)
        if deed == "REMOVE" and count < self.day.size.instances * 0.9:
            deed = "STARTUP"
        op = _instance(deed, chosen)
        if deed == "SET_PARAMS":
            op["beparams"] = {"maxmem": self.random.choice((128, 192, 256))}
        elif deed == "GROW_DISK":
            op |= {"disk": 0, "amount": self.random.randint(1, 64)}
        elif deed == "REPLACE_DISKS":
            op["mode"] = self.random.choice(("replace_auto", "replace_on_secondary"))
        elif deed == "REBOOT":
            op["reboot_type"] = self.random.choice(("soft", "hard", "full"))
        return op


#: What people do with instances, and how often; each is an opcode without its OP_INSTANCE.
DEEDS = {
    "CREATE": 6,
    "REMOVE": 4,
    "STARTUP": 8,
    "SHUTDOWN": 4,
    "REBOOT": 4,
    "SET_PARAMS": 6,
    "GROW_DISK": 3,
    "MIGRATE": 5,
    "FAILOVER": 3,
    "REPLACE_DISKS": 3,
    "REINSTALL": 1,
}


def _instance(deed: str, chosen: Mapping[str, Any]) -> dict[str, Any]:
    return {"OP_ID": f"OP_INSTANCE_{deed}", "instance_name": chosen["name"]}


class Balancer(Actor):
    """Balances the cluster by hbal, as a timer does."""

    pause = 8.0

    def act(self) -> None:
        """Lets hbal take a few steps."""
        self.tool("hbal", "-L", "-X", "-l", "4", "--no-disk-moves")


class Watcher(Actor):
    """Runs Ganeti's watcher, as cron does."""

    pause = 4.0

    def act(self) -> None:
        """Runs it once; nothing is there for it to start daemons with."""
        script = f'mount --bind /bin/true {DAEMON_UTIL} && exec ganeti-watcher "$@"'
        self.tool("unshare", "--mount", "sh", "-c", script, "sh", "--wait-children")


#: What the watcher would start daemons with.
DAEMON_UTIL = "/usr/lib/ganeti/daemon-util"


class Portal(Actor):
    """A web portal: its own instances, through the remote API."""

    pause = 2.0

    def __init__(self, day: Day, name: str, api: RapiClient) -> None:
        super().__init__(day, name)
        self._api = api
        self._made = 0

    def act(self) -> None:
        """Makes an instance, looks at all, removes it again; not all that must be possible."""
        self._made += 1
        made = f"{self.name}-{self._made}"
        create = {
            "mode": "create",
            "name": made,
            "disk_template": "plain",
            "disks": [{"size": 64}],
            "nics": [],
            "os": "noop",
            "iallocator": "builtin",
            "name_check": False,
            "ip_check": False,
        }
        try:
            answers = self._api.calls(
                ("CreateInstance", [], create),
                ("GetInstances", [], {"bulk": True}),
                ("GetInfo", [], {}),
                ("DeleteInstance", [made], {}),
            )
        except subprocess.TimeoutExpired:  # the daemon was gone, and its job never ended for it
            self.diary.counts["remote API: no answer"] += 1
            return
        for answer in answers:
            told = answer.get("status", answer.get("code")) if isinstance(answer, dict) else "list"
            self.diary.counts[f"remote API: {told}"] += 1


class Monitor(Actor):
    """A monitoring system, which reads whatever the daemon shows."""

    pause = 1.0

    def act(self) -> None:
        """Reads one page."""
        page = self.random.choice(("status", "metrics", "healthz"))
        try:
            with urllib.request.urlopen(f"{self.day.monitoring}/{page}", timeout=30) as answer:
                answer.read()
                self.diary.counts[f"/{page}: {answer.status}"] += 1
        except urllib.error.HTTPError as error:
            self.diary.counts[f"/{page}: {error.code}"] += 1
        except OSError:
            self.diary.counts["nobody answered"] += 1


class Night(Actor):
    """Backups: of an instance, and of the master itself."""

    pause = 5.0

    def act(self) -> None:
        """Exports an instance, imports it under another name, removes both; backs the master up."""
        with self.master() as client:
            found = [one for one in self.instances(client) if one["disk_template"] == "plain"]
            nodes = [row[0][1] for row in client.query("node", ["name"])["data"]]
        if found:
            name = self.random.choice(found)["name"]
            node = self.random.choice(nodes)
            copy = f"copy-{self.random.getrandbits(32):x}"
            code, _ = self.tool("gnt-backup", "export", "-n", node, name)
            if code == 0:
                self.tool(
                    *("gnt-backup", "import", "--src-node", node, "--src-dir", name),
                    *("-t", "plain", "-I", "builtin", "--no-ip-check", "--no-name-check", copy),
                )
                self.tool("gnt-instance", "remove", "-f", copy)
                self.tool("gnt-backup", "remove", name)
        target = self.day.daemon.root.parent / "master.backup"
        target.unlink(missing_ok=True)
        gnt_luxi = str(Path(sys.executable).with_name("gnt-luxi"))
        self.tool(gnt_luxi, "backup", str(target))


#: What may happen to nodes, instances and mirrors.
EVENTS = ("death", "return", "crash", "reboot", "detach")


class Misfortune(Actor):
    """Nodes that die and come back, guests that crash, mirrors that break; and who tends to them.

    The master node never dies: the daemon itself is killed instead (:class:`Fate`).
    """

    pause = 3.0

    def __init__(self, day: Day, name: str) -> None:
        super().__init__(day, name)
        self._dead: list[str] = []
        self._to_come: list[str] = []

    def act(self) -> None:
        """Lets something happen, and does what an administrator would do then.

        All kinds of events come equally often, in an order at random.
        """
        if not self._to_come:
            self._to_come = self.random.sample(EVENTS, len(EVENTS))
        event = self._to_come.pop()
        with self.master() as client:
            found = self.instances(client)
            alive = [f"node{n}" for n in range(2, self.day.size.nodes + 1)]
            node = self.random.choice([name for name in alive if name not in self._dead])
            if event == "return" and self._dead:
                self._bring_back(client)
            elif event == "death" and len(self._dead) < max(1, self.day.size.nodes // 10):
                self.let_die(client, node, found)
            elif event == "reboot":
                self.switch("reboot", node)
            elif event == "crash" and found:
                chosen = self.random.choice(found)
                self.switch("crash", chosen["pnode"], chosen["name"])
            elif event == "detach" and (mirrored := [one for one in found if one["snodes"]]):
                chosen = self.random.choice(mirrored)
                self.switch("detach", chosen["snodes"][0], chosen["name"])
                self.done(client, _replacing(chosen))
            else:
                return
        self.diary.counts[event] += 1

    def finish(self) -> None:
        """Brings all nodes back."""
        with self.master() as client:
            while self._dead:
                self._bring_back(client)

    def let_die(
        self, client: BlockingClient, node: str, found: Sequence[Mapping[str, Any]]
    ) -> None:
        """Takes a node's power away; marks it offline, and fails its instances over."""
        self._dead.append(node)
        self.switch("power", node, "off")
        op = {"OP_ID": "OP_NODE_SET_PARAMS", "node_name": node, "offline": True}
        self.insist({**op, "auto_promote": True, "force": True})
        failovers = [
            self.submit(client, {**_instance("FAILOVER", one), "ignore_consistency": True})
            for one in found
            if one["pnode"] == node and one["disk_template"] == "drbd"
        ]
        self._await(client, failovers)
        if self.random.random() < 0.5:
            evacuate = {"OP_ID": "OP_NODE_EVACUATE", "node_name": node, "mode": "secondary-only"}
            self.done(client, {**evacuate, "iallocator": "builtin"})

    def _bring_back(self, client: BlockingClient) -> None:
        """Brings back the node that has been dead the longest, and has its mirrors caught up."""
        node = self._dead[0]
        self.switch("power", node, "on")
        self.insist({"OP_ID": "OP_NODE_SET_PARAMS", "node_name": node, "offline": False})
        del self._dead[0]
        # Should the other node die before that, the instances would begin on old data here.
        stale = [
            self.submit(client, _instance("ACTIVATE_DISKS", one))
            for one in self.instances(client)
            if node in one["snodes"] and one["admin_state"] == "up"
        ]
        self._await(client, stale)

    def _await(self, client: BlockingClient, jobs: Sequence[int]) -> None:
        for job in jobs:
            job_is(client, job, *FINAL, limit=EVENING)


def _replacing(chosen: Mapping[str, Any]) -> dict[str, Any]:
    return {**_instance("REPLACE_DISKS", chosen), "mode": "replace_auto"}


class Fate(Actor):
    """Kills the daemon, or has it replaced as an upgrade does; it is started again at once."""

    pause = 15.0

    def act(self) -> None:
        """Ends the daemon in one way or the other."""
        if self.random.random() < 0.5:
            self.day.daemon.kill()
            self.diary.counts["killed"] += 1
        else:
            self.day.daemon.stop(120)
            self.diary.counts["replaced"] += 1
        self.day.daemon.start(120)


class Day:
    """A day on one cluster; ``monitoring`` is the address of its page, without the last slash.

    All that is random comes from ``seed``, except for the moments.
    """

    def __init__(
        self, daemon: DaemonProcess, size: Size, seed: int, monitoring: str, api: RapiClient
    ) -> None:
        self.daemon = daemon
        self.size = size
        self.seed = seed
        self.monitoring = monitoring
        self.diary = Diary()
        people = [Person(self, f"person{number}") for number in range(size.people)]
        tools = [kind(self, kind.__name__.lower()) for kind in (Balancer, Watcher, Monitor, Night)]
        portal = Portal(self, "portal", api)
        misfortunes = [Misfortune(self, "misfortune"), Fate(self, "fate")]
        self._actors: list[Actor] = [*people, *tools, portal, *misfortunes]

    def creation(self, name: str, choice: random.Random) -> dict[str, Any]:
        """Returns the opcode that creates an instance of some kind."""
        return {
            "OP_ID": "OP_INSTANCE_CREATE",
            "instance_name": name,
            "mode": "create",
            "disk_template": choice.choice(("drbd", "drbd", "plain")),
            "disks": [{"size": choice.randint(64, 512)}],
            "nics": [],
            "os_type": "noop",
            "beparams": {"maxmem": 128, "minmem": 128},
            "iallocator": "builtin",
            "name_check": False,
            "ip_check": False,
        }

    def live(self, seconds: float) -> None:
        """Fills the cluster, and lets so much time pass."""
        choice = random.Random(self.seed)
        with self.daemon.client(60) as client, self.diary.timed("the cluster is filled"):
            jobs = client.submit_many_jobs(
                [[self.creation(f"web{n}", choice)] for n in range(self.size.instances)]
            )
            self.diary.acknowledge("the beginning", [job for _, job in jobs])
            jobs_end(client, EVENING)
        for actor in self._actors:
            actor.start()
        time.sleep(seconds)
        # Fate ends first, so that the others find a daemon when they put things back.
        *others, fate = self._actors
        self._end([fate])
        self._end(others)

    def _end(self, actors: Sequence[Actor]) -> None:
        """Tells actors that the day is over, and waits for the end of what they are at."""
        for actor in actors:
            actor.end()
        limit = time.monotonic() + EVENING
        for actor in actors:
            with self.diary.timed(f"{actor.name} ends"):
                actor.join(max(0.0, limit - time.monotonic()))
            if actor.is_alive():
                self.diary.faults.append(f"{actor.name} does not end")

    def judge(self) -> None:
        """Heals what is broken, as an administrator would; expects a whole cluster.

        All faults are reported together, as one may be the cause of another.
        """
        diary = self.diary
        failed = None
        with self.daemon.client(120) as client:
            try:
                Healer(self, "healer").heal(client)
            except AssertionError as error:
                failed = error
                diary.faults.append(f"the cluster is not whole: {error}")
            diary.faults += unexplained(client, diary)
        if "Must never be:" in self.daemon.log_text():
            diary.faults.append("the daemon's log has something that must never be")
        if diary.faults:
            told = "\n  ".join([f"{len(diary.faults)} faults:", *diary.faults[:20]])
            raise AssertionError(told) from failed


class Healer(Actor):
    """An administrator who puts all in order."""

    def heal(self, client: BlockingClient) -> None:
        """Mends mirrors, starts what is to run, removes what belongs to nobody; verifies."""
        with self.diary.timed("jobs of the day end"):
            jobs_end(client, EVENING)
        with self.diary.timed("instances are mended"):
            self._remove_again(client)
            self._mend_instances(client)
        with self.diary.timed("the cluster is verified"):
            until(
                "gnt-cluster verify finds nothing",
                lambda: self._treat(client),
                lambda told: not re.search("- (ERROR|WARNING):", told),
                limit=EVENING,
            )

    def _remove_again(self, client: BlockingClient) -> None:
        """Removes instances that somebody tried to remove: a part of their disks may be gone."""
        there = {one["name"]: one for one in self.instances(client)}
        for status, ops in _rows(client, "status", "ops"):
            for op in ops if status == "error" else ():
                if op["OP_ID"] == "OP_INSTANCE_REMOVE" and op["instance_name"] in there:
                    self.submit(client, _instance("REMOVE", there.pop(op["instance_name"])))
                    self.diary.counts["removed again"] += 1
        jobs_end(client, EVENING)

    def _mend_instances(self, client: BlockingClient) -> None:
        rows = client.query("instance", ["name", "status"])["data"]
        for (_, name), (_, status) in rows:
            if status == "ERROR_wrongnode":  # a migration was cut off
                self.submit(client, {**_instance("MIGRATE", {"name": name}), "cleanup": True})
        jobs_end(client, EVENING)
        for one in self.instances(client):
            if one["admin_state"] == "up":
                self.submit(client, _instance("STARTUP", one))
            else:  # it may run: the daemon was killed between the mark and the deed
                self.submit(client, _instance("SHUTDOWN", one))
        jobs_end(client, EVENING)
        for one in self.instances(client):
            if one["snodes"]:
                self.submit(client, _replacing(one))
        jobs_end(client, EVENING)

    def _treat(self, client: BlockingClient) -> str:
        """Verifies the cluster, and does something about what is found; returns what was found."""
        code, told = self.tool("gnt-cluster", "verify")
        assert code in (0, 1), told
        doubled = re.findall(r"instance (\S+): instance should not run on node", told)
        for name in sorted(set(doubled)):
            # Its memory had been sent when the daemon was killed: both nodes have it.
            self.submit(client, {**_instance("MIGRATE", {"name": name}), "cleanup": True})
            self.diary.counts["a migration was cut off"] += 1
        jobs_end(client, EVENING)
        sound_ends = re.findall(r"instance (\S+): (disk/\d+) on \S+ is degraded; .* is 'ok'", told)
        for name in sorted({name for (name, _), ends in Counter(sound_ends).items() if ends > 1}):
            # Both ends were written to without the other, so that one has to go: they are not
            # connected any more by activating the disks.
            replace = {**_instance("REPLACE_DISKS", {"name": name}), "iallocator": "builtin"}
            self.submit(client, {**replace, "mode": "replace_new_secondary"})
            self.diary.counts["a mirror's ends went apart"] += 1
        jobs_end(client, EVENING)
        for node, volume in re.findall(r"node (\S+): volume (\S+) is unknown", told):
            self.switch("remove-lv", node, volume)
            self.diary.counts["volume of nobody"] += 1
        return told


def unexplained(client: BlockingClient, diary: Diary) -> list[str]:
    """Returns what is wrong with the ends of all jobs, also those that tools submitted."""
    gone = dict(diary.jobs)
    faults = []
    fields = ("id", "status", "summary", "opresult", "oplog", "received_ts", "end_ts")
    for job, status, summary, results, log, received, end in _rows(client, *fields):
        gone.pop(job, None)
        who = diary.jobs.get(job, "a tool")
        if status not in FINAL:
            faults.append(f"job {job} ({who}) has not ended, it is {status}")
            continue
        kind = str(summary[0]).partition("(")[0]
        diary.note_time(f"longest job of {kind}", _seconds(end) - _seconds(received))
        if status == "success":
            continue
        why = _explanation(str(results), str(log))
        if why is None:
            faults.append(f"job {job} ({who}) {summary} {status}: {results} {log}")
        diary.counts[f"explained: {why}"] += 1
    faults += [f"job {job} ({who}) was acknowledged and is gone" for job, who in gone.items()]
    return faults


def _rows(client: BlockingClient, *fields: str) -> Iterator[tuple[Any, ...]]:
    """Returns fields of all jobs; they are asked for in pieces, as a day has many."""
    jobs = [job for (job,) in client.query_jobs(None, ["id"])]
    for start in range(0, len(jobs), 1000):
        yield from map(tuple, client.query_jobs(jobs[start : start + 1000], list(fields)))


def _explanation(results: str, log: str) -> str | None:
    """Returns why a job may have failed, None if nothing explains it."""
    for text, why in EXPLAINED.items():
        if re.search(text, results):
            return why
    for text, logged, why in EXPLAINED_BY_LOG:
        if re.search(text, results) and re.search(logged, log):
            return why
    return None


def _seconds(stamp: Sequence[int]) -> float:
    """Returns one of a job's times, which has seconds and microseconds."""
    return stamp[0] + stamp[1] / 1e6
