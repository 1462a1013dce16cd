"""WaitForJobChange."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from ganeti_masterd.errors import DaemonStopping, JobLost
from ganeti_masterd.jobs import model
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

    def test_news_at_once(self) -> None:
        """A client that knows nothing, or the past, is answered at once."""
        job_id = self.submit_one()
        for previous in (None, ["running", ["running"]], "rubbish", 7):
            self.assertEqual(self.wait(job_id, previous), (["queued", ["queued"]], []))

    def test_change(self) -> None:
        """A change answers the waiting client, once, and leaves nothing behind."""
        job_id = self.submit_one()
        waiting = self.parked(job_id)
        self.assertEqual(len(self.watch), 1)
        self.queue.commit([model.begin_running(self.queue.jobs[job_id], 0, 1.0)])
        self.assertEqual(self.successResultOf(waiting), (["running", ["running"]], []))
        self.assertEqual((len(self.watch), len(self.timers)), (0, 0))

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
        values, entries = self.successResultOf(waiting)
        self.assertEqual(values, ["queued", ["queued"]])
        self.assertEqual([(e.serial, e.message) for e in entries], [(2, "second")])
        self.assertEqual(len(self.wait(job_id, values, 0)[1]), 2)

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
