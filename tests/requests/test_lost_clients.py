"""A lost connection stops the work on its answer, but not on a change."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import replace
from twisted.internet.defer import Deferred
from twisted.internet.testing import StringTransport

from ganeti_masterd.jobs import queue as queue_module
from ganeti_masterd.jobs.model import encode_job, new_job
from ganeti_masterd.luxi import server
from ganeti_masterd.luxi.factory import LuxiFactory
from ganeti_masterd.query import slices
from tests.query.scene import big_snapshot
from tests.requests.scene import CLASSIC, DELAY, DiskJournal, RequestScene

JOBS = 5000
ALL_JOB_FIELDS = ["id", "status", "ops", "opresult", "summary", "received_ts"]


class SlowJournal(DiskJournal):
    """A journal whose effects end one by one, when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.slow = False
        self.effects: list[tuple[Callable[..., Any], Deferred[Any]]] = []
        self.done = 0

    def effect(self, function: Any, *args: Any) -> Deferred[Any]:
        """See ``IJournal.effect``."""
        if not self.slow:
            return super().effect(function, *args)
        waiting: Deferred[Any] = Deferred()
        self.effects.append((lambda: function(None, *args), waiting))
        return waiting

    def finish_one(self) -> None:
        """Ends the oldest effect."""
        work, waiting = self.effects.pop(0)
        self.done += 1
        waiting.callback(work())


