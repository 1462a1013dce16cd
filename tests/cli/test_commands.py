"""Each command with a daemon that answers from a table."""

from __future__ import annotations

import json
import time
from typing import Any

from ganeti_masterd.cli import output
from ganeti_masterd.errors import (
    GenericError,
    JobLost,
    JobQueueFull,
    OpPrereqError,
)
from tests.cli.doubles import FAILED_ROW, NOW, OK_ROW, CommandCase, job_answers

DELAY = {"OP_ID": "OP_TEST_DELAY", "duration": 1.0}


class InfoTests(CommandCase):
    """``info``, ``drain`` and ``pause-watcher``."""

    def setUp(self) -> None:
        super().setUp()
        self.daemon.answers.update(
            QueryClusterInfo={
                "name": "cluster",
                "uuid": "abc",
                "master": "node1",
                "software_version": "3.0.2",
                "protocol_version": 3000000,
                "enabled_hypervisors": ["fake", "kvm"],
                "tags": ["a\x1b"],
            },
            QueryConfigValues=lambda names: [{"drain_flag": True}.get(name) for name in names],
            QueryJobs=job_answers(OK_ROW, FAILED_ROW, {**OK_ROW, "id": 9}),
            SetDrainFlag=True,
            SetWatcherPause=lambda until: until,
        )

    def test_info(self) -> None:
        """Cluster, versions, jobs by status, drain flag, watcher pause, socket."""
        text = self.run_ok("info")
        for line in (
            "Cluster:     cluster (abc)",
            "Master:      node1",
            "Ganeti:      3.0.2 (protocol 3000000)",
            "Hypervisors: fake, kvm",
            "Tags:        a\\x1b",
            "Jobs:        3 (2 success, 1 error)",
            "Queue:       drained: takes no new jobs",
            "Watcher:     not paused",
            f"Socket:      {self.socket}",
        ):
            self.assertIn(line, text.splitlines())

    def test_info_of_little(self) -> None:
        """A daemon that returns only the cluster's name, with an empty queue."""
        self.daemon.answers.update(QueryClusterInfo={"name": "x"}, QueryJobs=[])
        self.assertEqual(self.run_ok("info").splitlines()[:2], ["Cluster: x", "Jobs:    none"])

    def test_info_on_a_terminal(self) -> None:
        """A terminal shows the same lines, with names in bold if it can."""
        plain = self.run_ok("info")
        self.patch(output, "on_terminal", lambda: True)
        self.assertEqual(self.run_ok("info"), plain)

    def test_info_json(self) -> None:
        """The same in JSON, with everything that the daemon returned."""
        told = self.run_json("info")
        self.assertEqual(told["cluster"]["master"], "node1")
        self.assertEqual(told["jobs"], {"total": 3, "success": 2, "error": 1})
        self.assertEqual((told["drained"], told["watcher_pause"]), (True, None))

    def test_drain(self) -> None:
        """On, off, and without an argument the current state."""
        self.assertEqual(self.run_ok("drain", "off"), "The queue is open\n")
        self.assertIn("drained", self.run_ok("drain", "on"))
        self.assertEqual(
            [args for method, args in self.daemon.heard if method == "SetDrainFlag"],
            [[False], [True]],
        )
        self.assertIn("drained", self.run_ok("drain"))
        self.assertEqual(self.run_json("drain", "status"), {"drained": True})
        self.assertEqual(self.daemon.heard[-1][0], "QueryConfigValues")
        self.run_failing("drain", "maybe", code=2)

    def test_pause_watcher(self) -> None:
        """A duration, off, and without an argument the current state."""
        before = time.time()
        self.assertRegex(
            self.run_ok("pause-watcher", "1h"), r"paused until .* \(another (59 min|1 h)"
        )
        (until,) = self.daemon.heard[-1][1]
        self.assertTrue(before + 3599 <= until <= time.time() + 3600)
        self.assertEqual(self.run_ok("pause-watcher", "off"), "The watcher is not paused\n")
        self.assertEqual(self.daemon.heard[-1], ("SetWatcherPause", [None]))
        self.daemon.answers["QueryConfigValues"] = [NOW]
        self.assertEqual(self.run_json("pause-watcher"), {"watcher_pause": NOW})
        self.run_failing("pause-watcher", "soon", code=2)


