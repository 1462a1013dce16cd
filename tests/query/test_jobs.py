"""Rows and values of jobs."""

from __future__ import annotations

import json
from typing import Any

from msgspec.structs import replace
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.errors import OpPrereqError
from ganeti_masterd.jobs.model import Job, OpState, begin_running, begin_waiting, new_job, succeed
from ganeti_masterd.query.jobs import job_values, op_summary
from ganeti_masterd.query.resources import RESOURCES
from ganeti_masterd.query.sources import PAGE, PAGES
from tests.query.scene import Jobs, Scene


class JobTests(SynchronousTestCase):
    """Rows of jobs."""

    def setUp(self) -> None:
        queued = [
            new_job(n, [{"OP_ID": "OP_TEST_DELAY", "duration": n}], 1000.5 + n) for n in range(1, 6)
        ]
        running = begin_running(begin_waiting(queued[1], 0, 2000.25), 0, 2001.0)
        done = succeed(running, 0, None, 2002.0)
        self.live = [queued[0], running, *queued[2:]]
        self.scene = Scene(jobs=Jobs(self.live, [replace(done, id=8), replace(done, id=9)]))

    def ids(self, filter_: Any, fields: Any = ("id",)) -> list[int]:
        """Returns the ids of the rows that pass a filter."""
        rows = self.scene.query(self, "job", list(fields), filter_)
        return [row[0][1] for row in rows]

    def test_which(self) -> None:
        """Archived jobs are included if the fields, the filter or ids ask for them."""
        self.assertEqual(self.ids(None), [1, 2, 3, 4, 5])
        self.assertEqual(self.ids(None, ("id", "archived")), [1, 2, 3, 4, 5, 8, 9])
        self.assertEqual(self.ids(["?", "archived"]), [8, 9])
        self.assertEqual(self.ids(["|", ["=", "id", 9], ["=", "id", 2], ["=", "id", "9"]]), [9, 2])
        self.assertEqual(
            self.scene.query(self, "job", ["archived", "id", "x"], ["=", "id", 7]),
            [[[3, None], [0, 7], [1, None]]],
        )
        self.assertEqual(
            self.scene.query(self, "job", ["archived", "status"], ["=", "id", 9]),
            [[[0, True], [0, "success"]]],
        )

    def test_filters(self) -> None:
        """Jobs can be filtered by id, status and times."""
        self.assertEqual(self.ids(["&", [">", "id", 1], ["<", "id", 4]]), [2, 3])
        self.assertEqual(self.ids(["=", "status", "running"]), [2])
        self.assertEqual(self.ids([">=", "received_ts", 1004]), [4, 5])
        self.assertEqual(self.ids(["=[]", "opstatus", "running"]), [2])
        self.assertEqual(self.ids(["=[]", "summary", "TEST_DELAY(4.0)"]), [4])
        # A job that hasn't begun passes tests of its start.
        self.assertEqual(self.ids(["=", "start_ts", 1]), [1, 3, 4, 5])

    def test_query_jobs(self) -> None:
        """QueryJobs returns bare values in the order asked, each job once."""
        engine = self.scene.engine

        def rows(*args: Any, **rest: Any) -> Any:
            found = self.scene.result(self, engine.query_jobs(*args, **rest))
            if not rest:
                self.assertEqual(self.scene.result(self, engine.answer_jobs(*args)), found)
            return found

        self.assertEqual(
            rows([5, 9, 7, 5], ["id", "status"]), [[5, "queued"], [9, "success"], [7, None]]
        )
        self.assertEqual(rows([7, 1], ["status", "id"], null_rows=True), [None, ["queued", 1]])
        self.assertEqual(rows([], ["id"]), [[1], [2], [3], [4], [5]])
        self.assertEqual(len(rows(None, ["id", "archived"])), 7)
        self.assertEqual(rows([9, 1], ["archived", "end_ts"]), [[True, [2002, 0]], [False, None]])
        error = self.assertRaises(OpPrereqError, engine.query_jobs, None, ["id", "x", "y"])
        self.assertEqual(error.args, ("Unknown output fields selected: x, y", "wrong_input"))

    def test_pages(self) -> None:
        """However large the archive, one page is read at a time, and every job appears once."""
        done = self.live[1]
        archived = [replace(done, id=n) for n in range(10, 2 * PAGE + 30)]
        scene = Scene(jobs=Jobs([replace(done, id=PAGE), *self.live], archived))
        rows = scene.result(self, scene.engine.answer_jobs(None, ["id", "archived"]))
        self.assertEqual(
            rows,
            [[n, False] for n in range(1, 6)] + [[n, n != PAGE] for n in range(10, 2 * PAGE + 30)],
        )
        self.assertEqual(len(scene.jobs.pages), 3)
        self.assertLessEqual(max(scene.jobs.pages), PAGE)
        found = scene.query(self, "job", ["id"], ["&", ["?", "archived"], [">", "id", 2 * PAGE]])
        self.assertEqual([row[0][1] for row in found], list(range(2 * PAGE + 1, 2 * PAGE + 30)))
        wanted = [PAGE, 7, *range(2 * PAGE, PAGE, -1)]
        rows = scene.result(self, scene.engine.answer_jobs(wanted, ["id", "status"]))
        self.assertEqual([row[0] for row in rows], wanted)
        self.assertEqual(rows[1], [7, None])
        self.assertLessEqual(max(scene.jobs.pages), PAGE)

    def test_others_have_a_turn(self) -> None:
        """Of very many jobs that aren't there a part is answered in each turn of the reactor."""
        wanted = list(range(100_000, 100_000 + 3 * PAGES * PAGE))
        answer = self.scene.engine.answer_jobs(wanted, ["id"])
        assert isinstance(answer, Deferred)
        self.assertLessEqual(len(self.scene.jobs.pages), PAGES + 1)
        self.assertNoResult(answer)
        self.scene.clock.advance(0)
        self.assertEqual(len(json.loads(self.successResultOf(answer).data)), len(wanted))

    def test_gone_between_two_turns(self) -> None:
        """A client that goes then takes the rest of the work along."""
        answer = self.scene.engine.answer_jobs(list(range(9_999, 5 * PAGES * PAGE)), ["id"])
        assert isinstance(answer, Deferred)
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        pages = len(self.scene.jobs.pages)
        self.scene.clock.advance(1)
        self.assertEqual(len(self.scene.jobs.pages), pages)

    def test_archived_meanwhile(self) -> None:
        """A job that is archived while the archive is listed appears once, in its old state."""
        jobs = self.scene.jobs
        reading: Deferred[list[int]] = Deferred()
        self.patch(jobs, "archived_ids", lambda: reading)
        answer = self.scene.engine.answer_jobs(None, ["id", "archived"])
        reading.callback(sorted(jobs.archive))
        jobs.archive[2] = jobs.jobs.pop(2)
        self.assertEqual(
            self.scene.result(self, answer),
            [*([n, False] for n in range(1, 6)), [8, True], [9, True]],
        )

    def test_archived_while_a_page_is_read(self) -> None:
        """A job that is archived while a page is read is neither lost nor shown twice."""
        jobs = self.scene.jobs
        reading: Deferred[Any] = Deferred()
        self.patch(jobs, "archived", lambda ids: reading)
        answer = self.scene.engine.answer_jobs(None, ["id", "archived"])
        found = dict(jobs.archive)
        jobs.archive[2] = jobs.jobs.pop(2)
        reading.callback(found)
        self.assertEqual(
            self.scene.result(self, answer),
            [*([n, False] for n in range(1, 6)), [8, True], [9, True]],
        )

    def test_values(self) -> None:
        """A job's values are JSON types; one unknown field makes all of them None."""
        job = self.live[1]
        self.assertEqual(
            job_values(job, ("id", "status", "opstart", "archived", "end_ts")),
            [2, "running", [[2000, 250000]], False, None],
        )
        self.assertEqual(job_values(job, ("id", "nosuch")), [None, None])
        for name in RESOURCES["job"].fields:
            (value,) = job_values(job, (name,))
            self.assertEqual(json.loads(json.dumps(value)), value)

    def test_secrets(self) -> None:
        """Private and secret parameters aren't shown."""
        values = {
            "OP_ID": "OP_INSTANCE_CREATE",
            "instance_name": "x",
            "osparams_private": {"key": "sesame"},
            "osparams_secret": {"key": "sesame"},
            "comment": None,
            "iallocator": None,
        }
        job = Job(id=1, ops=(OpState(input=values),))
        ((shown,),) = job_values(job, ("ops",))
        self.assertNotIn("sesame", str(shown))
        self.assertEqual(shown["instance_name"], "x")
        self.assertIn("comment", shown)
        self.assertNotIn("iallocator", shown)

    def test_summaries(self) -> None:
        """An opcode's summary has at least its name, whatever its job file contains."""
        for expected, values in (
            ("TEST_DELAY(3.0)", {"OP_ID": "OP_TEST_DELAY", "duration": 3}),
            ("TEST_DELAY(5.0e-2)", {"OP_ID": "OP_TEST_DELAY", "duration": 0.05}),
            ("NODE_ADD(node2)", {"OP_ID": "OP_NODE_ADD", "node_name": "node2"}),
            ("CLUSTER_POST_INIT", {"OP_ID": "OP_CLUSTER_POST_INIT"}),
            ("TEST_DELAY", {"OP_ID": "OP_TEST_DELAY", "duration": [1]}),
            ("NEW_THING", {"OP_ID": "OP_NEW_THING", "x": 1}),
        ):
            self.assertEqual(op_summary(values), expected)
            self.assertEqual(op_summary(values), expected)
