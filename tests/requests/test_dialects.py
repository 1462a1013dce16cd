"""Requests of 2.x clients, and the answers to them."""

from __future__ import annotations

from ganeti_masterd.errors import GenericError, JobLost, OpPrereqError
from ganeti_masterd.jobs import model
from ganeti_masterd.jobs.watch import SHORTLY
from ganeti_masterd.luxi.dialects import CLASSIC as CLASSIC_DIALECT
from ganeti_masterd.luxi.dialects import MODERN, SAME, dialect_of
from ganeti_masterd.luxi.messages import CLASSIC_VERSIONS, VERSIONS, LuxiRequest
from ganeti_masterd.requests.registry import METHODS
from tests.requests.scene import CLASSIC, DELAY, RequestScene


class DialectTests(RequestScene):
    """The table of dialects."""

    def test_who_speaks_it(self) -> None:
        """A 2.x version selects the classic dialect, any other and none today's."""
        for version in (CLASSIC_VERSIONS[0], CLASSIC_VERSIONS[-1]):
            self.assertIs(dialect_of(LuxiRequest("x", [], version)), CLASSIC_DIALECT)
        for other in (*VERSIONS, None):
            self.assertIs(dialect_of(LuxiRequest("x", [], other)), MODERN)

    def test_methods_exist(self) -> None:
        """The table has only existing methods, and today's answers are never changed."""
        for dialect in (MODERN, CLASSIC_DIALECT):
            self.assertLessEqual(set(dialect.forms), set(METHODS))
        for form in MODERN.forms.values():
            self.assertEqual((form.answer, form.options, form.null_if_lost), (None, {}, False))
        self.assertIs(CLASSIC_DIALECT.form("QueryNodes"), SAME)


class ArgumentTests(RequestScene):
    """Older forms of arguments, which any client may send."""

    def test_submit(self) -> None:
        """A list of opcodes is one job, a list of lists of opcodes is several."""
        for version in (None, 3000000, CLASSIC):
            last = self.queue.last_id
            self.assertEqual(int(self.call("SubmitJob", DELAY, DELAY, version=version)), last + 1)
            self.assertEqual(len(self.queue.jobs[last + 1].ops), 2)
            results = self.call("SubmitManyJobs", [DELAY], [DELAY, DELAY], version=version)
            self.assertEqual([int(job) for _, job in results], [last + 2, last + 3])
            self.assertEqual(int(self.call("SubmitJob", [DELAY], version=version)), last + 4)
            results = self.call("SubmitManyJobs", [[DELAY]], version=version)
            self.assertEqual([int(job) for _, job in results], [last + 5])

    def test_not_understood(self) -> None:
        """Arguments in neither form are refused as in today's dialect."""
        for version in (None, CLASSIC):
            for args in ([DELAY, 5], [], [[DELAY], [DELAY]], [5]):
                self.refused("SubmitJob", *args, kind=OpPrereqError, version=version)
            for args in ([[DELAY], 5], [], [5]):
                self.refused("SubmitManyJobs", *args, kind=OpPrereqError, version=version)
        for args in ([], [1], [1, "status", ["1"], None, 1], [1, ["id"], "1"]):
            self.refused("WaitForJobChange", *args, kind=OpPrereqError, version=CLASSIC)


