"""Tests of the metrics of jobs, on a real queue."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, ValuesView

from ganeti_masterd.constants import STATUS_QUEUED, STATUS_RUNNING
from ganeti_masterd.errors import OpPrereqError, encode_error
from ganeti_masterd.events import JobArchived, JobChanged
from ganeti_masterd.jobs import model
from tests.jobs.scene import delay
from tests.monitoring.scene import MonitoringScene

DELAY = "OP_TEST_DELAY"


class WatchedJobs(dict[int, model.Job]):
    """Jobs that record when something iterates over all of them."""

    walks = 0

    def values(self) -> ValuesView[model.Job]:  # type: ignore[override]
        self.walks += 1
        return super().values()

    def items(self) -> ItemsView[int, model.Job]:  # type: ignore[override]
        self.walks += 1
        return super().items()

    def __iter__(self) -> Iterator[int]:
        self.walks += 1
        return super().__iter__()


class CountTests(MonitoringScene):
    """Counts by status."""

    def test_all_statuses_from_the_beginning(self) -> None:
        """An empty queue shows every status with 0, as the exporter does."""
        self.begin()
        found = {
            dict(labels)["job_status"]: value
            for (name, labels), value in self.metrics().items()
            if name == "ganeti_cluster_jobs"
        }
        statuses = ["canceled", "canceling", "error", "queued", "running", "success", "waiting"]
        self.assertEqual(found, dict.fromkeys(statuses, 0))

    def test_jobs_found_at_the_start(self) -> None:
        """Jobs found at the start are counted once, and not as submitted."""
        self.submit_one()
        self.finish(self.submit_one())
        self.begin()
        self.assertEqual(self.jobs("queued"), 1)
        self.assertEqual(self.jobs("success"), 1)
        self.assertEqual(self.value("ganeti_jobs_submitted_total"), 0)

    def test_a_job_moves_on(self) -> None:
        """Each published step moves a job from one status to the next."""
        self.begin()
        job_id = self.submit_one()
        self.assertEqual(self.value("ganeti_jobs_submitted_total"), 1)
        self.assertEqual(self.jobs("queued"), 1)
        job = model.begin_waiting(self.queue.jobs[job_id], 0, 1000.0)
        self.queue.show(job)
        self.assertEqual((self.jobs("queued"), self.jobs("waiting")), (0, 1))
        self.finish(job_id)
        self.assertEqual((self.jobs("waiting"), self.jobs("running")), (0, 0))
        self.assertEqual(self.jobs("success"), 1)

    def test_not_yet_durable(self) -> None:
        """A state is counted only once it is published, and never if it is refused."""
        self.begin()
        job_id = self.submit_one()
        self.journal.held = True
        failed = self.queue.commit([model.begin_running(self.queue.jobs[job_id], 0, 1000.0)])
        self.assertEqual((self.jobs("queued"), self.jobs("running")), (1, 0))
        self.journal.fail()
        self.failureResultOf(failed)
        self.assertEqual((self.jobs("queued"), self.jobs("running")), (1, 0))

    def test_archived(self) -> None:
        """Archived jobs are no longer counted as in the queue."""
        self.begin()
        job_id = self.submit_one()
        self.finish(job_id)
        self.successResultOf(self.queue.archive([self.queue.jobs[job_id]]))
        self.assertEqual(self.jobs("success"), 0)
        self.assertEqual(self.value("ganeti_jobs_archived_total"), 1)
        self.successResultOf(self.queue.archive([model.new_job(99, [{"OP_ID": DELAY}], 0.0)]))
        self.assertEqual(self.value("ganeti_jobs_archived_total"), 1)

    def test_counts_are_those_of_the_queue(self) -> None:
        """After many jobs with all outcomes, the counts equal those of the queue counted anew."""
        self.begin()
        for number in range(40):
            job_id = self.submit_one(delay(), delay())
            if number % 4 == 1:
                self.finish(job_id, encode_error(OpPrereqError("no", "wrong_input")))
            elif number % 4 == 2:
                self.finish(job_id)
            elif number % 4 == 3:
                self.successResultOf(
                    self.queue.commit([model.cancel(self.queue.jobs[job_id], 1001.0)])
                )
        for status in ("queued", "running", "success", "error", "canceled"):
            self.assertEqual(
                self.jobs(status),
                sum(job.status == status for job in self.queue.jobs.values()),
                status,
            )

    def oldest(self, status: str) -> float | None:
        return self.value("ganeti_job_oldest_seconds", job_status=status)

    def test_oldest(self) -> None:
        """The oldest job's age counts from its submission and, once it runs, from its start."""
        first = self.submit_one()
        self.clock.advance(5)
        self.begin()
        second = self.submit_one()
        self.clock.advance(10)
        self.assertEqual(self.oldest("queued"), 15)
        self.assertEqual(self.oldest("running"), 0)
        running = model.begin_running(self.queue.jobs[first], 0, self.timers.now())
        self.successResultOf(self.queue.commit([running]))
        self.clock.advance(1)
        self.assertEqual((self.oldest("queued"), self.oldest("running")), (11, 1))
        self.successResultOf(self.queue.commit([model.succeed(running, 0, None, 1020.0)]))
        self.finish(second)
        self.assertEqual((self.oldest("queued"), self.oldest("running")), (0, 0))

    def test_last_of_an_opcode(self) -> None:
        """What the exporter has of each job is here of the last job that ended with an opcode."""
        labels = {"cluster": "cluster.example", "job_operation": DELAY}
        found = self.submit_one()
        self.finish(found)
        self.begin()
        self.assertEqual(self.value("ganeti_job_run_time", **labels), 0)
        job_id = self.submit_one()
        self.clock.advance(3)
        running = model.begin_running(self.queue.jobs[job_id], 0, self.timers.now())
        self.successResultOf(self.queue.commit([running]))
        ended = model.succeed(running, 0, None, self.timers.now() + 4)
        self.successResultOf(self.queue.commit([ended]))
        self.assertEqual(self.value("ganeti_job_wait_time", **labels), 3)
        self.assertEqual(self.value("ganeti_job_run_time", **labels), 4)

    def test_a_scrape_looks_at_no_job(self) -> None:
        """A scrape doesn't iterate over the jobs."""
        jobs = WatchedJobs()
        self.queue.jobs = jobs
        self.monitoring = self.make_monitoring()
        self.begin()
        self.assertEqual(jobs.walks, 1)
        self.finish(self.submit_one())
        self.assertEqual(self.jobs("success"), 1)
        self.assertEqual(self.ask("/status").code, 200)
        self.assertEqual(jobs.walks, 1)

    def test_no_observer_no_event(self) -> None:
        """Without monitoring no job events are made."""
        self.assertFalse(self.events.observed(JobChanged))
        self.begin()
        self.assertTrue(self.events.observed(JobArchived))
        self.successResultOf(self.monitoring.close())
        self.assertFalse(self.events.observed(JobChanged))
        self.assertFalse(self.events.observed(JobArchived))


