"""Tests of the pages: their content, and refused requests."""

from __future__ import annotations

import json
import tempfile

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from ganeti_masterd import __version__
from ganeti_masterd.jobs.model import new_job
from ganeti_masterd.locking.keeper import LockKeeper
from ganeti_masterd.monitoring.declarations import METRICS
from ganeti_masterd.monitoring.service import MAX_CONNECTIONS, MAX_OF_A_HOST
from ganeti_masterd.opcodes import OPCODES
from ganeti_masterd.query.waits import JobWaits
from ganeti_masterd.replication.replication import Replica
from ganeti_masterd.replication.standing import CandidateStanding
from ganeti_masterd.requests.config_lock import ConfigLockState
from tests.jobs.scene import delay
from tests.monitoring.scene import MonitoringScene, parse_response


class MetricsTests(MonitoringScene):
    """``/metrics``."""

    def setUp(self) -> None:
        super().setUp()
        self.begin()

    def test_every_declared_metric(self) -> None:
        """Exactly the metrics of the table are exported, each once with its text and kind."""
        self.monitoring = self.make_monitoring(nodes_interval=60.0)
        self.begin()
        text = self.ask("/metrics").body.decode()
        announced = [line.split(" ", 3)[2:] for line in text.splitlines() if "# TYPE" in line]
        ours = {name: kind for name, kind in announced if name.startswith("ganeti_")}
        self.assertEqual(len(announced), len(dict(announced)))
        self.assertEqual(ours, {name: declared.kind for name, declared in METRICS.items()})
        for declared in METRICS.values():
            self.assertIn(f"# HELP {declared.name} {declared.text}\n", text)

    def test_content_type(self) -> None:
        """The content type has the version of Prometheus's text format."""
        headers = self.ask("/metrics").headers
        self.assertTrue(headers["content-type"].startswith("text/plain; version="))
        self.assertEqual(headers["cache-control"], "no-store")

    def test_process(self) -> None:
        """Memory, CPU and descriptors of the process are exported."""
        found = self.metrics()
        self.assertGreater(found["process_resident_memory_bytes", ()], 1 << 20)
        self.assertGreater(found["process_open_fds", ()], 2)
        self.assertGreater(found["process_cpu_seconds_total", ()], 0)

    def test_cluster(self) -> None:
        """Counts of objects are those of the current configuration."""
        cluster = ("cluster", "cluster.example")
        found = self.metrics()
        self.assertEqual(found["ganeti_cluster_node_count", (cluster,)], 3)
        self.assertEqual(found["ganeti_cluster_offline_nodes", (cluster,)], 0)
        self.assertEqual(found["ganeti_cluster_instance_count", (cluster,)], 0)
        self.assertEqual(found["ganeti_node_pinst_cnt", (cluster, ("node", "node2"))], 0)
        self.assertEqual(found["ganeti_masterd_info", (("version", __version__),)], 1)
        node = self.snapshot.node("node3")
        self.snapshot = self.snapshot.without("nodes", node.uuid)
        self.assertEqual(self.value("ganeti_cluster_node_count", cluster="cluster.example"), 2)
        found = self.metrics()
        self.assertNotIn(("ganeti_node_sinst_cnt", (cluster, ("node", "node3"))), found)

    def test_queue(self) -> None:
        """Slots, the drain flag and waiting jobs are those of the queue."""
        self.start()
        first, _, _ = (self.submit_one() for _ in range(3))
        self.queue.drained = True
        found = self.metrics()
        self.assertEqual(found["ganeti_queue_slots", ()], 2)
        self.assertEqual(found["ganeti_queue_slots_used", ()], 2)
        self.assertEqual(found["ganeti_queue_drained", ()], 1)
        self.queue.scheduler.block(first)
        found = self.metrics()
        self.assertEqual(found["ganeti_queue_slots_used", ()], 1)
        self.assertEqual(found["ganeti_queue_jobs_awaiting_locks", ()], 1)

    def test_clients(self) -> None:
        """Connections, messages and waiting clients are counted by socket."""
        self.listener.requests = 5
        job_id = self.submit_one()
        asked = self.watch.wait(self.queue.jobs[job_id], ["status"], ["queued"], None, 60)
        found = self.metrics()
        socket = (("socket", "master"),)
        self.assertEqual(found["ganeti_luxi_messages_total", socket], 5)
        self.assertEqual(found["ganeti_luxi_connections", socket], 0)
        self.assertEqual(
            found["ganeti_luxi_connections_limit", socket], self.listener.max_connections
        )
        self.assertEqual(found["ganeti_luxi_clients_waiting", ()], 1)
        assert isinstance(asked, Deferred)
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        self.assertEqual(self.value("ganeti_luxi_clients_waiting"), 0)

    def test_daemon(self) -> None:
        """The journal's backlog and writability, and the threads, are exported."""
        self.observed_journal.backlog = 12
        self.pool.busy = 2
        found = self.metrics()
        self.assertEqual(found["ganeti_journal_backlog_rows", ()], 12)
        self.assertEqual(found["ganeti_journal_writable", ()], 1)
        self.assertEqual(found["ganeti_pool_threads", (("pool", "opcodes"),)], 20)
        self.assertEqual(found["ganeti_pool_threads_busy", (("pool", "opcodes"),)], 2)
        self.observed_journal.fault = "disk full"
        self.assertEqual(self.value("ganeti_journal_writable"), 0)

    def test_replicas(self) -> None:
        """Master candidates' state and waiting files are exported."""
        self.replicas = [
            Replica("node2", CandidateStanding.CURRENT, 0, 1),
            Replica("node3", CandidateStanding.LAGGING, 70),
        ]
        found = self.metrics()
        lag = {key[1]: value for key, value in found.items() if "serial_lag" in key[0]}
        behind = self.snapshot.header.serial_no - 1
        self.assertEqual(lag, {(("node", "node2"),): behind})
        for node, current, waiting in (("node2", 1, 0), ("node3", 0, 70)):
            label = (("node", node),)
            self.assertEqual(found["ganeti_replica_current", label], current)
            self.assertEqual(found["ganeti_replica_waiting_files", label], waiting)

    def test_what_is_given(self) -> None:
        """Waits for locks, faults, the pause, expiries and room are those that the parts tell."""
        given = {
            "ganeti_lock_oldest_wait_seconds": 7.5,
            "ganeti_config_faults": 3,
            "ganeti_watcher_paused_until_timestamp_seconds": 5000,
            "ganeti_queue_disk_free_bytes": 10,
            "ganeti_queue_disk_size_bytes": 100,
        }
        self.assertIsNone(self.value("ganeti_config_faults"))
        self.assertIsNone(self.value("ganeti_queue_disk_free_bytes"))
        self.assertEqual(self.value("ganeti_watcher_paused_until_timestamp_seconds"), 0)
        self.monitoring = self.make_monitoring(
            lock_wait=lambda: 7.5,
            config_faults=lambda: 3,
            watcher_pause=lambda: 5000,
            files=GivenFiles(),
        )
        found = self.metrics()
        for name, value in given.items():
            self.assertEqual(found[name, ()], value, name)
        expiry = found["ganeti_certificate_expiry_timestamp_seconds", (("file", "rapi"),)]
        self.assertEqual(expiry, 9000.0)
        self.assertEqual(found["ganeti_config_serial", ()], self.snapshot.header.serial_no)


