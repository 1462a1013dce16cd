"""Every LUXI method: its answers and refusals."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.logger import globalLogPublisher

from ganeti_masterd.errors import GenericError, JobLost, OpPrereqError
from ganeti_masterd.jobs import model
from ganeti_masterd.jobs.watch import SHORTLY
from ganeti_masterd.luxi.messages import LuxiRequest
from ganeti_masterd.opcodes import decode_opcode
from ganeti_masterd.requests.registry import METHODS, LuxiAnswers
from tests.config.sample import INSTANCE1, NODE1
from tests.requests.scene import DELAY, RequestScene

RULE_ID = "01234567-89ab-cdef-0123-456789abcdef"
RULE: list[Any] = [5, [["jobid", [">", "id", "watermark"]]], "PAUSE", [["gnt:user", "why", 1]]]

#: Valid arguments for each method, each with a value of the wrong type.
ARGUMENTS: dict[str, list[tuple[Any, Any]]] = {
    "SubmitJob": [([DELAY], "OP_TEST_DELAY")],
    "SubmitJobToDrainedQueue": [([DELAY], 5)],
    "SubmitManyJobs": [([[DELAY]], {})],
    "WaitForJobChange": [(1, "one"), (["status"], "status"), (None, ...), (None, "0"), (1, "1")],
    "CancelJob": [(1, None), (True, 1)],
    "ChangeJobPriority": [(1, []), (5, "5")],
    "ArchiveJob": [(1, 1.5)],
    "AutoArchiveJobs": [(3600, "3600"), (5, None)],
    "QueryJobs": [([1], 1), (["id"], None)],
    "PickupJob": [(1, {})],
    "Query": [("node", 5), (["name"], "name"), (None, ...)],
    "QueryFields": [("node", []), (["name"], "name")],
    "QueryNodes": [(["node1"], "node1"), (["name"], [5]), (False, "no")],
    "QueryInstances": [([], 5), (["name"], "name"), (False, 0)],
    "QueryGroups": [([], {}), (["name"], None), (False, None)],
    "QueryNetworks": [([], 1), (["name"], [[]]), (False, [])],
    "QueryExports": [(["node1"], 5), (False, "")],
    "QueryConfigValues": [(["cluster_name"], "cluster_name")],
    "QueryTags": [("cluster", 5), ("", 5)],
    "QueryFilters": [(None, RULE_ID), (["uuid"], 5)],
    "ReplaceFilter": [
        (None, ...),
        (RULE[0], "5"),
        (RULE[1], "all"),
        (RULE[2], ...),
        (RULE[3], [["why"]]),
    ],
    "DeleteFilter": [(RULE_ID, ...)],
    "SetDrainFlag": [(True, 1)],
    "SetWatcherPause": [(None, "tomorrow")],
}


class TableTests(RequestScene):
    """Rules for all methods."""

    def test_complete(self) -> None:
        """Every method is tested here; only QueryClusterInfo accepts any arguments."""
        self.assertEqual({*ARGUMENTS, "QueryClusterInfo"}, set(METHODS))

    def test_wrong_counts(self) -> None:
        """A wrong number of arguments is refused, naming the method and what it expects."""
        for name, arguments in ARGUMENTS.items():
            good = [value for value, _ in arguments]
            required = [argument.required for argument in METHODS[name].arguments].count(True)
            self.assertEqual(len(good), len(METHODS[name].arguments), name)
            too_many, too_few = [*good, None, None], good[: required - 1]
            for args in [too_many, too_few] if required else [too_many]:
                message = self.refused(name, *args, kind=OpPrereqError)
                self.assertTrue(message.startswith(f"{name}: expected ["), message)
                self.assertIn(f"not {len(args)} argument", message)

    def test_wrong_types(self) -> None:
        """An argument of the wrong type is refused, naming the method and the argument."""
        for name, arguments in ARGUMENTS.items():
            for place, (_, bad) in enumerate(arguments):
                if bad is ...:
                    continue
                args = [value for value, _ in arguments]
                args[place] = bad
                error = self.assertRaises(OpPrereqError, self.call, name, *args)
                argument = METHODS[name].arguments[place].name
                self.assertTrue(
                    error.args[0].startswith(f"{name}: argument {argument}"), error.args
                )
                self.assertEqual(error.args[1], "wrong_input")

    def test_unknown(self) -> None:
        """An unknown method is refused by name, however long or odd the name is."""
        self.assertIn('"Reboot"', self.refused("Reboot", kind=OpPrereqError))
        self.assertLess(len(self.refused("x" * 10_000, kind=OpPrereqError)), 100)
        self.refused("\u00e4\n", kind=OpPrereqError)

    def test_read_only(self) -> None:
        """A socket for monitors refuses all changes and answers all queries."""
        answers = LuxiAnswers(self.daemon, read_only=True)
        asked = {"WaitForJobChange"}
        for name, method in METHODS.items():
            args = [value for value, _ in ARGUMENTS.get(name, ())]
            request = LuxiRequest(name, args)
            if method.changes:
                error = self.assertRaises(OpPrereqError, answers, request, self.peer)
                self.assertIn("changes something", error.args[0])
            else:
                asked.add(name)
                if name != "WaitForJobChange":
                    answers(request, self.peer)
        self.assertEqual(
            {name for name in METHODS if name.startswith("Query")} | {"WaitForJobChange"}, asked
        )
        self.assertEqual((self.queue.last_id, self.queue.drained), (0, False))

    def test_no_secret_in_errors(self) -> None:
        """The error for an argument that may have secrets doesn't quote it."""
        op = {"OP_ID": "OP_TEST_DELAY", "duration": "x", "osparams_secret": {"k": "hidden-value"}}
        for args in ([op], {"a": op}, [[op]]):
            self.assertNotIn("hidden-value", self.refused("SubmitJob", args, kind=OpPrereqError))

    def test_who_asked_is_logged(self) -> None:
        """Changes are logged with the peer, queries are not."""
        seen: list[str] = []

        def observe(event: dict[str, Any]) -> None:
            if event.get("log_namespace") == "ganeti_masterd.requests.methods":
                seen.append(event["log_format"].format(**event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        self.call("QueryClusterInfo")
        self.call("SubmitJob", [DELAY])
        self.assertEqual(seen, ["SubmitJob from connection 1, uid 1000, pid 77"])


class SubmitTests(RequestScene):
    """SubmitJob, SubmitJobToDrainedQueue, SubmitManyJobs."""

    def test_submit(self) -> None:
        """The id is an integer; the daemon's reason entry names the sender of the job."""
        self.assertEqual(self.call("SubmitJob", [DELAY, DELAY]), 1)
        ((ops,),) = self.call("QueryJobs", [1], ["ops"])
        self.assertEqual(
            [op["reason"][-1][:2] for op in ops],
            [["gnt:opcode:test_delay", f"job=1;index={n};uid=1000;pid=77"] for n in (0, 1)],
        )

    def test_without_credentials(self) -> None:
        """Without the peer's credentials the entry is the same as luxid's."""
        self.peer = type(self.peer)(1)
        self.call("SubmitJob", [DELAY])
        ((ops,),) = self.call("QueryJobs", [1], ["ops"])
        self.assertEqual(ops[0]["reason"][-1][1], "job=1;index=0")

    def test_refused(self) -> None:
        """Each bad opcode is refused with a message that says where the error is."""
        for bad, place in (
            ([], "A job needs at least one opcode"),
            ([5], "[0]"),
            ([DELAY, {"OP_ID": "OP_NONE"}], "[1]"),
            ([{**DELAY, "priority": 3}], "priority"),
            ([{**DELAY, "depends": [[-5, []]]}], "doesn't exist"),
            ([{**DELAY, "depends": [[0, []]]}], "can't depend on itself"),
            ([{**DELAY, "colour": 1}], "colour"),
        ):
            self.assertIn(place, self.refused("SubmitJob", bad, kind=OpPrereqError))
        self.assertEqual(self.queue.jobs, {})

    def test_drained(self) -> None:
        """A drained queue accepts jobs only by SubmitJobToDrainedQueue."""
        self.assertIs(self.call("SetDrainFlag", True), True)
        self.assertEqual(self.refused("SubmitJob", [DELAY]), "Queue drained")
        self.assertEqual(self.refused("SubmitManyJobs", [[DELAY]]), "Queue drained")
        self.assertIsInstance(self.call("SubmitJobToDrainedQueue", [DELAY]), int)
        self.assertIs(self.call("SetDrainFlag", False), True)
        self.assertIsInstance(self.call("SubmitJob", [DELAY]), int)

    def test_many(self) -> None:
        """A job that is refused doesn't fail the others."""
        results = self.call(
            "SubmitManyJobs",
            [
                [DELAY],
                [],
                [{**DELAY, "depends": [[-1, []]]}],
                [{**DELAY, "depends": [[-3, []]]}],
            ],
        )
        self.assertEqual([done for done, _ in results], [True, False, False, True])
        self.assertEqual((results[0][1], results[3][1]), (1, 4))
        self.assertTrue(all(isinstance(text, str) for done, text in results if not done))
        self.assertEqual(self.call("SubmitManyJobs", []), [])

    def test_many_with_one_that_can_not_be_read(self) -> None:
        """A job that can't be decoded fails the whole call, which names it and queues no job."""
        for bad, place in (
            ("job", "jobs[1]"),
            (None, "jobs[1]"),
            ([5], "jobs[1][0]"),
            ([DELAY, {"OP_ID": "OP_NONE"}], "jobs[1][1]"),
            ([{"duration": 1}], "OP_ID"),
            ([{"OP_ID": "OP_TEST_DELAY"}], "duration"),
            ([{**DELAY, "colour": 1}], "colour"),
            ([{**DELAY, "priority": 3}], "priority"),
            ([{**DELAY, "duration": "x"}], "duration"),
            ([{**DELAY, "reason": ["x"]}], "reason"),
            ([{**DELAY, "depends": [[1, ["running"]]]}], "depends"),
            ([{**DELAY, "depends": [["-1", []]]}], "depends"),
        ):
            for jobs in ([[DELAY], bad, [DELAY]], [[], bad]):
                message = self.refused("SubmitManyJobs", jobs, kind=OpPrereqError)
                self.assertTrue(message.startswith("SubmitManyJobs: argument jobs[1]"), message)
                self.assertIn(place, message)
        self.assertEqual((self.queue.jobs, self.queue.last_id), ({}, 0))
        self.call("SetDrainFlag", True)
        self.assertIn("jobs[0]", self.refused("SubmitManyJobs", [[5]], kind=OpPrereqError))


class JobTests(RequestScene):
    """Methods about existing jobs."""

    def submitted(self) -> int:
        job_id: int = self.call("SubmitJob", [DELAY])
        return job_id

    def test_wait(self) -> None:
        """Changes are answered soon after they happen, unchanged values at the time-out."""
        job_id = self.submitted()
        self.assertEqual(
            self.call("WaitForJobChange", str(job_id), ["id", "status"], None, None, 1),
            [[job_id, "queued"], []],
        )
        waiting = self.ask("WaitForJobChange", job_id, ["status"], ["queued"], 0, 10)
        self.assertNoResult(waiting)
        self.start()
        self.queue.commit([model.begin_running(self.queue.jobs[job_id], 0, 1.0)])
        self.clock.advance(SHORTLY)
        self.assertEqual(list(self.successResultOf(waiting)), [["running"], []])
        waiting = self.ask("WaitForJobChange", job_id, ["status"], ["running"], 0, 10)
        self.queue.add_log(job_id, 0, "message", "hello")
        self.clock.advance(SHORTLY)
        _, (entry,) = self.successResultOf(waiting)
        self.assertEqual((entry.serial, entry.kind, entry.message), (1, "message", "hello"))
        waiting = self.ask("WaitForJobChange", job_id, ["status"], ["running"], 1, 10)
        self.clock.advance(10)
        self.assertEqual(self.successResultOf(waiting), (["running"], []))

    def test_wait_for_nothing(self) -> None:
        """A missing job is lost; an unknown field makes all values null."""
        self.refused("WaitForJobChange", 9, ["status"], None, None, 1, kind=JobLost)
        job_id = self.submitted()
        self.assertEqual(
            self.call("WaitForJobChange", job_id, ["status", "x"], ["queued"], None, 1),
            [[None, None], []],
        )

    def test_wait_hides_secrets(self) -> None:
        """Private and secret parameters aren't shown to waiting clients, either."""
        op = {
            "OP_ID": "OP_INSTANCE_REINSTALL",
            "instance_name": "x",
            "osparams_private": {"a": "hidden-value"},
            "osparams_secret": {"b": "hidden-value"},
        }
        (job_id,) = self.submit([decode_opcode(op)])
        for answer in (
            self.call("WaitForJobChange", job_id, ["ops"], None, None, 1),
            self.call("QueryJobs", [job_id], ["ops", "summary"]),
            self.call("Query", "job", ["id", "ops", "summary"], None),
        ):
            self.assertNotIn("hidden-value", str(answer))
            self.assertIn("<redacted>", str(answer))

    def test_cancel(self) -> None:
        """The messages are luxid's."""
        job_id = self.submitted()
        self.assertEqual(self.call("CancelJob", job_id), [True, f"Dequeued job {job_id}"])
        self.assertEqual(
            self.call("CancelJob", job_id), [False, f"Job {job_id} not found in queue"]
        )
        self.start()
        job_id = self.submitted()
        self.queue.commit([model.begin_running(self.queue.jobs[job_id], 0, 1.0)])
        done, text = self.call("CancelJob", job_id)
        self.assertEqual(done, False)
        self.assertIn("can't cancel", text)
        self.assertEqual(self.call("CancelJob", job_id, True)[0], True)
        self.assertEqual(self.runner.killed, [job_id])

    def test_priority(self) -> None:
        """A priority within the range is set, any other is refused."""
        job_id = self.submitted()
        self.assertEqual(self.call("ChangeJobPriority", job_id, -7)[0], True)
        self.assertEqual(self.call("QueryJobs", [job_id], ["priority"]), [[-7]])
        for bad in (-21, 20, 100):
            self.refused("ChangeJobPriority", job_id, bad, kind=OpPrereqError)
        self.assertEqual(self.call("ChangeJobPriority", 99, 0)[0], False)

    def test_archive(self) -> None:
        """Only a job that has ended is archived."""
        job_id = self.submitted()
        self.assertIs(self.call("ArchiveJob", job_id), False)
        self.start()
        self.finish(job_id)
        self.assertIs(self.call("ArchiveJob", job_id), True)
        self.assertIs(self.call("ArchiveJob", job_id), False)
        self.assertIs(self.call("ArchiveJob", 99), False)

    def test_client_goes(self) -> None:
        """A change that has begun is made, once, even if its client disconnects."""
        job_id = self.submitted()
        self.start()
        self.finish(job_id)
        self.journal.held = True
        waiting = self.ask("ArchiveJob", job_id)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(self.call("AutoArchiveJobs", -1, 5), [0, 0])
        self.journal.held = False
        self.journal.release()
        archived = [row for row in self.journal.rows if getattr(row, "archived", False)]
        self.assertEqual([row.job_id for row in archived], [job_id])
        self.assertNotIn(job_id, self.queue.jobs)

    def test_auto_archive(self) -> None:
        """The age is in seconds, which may be fractional; -1 means every job that has ended."""
        self.start()
        for _ in range(3):
            self.finish(self.submitted())
        self.submitted()
        self.assertEqual(self.call("AutoArchiveJobs", 3600.5, 5), [0, 0])
        self.assertEqual(self.call("AutoArchiveJobs", -1, 5), [3, 0])

    def test_query(self) -> None:
        """Rows are in the order of the request, each once; a missing job has only its id."""
        for _ in range(3):
            self.submitted()
        self.assertEqual(
            self.call("QueryJobs", [3, "1", 99, 3], ["id", "status"]),
            [[3, "queued"], [1, "queued"], [99, None]],
        )
        for everything in (None, []):
            self.assertEqual(self.call("QueryJobs", everything, ["id"]), [[1], [2], [3]])
        self.refused("QueryJobs", [1], ["colour"], kind=OpPrereqError)

    def test_pickup(self) -> None:
        """PickupJob is refused."""
        self.assertIn("internal use only", self.refused("PickupJob", 1))


class ClusterTests(RequestScene):
    """Queries of the cluster, and its flags."""

    def test_queries(self) -> None:
        """Classic queries answer rows for names or uuids, without the unknown ones."""
        for names in (["node2", "node1", "nosuch"], ["node2", NODE1]):
            self.assertEqual(
                self.call("QueryNodes", names, ["name"], False), [["node1"], ["node2"]]
            )
        self.assertEqual(len(self.call("QueryNodes", [], ["name", "group"], False)), 3)
        self.assertEqual(len(self.call("QueryInstances", [INSTANCE1], ["name"], False)), 1)
        self.assertEqual(self.call("QueryGroups", [], ["name"], False), [["default"]])
        self.assertIsInstance(self.call("QueryNetworks", [], ["name"], False), list)
        for method in ("QueryNodes", "QueryInstances", "QueryGroups", "QueryNetworks"):
            self.refused(method, [], ["colour"], False, kind=OpPrereqError)
            self.refused(method, [], ["name"], True, kind=OpPrereqError)

    def test_exports(self) -> None:
        """A node that can't be reached has null; an unknown one is an error."""
        self.nodes.answers["node1", "export_list"] = ["inst"]
        rows = self.call("QueryExports", [], False)
        self.assertIn(["node1", "inst"], rows)
        self.assertIn(["node3", None], rows)
        self.refused("QueryExports", ["nosuch"], False, kind=OpPrereqError)
        self.refused("QueryExports", [], True, kind=OpPrereqError)

    def test_query(self) -> None:
        """Query and QueryFields answer fields with their kinds."""
        answer = self.call("Query", "node", ["name"], ["=", "name", "node1"])
        self.assertEqual(answer["data"], [[[0, "node1"]]])
        self.assertEqual(answer["fields"][0]["kind"], "text")
        self.assertEqual(
            [field["name"] for field in self.call("QueryFields", "node", ["name"])["fields"]],
            ["name"],
        )
        self.assertGreater(len(self.call("QueryFields", "node", None)["fields"]), 20)
        self.refused("Query", "planet", ["name"], None, kind=OpPrereqError)
        self.refused("QueryFields", "planet", None, kind=OpPrereqError)

    def test_cluster(self) -> None:
        """QueryClusterInfo accepts anything; QueryConfigValues has null for unknown names."""
        for args in ([], [1], ["a", None]):
            self.assertIn("software_version", self.call("QueryClusterInfo", *args))
        values = self.call("QueryConfigValues", ["master_node", "drain_flag", "x"])
        self.assertEqual(values, ["node1", False, None])
        self.assertEqual(self.call("QueryConfigValues", []), [])

    def test_tags(self) -> None:
        """Each kind of object has tags; other kinds are refused."""
        for kind, name in (
            ("cluster", ""),
            ("cluster", "cluster"),
            ("node", "node1"),
            ("nodegroup", "default"),
            ("instance", INSTANCE1),
        ):
            self.assertIsInstance(self.call("QueryTags", kind, name), list)
        self.refused("QueryTags", "planet", "x", kind=OpPrereqError)
        self.refused("QueryTags", "node", "nosuch", kind=OpPrereqError)
        self.refused("QueryTags", "node", "", kind=OpPrereqError)

    def test_drain_flag(self) -> None:
        """The flag is a file; setting it twice, or clearing it when unset, succeeds, too."""
        for drained in (True, True, False, False):
            self.assertIs(self.call("SetDrainFlag", drained), True)
            self.assertEqual(self.call("QueryConfigValues", ["drain_flag"]), [drained])
            self.assertEqual(os.path.exists(self.folder.drain), drained)

    def test_watcher_pause(self) -> None:
        """The pause is answered as set, shown in whole seconds, and gone once it is over."""
        until = self.timers.now() + 100.5
        self.assertEqual(self.call("SetWatcherPause", until), until)
        self.assertEqual(self.call("QueryConfigValues", ["watcher_pause"]), [int(until)])
        self.clock.advance(101)
        self.assertEqual(self.call("QueryConfigValues", ["watcher_pause"]), [None])
        self.refused("SetWatcherPause", self.timers.now() - 1, kind=OpPrereqError)
        for far in (1e308, 253402300800):
            self.refused("SetWatcherPause", far, kind=OpPrereqError)
        for args in ([None], []):
            self.call("SetWatcherPause", self.timers.now() + 5)
            self.assertIsNone(self.call("SetWatcherPause", *args))
            self.assertEqual(self.call("QueryConfigValues", ["watcher_pause"]), [None])


class FilterTests(RequestScene):
    """QueryFilters, ReplaceFilter, DeleteFilter."""

    fields = ["uuid", "watermark", "priority", "predicates", "action", "reason_trail"]

    def test_new(self) -> None:
        """A new rule gets a uuid, the last job's id as watermark, and a reason entry."""
        self.call("SubmitJob", [DELAY])
        uuid = self.call("ReplaceFilter", None, *RULE)
        ((found, watermark, priority, predicates, action, trail),) = self.call(
            "QueryFilters", None, self.fields
        )
        self.assertEqual((found, watermark, priority, action), (uuid, 1, 5, "PAUSE"))
        self.assertEqual(predicates, RULE[1])
        self.assertEqual(trail[0], RULE[3][0])
        self.assertEqual((trail[1][:2], type(trail[1][2])), (["luxid", ""], int))

    def test_replace(self) -> None:
        """An unknown uuid creates the rule, a known one replaces it with a new watermark."""
        for _ in range(2):
            self.call("SubmitJob", [DELAY])
            self.assertEqual(self.call("ReplaceFilter", RULE_ID, *RULE), RULE_ID)
        self.assertEqual(self.call("ReplaceFilter", RULE_ID, 0, [], ["RATE_LIMIT", 3], []), RULE_ID)
        self.assertEqual(
            self.call("QueryFilters", [RULE_ID], self.fields[:5]),
            [[RULE_ID, 2, 0, [], ["RATE_LIMIT", 3]]],
        )
        serial = self.store.snapshot.cluster.serial_no
        self.assertIsNone(self.call("DeleteFilter", RULE_ID))
        self.assertEqual(self.call("QueryFilters", None, ["uuid"]), [])
        self.assertEqual(self.store.snapshot.cluster.serial_no, serial)

    def test_takes_effect(self) -> None:
        """A rule holds jobs back from when it is answered until it is removed."""
        self.start()
        uuid = self.call("ReplaceFilter", None, *RULE)
        job_id = self.call("SubmitJob", [DELAY])
        self.assertEqual(self.runner.begun, [])
        self.call("DeleteFilter", uuid)
        self.assertEqual(self.runner.begun, [job_id])

    def test_refused(self) -> None:
        """Invalid rules are refused as a whole; uuids are refused as by luxid."""
        for place, bad in (
            (0, -1),
            (1, [["jobid"]]),
            (1, [["jobid", ["=", "id"]]]),
            (1, [["user", ["&"]]]),
            (2, "STOP"),
            (2, ["RATE_LIMIT", 0]),
            (2, None),
            (3, [[1, 2, 3]]),
            (3, ["why"]),
        ):
            rule = list(RULE)
            rule[place] = bad
            message = self.refused("ReplaceFilter", None, *rule, kind=OpPrereqError)
            self.assertTrue(message.startswith("ReplaceFilter: argument "), message)
        for uuid in ("abc", "", 5, RULE_ID + "0", RULE_ID.upper()):
            self.refused("ReplaceFilter", uuid, *RULE, kind=GenericError)
            self.refused("DeleteFilter", uuid, kind=GenericError)
        self.refused("DeleteFilter", RULE_ID, kind=GenericError)
        self.assertEqual(len(self.store.snapshot.filters), 0)

    def test_taken(self) -> None:
        """A rule can't have another object's uuid."""
        error = self.assertRaises(GenericError, self.call, "ReplaceFilter", NODE1, *RULE)
        self.assertIn("taken", str(error))

    def test_disk_refuses(self) -> None:
        """A rule that can't be made durable isn't in force."""
        self.journal.held = True
        answer = self.ask("ReplaceFilter", None, *RULE)
        self.journal.fail()
        self.failureResultOf(answer, GenericError)
        self.journal.held = False
        self.start()
        job_id = self.call("SubmitJob", [DELAY])
        self.assertEqual(self.runner.begun, [job_id])