class JobsTests(CommandCase):
    """``jobs`` and ``job``."""

    def setUp(self) -> None:
        super().setUp()
        waiting = {**OK_ROW, "id": 9, "status": "queued", "start_ts": None, "end_ts": None}
        self.daemon.answers["QueryJobs"] = job_answers(OK_ROW, FAILED_ROW, waiting)

    def test_plain(self) -> None:
        """Without a terminal, one line per job, with tabs and without titles."""
        lines = self.run_ok("jobs").splitlines()
        self.assertEqual([line.split("\t")[0] for line in lines], ["7", "8", "9"])
        self.assertEqual(lines[0].split("\t")[1::2], ["success", "1.25 s"])
        self.assertEqual(lines[2].split("\t")[3:], ["-", "TEST_DELAY(1.0)"])

    def test_choice(self) -> None:
        """Jobs by status, only the latest ones, and archived ones."""
        ids = lambda *args: [row["id"] for row in self.run_json("jobs", *args)]  # noqa: E731
        self.assertEqual(ids("--status", "error", "--status", "queued"), [8, 9])
        self.assertEqual(ids("--limit", "2"), [8, 9])
        self.assertEqual(ids("--limit", "0"), [7, 8, 9])
        self.assertEqual(ids("--limit", "1", "--status", "success"), [7])
        self.assertNotIn(["id", "status", "archived"], [args[1] for _, args in self.daemon.heard])
        self.assertEqual(ids("--archived"), [7, 8, 9])
        self.assertIn(["id", "status", "archived"], [args[1] for _, args in self.daemon.heard])
        self.run_failing("jobs", "--status", "odd", code=2)

    def test_nonsense(self) -> None:
        """An answer that makes no sense is an error in one line."""
        for answer in (None, 5, [5], [[7, 5]], [["x", "success"]]):
            self.daemon.answers["QueryJobs"] = answer
            result = self.run_failing("jobs")
            self.assertIn("can't be understood", result.stderr)

    def test_classic(self) -> None:
        """A classic daemon sends ids as strings, and null for missing jobs."""
        self.daemon.answers["QueryJobs"] = [["7", "success"], None]
        self.daemon.answers.update(QueryClusterInfo={"name": "x"}, QueryConfigValues=[None, None])
        self.assertEqual(self.run_json("info")["jobs"], {"total": 1, "success": 1})

    def test_none(self) -> None:
        """For an empty list nothing is printed, or [] with JSON."""
        self.daemon.answers["QueryJobs"] = []
        self.assertEqual(self.run_ok("jobs"), "")
        self.assertEqual(self.run_json("jobs"), [])

    def test_terminal(self) -> None:
        """A terminal shows a table of the latest jobs, and a note about the others."""
        self.patch(output, "on_terminal", lambda: True)
        many = [{**OK_ROW, "id": number} for number in range(1, 61)]
        self.daemon.answers["QueryJobs"] = job_answers(*many)
        result = self.invoke("--socket", self.socket, "jobs")
        self.assertRegex(result.stdout.splitlines()[0], "^ID +Status +Received +Took +Opcodes")
        self.assertEqual(len(result.stdout.splitlines()), 51)
        self.assertEqual(result.stderr, "10 older jobs not shown; --limit 0 shows all.\n")
        self.daemon.answers["QueryJobs"] = []
        self.assertEqual(self.invoke("--socket", self.socket, "jobs").stderr, "No jobs.\n")

    def test_job(self) -> None:
        """Everything of a job: times, durations, parameters, reasons, log, result."""
        text = self.run_ok("job", "7")
        for part in (
            "Job 7: success",
            "(after 250 ms)",
            "(took 1.25 s)",
            "Opcode 1 of 1: TEST_DELAY(1.0): success",
            "Waited for locks: 10 ms",
            "Ran:              1.24 s",
            "duration: 1.0",
            "Reason:           gnt:user: to see",
            "half way",
            "Result: null",
        ):
            self.assertIn(part, text)
        self.assertNotIn("comment", text)

    def test_failed_job(self) -> None:
        """A failed, archived job with two opcodes and a log of several lines."""
        row = {
            **FAILED_ROW,
            "archived": True,
            "summary": ["A", "B\x07"],
            **{
                name: FAILED_ROW[name] * 2
                for name in ("opstatus", "opresult", "oppriority", "opstart", "opend")
            },
            "opexec": [[NOW, 0], None],
            "oplog": [[[1, [NOW, 0], "message", "one\ntwo"], [2, [NOW, 0], "x", {"a": 1}]], []],
            "ops": [
                {"OP_ID": "OP_A", "comment": "said", "depends": [[3, []]], "reason": None},
                {"OP_ID": "OP_B", "debug_level": 0, "dry_run": False},
            ],
        }
        self.daemon.answers["QueryJobs"] = job_answers(row)
        text = self.run_ok("job", "8")
        for part in (
            "Job 8: error, archived",
            'comment: "said"',
            "depends: [[3,[]]]",
            "Error: OpPrereqError (unknown_entity): no such node",
            "  one\n",
            "  two\n",
            '  {"a":1}\n',
            "Opcode 2 of 2: B\\x07: error",
        ):
            self.assertIn(part, text)
        for part in ("debug_level", "dry_run"):
            self.assertNotIn(part, text)

    def test_why(self) -> None:
        """The daemon's sentence is printed, without control characters; JSON has all of it."""
        answer = {"id": 7, "sentence": "Job 7 waits\x1b[2J", "kind": "lock", "jobs": [5]}
        self.daemon.answers["QueryJobWait"] = answer
        said = self.run_ok("why", "7")
        self.assertTrue(said.startswith("Job 7 waits"))
        self.assertNotIn("\x1b", said)
        self.assertEqual(self.run_json("why", "7"), answer)
        self.assertEqual(self.daemon.heard[-1], ("QueryJobWait", [7]))

    def test_job_on_a_terminal(self) -> None:
        """A terminal shows the same lines, with coloured states if it can."""
        plain = self.run_ok("job", "7")
        self.patch(output, "on_terminal", lambda: True)
        self.assertEqual(self.run_ok("job", "7"), plain)

    def test_job_json(self) -> None:
        """All LUXI fields by their names."""
        self.assertEqual(self.run_json("job", "7"), OK_ROW)

    def test_no_such_job(self) -> None:
        """A job that doesn't exist is an error; an argument that isn't an id is a usage error."""
        result = self.run_failing("job", "5")
        self.assertEqual(result.stderr, "gnt-luxi: JobLost: There is no job 5\n")
        self.assertEqual(result.stdout, "")
        for text in ("x", "-1", "1.5", "9" * 30, "²"):
            self.run_failing("job", "--", text, code=2)


