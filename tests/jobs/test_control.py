"""Cancel, kill, priority, archive: every row of that table in protocol/queue.rst."""

from __future__ import annotations

from ganeti_masterd.errors import JobQueueError, OpPrereqError
from ganeti_masterd.jobs import model
from ganeti_masterd.journal.rows import JobRow
from tests.jobs.scene import QueueScene, delay


class CancelTests(QueueScene):
    """CancelJob in each state."""

    def cancel(self, job_id: int, kill: bool = False) -> tuple[bool, str]:
        return self.successResultOf(self.control.cancel(job_id, kill))

    def test_just_begun(self) -> None:
        """A job that has its slot and shows as queued yet is not dequeued: it runs."""
        self.start()
        job_id = self.submit_one()
        self.assertEqual((self.runner.begun, self.status(job_id)), ([job_id], "queued"))
        done, _ = self.successResultOf(self.control.cancel(job_id))
        self.assertFalse(done)
        self.assertEqual(self.status(job_id), "queued")

    def test_does_not_begin_while_it_is_dequeued(self) -> None:
        """A slot that becomes free while the disk records the cancelling is not for this job."""
        self.start()
        first, _, third = (self.submit_one() for _ in range(3))
        self.journal.held = True
        done = self.control.cancel(third)
        self.queue.scheduler.discard(first)
        self.queue.wake()
        self.assertNotIn(third, self.runner.begun)
        self.journal.release()
        self.assertTrue(self.successResultOf(done)[0])
        self.assertEqual((third in self.runner.begun, self.status(third)), (False, "canceled"))

    def test_queued(self) -> None:
        """A queued job is dequeued, its results null."""
        job_id = self.submit_one(delay(), delay())
        self.assertEqual(self.cancel(job_id), (True, f"Dequeued job {job_id}"))
        job = self.queue.jobs[job_id]
        self.assertEqual([op.status for op in job.ops], ["canceled"] * 2)
        self.assertEqual([op.result for op in job.ops], [None] * 2)
        self.start()
        self.assertEqual(self.runner.begun, [])

    def test_waiting(self) -> None:
        """A job that waits for locks is cancelled at once."""
        self.start()
        job_id = self.submit_one()
        self.queue.show(model.begin_waiting(self.queue.jobs[job_id], 0, 1.0))
        self.runner.waiting.add(job_id)
        self.assertEqual(self.cancel(job_id), (True, "Job successfully cancelled"))
        job = self.queue.jobs[job_id]
        self.assertEqual((job.status, job.ops[0].result), ("canceled", "Job canceled by request"))

    def test_running(self) -> None:
        """A running job runs on."""
        self.start()
        job_id = self.submit_one()
        self.queue.commit([model.begin_running(self.queue.jobs[job_id], 0, 1.0)])
        self.assertEqual(
            self.cancel(job_id),
            (False, "Job no longer waiting, can't cancel (informed it anyway)"),
        )
        self.assertEqual(self.runner.killed, [])

    def test_kill(self) -> None:
        """A kill reaches whoever runs the job."""
        self.start()
        job_id = self.submit_one()
        self.queue.commit([model.begin_running(self.queue.jobs[job_id], 0, 1.0)])
        done, _ = self.cancel(job_id, kill=True)
        self.assertEqual((done, self.runner.killed), (True, [job_id]))

    def test_gone(self) -> None:
        """An ended, archived or unknown job isn't found."""
        job_id = self.submit_one()
        self.finish(job_id)
        for missing in (job_id, 99):
            self.assertEqual(self.cancel(missing), (False, f"Job {missing} not found in queue"))


