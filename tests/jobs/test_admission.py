"""Filter rules and rate limits on a queue: who begins, who waits, who is cancelled."""

from __future__ import annotations

from typing import Any

from ganeti_masterd.config.objects import FilterRule
from ganeti_masterd.constants import STATUS_CANCELED
from ganeti_masterd.errors import JobQueueError
from ganeti_masterd.jobs import model
from ganeti_masterd.jobs.files import LoadedJobs
from ganeti_masterd.jobs.model import decode_job
from ganeti_masterd.jobs.restart import restore
from ganeti_masterd.journal.rows import JobRow
from tests.jobs.scene import QueueScene, delay
from tests.jobs.test_rules import rule

DELAYS = ["opcode", ["=", "OP_ID", "OP_TEST_DELAY"]]


class AdmissionScene(QueueScene):
    """A queue with ten slots and rules."""

    limit = 10

    def rules(self, *rules: FilterRule) -> None:
        """Puts these rules in the place of all others."""
        self.queue.admission.set_rules(rules)

    def submit_some(self, count: int, **parameters: Any) -> list[int]:
        """Submits jobs of one opcode each."""
        return [self.submit_one(delay(**parameters)) for _ in range(count)]


class PauseTests(AdmissionScene):
    """PAUSE."""

    def test_held_and_released(self) -> None:
        """Jobs stay queued, and all begin at once when the rule goes."""
        self.start()
        self.rules(rule("PAUSE"))
        jobs = self.submit_some(3)
        self.assertEqual(self.runner.begun, [])
        self.assertEqual({self.status(job) for job in jobs}, {"queued"})
        self.rules()
        self.assertEqual(self.runner.begun, jobs)

    def test_queued_jobs_are_weighed_again(self) -> None:
        """A new rule stops jobs that are queued already; those that run go on."""
        self.queue.scheduler.limit = 1
        self.start()
        jobs = self.submit_some(3)
        self.rules(rule("PAUSE"))
        self.finish(jobs[0])
        self.assertEqual(self.status(jobs[0]), "success")
        self.assertEqual(self.runner.begun, jobs[:1])
        self.rules(rule("PAUSE", ["jobid", ["=", "id", jobs[1]]]))
        self.assertEqual(self.runner.begun, [jobs[0], jobs[2]])

    def test_order_after_release(self) -> None:
        """Released jobs begin by priority, also by one that changed meanwhile."""
        self.queue.scheduler.limit = 1
        self.start()
        self.rules(rule("PAUSE"))
        first, _, third = self.submit_some(3)
        self.successResultOf(self.control.change_priority(third, -5))
        self.rules()
        self.finish(third)
        self.assertEqual(self.runner.begun, [third, first])

    def test_cancel(self) -> None:
        """A held job can be cancelled, and does not come back."""
        self.start()
        self.rules(rule("PAUSE"))
        (job_id,) = self.submit_some(1)
        self.assertEqual(
            self.successResultOf(self.control.cancel(job_id)), (True, f"Dequeued job {job_id}")
        )
        self.rules()
        self.assertEqual((self.runner.begun, self.status(job_id)), ([], STATUS_CANCELED))

    def test_new_job_that_is_not_durable(self) -> None:
        """A rule that comes during a new job's first commit holds it, if it has not begun."""
        self.queue.scheduler.limit = 1
        self.start()
        self.submit_some(1)
        self.journal.held = True
        submitted = self.submission.submit([[delay()]])
        self.rules(rule("PAUSE", ["jobid", ["=", "id", 2]]))
        self.journal.release()
        self.assertEqual(self.successResultOf(submitted), [2])
        self.assertEqual(self.queue.admission.paused, {2})
        self.journal.held = False
        self.finish(1)
        self.assertEqual(self.runner.begun, [1])

    def test_cancel_that_fails(self) -> None:
        """A held job whose cancelling could not be recorded is still held."""
        self.start()
        self.rules(rule("PAUSE"))
        (job_id,) = self.submit_some(1)
        self.journal.held = True
        canceled = self.control.cancel(job_id)
        self.journal.fail()
        self.failureResultOf(canceled, JobQueueError)
        self.journal.held = False
        self.assertIn(job_id, self.queue.admission.paused)
        self.rules()
        self.assertEqual(self.runner.begun, [job_id])

    def test_after_a_dependency(self) -> None:
        """A job that waits for another is weighed when that one has ended."""
        self.start()
        first = self.submit_one()
        second = self.submit_one(delay(depends=[[first, []]]))
        self.rules(rule("PAUSE", ["jobid", ["=", "id", second]]))
        self.finish(first)
        self.assertEqual((self.runner.begun, self.status(second)), ([first], "queued"))
        self.rules()
        self.assertEqual(self.runner.begun, [first, second])

    def test_a_start_that_failed(self) -> None:
        """A job that could not be begun is weighed again, its dependencies aren't."""
        self.start()
        (job_id,) = self.submit_some(1)
        self.rules(rule("PAUSE"))
        self.queue.scheduler.discard(job_id)
        self.queue.admission.readmit(self.queue.jobs[job_id])
        self.assertIn(job_id, self.queue.admission.paused)
        self.rules()
        self.assertEqual(self.runner.begun, [job_id, job_id])
        self.queue.admission.readmit(self.queue.jobs[job_id])
        self.assertEqual(self.runner.begun, [job_id, job_id])