class GivenFiles:
    """Files as a test wants them."""

    def expiries(self) -> dict[str, float]:
        return {"rapi": 9000.0}

    def room(self) -> tuple[int, int] | None:
        return 10, 100


class StatusTests(MonitoringScene):
    """``/status`` and ``/healthz``."""

    def test_status(self) -> None:
        """The status is one JSON document with the current values of the metrics."""
        self.begin()
        self.start()
        self.submit_one(delay())
        self.clock.advance(10)
        response = self.ask("/status")
        self.assertEqual(response.code, 200)
        self.assertEqual(response.headers["content-type"], "application/json")
        status = json.loads(response.body)
        self.assertEqual(status["cluster"], "cluster.example")
        self.assertEqual(status["master"], "node1")
        self.assertEqual((status["nodes"], status["offline_nodes"]), (3, 0))
        self.assertEqual((status["since"], status["now"]), (1000.0, 1010.0))
        self.assertEqual(status["faults"], [])
        self.assertEqual(status["queue"]["jobs"]["queued"], 1)
        self.assertEqual(status["queue"]["last_id"], 1)
        self.assertEqual(status["queue"]["slots_used"], 1)
        self.assertEqual(
            status["sockets"],
            {"master": {"connections": 0, "limit": 4096, "messages": 0}},
        )
        self.assertEqual(status["pools"], {"opcodes": {"busy": 0, "limit": 20}})
        self.assertEqual(status["journal"], {"backlog": 0, "fault": None, "files_fault": None})
        self.assertEqual(status["replicas"], {})

    def test_status_of_the_config_lock(self) -> None:
        """The status says which tool has the configuration locked, and how many wait for it."""
        self.begin()
        self.assertIsNone(json.loads(self.ask("/status").body)["config_lock"])
        self.config_lock = ConfigLockState(["renew_crypto (process 5)"], 7.5, 2)
        self.assertEqual(
            json.loads(self.ask("/status").body)["config_lock"],
            {"holders": ["renew_crypto (process 5)"], "since": 7.5, "changes_waiting": 2},
        )

    def test_status_of_waits(self) -> None:
        """The status says why jobs wait, in the same sentences as ``gnt-luxi why``."""
        self.begin()
        self.start()
        waits = JobWaits(self.queue, LockKeeper(self.timers, self.events), lambda: self.snapshot)
        self.monitoring = self.make_monitoring(waits.all)
        first = self.submit_one()
        second = self.submit_one(delay(depends=[[first, []]]))
        status = json.loads(self.ask("/status").body)
        wait = waits.of(second)
        assert wait is not None
        self.assertEqual(
            status["waits"],
            [
                {
                    "job_id": second,
                    "kind": "dependency",
                    "sentence": wait.sentence,
                    "jobs": [first],
                    "locks": [],
                }
            ],
        )

    def test_status_of_replicas_and_files(self) -> None:
        """The status shows which candidates are behind, and why files can't be written."""
        self.begin()
        self.replicas = [
            Replica("node2", CandidateStanding.CURRENT, 1),
            Replica("node3", CandidateStanding.LAGGING, 70),
        ]
        self.observed_journal.backlog = 5
        self.observed_journal.files_fault = "OSError: no room"
        status = json.loads(self.ask("/status").body)
        self.assertEqual(
            status["replicas"],
            {
                "node2": {"current": True, "waiting": 1},
                "node3": {"current": False, "waiting": 70},
            },
        )
        self.assertEqual(
            status["journal"], {"backlog": 5, "fault": None, "files_fault": "OSError: no room"}
        )

    def test_job_files(self) -> None:
        """A process for job files that hangs is a fault that the status shows."""
        self.begin()
        self.start()
        self.observed_journal.clerk_fault = "it did not answer"
        faults = json.loads(self.ask("/status").body)["faults"]
        self.assertEqual(faults, ["Job files are written more slowly: it did not answer"])

    def test_disk_hangs(self) -> None:
        """A disk that doesn't answer is a fault, and how long it has been at it a number."""
        self.monitoring = self.make_monitoring(
            disk_hangs=lambda: ["syncing /q/job-1"],
            disk_seconds=lambda: {"journal": 12.5, "history": 0.0},
        )
        self.begin()
        self.start()
        status = json.loads(self.ask("/status").body)
        self.assertEqual(status["faults"], ["The disk does not answer: syncing /q/job-1"])
        self.assertEqual(self.ask("/healthz").code, 503)
        self.assertEqual(self.value("ganeti_disk_work_seconds", thread="journal"), 12.5)
        self.assertEqual(self.value("ganeti_disk_work_seconds", thread="history"), 0)

    def test_healthy(self) -> None:
        """A daemon that runs jobs and can write is healthy."""
        self.begin()
        self.start()
        response = self.ask("/healthz")
        self.assertEqual((response.code, response.body), (200, b"ok\n"))

    def test_starting(self) -> None:
        """Until jobs run, the daemon isn't healthy."""
        self.begin()
        response = self.ask("/healthz")
        self.assertEqual(response.code, 503)
        self.assertEqual(response.body, b"The daemon is starting: no jobs run yet\n")

    def test_disk_full_while_stopping(self) -> None:
        """All faults are reported, one per line; the status page has them too, with code 200."""
        self.begin()
        self.start()
        self.queue.close()
        self.observed_journal.fault = "the journal can't be written: disk full"
        response = self.ask("/healthz")
        self.assertEqual(response.code, 503)
        lines = response.body.decode().splitlines()
        self.assertEqual(
            lines,
            [
                "The daemon is stopping: no more jobs are started",
                "Commits fail: the journal can't be written: disk full",
            ],
        )
        status = self.ask("/status")
        self.assertEqual((status.code, json.loads(status.body)["faults"]), (200, lines))