class PriorityTests(QueueScene):
    """ChangeJobPriority."""

    def test_queued(self) -> None:
        """A queued job moves in the order, durably."""
        self.submit([delay()], [delay()], [delay()])
        done, _ = self.successResultOf(self.control.change_priority(3, -20))
        self.start()
        self.assertEqual((done, self.runner.begun), (True, [3, 1]))
        row = self.journal.rows[-1]
        assert isinstance(row, JobRow)
        self.assertIn(b'"priority":-20', row.body)

    def test_range(self) -> None:
        """A priority outside -20..19 is refused with both bounds."""
        for priority in (-21, 20, 100):
            error = self.assertRaises(
                OpPrereqError, self.control.change_priority, self.submit_one(), priority
            )
            self.assertIn("-20", error.args[0])

    def test_running(self) -> None:
        """Of a running job only later opcodes change; with none left it says so."""
        self.start()
        one, two = self.submit_one(), self.submit_one(delay(), delay())
        for job_id in (one, two):
            self.queue.commit([model.begin_running(self.queue.jobs[job_id], 0, 1.0)])
        self.assertFalse(self.successResultOf(self.control.change_priority(one, 3))[0])
        self.assertTrue(self.successResultOf(self.control.change_priority(two, 3))[0])
        self.assertEqual([op.priority for op in self.queue.jobs[two].ops], [0, 3])

    def test_unknown(self) -> None:
        """A job that isn't there is not found."""
        self.assertEqual(
            self.successResultOf(self.control.change_priority(5, 0)),
            (False, "Job 5 not found in queue"),
        )


class ArchiveTests(QueueScene):
    """ArchiveJob and AutoArchiveJobs."""

    def test_archive(self) -> None:
        """Only a job that has ended is archived, and only once."""
        job_id = self.submit_one()
        self.assertFalse(self.successResultOf(self.control.archive(job_id)))
        self.finish(job_id)
        self.assertTrue(self.successResultOf(self.control.archive(job_id)))
        self.assertFalse(self.successResultOf(self.control.archive(job_id)))
        self.assertFalse(self.successResultOf(self.control.archive(77)))
        row = self.journal.rows[-1]
        assert isinstance(row, JobRow)
        self.assertEqual((row.job_id, row.archived), (job_id, True))

    def test_twice_at_once(self) -> None:
        """A job that is leaving for the archive doesn't leave a second time."""
        job_id = self.submit_one()
        self.finish(job_id)
        self.journal.held = True
        first, second = self.control.archive(job_id), self.control.archive(job_id)
        self.journal.release()
        self.assertEqual((self.successResultOf(first), self.successResultOf(second)), (True, False))

    def test_archive_under_way(self) -> None:
        """A job that is being archived isn't again, whoever asks; after a failure it may be."""
        job_id = self.submit_one()
        self.finish(job_id)
        self.journal.held = True
        first = self.control.archive(job_id)
        self.assertFalse(self.successResultOf(self.control.archive(job_id)))
        self.assertEqual(self.auto(-1), (0, 0))
        self.journal.fail()
        self.failureResultOf(first, JobQueueError)
        again = self.control.archive(job_id)
        self.journal.release()
        self.assertTrue(self.successResultOf(again))
        self.assertEqual(sum(getattr(row, "archived", False) for row in self.journal.rows), 1)

    def auto(self, age: float, timeout: float = 60) -> tuple[int, int]:
        return self.successResultOf(self.control.auto_archive(age, timeout))

    def test_by_age(self) -> None:
        """Age counts from the end; what hasn't ended stays."""
        self.submit(*[[delay()] for _ in range(4)])
        self.finish(1)
        self.clock.advance(100)
        self.finish(2)
        self.successResultOf(self.control.cancel(3))
        self.assertEqual(self.auto(50), (1, 0))
        self.assertEqual(self.auto(-1), (2, 0))
        self.assertEqual(sorted(self.queue.jobs), [4])

    def test_timeout(self) -> None:
        """What was not examined in time is counted."""
        self.submit(*[[delay()] for _ in range(10)])
        for job_id in range(1, 11):
            self.finish(job_id)
        ticks = iter(range(100))
        done = self.control.auto_archive(-1, 4, clock=lambda: next(ticks))
        archived, unexamined = self.successResultOf(done)
        self.assertEqual(archived + unexamined, 10)
        self.assertGreater(unexamined, 0)
        self.assertGreater(archived, 0)

    def test_many(self) -> None:
        """More than one slice is archived in one request."""
        self.submit(*[[delay()] for _ in range(1200)])
        for job_id in range(1, 1201):
            self.finish(job_id)
        self.assertEqual(self.auto(-1), (1200, 0))
        self.assertEqual(self.queue.jobs, {})