class SubmitTests(CommandCase):
    """``submit``."""

    def setUp(self) -> None:
        super().setUp()
        self.daemon.answers.update(
            SubmitJob=7,
            SubmitManyJobs=[[True, 7], [False, "refused"]],
            QueryJobs=job_answers(OK_ROW, FAILED_ROW),
        )

    def test_one(self) -> None:
        """A job from a file is sent unchanged, with a reason trail; its id is printed."""
        path = self.write("jobs.json", [DELAY, DELAY])
        self.assertEqual(self.run_ok("submit", path), "7\n")
        ((method, (opcodes,)),) = self.daemon.heard
        self.assertEqual(method, "SubmitJob")
        self.assertEqual(
            [entry[:2] for entry in opcodes[0].pop("reason")], [["gnt:client:gnt-luxi", "submit"]]
        )
        self.assertEqual(opcodes[0], DELAY)
        self.assertEqual(self.run_json("submit", path), [{"id": 7}])

    def test_options(self) -> None:
        """From standard input, with a priority and a reason."""
        self.run_ok("submit", "-", "--priority", "high", "--reason", "why", input=json.dumps(DELAY))
        opcode = self.daemon.heard[0][1][0][0]
        self.assertEqual(opcode["priority"], -10)
        self.assertEqual(opcode["reason"][0][:2], ["gnt:user", "why"])

    def test_many(self) -> None:
        """If some of many jobs are refused, they are reported, and the exit code is 1."""
        path = self.write("jobs.json", [[DELAY], [DELAY]])
        result = self.run_failing("submit", path)
        self.assertEqual(result.stdout, "7\n")
        self.assertEqual(result.stderr, "gnt-luxi: job 2 of 2 was refused: refused\n")
        result = self.run_failing("submit", path, "--json")
        self.assertEqual(json.loads(result.stdout), [{"id": 7}, {"id": None, "error": "refused"}])

    def test_refused(self) -> None:
        """An error of the daemon: class, code and message."""
        self.daemon.answers["SubmitJob"] = OpPrereqError("not so", "wrong_input")
        result = self.run_failing("submit", "-", input=json.dumps(DELAY))
        self.assertEqual(result.stderr, "gnt-luxi: OpPrereqError (wrong_input): not so\n")

    def test_bad_files(self) -> None:
        """Faults in a file are reported with its name, and nothing is sent."""
        path = self.write("jobs.json", [DELAY, {"OP_ID": "OP_TEST_DELAY"}])
        result = self.run_failing("submit", path)
        self.assertEqual(
            result.stderr,
            f"gnt-luxi: {path}: opcode 2: OP_TEST_DELAY: missing parameter duration\n",
        )
        result = self.run_failing("submit", "-", input="{")
        self.assertIn("gnt-luxi: standard input:1:2: ", result.stderr)
        self.run_failing("submit", self.path("none"), code=2)
        self.run_failing("submit", "-", "--priority", "5", code=2, input=json.dumps(DELAY))
        self.assertEqual(self.daemon.heard, [])
        self.run_failing("submit", self.folder, code=2)

    def test_wait(self) -> None:
        """With --wait the ends are shown, and the exit code is 1 if a job failed."""
        text = self.run_ok("submit", "--wait", "-", input=json.dumps(DELAY))
        self.assertEqual(text.splitlines()[-1], "job 7: success, TEST_DELAY(1.0), 1.25 s")
        told = self.run_json("submit", "-", "--wait", input=json.dumps(DELAY))
        self.assertEqual(told[0]["status"], "success")
        self.daemon.answers["SubmitJob"] = 8
        result = self.run_failing("submit", "--wait", "-", input=json.dumps(DELAY))
        self.assertIn("job 8: error", result.stdout)

    def test_nothing_to_wait_for(self) -> None:
        """If all jobs are refused, --wait doesn't wait."""
        self.daemon.answers["SubmitManyJobs"] = [[False, "a"], [False, "b"]]
        text = json.dumps([[DELAY], [DELAY]])
        self.assertEqual(self.run_failing("submit", "-", "--wait", input=text).stdout, "")

    def test_drained(self) -> None:
        """Jobs for a drained queue are sent one by one, with their dependencies by id."""
        ids = iter([40, 42])

        def answer(opcodes: Any) -> int:
            if opcodes[0].get("comment") == "bad":
                raise GenericError("bad")
            return next(ids)

        self.daemon.answers["SubmitJobToDrainedQueue"] = answer
        bad = [{**DELAY, "comment": "bad"}]
        jobs = [
            [DELAY],
            [{**DELAY, "depends": [[-1, []]]}],
            bad,
            [{**DELAY, "depends": [[-1, []]]}],
        ]
        result = self.run_failing("submit", "--drained", "-", input=json.dumps(jobs))
        self.assertEqual(result.stdout, "40\n42\n")
        self.assertEqual(self.daemon.heard[1][1][0][0]["depends"], [[40, []]])
        self.assertIn("job 3 of 4 was refused: GenericError: bad", result.stderr)
        self.assertIn("job 4 of 4 was refused: it depends on job -1, which", result.stderr)
        ids = iter([50])
        self.assertEqual(self.run_ok("submit", "--drained", "-", input=json.dumps(DELAY)), "50\n")

    def test_drained_and_lost(self) -> None:
        """If the daemon disappears between jobs, submitted and unsent ones are reported."""

        def answer(opcodes: Any) -> int:
            if len(self.daemon.heard) > 1:
                raise ConnectionAbortedError
            return 40

        self.daemon.answers["SubmitJobToDrainedQueue"] = answer
        jobs = json.dumps([[DELAY]] * 3)
        result = self.run_failing("submit", "--drained", "-", input=jobs)
        self.assertEqual(result.stdout, "40\n")
        self.assertIn("job 2 of 3 was refused: SubmitJobToDrainedQueue: the conn", result.stderr)
        self.assertIn("job 3 of 3 was refused: it was not sent", result.stderr)
        result = self.run_failing("submit", "--drained", "-", input=jobs)
        self.assertEqual(result.stdout, "")
        self.assertRegex(result.stderr, "^gnt-luxi: SubmitJobToDrainedQueue: the connection was")

    def test_unreadable(self) -> None:
        """A file that can be opened but not read is an error in one line."""
        result = self.run_failing("submit", "/proc/self/mem")
        self.assertRegex(result.stderr, "^gnt-luxi: /proc/self/mem can't be read: .*\n$")

    def test_terminal(self) -> None:
        """A terminal shows a sentence."""
        self.patch(output, "on_terminal", lambda: True)
        self.assertEqual(self.run_ok("submit", "-", input=json.dumps(DELAY)), "Submitted job 7.\n")
        self.daemon.answers["SubmitManyJobs"] = [[True, 7], [True, 8]]
        text = self.run_ok("submit", "-", input=json.dumps([[DELAY], [DELAY]]))
        self.assertEqual(text, "Submitted 2 jobs: 7 to 8.\n")


