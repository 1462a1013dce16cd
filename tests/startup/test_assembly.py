"""The daemon's parts as they are put together: its sockets, and which part hears of what."""

from __future__ import annotations

import json
import os
import stat
from typing import Any

from msgspec.structs import replace
from twisted.internet import unix
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort, IReactorFromThreads
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from ganeti_masterd import assembly
from ganeti_masterd.assembly import Assembly, OpenedListener, Settings
from ganeti_masterd.config.objects import FilterRule
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.locking.ageing import STEP
from ganeti_masterd.locking.keeper import AGEING_INTERVAL
from ganeti_masterd.locking.levels import BGL, Level, exclusive, shared
from ganeti_masterd.replication.standing import CandidateStanding
from ganeti_masterd.requests.registry import METHODS
from ganeti_masterd.simulation.faults import SimulatedFault
from ganeti_masterd.startup.accounts import Account
from ganeti_masterd.startup.configuration import read_config
from ganeti_masterd.testing.disk import SteppedThread
from tests.startup.scene import RootTestCase, recovered

CURRENT = CandidateStanding.CURRENT


class Adopting:
    """A reactor that adopts a socket and does nothing with it."""

    def adoptStreamPort(self, fd: int, family: int, factory: Factory) -> IListeningPort:
        """See ``IReactorSocket.adoptStreamPort``."""
        return unix.Port(b"%d" % fd, factory)


def asked(listener: OpenedListener, method: str, *args: Any) -> StringTransport:
    """Sends a request to a socket; returns the transport that the answer is written to."""
    protocol = listener.factory.buildProtocol(None)
    transport = StringTransport()
    protocol.makeConnection(transport)
    protocol.dataReceived(json.dumps({"method": method, "args": args}).encode() + b"\3")
    return transport


def answer_in(transport: StringTransport) -> list[Any]:
    """Returns ``[whether it succeeded, result or error]``."""
    answer = json.loads(transport.value().rstrip(b"\3"))
    return [answer["success"], answer["result"]]


class SteppedDisk(SteppedThread):
    """In place of the disk thread: works when the test calls :meth:`work`."""

    def __init__(self, reactor: IReactorFromThreads) -> None:
        super().__init__()

    def run(self, work: Any = None) -> Any:
        """See ``DiskThread.run``."""
        done: Deferred[Any] = Deferred()
        self.do(work, done.callback)
        return done

    def work(self) -> None:
        """Does all that is to be done."""
        super().run()