class RejectTests(AdmissionScene):
    """REJECT."""

    def test_submission_succeeds(self) -> None:
        """A rejected job gets its id and is cancelled, with the rule's uuid as its result."""
        self.start()
        self.rules(rule("REJECT", DELAYS, uuid="some-rule"))
        (job_id,) = self.submit_some(1)
        job = self.queue.jobs[job_id]
        self.assertEqual((job.status, self.runner.begun), (STATUS_CANCELED, []))
        self.assertEqual(job.ops[0].result, "Job rejected by filter rule some-rule")
        self.assertIsNotNone(job.end_timestamp)
        self.assertNotIn(job_id, self.queue.opcodes)

    def test_one_commit(self) -> None:
        """A new job that is rejected is cancelled with the commit of its submission."""
        self.start()
        self.rules(rule("REJECT"))
        (job_id,) = self.submit_some(1)
        rows = [row for row in self.journal.rows if isinstance(row, JobRow)]
        self.assertEqual([decode_job(row.body).status for row in rows], [STATUS_CANCELED])
        self.assertNotIn(job_id, self.queue.admission)

    def test_never_was(self) -> None:
        """If the disk refuses that one, it was not submitted, and nothing tries it again."""
        self.start()
        self.rules(rule("REJECT"))
        self.journal.held = True
        submitted = self.submission.submit([[delay()]])
        self.journal.fail()
        self.failureResultOf(submitted, JobQueueError)
        self.assertEqual((len(self.timers), self.queue.jobs, self.queue.opcodes), (0, {}, {}))
        self.assertNotIn(1, self.queue.admission)

    def test_queued_ones(self) -> None:
        """A new rule cancels jobs that are queued, held or wait for others; not those that run."""
        self.queue.scheduler.limit = 1
        self.start()
        running, ready = self.submit_some(2)
        waiting = self.submit_one(delay(depends=[[running, []]]))
        dependant = self.submit_one(delay(depends=[[ready, ["canceled"]]]))
        self.rules(rule("PAUSE", ["jobid", ["=", "id", ready]]))
        self.rules(rule("REJECT", ["jobid", ["<=", "id", waiting]]))
        self.assertEqual(
            [self.status(n) for n in (running, ready, waiting, dependant)],
            ["queued", "canceled", "canceled", "queued"],
        )
        self.finish(running)
        self.assertEqual(self.status(running), "success")
        self.assertEqual(self.runner.begun, [running, dependant])

    def test_disk_refuses(self) -> None:
        """A rejection that can't be recorded is tried again; the job doesn't begin meanwhile."""
        (job_id,) = self.submit_some(1)
        self.journal.held = True
        self.rules(rule("REJECT"))
        self.journal.fail()
        self.journal.held = False
        self.start()
        self.rules()
        self.assertEqual((self.status(job_id), self.runner.begun), ("queued", []))
        self.clock.advance(5)
        self.assertEqual((self.status(job_id), self.runner.begun), (STATUS_CANCELED, []))

    def test_already_on_its_way_out(self) -> None:
        """A job whose cancelling is under way isn't rejected as well."""
        (job_id,) = self.submit_some(1)
        self.journal.held = True
        canceled = self.control.cancel(job_id)
        self.rules(rule("REJECT"))
        self.journal.release()
        self.successResultOf(canceled)
        self.assertIsNone(self.queue.jobs[job_id].ops[0].result)