class WatchTests(CommandCase):
    """``watch`` and ``wait``."""

    def setUp(self) -> None:
        super().setUp()
        self.daemon.answers["QueryJobs"] = job_answers(OK_ROW, FAILED_ROW)

    def test_watch(self) -> None:
        """The log and the end are shown; the exit code is 1 if a job failed."""
        text = self.run_ok("watch", "7", "7")
        self.assertRegex(text, r"^job 7: \d\d:\d\d:\d\d half way\njob 7: success, .*\n$")
        result = self.run_failing("watch", "7", "8")
        self.assertIn("job 8: error, ", result.stdout)

    def test_watch_json(self) -> None:
        """With --json each line is a JSON object."""
        lines = self.run_ok("watch", "7", "--json").splitlines()
        self.assertEqual([json.loads(line)["event"] for line in lines], ["status", "log", "end"])

    def test_wait(self) -> None:
        """Ends are shown one per line, in the order asked, or as one document."""
        result = self.run_failing("wait", "8", "7")
        self.assertEqual([line[:6] for line in result.stdout.splitlines()], ["job 8:", "job 7:"])
        self.assertEqual([row["id"] for row in self.run_json("wait", "7")], [7])

    def test_lost(self) -> None:
        """A job that doesn't exist is an error at once."""
        for command in ("watch", "wait"):
            result = self.run_failing(command, "7", "5")
            self.assertEqual(result.stderr, "gnt-luxi: JobLost: There is no job 5\n")
            self.run_failing(command, code=2)