class WiringTests(RootTestCase):
    """A daemon on three simulated nodes whose disk and clock are in the test's hand."""

    def setUp(self) -> None:
        super().setUp()
        disks: list[SteppedDisk] = []

        def disk(
            reactor: IReactorFromThreads, name: str = "disk", purpose: str = ""
        ) -> SteppedDisk:
            made = SteppedDisk(reactor)
            if name == "disk":
                disks.append(made)
            return made

        self.patch(assembly, "DiskThread", disk)
        self.disks = disks
        self.clock = Clock()
        self.assemble()
        self.successResultOf(self.parts.door.start())

    def assemble(self) -> None:
        """Puts the parts together, from what the files hold, and starts the journal."""
        found = recovered(self.paths)
        self.addCleanup(found.store.close)
        self.parts = Assembly(
            self.clock, Settings(self.paths, "off"), found, read_config(self.paths), queue_lock=-1
        )
        self.addCleanup(self.parts.timers.cancel_all)
        self.disk = self.disks[-1]
        self.parts.journal.start()

    def pass_time(self, seconds: float) -> None:
        """Lets the disk work and time pass."""
        for _ in range(int(seconds * 10)):
            self.disk.work()
            self.clock.advance(0.1)
        self.disk.work()

    def change_cluster(self, **changes: Any) -> Deferred[Snapshot]:
        """Changes the cluster's parameters."""
        store = self.parts.store
        return store.change(store.tip.cluster.uuid, lambda cluster: replace(cluster, **changes))

    def submit(self) -> int:
        """Queues a job; returns its id."""
        opcode = {"OP_ID": "OP_TEST_DELAY", "duration": 1.0}
        transport = asked(self.parts.listeners[0], "SubmitJob", [opcode])
        self.disk.work()
        success, result = answer_in(transport)
        self.assertTrue(success, result)
        return int(result)

    def add_rejecting_rule(self) -> None:
        """Adds a filter rule that lets no job through."""
        rule = FilterRule(uuid="rule", watermark=0, priority=0, action="REJECT")
        self.parts.store.add("filters", rule)

    def test_config_data_follows(self) -> None:
        """What is published of the configuration is in config.data soon."""
        done = self.change_cluster(max_running_jobs=7)
        self.pass_time(3.0)
        self.assertEqual(self.successResultOf(done).cluster.max_running_jobs, 7)
        self.assertEqual(read_config(self.paths).cluster.max_running_jobs, 7)
        self.assertEqual(self.parts.journal.backlog, 0)

    def test_serial_at_the_end(self) -> None:
        """Closed, the journal leaves the last id given in the file, not the last reserved."""
        self.assertEqual([self.submit(), self.submit()], [1, 2])
        self.assertGreater(self.parts.journal.reserved, 2)
        done = self.parts.journal.close()
        self.pass_time(1.0)
        self.successResultOf(done)
        with open(self.paths.queue + "/serial", encoding="utf-8") as file:
            self.assertEqual(file.read(), "2\n")

    def test_limit_follows(self) -> None:
        """The limit of running jobs holds from the change on, in the queue and the pool."""
        self.change_cluster(max_running_jobs=7)
        self.assertNotEqual(self.parts.threads.limit, 7)
        self.disk.work()
        limits = self.parts.threads.limit, self.parts.queue.scheduler.limit
        self.assertEqual(limits, (7, 7))

    def test_rules_follow(self) -> None:
        """A new filter rule holds for the next job."""
        self.add_rejecting_rule()
        self.disk.work()
        job_id = self.submit()
        self.disk.work()
        self.assertEqual(self.parts.queue.jobs[job_id].status, "canceled")

    def test_what_is_there_at_the_start(self) -> None:
        """Rules that the configuration has at the start hold; every node and group has its lock."""
        self.add_rejecting_rule()
        self.pass_time(1.0)
        closed = self.parts.journal.close()
        self.pass_time(1.0)
        self.successResultOf(closed)
        self.assemble()
        job_id = self.submit()
        self.disk.work()
        self.assertEqual(self.parts.queue.jobs[job_id].status, "canceled")
        snapshot, locks = self.parts.store.snapshot, self.parts.locks
        for level, names in (
            (Level.NODEGROUP, snapshot.groups),
            (Level.NODE, snapshot.nodes),
            (Level.NODE_RES, snapshot.nodes),
        ):
            self.assertEqual(set(locks.members(level)), set(names), level)

    def test_ageing_is_shown(self) -> None:
        """A job that waited long for a lock shows its new priority."""
        job_id = self.submit()
        name = next(iter(self.parts.store.snapshot.nodes))
        for holder in (100, job_id):
            self.parts.locks.acquire(holder, Level.CLUSTER, shared(BGL))
            self.parts.locks.acquire(holder, Level.NODE, exclusive(name))
        self.clock.pump([AGEING_INTERVAL] * (1 + STEP // int(AGEING_INTERVAL)))
        job = self.parts.queue.tip(job_id)
        self.assertEqual(job and job.priority, -1)

    def test_candidates_are_waited_for(self) -> None:
        """A commit is over when the candidates have it; who is none any more is left out."""
        replication = self.parts.replication
        replication.start()
        self.pass_time(5.0)
        self.assertEqual({each.standing for each in replication.replicas}, {CURRENT})
        self.assertEqual({each.node for each in replication.replicas}, {"node2", "node3"})
        self.parts.door.nodes.faults.add(SimulatedFault(kind="delay", seconds=0.5))
        done = self.change_cluster(max_running_jobs=7)
        self.disk.work()
        self.assertEqual(self.parts.store.snapshot.cluster.max_running_jobs, 7)
        self.assertNoResult(done)
        self.pass_time(1.0)
        self.successResultOf(done)
        uuid = next(n.uuid for n in self.parts.store.snapshot.nodes.values() if n.name == "node3")
        self.parts.store.change(uuid, lambda node: replace(node, master_candidate=False))
        self.disk.work()
        self.assertEqual([each.node for each in replication.replicas], ["node2"])


class SocketTests(RootTestCase):
    """A daemon with all its sockets and no part started."""

    def setUp(self) -> None:
        super().setUp()
        found = recovered(self.paths)
        self.addCleanup(found.store.close)
        self.monitor = self.root + "/monitor"
        settings = Settings(
            self.paths,
            "off",
            account=Account("gnt-masterd", "gnt-daemons", 7, 8),
            socket_mode=0o640,
            monitor_socket=self.monitor,
            monitor_socket_mode=0o604,
        )
        parts = Assembly(Clock(), settings, found, read_config(self.paths), queue_lock=-1)
        self.listeners = {listener.name: listener for listener in parts.listeners}

    def answer(self, listener: str, method: str, *args: Any) -> Any:
        """Returns the answer on a socket: ``[whether it succeeded, result or error]``."""
        return answer_in(asked(self.listeners[listener], method, *args))

    def test_monitors_change_nothing(self) -> None:
        """The socket for monitors refuses every method that changes something."""
        changing = [name for name, method in METHODS.items() if method.changes]
        self.assertIn("SubmitJob", changing)
        for name in changing:
            refusal = f"{name} changes something, which this socket doesn't allow"
            success, (kind, (text, _)) = self.answer("monitor", name, *[None] * 20)
            self.assertEqual((success, kind, text), (False, "OpPrereqError", refusal))
            # On the other sockets the method is refused for its arguments.
            success, (kind, (text, _)) = self.answer("master", name, *[None] * 20)
            self.assertEqual((success, kind), (False, "OpPrereqError"))
            self.assertNotEqual(text, refusal)

    def test_questions(self) -> None:
        """Both LUXI sockets answer queries; wconfd's socket answers only its own methods."""
        for listener in ("master", "monitor"):
            answer = self.answer(listener, "QueryConfigValues", ["cluster_name"])
            self.assertEqual(answer, [True, ["cluster"]])
        self.assertEqual(self.answer("wconfd", "echo", "text"), [True, "text"])
        answer = self.answer("wconfd", "QueryConfigValues", ["cluster_name"])
        self.assertEqual(answer, [False, ["GenericError", ["No such method: QueryConfigValues"]]])
        self.assertFalse(self.answer("master", "echo", "text")[0])

    def test_rights(self) -> None:
        """Each socket has its own path and mode, and the group of the daemon's account."""
        given: list[Any] = []
        self.patch(os, "chown", lambda path, *owner, **_: given.append((path, *owner)))
        rights = {
            "master": (self.paths.socket, 0o640),
            "monitor": (self.monitor, 0o604),
            "wconfd": (self.paths.wconfd_socket, 0o600),
        }
        self.assertEqual(set(self.listeners), set(rights))
        for name, (path, mode) in rights.items():
            self.listen(self.listeners[name])
            self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), mode, name)
            self.assertEqual(given.pop(), ("q", -1, 8))

    def listen(self, listener: OpenedListener) -> None:
        """Binds a socket and sets its permissions."""
        reactor: Any = Adopting()
        listener.socket.listen(reactor, listener.factory)