class AnswerTests(RequestScene):
    """Forms of answers that only 2.x clients get."""

    def test_ids(self) -> None:
        """Job ids are strings for 2.x clients only."""
        self.assertEqual(self.call("SubmitJob", [DELAY], version=CLASSIC), "1")
        self.assertEqual(self.call("SubmitJobToDrainedQueue", [DELAY], version=CLASSIC), "2")
        results = self.call("SubmitManyJobs", [[DELAY], []], version=CLASSIC)
        self.assertEqual((results[0], results[1][0]), ([True, "3"], False))
        self.assertIsInstance(results[1][1], str)
        rows = self.call("QueryJobs", ["2", "1"], ["status", "id"], version=CLASSIC)
        self.assertEqual(rows, [["queued", "2"], ["queued", "1"]])
        self.assertEqual(self.call("QueryJobs", ["2"], ["id"]), [[2]])

    def test_missing_job(self) -> None:
        """A missing job is null."""
        self.call("SubmitJob", [DELAY])
        self.assertEqual(self.call("QueryJobs", ["9", "1"], ["id"], version=CLASSIC), [None, ["1"]])
        self.assertIsNone(
            self.call("WaitForJobChange", "9", ["status"], None, None, 1, version=CLASSIC)
        )

    def test_waiting(self) -> None:
        """Changes have ids as strings, and a client's previous values may have such ids."""
        self.call("SubmitJob", [DELAY])
        fields = ["id", "status"]
        self.assertEqual(
            self.call("WaitForJobChange", "1", fields, None, None, 1, version=CLASSIC),
            [["1", "queued"], []],
        )
        waiting = self.ask("WaitForJobChange", "1", fields, ["1", "queued"], 0, 5, version=CLASSIC)
        self.assertNoResult(waiting)
        self.start()
        self.queue.commit([model.begin_running(self.queue.jobs[1], 0, 1.0)])
        self.clock.advance(SHORTLY)
        self.assertEqual(self.successResultOf(waiting), (["1", "running"], []))

    def test_time_out(self) -> None:
        """At the time-out the answer is "nochange"; a finished job still answers its values."""
        self.call("SubmitJob", [DELAY])
        for fields, values in ((["status"], ["queued"]), (["id"], ["1"]), (["id"], [1])):
            waiting = self.ask("WaitForJobChange", "1", fields, values, 0, 5, version=CLASSIC)
            self.clock.advance(5)
            self.assertEqual(self.successResultOf(waiting), "nochange")
        self.start()
        self.finish(1)
        self.assertEqual(
            self.call("WaitForJobChange", "1", ["status"], ["success"], 0, 5, version=CLASSIC),
            [["success"], []],
        )

    def test_archived_meanwhile(self) -> None:
        """A job that is archived while a 2.x client waits is null for it, lost for others."""
        self.call("SubmitJob", [DELAY])
        self.start()
        job = model.begin_running(self.queue.jobs[1], 0, 1.0)
        self.queue.commit([job])
        waiting = [
            self.ask("WaitForJobChange", 1, ["status"], ["running"], 0, 5, version=version)
            for version in (CLASSIC, 3000000)
        ]
        self.watch.gone(1)
        self.assertIsNone(self.successResultOf(waiting[0]))
        self.failureResultOf(waiting[1], JobLost)

    def test_other_errors(self) -> None:
        """Errors other than a lost job are sent unchanged."""
        waiting = self.ask_while_it_stops()
        self.failureResultOf(waiting, GenericError)

    def ask_while_it_stops(self):
        self.call("SubmitJob", [DELAY])
        waiting = self.ask("WaitForJobChange", 1, ["status"], ["queued"], 0, 5, version=CLASSIC)
        self.queue.close()
        return waiting

    def test_given_up(self) -> None:
        """A 2.x client that disconnects while it waits leaves nothing behind."""
        self.call("SubmitJob", [DELAY])
        waiting = self.ask("WaitForJobChange", 1, ["status"], ["queued"], 0, 5, version=CLASSIC)
        waiting.addErrback(lambda _: None)
        waiting.cancel()
        self.assertEqual((len(self.watch), len(self.timers)), (0, 0))

    def test_exports(self) -> None:
        """Exports are an object by node, false for one that can't be reached."""
        self.nodes.answers["node1", "export_list"] = ["a", "b"]
        exports = self.call("QueryExports", ["node1", "node2", "node3"], False, version=CLASSIC)
        self.assertEqual(exports["node1"], ["a", "b"])
        self.assertIs(exports["node3"], False)
        self.assertIn("node2", exports)

    def test_tags(self) -> None:
        """The cluster's tags may be queried without a name."""
        self.assertEqual(self.call("QueryTags", "cluster", None, version=CLASSIC), [])
        for args in (["cluster"], ["cluster", 5]):
            self.refused("QueryTags", *args, kind=OpPrereqError, version=CLASSIC)
        self.refused("QueryTags", "cluster", None, kind=OpPrereqError)