class RefusalTests(MonitoringScene):
    """Requests that are refused."""

    def setUp(self) -> None:
        super().setUp()
        self.begin()

    def test_head(self) -> None:
        """HEAD has the headers of GET, including the length, but no body."""
        for path in ("/metrics", "/status", "/healthz", "/nothing"):
            get, head = self.ask(path), self.ask(path, "HEAD")
            self.assertEqual(head.code, get.code)
            self.assertEqual(head.body, b"")
            self.assertEqual(head.headers["content-type"], get.headers["content-type"])
            if path != "/metrics":  # its values change between requests
                self.assertEqual(head.headers["content-length"], str(len(get.body)))

    def test_methods(self) -> None:
        """Methods other than GET and HEAD aren't allowed, even on paths that don't exist."""
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "get", "FOO"):
            for path in ("/metrics", "/status", "/healthz", "/", "/nothing"):
                response = self.ask(path, method, b"x=1")
                self.assertEqual(response.code, 405, (method, path))
                self.assertEqual(response.headers["allow"], "get, head")

    def test_paths(self) -> None:
        """Only the pages exist, under exactly their names."""
        for path in (
            "/nothing",
            "/live",
            "/live/",
            "/live/cluster/x",
            "/live/app.js/x",
            "/metrics/",
            "/metrics/x",
            "/METRICS",
            "/healthz/..",
            "//",
        ):
            self.assertEqual(self.ask(path).code, 404, path)
        for path in ("/", "/metrics?name[]=x", "/%6detrics"):
            self.assertEqual(self.ask(path).code, 200, path)

    def test_body_is_dropped(self) -> None:
        """A request's body isn't stored in a file, however long it is."""
        self.patch(tempfile, "TemporaryFile", lambda: self.fail("kept in a file"))
        for size in (b"Content-Length: 9000000", b"Transfer-Encoding: chunked"):
            protocol, transport = self.connect()
            protocol.dataReceived(b"POST /status HTTP/1.1\r\nHost: localhost\r\n%s\r\n\r\n" % size)
            for _ in range(9):
                if b"chunked" in size:
                    protocol.dataReceived(b"f4240\r\n%s\r\n" % (b"x" * 1_000_000))
                else:
                    protocol.dataReceived(b"x" * 1_000_000)
            protocol.dataReceived(b"0\r\n\r\n" if b"chunked" in size else b"")
            self.assertEqual(parse_response(transport.value()).code, 405)

    def test_garbage(self) -> None:
        """Data that isn't HTTP ends the connection."""
        for garbage in (b"\x00\x01\x02\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9\r\n: :\r\n\r\n"):
            protocol, transport = self.connect()
            protocol.dataReceived(garbage)
            self.assertTrue(transport.disconnecting, garbage)

    def test_keep_alive(self) -> None:
        """A connection can be reused for the next scrape."""
        protocol, transport = self.connect()
        for _ in range(3):
            protocol.dataReceived(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.assertEqual(transport.value().count(b"HTTP/1.1 503"), 3)
        self.assertFalse(transport.disconnecting)

    def test_idle(self) -> None:
        """An idle connection is closed."""
        _, transport = self.connect()
        self.clock.pump([1] * 61)
        self.assertTrue(transport.disconnecting)

    def test_slow_ones(self) -> None:
        """However many ask slowly, or never, who asks is answered, again and again."""
        scraper, answers = self.connect("192.0.2.1")
        for number in range(5 * MAX_CONNECTIONS):
            protocol, _ = self.connect(f"198.51.100.{number}")
            protocol.dataReceived(b"GET /healthz HTTP/1.1\r\nX: " + b"x" * (number % 7))
            if number % (MAX_CONNECTIONS // 2) == 0:
                scraper.dataReceived(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.assertFalse(answers.disconnecting)
        self.assertEqual(answers.value().count(b"HTTP/1.1 503"), 10)
        self.assertEqual(self.ask("/healthz").code, 503)

    def test_too_many(self) -> None:
        """For one too many that is closed which has been without an answer for the longest time."""
        open_ = [self.connect() for _ in range(MAX_CONNECTIONS)]
        open_[0][0].dataReceived(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.assertIsNotNone(self.connect()[0])
        closed = [number for number, (_, each) in enumerate(open_) if each.disconnecting]
        self.assertEqual(closed, [1])
        open_[2][0].connectionLost(Failure(ConnectionDone()))
        self.connect()
        self.assertFalse(open_[3][1].disconnecting)

    def test_too_many_of_a_host(self) -> None:
        """One host can't take the places of others."""
        _, other = self.connect("192.0.2.1")
        open_ = [self.connect("198.51.100.1") for _ in range(MAX_OF_A_HOST + 2)]
        closed = [number for number, (_, each) in enumerate(open_) if each.disconnecting]
        self.assertEqual((closed, other.disconnecting), ([0, 1], False))


class CostTests(MonitoringScene):
    """The size of a scrape."""

    def test_size(self) -> None:
        """Even after every opcode of Ganeti has run, a scrape is far below a megabyte."""
        self.begin()
        for number, op_id in enumerate(OPCODES, 1):
            self.queue.jobs[number] = new_job(number, [{"OP_ID": op_id}], 1000.0)
            self.finish(number)
        self.assertLess(len(self.ask("/metrics").body), 250_000)