class ControlTests(CommandCase):
    """``cancel``, ``priority`` and ``archive``."""

    def test_cancel(self) -> None:
        """The daemon's answers are shown; exit code 1 if one failed; kill only if asked for."""
        self.daemon.answers["CancelJob"] = lambda job, kill=False: [job < 8, f"text {job} {kill}"]
        self.assertEqual(self.run_ok("cancel", "6", "7"), "text 6 False\ntext 7 False\n")
        self.assertEqual(self.daemon.heard[0], ("CancelJob", [6]))
        self.assertEqual(self.run_ok("cancel", "--kill", "7"), "text 7 True\n")
        result = self.run_failing("cancel", "8", "7")
        self.assertEqual(
            (result.stdout, result.stderr), ("text 7 False\n", "gnt-luxi: text 8 False\n")
        )
        self.assertEqual(
            self.run_json("cancel", "7"), [{"id": 7, "done": True, "text": "text 7 False"}]
        )

    def test_priority(self) -> None:
        """A priority is a name or a number, which may be negative."""
        self.daemon.answers["ChangeJobPriority"] = lambda job, priority: [True, f"is {priority}"]
        for level, number in [("low", 10), ("normal", 0), ("high", -10), ("-20", -20), ("19", 19)]:
            self.assertEqual(self.run_ok("priority", level, "7"), f"is {number}\n")
        for level in ("20", "-21", "urgent", "--unknown", ""):
            self.run_failing("priority", level, "7", code=2)
        self.daemon.answers["ChangeJobPriority"] = [False, "no"]
        self.assertEqual(self.run_failing("priority", "low", "7").stderr, "gnt-luxi: no\n")

    def test_archive(self) -> None:
        """Jobs by id; the result of each is shown."""
        self.daemon.answers["ArchiveJob"] = lambda job: job == 7
        self.assertEqual(self.run_ok("archive", "7", "7"), "Archived job 7\n")
        result = self.run_failing("archive", "8", "7")
        self.assertIn("Job 8 has not ended, or is not in the queue", result.stderr)

    def test_archive_by_age(self) -> None:
        """By age, in rounds, until all jobs were examined or no more were archived."""
        rounds = iter([[5, 3], [2, 0], [0, 4]])
        self.daemon.answers["AutoArchiveJobs"] = lambda age, timeout: next(rounds)
        self.assertEqual(self.run_ok("archive", "--age", "1d"), "Archived 7 jobs\n")
        self.assertEqual([args[0] for _, args in self.daemon.heard], [86400, 86400])
        text = self.run_ok("archive", "--age", "all")
        self.assertEqual(text, "Archived 0 jobs; 4 were not examined in time\n")
        self.assertEqual(self.daemon.heard[-1][1][0], -1)
        self.daemon.answers["AutoArchiveJobs"] = [1, 0]
        told = self.run_json("archive", "--age", "5")
        self.assertEqual(told, {"archived": 1, "not_examined": 0})

    def test_archive_what(self) -> None:
        """Exactly one of jobs and age must be given."""
        self.run_failing("archive", code=2)
        self.run_failing("archive", "7", "--age", "1d", code=2)
        result = self.run_failing("archive", "--age", "old", code=2)
        self.assertIn("or 'all'", result.stderr)


