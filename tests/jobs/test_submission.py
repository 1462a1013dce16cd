"""How jobs come in, and what is refused."""

from __future__ import annotations

import os

from twisted.internet.defer import fail

from ganeti_masterd.errors import (
    DaemonStopping,
    GenericError,
    JobQueueError,
    JobQueueFull,
    OpPrereqError,
)
from ganeti_masterd.jobs import model
from ganeti_masterd.jobs.files import QueueFolder
from ganeti_masterd.jobs.model import Job
from ganeti_masterd.jobs.submission import BATCH, SERIAL_BLOCK, Submission
from ganeti_masterd.journal.rows import JobRow, SerialRow
from ganeti_masterd.opcodes import decode_opcode
from tests.jobs.scene import QueueScene, delay


def archived(folder: QueueFolder, job: Job) -> None:
    """Puts a job's file into the archive."""
    path = folder.archived_job(job.id)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(model.encode_job(job))


class LargeSubmissionTests(QueueScene):
    """Requests with so many opcodes that their jobs are made a few at a time."""

    def setUp(self) -> None:
        super().setUp()
        self.journal.held = True

    def go_on(self) -> None:
        """The disk takes what is there, and the reactor has a turn."""
        self.journal.release()
        self.clock.advance(0)

    def put_away(self, job_id: int) -> None:
        """A job ends, and goes to the archive; commits aren't held any more."""
        self.journal.held = False
        self.finish(job_id)
        archived(self.folder, self.queue.jobs[job_id])
        self.successResultOf(self.control.archive(job_id))

    def test_room_for_others(self) -> None:
        """Each batch is a commit of its own, made in a turn of its own; the commits overlap."""
        done = self.submission.submit([[delay()] for _ in range(2 * BATCH + 5)])
        seen = [len(self.journal._pending)]

        def look() -> None:
            seen.append(len(self.journal._pending))
            if len(seen) < 4:
                self.clock.callLater(0, look)

        self.clock.callLater(0, look)
        self.clock.advance(0)
        self.assertEqual(seen, [1, 2, 3, 3])
        self.assertNoResult(done)
        self.journal.release()
        self.assertEqual(len(self.queue.jobs), 2 * BATCH + 5)
        self.assertEqual(self.successResultOf(done), list(range(1, 2 * BATCH + 6)))

    def test_stops_meanwhile(self) -> None:
        """Once the daemon stops no more batches are made; the rest is told so."""
        done = self.submission.submit([[delay()] for _ in range(2 * BATCH + 5)])
        self.queue.closing = True
        self.go_on()
        results = self.successResultOf(done)
        self.assertEqual(results[:BATCH], list(range(1, BATCH + 1)))
        self.assertEqual({type(result) for result in results[BATCH:]}, {DaemonStopping})
        self.assertEqual(len(self.queue.jobs), BATCH)

    def test_ids(self) -> None:
        """Relative ids hold over all of it, whatever comes between; all are reserved at once."""
        jobs = [[delay()] for _ in range(2 * BATCH)]
        jobs[BATCH] = [delay(depends=[[-BATCH, []], [-1, []]])]
        done = self.submission.submit(jobs)
        self.assertEqual(self.journal._pending[0][0][0], SerialRow(2 * BATCH + SERIAL_BLOCK))
        between = self.submission.submit([[delay()]])
        self.go_on()
        self.assertEqual(self.successResultOf(between), [2 * BATCH + 1])
        self.go_on()
        self.assertEqual(self.successResultOf(done), list(range(1, 2 * BATCH + 1)))
        wanted = self.queue.jobs[BATCH + 1].ops[0].input["depends"]
        self.assertEqual([next(iter(dependency)) for dependency in wanted], [1, BATCH])
        self.assertEqual(sum(isinstance(row, SerialRow) for row in self.journal.rows), 1)

    def test_opcodes_count(self) -> None:
        """A batch has so many opcodes, whatever the jobs; a job is never parted."""
        sizes = [BATCH - 1, 1, 1, BATCH + 7, 1]
        done = self.submission.submit([[delay()] * size for size in sizes])
        self.clock.advance(0)
        jobs = [sum(isinstance(row, JobRow) for row in rows) for rows, *_ in self.journal._pending]
        self.assertEqual(jobs, [2, 1, 1, 1])
        self.go_on()
        self.assertEqual(self.successResultOf(done), [1, 2, 3, 4, 5])

    def test_refused_jobs(self) -> None:
        """A bad job is refused by itself, in whatever batch."""
        jobs = [[delay()] for _ in range(2 * BATCH)]
        jobs[0] = jobs[-1] = [delay(depends=[[-1, []]])]
        jobs[1] = [delay(depends=[[99_999, []]])]
        jobs[-1] = [delay(depends=[[99_999, []]])]
        done = self.submission.submit(jobs)
        self.go_on()
        self.go_on()
        results = self.successResultOf(done)
        bad = [at for at, result in enumerate(results) if isinstance(result, OpPrereqError)]
        self.assertEqual(bad, [0, 1, 2 * BATCH - 1])
        self.assertEqual(len(self.queue.jobs), 2 * BATCH - 3)

    def test_disk_refuses(self) -> None:
        """What is durable by then has its ids, the rest the error; without any it's all failed."""
        done = self.submission.submit([[delay()] for _ in range(3 * BATCH)])
        self.clock.advance(0)
        self.journal.fail()
        self.failureResultOf(done, JobQueueError)
        self.assertEqual((self.queue.jobs, self.queue.opcodes), ({}, {}))

        done = self.submission.submit([[delay()] for _ in range(3 * BATCH)])
        self.journal.release()
        self.clock.advance(0)
        self.journal.fail("disk full")
        results = self.successResultOf(done)
        first = 3 * BATCH + 1
        self.assertEqual(results[:BATCH], list(range(first, first + BATCH)))
        self.assertEqual({str(result) for result in results[BATCH:]}, {"disk full"})
        self.assertEqual(len(results), 3 * BATCH)
        self.assertEqual(sorted(self.queue.jobs), results[:BATCH])
        self.assertEqual(sorted(self.queue.opcodes), results[:BATCH])

    def test_archived_dependency(self) -> None:
        """A job that others depend on may go to the archive between two batches."""
        before = self.submission.submit([[delay()]])
        self.go_on()
        (job_id,) = self.successResultOf(before)
        jobs = [[delay()] for _ in range(2 * BATCH)]
        jobs[-1] = [delay(depends=[[job_id, []]])]
        done = self.submission.submit(jobs)
        self.journal.release()
        self.put_away(1)
        self.clock.advance(0)
        self.assertEqual(self.successResultOf(done), list(range(2, 2 * BATCH + 2)))

    def test_dependency_that_the_disk_refused(self) -> None:
        """A job that depends on one of another batch waits for that commit; gone, it's refused."""
        jobs = [[delay()] for _ in range(3 * BATCH)]
        jobs[-1] = [delay(depends=[[-2 * BATCH - 5, []]])]
        done = self.submission.submit(jobs)
        self.clock.advance(0)
        self.journal.fail("disk full")  # the first two batches
        for _ in range(3):
            self.go_on()
        results = self.successResultOf(done)
        self.assertEqual({str(result) for result in results[: 2 * BATCH]}, {"disk full"})
        self.assertEqual(results[2 * BATCH : -1], list(range(2 * BATCH + 1, 3 * BATCH)))
        self.assertIn("doesn't exist", str(results[-1]))
        self.assertNotIn(3 * BATCH, self.queue.jobs)

    def test_dependency_that_ended(self) -> None:
        """A job of an earlier batch may end, and go to the archive, before one depends on it."""
        jobs = [[delay()] for _ in range(2 * BATCH)]
        jobs[-1] = [delay(depends=[[-2 * BATCH + 1, []]])]
        done = self.submission.submit(jobs)
        self.journal.release()
        self.put_away(1)
        self.clock.advance(0)
        last = self.successResultOf(done)[-1]
        self.assertEqual(self.queue.status_of(1), "success")
        self.assertEqual(self.queue.admission.waiting_for(last), [])

    def test_archive_that_can_not_be_read(self) -> None:
        """What one batch can't learn is its error; the others keep their ids."""
        before = self.submission.submit([[delay()]])
        self.go_on()
        self.assertEqual(self.successResultOf(before), [1])
        self.put_away(1)
        jobs = [[delay()] for _ in range(3 * BATCH)]
        jobs[BATCH] = [delay(depends=[[1, []]])]
        done = self.submission.submit(jobs)
        self.patch(self.journal, "effect", lambda *_: fail(JobQueueError("no such disk")))
        self.clock.advance(0)
        results = self.successResultOf(done)
        self.assertEqual(results[:BATCH], list(range(2, BATCH + 2)))
        self.assertEqual({str(result) for result in results[BATCH : 2 * BATCH]}, {"no such disk"})
        self.assertEqual(results[2 * BATCH :], list(range(2 * BATCH + 2, 3 * BATCH + 2)))

    def test_limit_of_the_queue(self) -> None:
        """Jobs that are on their way count, so that two large requests don't pass it together."""
        self.submission._max_jobs = 2 * BATCH + 10
        done = self.submission.submit([[delay()] for _ in range(2 * BATCH)])
        other = self.submission.submit([[delay()] for _ in range(2 * BATCH)])
        self.failureResultOf(other, JobQueueFull)
        self.go_on()
        self.go_on()
        self.assertEqual(len(self.successResultOf(done)), 2 * BATCH)
        few = self.submission.submit([[delay()] for _ in range(10)])
        self.go_on()
        self.assertEqual(len(self.successResultOf(few)), 10)

    def test_order(self) -> None:
        """Ids ascend in what is live, though another's job was published in between."""
        done = self.submission.submit([[delay()] for _ in range(2 * BATCH)])
        self.submission.submit([[delay()]])
        self.go_on()
        self.go_on()
        self.assertEqual(len(self.successResultOf(done)), 2 * BATCH)
        self.assertEqual(list(self.queue.live()), list(range(1, 2 * BATCH + 2)))


