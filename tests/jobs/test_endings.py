"""How archived jobs ended: known as long as somebody depends on them, and no longer."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.errors import JobQueueError, OpPrereqError
from ganeti_masterd.jobs import model
from ganeti_masterd.jobs.endings import Endings
from tests.jobs.scene import QueueScene, delay


class EndingsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.endings = Endings()

    def test_nobody_depends(self) -> None:
        """Nothing is kept of a job that nobody depends on."""
        self.endings.note(1, "success")
        self.endings.want(2, [])
        self.assertEqual((len(self.endings), self.endings.of(1)), (0, None))

    def test_last_dependant(self) -> None:
        """A final state goes with the last job that depends on it."""
        self.endings.want(3, [1, 2])
        self.endings.want(4, [1])
        self.endings.note(1, "error")
        self.endings.note(2, "success")
        self.endings.release(3)
        self.assertEqual((self.endings.of(1), self.endings.of(2)), ("error", None))
        self.endings.release(4)
        self.endings.release(4)
        self.assertEqual((len(self.endings), self.endings.of(1)), (0, None))

    def test_wanted_again(self) -> None:
        """A job that is taken in twice counts once."""
        self.endings.want(2, [1])
        self.endings.want(2, [1])
        self.endings.note(1, "success")
        self.endings.release(2)
        self.assertEqual(len(self.endings), 0)


class QueueEndingsTests(QueueScene):
    limit = 1

    def archive(self, job_id: int) -> None:
        self.finish(job_id)
        self.assertIs(self.successResultOf(self.control.archive(job_id)), True)

    def put_into_archive(self, *job_ids: int) -> None:
        """Puts ended jobs of an earlier daemon into the archive."""
        self.queue.last_id = max(self.queue.last_id, *job_ids)
        for job_id in job_ids:
            job = model.new_job(job_id, [{"OP_ID": "OP_TEST_DELAY"}], 1.0)
            job = model.succeed(model.begin_running(job, 0, 1.0), 0, None, 2.0)
            os.makedirs(os.path.dirname(self.folder.archived_job(job_id)), exist_ok=True)
            with open(self.folder.archived_job(job_id), "wb") as file:
                file.write(model.encode_job(job))

    def test_many_jobs(self) -> None:
        """After any number of jobs with dependencies on archived ones nothing is kept."""
        self.queue.run_with(self.runner)
        last = self.submit_one()
        for _ in range(50):
            following = self.submit_one(delay(depends=[[last, ["success"]]]))
            self.archive(last)
            last = following
        self.finish(last)
        self.assertEqual((len(self.queue.endings), self.queue.opcodes), (0, {}))

    def test_taken_in_again(self) -> None:
        """A job whose cancelling the disk refused begins though its dependency is archived."""
        self.start()
        first, busy = self.submit_one(), self.submit_one()
        self.assertEqual(self.runner.begun, [first])
        waiting = self.submit_one(delay(depends=[[first, ["success"]]]))
        self.finish(first)
        self.assertEqual(self.runner.begun, [first, busy])
        self.successResultOf(self.control.archive(first))
        self.journal.held = True
        refused = self.control.cancel(waiting)
        self.journal.fail()
        self.failureResultOf(refused, JobQueueError)
        self.journal.held = False
        self.finish(busy)
        self.assertEqual(self.runner.begun, [first, busy, waiting])
        self.finish(waiting)
        self.assertEqual(len(self.queue.endings), 0)

    def test_read_from_the_archive(self) -> None:
        """What was read for a submission is kept until its job has ended."""
        self.start()
        self.put_into_archive(5)
        busy = self.submit_one()
        job_id = self.submit_one(delay(depends=[[5, ["success"]]]))
        self.assertEqual(self.queue.status_of(5), "success")
        self.finish(busy)
        self.finish(job_id)
        self.assertIsNone(self.queue.status_of(5))
        again = self.submit_one(delay(depends=[[5, ["error"]]]))
        self.assertEqual(self.status(again), "error")
        self.assertEqual(len(self.queue.endings), 0)

    def test_refused(self) -> None:
        """A job that is refused, or that the disk refuses, keeps nothing."""
        self.put_into_archive(5)
        (refused,) = self.submit([delay(depends=[[5, []], [77, []]])])
        self.assertIsInstance(refused, OpPrereqError)
        self.journal.held = True
        done = self.submission.submit([[delay(depends=[[5, []]])]])
        self.journal.fail()
        self.failureResultOf(done, JobQueueError)
        self.assertEqual((len(self.queue.endings), self.queue.opcodes), (0, {}))

    def test_archived_meanwhile(self) -> None:
        """A job that is archived while the archive is read for another one is found."""
        self.start()
        self.put_into_archive(5)
        live = self.submit_one()
        self.finish(live)
        waiting: list[tuple[Callable[[], Any], Deferred[Any]]] = []

        def effect(function: Callable[..., Any], *args: Any) -> Deferred[Any]:
            done: Deferred[Any] = Deferred()
            waiting.append((lambda: function(None, *args), done))
            return done

        self.patch(self.journal, "effect", effect)
        submitted = self.submission.submit([[delay(depends=[[5, []], [live, []]])]])
        job = self.queue.jobs[live]
        self.successResultOf(self.control.archive(live))
        with open(self.folder.archived_job(live), "wb") as file:
            file.write(model.encode_job(job))
        for _ in range(2):
            work, done = waiting.pop(0)
            done.callback(work())
        (job_id,) = self.successResultOf(submitted)
        self.assertEqual(self.status(job_id), "queued")
        self.assertEqual(self.runner.begun[-1], job_id)

    def test_cancelled_while_reading(self) -> None:
        """A submission that is given up while the archive is read adds nothing."""
        self.put_into_archive(*range(5, 205))
        reading: list[Deferred[Any]] = []

        def effect(function: Callable[..., Any], *args: Any) -> Deferred[Any]:
            reading.append(Deferred())
            return reading[-1]

        self.patch(self.journal, "effect", effect)
        ops = [delay(depends=[[n, []]]) for n in range(5, 205)]
        self.submission.submit([ops]).addErrback(lambda _: None).cancel()
        self.assertEqual(len(reading), 1)
        self.assertEqual(self.queue.jobs, {})