class RateLimitTests(AdmissionScene):
    """RATE_LIMIT and limits by reason."""

    def test_rule(self) -> None:
        """No more jobs to which the rule applies run than it allows; others aren't held up."""
        self.start()
        self.rules(rule(["RATE_LIMIT", 2], DELAYS))
        jobs = self.submit_some(4)
        self.assertEqual(self.runner.begun, jobs[:2])
        self.finish(jobs[1])
        self.assertEqual(self.runner.begun, jobs[:3])
        self.rules()
        self.assertEqual(self.runner.begun, jobs)

    def test_those_that_run_count(self) -> None:
        """Jobs that ran when the rule came count for it, and are left alone."""
        self.start()
        running = self.submit_some(3)
        self.rules(rule(["RATE_LIMIT", 2]))
        (held,) = self.submit_some(1)
        self.finish(running[0])
        self.assertNotIn(held, self.runner.begun)
        self.finish(running[1])
        self.assertIn(held, self.runner.begun)

    def test_deciding_rule_only(self) -> None:
        """A job for which another rule decided before doesn't count."""
        self.start()
        self.rules(
            rule("ACCEPT", ["jobid", ["=", "id", 1]], uuid="a"), rule(["RATE_LIMIT", 1], uuid="b")
        )
        jobs = self.submit_some(3)
        self.assertEqual(self.runner.begun, jobs[:2])

    def test_new_limit(self) -> None:
        """A rule that is replaced lets go, or holds, at once."""
        self.start()
        self.rules(rule(["RATE_LIMIT", 1]))
        jobs = self.submit_some(4)
        self.rules(rule(["RATE_LIMIT", 3]))
        self.assertEqual(self.runner.begun, jobs[:3])

    def test_waiting_for_locks_counts(self) -> None:
        """A job that waits for locks keeps its place under the limit."""
        self.start()
        self.rules(rule(["RATE_LIMIT", 1]))
        jobs = self.submit_some(2)
        self.queue.scheduler.block(jobs[0])
        self.queue.wake()
        self.assertEqual(self.runner.begun, jobs[:1])
        self.queue.scheduler.resume(jobs[0], 0)
        self.queue.wake()
        self.assertEqual(self.runner.begun, [jobs[0], jobs[0]])

    def test_waiting_for_locks_counts_for_new_rules(self) -> None:
        """A job that waited for locks when the rule came counts for it."""
        self.start()
        (blocked,) = self.submit_some(1)
        self.queue.scheduler.block(blocked)
        self.rules(rule(["RATE_LIMIT", 1]))
        (held,) = self.submit_some(1)
        self.assertEqual(self.runner.begun, [blocked])
        self.queue.scheduler.resume(blocked, 0)
        self.queue.wake()
        self.finish(blocked)
        self.assertEqual(self.runner.begun, [blocked, blocked, held])

    def test_waiting_for_a_slot_counts_for_new_rules(self) -> None:
        """A job that had its locks and no slot when the rule came counts for it."""
        self.start()
        (resuming,) = self.submit_some(1)
        self.queue.scheduler.block(resuming)
        self.queue.scheduler.limit = 0
        self.queue.scheduler.resume(resuming, 0)
        self.rules(rule(["RATE_LIMIT", 1]))
        (held,) = self.submit_some(1)
        self.queue.scheduler.limit = 10
        self.queue.wake()
        self.assertEqual(self.runner.begun, [resuming, resuming])
        self.finish(resuming)
        self.assertEqual(self.runner.begun, [resuming, resuming, held])

    def test_running_and_not_durable(self) -> None:
        """A job that has begun counts for a rule that comes during its first commit."""
        self.start()
        self.journal.held = True
        submitted = self.submission.submit([[delay()]])
        self.rules(rule(["RATE_LIMIT", 1]))
        self.journal.held = False
        self.journal.release()
        self.successResultOf(submitted)
        self.submit_some(1)
        self.assertEqual(self.runner.begun, [1])
        self.finish(1)
        self.assertEqual(self.runner.begun, [1, 2])

    def test_room_of_a_job_that_never_was(self) -> None:
        """A new job that the disk refuses gives back its room under a limit."""
        self.start()
        self.rules(rule(["RATE_LIMIT", 1]))
        self.journal.held = True
        submitted = self.submission.submit([[delay()]])
        self.assertEqual(self.runner.begun, [1])
        self.journal.fail()
        self.failureResultOf(submitted, JobQueueError)
        self.journal.held = False
        (job_id,) = self.submit_some(1)
        self.assertEqual(self.runner.begun, [1, job_id])

    def test_reason(self) -> None:
        """A reason limits the jobs that have it, without any rule."""
        self.start()
        limited = {"reason": [["gnt:user", "rate-limit:1:backup", 1]]}
        first, second = self.submit_some(2, **limited)
        (free,) = self.submit_some(1)
        self.assertEqual(self.runner.begun, [first, free])
        self.finish(first)
        self.assertEqual(self.runner.begun, [first, free, second])

    def test_cancel_of_one_that_is_held(self) -> None:
        """A job held by a limit can be cancelled."""
        self.start()
        self.rules(rule(["RATE_LIMIT", 1]))
        first, second, third = self.submit_some(3)
        self.successResultOf(self.control.cancel(second))
        self.finish(first)
        self.assertEqual(self.runner.begun, [first, third])


class StartTests(AdmissionScene):
    """Rules that are there when the daemon starts."""

    def test_found_on_disk(self) -> None:
        """Jobs found on disk are weighed as any others, also those that waited for locks."""
        self.rules(rule("REJECT", ["jobid", ["<", "id", 3]]), rule("PAUSE", uuid="v"))
        noop = {"OP_ID": "OP_TEST_DELAY", "duration": 1.0, "reason": []}
        jobs = {n: model.new_job(n, [noop], 1.0) for n in (1, 2, 3)}
        jobs[2] = model.begin_waiting(jobs[2], 0, 2.0)
        self.successResultOf(restore(self.queue, LoadedJobs(jobs, {}), own=True))
        self.start()
        self.assertEqual([self.status(n) for n in (1, 2, 3)], ["canceled", "canceled", "queued"])
        self.assertEqual(self.runner.begun, [])
        self.rules()
        self.assertEqual(self.runner.begun, [3])