class LostClientTests(RequestScene):
    """Requests over a connection, down to the slices of their answers."""

    def setUp(self) -> None:
        super().setUp()
        self.steps = 0
        self.sent: list[Any] = []
        self.encoded = 0
        step = slices._Work.step

        def counted(work: Any, seconds: Any) -> bool:
            self.steps += 1
            return step(work, seconds)

        encode = server.encode_reply

        def encoding(result: Any) -> bytes:
            self.encoded += 1
            return encode(result)

        self.patch(slices._Work, "step", counted)
        self.patch(server, "encode_reply", encoding)
        self.factory = LuxiFactory(self.answers, self.timers)

    def make_queue(self) -> None:
        """Makes the queue with a slow disk and a large configuration."""
        super().make_queue()
        self.journal = SlowJournal()
        self.queue.journal = self.journal
        big = big_snapshot(20, 3000)
        self.patch(type(self.store), "snapshot", big)

    def fill(self) -> None:
        """Puts many jobs into the queue, and some into the archive."""
        for job_id in range(1, JOBS + 1):
            self.queue.jobs[job_id] = new_job(job_id, [DELAY], 1000.0)
        self.queue.last_id = JOBS + 300
        for job_id in range(JOBS + 1, JOBS + 301):
            with open(self.folder.archived_job(job_id), "wb") as file:
                file.write(encode_job(new_job(job_id, [DELAY], 1000.0)))

    def request(self, method: str, args: Sequence[Any], **keys: Any) -> Any:
        """Sends a request over a new connection, and returns that."""
        connection = self.factory.buildProtocol(None)
        transport = StringTransport()
        connection.makeConnection(transport)
        message = json.dumps({"method": method, "args": args, **keys}).encode() + b"\x03"
        connection.dataReceived(message)
        return connection, transport

    def turn(self, number: int = 1) -> None:
        """Runs the calls that are due now, but none that they schedule; repeats that."""
        for _ in range(number):
            now = self.clock.seconds()
            for call in [one for one in self.clock.getDelayedCalls() if one.getTime() <= now]:
                function, args = call.func, call.args
                call.cancel()
                function(*args)

    def is_stopped(self, method: str, *args: Any, **keys: Any) -> None:
        """Checks that no more slices of a long answer are made once its connection is lost."""
        connection, transport = self.request(method, args, **keys)
        self.turn()
        before = self.steps
        self.assertGreater(before, 0, "the answer was not made in slices")
        self.assertEqual(transport.value(), b"")
        connection.connectionLost()
        self.turn(100)
        self.assertEqual((self.steps, self.encoded), (before, 0))
        self.steps = 0
        # The same answer takes more turns if its client waits, so there was work to stop.
        connection, transport = self.request(method, args, **keys)
        self.turn(200)
        self.assertGreater(self.steps, before)
        self.assertTrue(json.loads(transport.value()[:-1])["success"])
        self.steps = self.encoded = 0

    def test_query_jobs(self) -> None:
        """A QueryJobs of all jobs stops, in both dialects."""
        self.fill()
        self.is_stopped("QueryJobs", None, ALL_JOB_FIELDS)
        self.is_stopped("QueryJobs", None, ALL_JOB_FIELDS, version=CLASSIC)

    def test_query(self) -> None:
        """A Query of jobs or the configuration stops, even while the filter is applied."""
        self.fill()
        self.is_stopped("Query", "job", ALL_JOB_FIELDS, None)
        self.is_stopped("Query", "job", ["id"], ["=~", "status", "NOTHING"])
        self.is_stopped("Query", "instance", ["name", "pnode", "disk.sizes", "be/memory"], None)

    def test_classic_queries(self) -> None:
        """Classic queries of the configuration stop."""
        self.is_stopped("QueryInstances", [], ["name", "pnode", "disk.sizes"], False)

    def test_what_the_nodes_said(self) -> None:
        """A live query stops while nodes are asked, and while answers are read and filtered."""
        running = {f"inst{n}.example.com": {} for n in range(3000)}
        info = {"memory": 1, "vcpus": 1, "state": "running", "time": 1.0}
        self.nodes.answers["all_instances_info"] = dict.fromkeys(running, info)
        self.is_stopped("Query", "instance", ["name", "status"], ["=", "status", "running"])
        self.nodes.held = True
        connection, _ = self.request("Query", ["instance", ["name", "status"], None])
        connection.connectionLost()
        self.nodes.release()
        self.turn(100)
        self.assertEqual((self.steps, self.encoded), (0, 0))

    def test_archived_jobs(self) -> None:
        """No more archived jobs are read than the slice in progress."""
        self.fill()
        self.journal.slow = True
        ids = list(range(JOBS + 1, JOBS + 301))
        connection, _ = self.request("QueryJobs", [ids, ["id", "status"]])
        self.journal.finish_one()
        self.assertEqual(len(self.journal.effects), 1)
        connection.connectionLost()
        self.journal.finish_one()
        self.turn(100)
        self.assertEqual(self.journal.effects, [])
        self.assertEqual(self.journal.done, 2)
        self.assertLess(2 * queue_module.READ_SLICE, len(ids))

    def test_archive_listing(self) -> None:
        """No more of the archive's folders are listed than the one in progress."""
        for number in range(5):
            os.makedirs(f"{self.folder.queue}/archive/{number}", exist_ok=True)
        self.journal.slow = True
        connection, _ = self.request("Query", ["job", ["id", "archived"], None])
        self.journal.finish_one()
        connection.connectionLost()
        self.journal.finish_one()
        self.turn(100)
        self.assertEqual(self.journal.effects, [])

    def test_waiting(self) -> None:
        """A client that waits for a job is forgotten."""
        job_id = self.submit_one()
        connection, _ = self.request("WaitForJobChange", [job_id, ["status"], ["queued"], None, 60])
        self.assertEqual(len(self.watch), 1)
        connection.connectionLost()
        self.assertEqual(len(self.watch), 0)

    def test_changes_go_on(self) -> None:
        """A requested change is still made."""
        self.start()
        for _ in range(3):
            self.finish(self.submit_one())
        self.journal.held = True
        for method, args in (
            ("SubmitJob", [[DELAY]]),
            ("SubmitManyJobs", [[[DELAY], [DELAY]]]),
            ("ArchiveJob", [1]),
            ("AutoArchiveJobs", [-1, 60]),
        ):
            connection, transport = self.request(method, args)
            self.assertEqual(transport.value(), b"", method)
            connection.connectionLost()
        self.journal.held = False
        self.journal.release()
        self.turn(5)
        self.assertEqual(sorted(self.queue.jobs), [4, 5, 6])

    def test_changes_of_large_queues_go_on(self) -> None:
        """A long change continues through all its commits."""
        self.start()
        for job_id in range(1, 1201):
            job = new_job(job_id, [DELAY], 1.0)
            ended = replace(job, ops=tuple(replace(op, status="success") for op in job.ops))
            self.queue.jobs[job_id] = ended
        self.journal.held = True
        connection, _ = self.request("AutoArchiveJobs", [-1, 60])
        connection.connectionLost()
        for _ in range(5):
            self.journal.release()
        self.assertEqual(len(self.queue.jobs), 0)