class SubmissionTests(QueueScene):
    """Good and bad submissions."""

    def test_one_commit(self) -> None:
        """Jobs of one request are one transaction, unless they have very many opcodes."""
        self.journal.held = True
        done = self.submission.submit([[delay()] for _ in range(100)])
        self.assertEqual(len(self.journal._pending), 1)
        self.journal.release()
        self.assertEqual(self.successResultOf(done), list(range(1, 101)))

    def test_reason_trail(self) -> None:
        """The daemon adds its own entry to each opcode's reason."""
        job_id = self.submit_one(delay(reason=[["who", "why", 5]]), delay())
        job = self.queue.jobs[job_id]
        first, second = (op.input["reason"] for op in job.ops)
        self.assertEqual(list(first[0]), ["who", "why", 5])
        self.assertEqual(list(first[1])[:2], ["gnt:opcode:test_delay", f"job={job_id};index=0"])
        self.assertEqual(second[0][1], f"job={job_id};index=1")

    def test_relative_dependencies(self) -> None:
        """Negative ids count back from the job's own, and are stored resolved."""
        self.submit_one()
        self.submit([delay()], [delay(depends=[[-2, ["success"]], [-1, []]])])
        wanted = self.queue.jobs[3].ops[0].input["depends"]
        self.assertEqual([next(iter(dependency)) for dependency in wanted], [1, 2])

    def test_one_bad_job_among_many(self) -> None:
        """A bad job is refused by itself, and relative ids of the others stay true."""
        results = self.submit(
            [delay()],
            [delay(depends=[[9, []]])],
            [delay(depends=[[-2, []]])],
            [delay(depends=[[-2, []]])],
        )
        self.assertEqual(results[0], 1)
        self.assertIsInstance(results[1], OpPrereqError)
        self.assertEqual(results[2], 3)
        refused = results[3]
        assert isinstance(refused, OpPrereqError)
        self.assertIn("job 2", str(refused.args[0]))
        self.assertEqual(sorted(self.queue.jobs), [1, 3])

    def test_bad_dependencies(self) -> None:
        """Unknown ids, the job's own, and ids before the first are refused by name."""
        for depends, text in [(7, "job 7"), (1, "itself"), (-1, "job 0"), (-9, "job -8")]:
            self.queue.last_id = 0
            (refused,) = self.submit([delay(depends=[[depends, []]])])
            assert isinstance(refused, OpPrereqError)
            self.assertIn(text, str(refused.args[0]))
            self.assertEqual(self.queue.jobs, {})

    def test_depends_on_archived(self) -> None:
        """An archived job counts with its final state; its file is looked up."""
        job = model.cancel(model.new_job(5, [{"OP_ID": "OP_TEST_DELAY"}], 1.0), 2.0)
        archived(self.folder, job)
        self.queue.last_id = 10
        self.start()
        asked = [delay(depends=[[5, ["canceled"]]])]
        self.assertEqual(self.submit(asked, [delay(depends=[[5, []]])]), [11, 12])
        self.assertEqual((self.runner.begun, self.status(12)), ([11], "canceled"))

    def test_drained(self) -> None:
        """A drained queue takes nothing, but for what is meant for it."""
        self.queue.drained = True
        failure = self.failureResultOf(self.submission.submit([[delay()]]), GenericError)
        self.assertEqual(failure.value.args, ("Queue drained",))
        done = self.submission.submit([[delay()]], even_if_drained=True)
        self.assertEqual(self.successResultOf(done), [1])

    def test_full(self) -> None:
        """A full queue, and files that are too far behind, refuse, and say why."""
        small = Submission(self.queue, max_jobs=1)
        self.successResultOf(small.submit([[delay()]]))
        self.failureResultOf(small.submit([[delay()]]), JobQueueFull)
        self.journal.backlog = 1_000_000
        for fault, told in (
            (None, "as more comes in than the disk takes: submit again in a while"),
            ("OSError: No space left", "as they can't be written: OSError: No space left"),
        ):
            self.journal.files_fault = fault
            failure = self.failureResultOf(self.submission.submit([[delay()]]), JobQueueError)
            (text,) = failure.value.args
            self.assertIn("files are 1000000 changes behind the journal (limit 100000)", text)
            self.assertIn(told, text)

    def test_closing(self) -> None:
        """A daemon that stops takes no jobs."""
        self.queue.close()
        self.failureResultOf(self.submission.submit([[delay()]]), DaemonStopping)

    def test_others_may_refuse(self) -> None:
        """What stands behind the queue, such as a lack of majority, may refuse every job."""
        reasons = [JobQueueError("no majority")]
        submission = Submission(self.queue, refusal=lambda: reasons[0] if reasons else None)
        failure = self.failureResultOf(submission.submit([[delay()]]), JobQueueError)
        self.assertEqual(failure.getErrorMessage(), "no majority")
        self.assertEqual((self.journal.rows, self.queue.last_id), ([], 0))
        self.assertRaises(JobQueueError, submission.prepare, [[delay()]])
        reasons.clear()
        self.assertEqual(self.successResultOf(submission.submit([[delay()]])), [1])

    def test_bad_jobs_of_a_job_leave_nothing(self) -> None:
        """Where one job of an opcode is bad none is made, and no opcode stays in memory."""
        jobs = [[delay()], [delay(depends=[[99, []]])]]
        self.assertRaises(OpPrereqError, self.submission.prepare, jobs)
        self.assertEqual((self.queue.opcodes, self.journal.rows), ({}, []))

    def test_no_opcodes(self) -> None:
        """A job without opcodes is refused."""
        (refused,) = self.submit([])
        self.assertIsInstance(refused, OpPrereqError)

    def test_secrets_stay_off_the_disk(self) -> None:
        """A secret parameter is in the opcode that runs, and in nothing that is stored."""
        op = decode_opcode(
            {"OP_ID": "OP_TEST_OS_PARAMS", "osparams_secret": {"password": "hunter2"}}
        )
        self.submit_one(op)
        (row,) = [row for row in self.journal.rows if isinstance(row, JobRow)]
        self.assertNotIn(b"hunter2", row.body)
        self.assertIn(b"<redacted>", row.body)
        self.assertEqual(self.queue.opcodes[1][0].osparams_secret, {"password": "hunter2"})

    def test_jobs_of_a_job(self) -> None:
        """Jobs that an opcode submits get ids at once and exist with its own commit."""
        made, rows = self.submission.prepare([[delay()], [delay(depends=[[-1, []]])]])
        self.assertEqual([job.id for job in made], [1, 2])
        self.assertIsNone(self.queue.tip(1))
        self.queue.commit(made, rows)
        self.assertEqual(sorted(self.queue.jobs), [1, 2])
        self.assertRaises(OpPrereqError, self.submission.prepare, [[delay(depends=[[99, []]])]])

    def test_ids_of_jobs_of_a_job(self) -> None:
        """Ids that an opcode's jobs get are reserved on disk with them: none is given twice."""
        self.submit_one()
        before = self.queue.reserved
        self.queue.last_id = before - 1
        made, rows = self.submission.prepare([[delay()]])
        self.assertEqual(([job.id for job in made], rows), ([before], []))
        made, rows = self.submission.prepare([[delay()]])
        self.assertEqual([job.id for job in made], [before + 1])
        self.assertEqual(rows, [SerialRow(before + 1 + SERIAL_BLOCK)])

    def test_jobs_of_a_job_refused(self) -> None:
        """A queue that stops or is full takes no jobs of an opcode; a drained one does."""
        self.queue.drained = True
        self.submission.prepare([[delay()]])
        full = Submission(self.queue, max_jobs=1)
        self.assertRaises(JobQueueFull, full.prepare, [[delay()], [delay()]])
        self.queue.close()
        self.assertRaises(DaemonStopping, self.submission.prepare, [[delay()]])
        self.assertEqual((self.queue.last_id, list(self.queue.opcodes)), (1, [1]))
