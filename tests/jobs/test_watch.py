"""WaitForJobChange."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from ganeti_masterd.errors import DaemonStopping, JobLost
from ganeti_masterd.jobs import model
from ganeti_masterd.jobs.watch import SHORTLY
from tests.jobs.scene import QueueScene, delay


class WatchTests(QueueScene):
    """Waiting for a job's news."""

    def wait(
        self, job_id: int, previous: Any, serial: int | None = None, timeout: float = 60
    ) -> Any:
        return self.watch.wait(
            self.queue.jobs[job_id], ["status", "opstatus"], previous, serial, timeout
        )

    def parked(self, job_id: int, serial: int | None = None) -> Deferred[Any]:
        waiting = self.wait(job_id, ["queued", ["queued"]], serial)
        assert isinstance(waiting, Deferred)
        return waiting

    def test_news_in_a_moment(self) -> None:
        """A client that knows nothing, or the past, is answered in a moment."""
        job_id = self.submit_one()
        for previous in (None, ["running", ["running"]], "rubbish", 7):
            waiting = self.wait(job_id, previous)
            self.clock.advance(SHORTLY / 2)
            self.assertNoResult(waiting)
            self.clock.advance(SHORTLY / 2)
            self.assertEqual(self.successResultOf(waiting), (["queued", ["queued"]], []))

    def test_news_without_patience(self) -> None:
        """A client that does not wait has what is there as soon as others had their turn."""
        waiting = self.wait(self.submit_one(), None, timeout=0)
        self.clock.advance(0)
        self.assertEqual(self.successResultOf(waiting), (["queued", ["queued"]], []))

    def test_change(self) -> None:
        """A change answers the waiting client, once, and leaves nothing behind."""
        job_id = self.submit_one()
        waiting = self.parked(job_id)
        self.assertEqual(len(self.watch), 1)
        self.queue.commit([model.begin_running(self.queue.jobs[job_id], 0, 1.0)])
        self.clock.advance(SHORTLY)
        self.assertEqual(self.successResultOf(waiting), (["running", ["running"]], []))
        self.assertEqual((len(self.watch), len(self.timers)), (0, 0))

    def test_values_that_cannot_be_had(self) -> None:
        """A client whose values can't be computed is told so; the others get theirs."""
        job_id = self.submit_one()
        bad, good = self.parked(job_id), self.parked(job_id)
        at_once = self.parked(job_id)
        broken = {id(waiter) for waiter in list(self.watch._waiters[job_id])[:1]}
        change = self.watch._change

        def failing(waiter: Any) -> Any:
            if id(waiter) in broken:
                raise ValueError("no such value")
            return change(waiter)

        self.patch(self.watch, "_change", failing)
        self.finish(job_id)
        self.failureResultOf(bad, ValueError)
        self.assertEqual(self.successResultOf(good)[0], ["success", ["success"]])
        self.assertEqual(self.successResultOf(at_once)[0], ["success", ["success"]])
        self.assertEqual((len(self.watch), len(self.timers)), (0, 0))

    def test_values_that_cannot_be_compared(self) -> None:
        """What can't be computed refuses the question, and holds up no change of a job."""
        job_id = self.submit_one()
        waiting = self.parked(job_id)

        def failing(job: Any, fields: Any) -> Any:
            raise ValueError("no such value")

        self.patch(self.watch, "_values", failing)
        self.assertRaises(ValueError, self.parked, job_id)
        self.assertEqual(len(self.watch), 1)
        self.queue.commit([model.begin_running(self.queue.jobs[job_id], 0, 1.0)])
        self.assertEqual(self.status(job_id), "running")
        self.clock.advance(SHORTLY)
        self.failureResultOf(waiting, ValueError)
        self.assertEqual((len(self.watch), len(self.timers)), (0, 0))

    def test_many_steps(self) -> None:
        """Steps within a moment are one answer, with the last state and every log line."""
        job_id = self.submit_one()
        waiting = self.parked(job_id)
        self.queue.commit([model.begin_running(self.queue.jobs[job_id], 0, 1.0)])
        self.clock.advance(SHORTLY / 2)
        for text in ("first", "second"):
            self.queue.add_log(job_id, 0, "message", text)
        self.assertNoResult(waiting)
        self.clock.advance(SHORTLY / 2)
        values, entries = self.successResultOf(waiting)
        self.assertEqual(values, ["running", ["running"]])
        self.assertEqual([entry.message for entry in entries], ["first", "second"])

    def test_end(self) -> None:
        """The end is told at once, also to those for whom other news was held back."""
        job_id = self.submit_one()
        waiting = [self.parked(job_id), self.wait(job_id, None)]
        self.finish(job_id)
        for one in waiting:
            self.assertEqual(self.successResultOf(one), (["success", ["success"]], []))
        self.assertEqual((len(self.watch), len(self.timers)), (0, 0))

    def test_end_after_the_last_line(self) -> None:
        """The answer at the end has the log lines that were held back."""
        job_id = self.submit_one()
        waiting = self.parked(job_id)
        self.queue.add_log(job_id, 0, "message", "last words")
        self.finish(job_id)
        _, (entry,) = self.successResultOf(waiting)
        self.assertEqual(entry.message, "last words")

    def test_change_of_no_interest(self) -> None:
        """A change of what was not asked for answers nobody."""
        job_id = self.submit_one()
        waiting = self.parked(job_id)
        self.control.change_priority(job_id, -3)
        self.assertNoResult(waiting)

    def test_log(self) -> None:
        """New log entries are news by themselves; only those after the serial are sent."""
        job_id = self.submit_one()
        self.queue.add_log(job_id, 0, "message", "first")
        waiting = self.parked(job_id, serial=1)
        self.queue.add_log(job_id, 0, "message", "second")
        self.clock.advance(SHORTLY)
        values, entries = self.successResultOf(waiting)
        self.assertEqual(values, ["queued", ["queued"]])
        self.assertEqual([(e.serial, e.message) for e in entries], [(2, "second")])
        waiting = self.wait(job_id, values, 0)
        self.clock.advance(SHORTLY)
        self.assertEqual(len(self.successResultOf(waiting)[1]), 2)

    def test_ended(self) -> None:
        """An ended job answers at once, with the values that the client has if need be."""
        job_id = self.submit_one()
        self.finish(job_id)
        self.assertEqual(
            self.wait(job_id, ["success", ["success"]]), (["success", ["success"]], [])
        )

    def test_timeout(self) -> None:
        """At the time-out the unchanged values are answered, without entries."""
        job_id = self.submit_one()
        waiting = self.parked(job_id)
        self.clock.advance(59)
        self.assertNoResult(waiting)
        self.clock.advance(2)
        self.assertEqual(self.successResultOf(waiting), (["queued", ["queued"]], []))

    def test_timeout_is_capped(self) -> None:
        """No client waits longer than luxid would let it."""
        job_id = self.submit_one()
        waiting = self.wait(job_id, ["queued", ["queued"]], timeout=1e9)
        self.clock.advance(90)
        self.successResultOf(waiting)

    def test_client_goes(self) -> None:
        """A client that goes away leaves nothing behind."""
        job_id = self.submit_one()
        waiting = self.parked(job_id)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual((len(self.watch), len(self.timers)), (0, 0))

    def test_archived_meanwhile(self) -> None:
        """Clients of a job that is archived are told."""
        job_id = self.submit_one()
        waiting = self.parked(job_id)
        self.watch.gone(job_id)
        self.failureResultOf(waiting, JobLost)

    def test_daemon_stops(self) -> None:
        """A stop answers every waiting client."""
        waiting = [self.parked(self.submit_one(delay())) for _ in range(5)]
        self.queue.close()
        for one in waiting:
            self.failureResultOf(one, DaemonStopping)
        self.assertEqual(len(self.timers), 0)