class CallTests(CommandCase):
    """``call``."""

    def test_call(self) -> None:
        """Any method can be called; the result is JSON on one line, with exact numbers."""
        self.daemon.answers.update(Echo=lambda *args: list(args), Nothing=None)
        self.assertEqual(
            self.run_ok("call", "Echo", '[1, {"a": "é"}, 123456789012345678901234567890]'),
            '[1,{"a":"é"},123456789012345678901234567890]\n',
        )
        self.assertEqual(self.run_ok("call", "Nothing"), "null\n")

    def test_bad_arguments(self) -> None:
        """Arguments that aren't a JSON list are a usage error."""
        result = self.run_failing("call", "Echo", "{", code=2)
        self.assertIn("Not a JSON document", result.stderr)
        result = self.run_failing("call", "Echo", "5", code=2)
        self.assertIn("such as '[5]'", result.stderr)

    def test_errors(self) -> None:
        """The daemon's errors are shown as class and message, and not on standard output."""
        self.daemon.answers.update(A=JobQueueFull("full"), B=JobLost())
        result = self.run_failing("call", "A", "--json")
        self.assertEqual((result.stdout, result.stderr), ("", "gnt-luxi: JobQueueFull: full\n"))
        self.assertEqual(self.run_failing("call", "B").stderr, "gnt-luxi: JobLost\n")

    def test_terminal(self) -> None:
        """On a terminal the result is indented."""
        self.patch(output, "on_terminal", lambda: True)
        self.daemon.answers["Echo"] = [1]
        self.assertEqual(self.run_ok("call", "Echo"), "[\n  1\n]\n")