class EndTests(MonitoringScene):
    """Ends, waits and run times."""

    def setUp(self) -> None:
        super().setUp()
        self.begin()

    def test_ended(self) -> None:
        """Ends are counted by the first opcode and the final status."""
        self.finish(self.submit_one())
        self.finish(self.submit_one(), encode_error(OpPrereqError("no", "wrong_input")))
        for status in ("success", "error"):
            self.assertEqual(
                self.value("ganeti_jobs_ended_total", op_id=DELAY, job_status=status), 1
            )

    def test_error_class(self) -> None:
        """A failed job is counted once, by its first error, however many opcodes failed."""
        error = encode_error(OpPrereqError("no", "wrong_input"))
        self.finish(self.submit_one(delay(), delay(), delay()), error)
        found = {
            labels: value
            for (name, labels), value in self.metrics().items()
            if name == "ganeti_opcode_errors_total"
        }
        self.assertEqual(found, {(("error", "OpPrereqError"),): 1})

    def test_errors_of_others(self) -> None:
        """An error that isn't one of Ganeti's doesn't become a label."""
        for error in (["NoSuchError", ["x"]], "just text", None, [], [["list"]]):
            self.finish(self.submit_one(), error if error is not None else [None])
        self.assertEqual(self.value("ganeti_opcode_errors_total", error="unknown"), 5)

    def test_opcodes_of_others(self) -> None:
        """An unknown opcode from another daemon's file doesn't become a label."""
        self.queue.jobs[9] = model.new_job(9, [{"OP_ID": "OP_MADE_UP"}], 1000.0)
        self.events.publish(JobChanged(9, None, STATUS_QUEUED))
        self.finish(9)
        self.assertEqual(
            self.value("ganeti_jobs_ended_total", op_id="unknown", job_status="success"), 1
        )

    def test_wait_and_run(self) -> None:
        """Waits run from submission to start, runs from start to end, in seconds."""
        job_id = self.submit_one(delay(), delay())
        self.clock.advance(0.2)
        job = model.begin_waiting(self.queue.jobs[job_id], 0, self.timers.now())
        self.queue.show(job)
        self.clock.advance(4)
        self.finish(job_id)  # both opcodes at once, 4 s after the start
        metrics = self.metrics()
        self.assertAlmostEqual(metrics["ganeti_job_wait_seconds_sum", ()], 0.2, places=5)
        self.assertEqual(metrics["ganeti_job_wait_seconds_count", ()], 1)
        self.assertEqual(metrics["ganeti_job_wait_seconds_bucket", (("le", "0.25"),)], 1)
        self.assertEqual(metrics["ganeti_job_wait_seconds_bucket", (("le", "0.1"),)], 0)
        self.assertAlmostEqual(metrics["ganeti_job_run_seconds_sum", ()], 4.0, places=5)
        opcodes = "ganeti_opcode_run_seconds"
        self.assertEqual(metrics[f"{opcodes}_count", (("op_id", DELAY),)], 2)
        self.assertEqual(metrics[f"{opcodes}_sum", (("op_id", DELAY),)], 0)

    def test_cancelled_in_the_queue(self) -> None:
        """A job that never started has neither a wait nor a run time."""
        job_id = self.submit_one()
        self.successResultOf(self.queue.commit([model.cancel(self.queue.jobs[job_id], 1001.0)]))
        metrics = self.metrics()
        self.assertEqual(metrics["ganeti_job_wait_seconds_count", ()], 0)
        self.assertEqual(metrics["ganeti_job_run_seconds_count", ()], 0)
        ended = (("job_status", "canceled"), ("op_id", DELAY))
        self.assertEqual(metrics["ganeti_jobs_ended_total", ended], 1)

    def test_an_event_without_its_job(self) -> None:
        """An event of a job that has left the queue is still counted by its status."""
        self.events.publish(JobChanged(77, None, STATUS_QUEUED))
        self.events.publish(JobChanged(77, STATUS_QUEUED, STATUS_RUNNING))
        self.assertEqual((self.jobs("queued"), self.jobs("running")), (0, 1))

    def test_big_job_numbers(self) -> None:
        """A job id of any size is exact in the status, and not in any metric."""
        big = 2**63 + 11
        self.queue.jobs[big] = model.new_job(big, [{"OP_ID": DELAY}], 1000.0)
        self.events.publish(JobChanged(big, None, STATUS_QUEUED))
        self.queue.last_id = big
        self.finish(big)
        self.assertNotIn(str(big).encode(), self.ask("/metrics").body)
        self.assertIn(b'"last_id": %d,' % big, self.ask("/status").body)
