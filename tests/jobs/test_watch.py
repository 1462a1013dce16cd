"""WaitForJobChange."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.errors import DaemonStopping, JobLost
from ganeti_masterd.events import JobChanged
from ganeti_masterd.jobs import model
from ganeti_masterd.jobs.model import Job
from ganeti_masterd.jobs.watch import SHORTLY, JobWatch
from ganeti_masterd.opcodes import encode_opcode
from ganeti_masterd.timing import Timers
from tests.jobs.scene import QueueScene, delay, values


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

    def test_news_of_several(self) -> None:
        """Each client is told when its own moment is over, by one timer for all of them."""
        job_id = self.submit_one()
        first = self.wait(job_id, None)
        self.clock.advance(SHORTLY / 2)
        second, gone = self.wait(job_id, None), self.wait(job_id, None)
        self.assertEqual(len(self.timers), 1)
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        self.clock.advance(SHORTLY / 2)
        self.successResultOf(first)
        self.assertNoResult(second)
        self.clock.advance(SHORTLY / 2)
        self.successResultOf(second)
        self.assertEqual((len(self.watch), len(self.timers)), (0, 0))

    def test_news_held_while_telling(self) -> None:
        """News that is held back because another was told makes nobody else wait longer."""
        job_id = self.submit_one()
        again: list[Any] = []
        self.wait(job_id, None).addCallback(lambda _: again.append(self.wait(job_id, None)))
        self.clock.advance(SHORTLY / 2)
        second = self.wait(job_id, None)
        self.clock.advance(SHORTLY / 2)
        self.assertEqual(len(again), 1)
        self.clock.advance(SHORTLY / 2)
        self.successResultOf(second)
        self.assertNoResult(again[0])
        self.clock.advance(SHORTLY / 2)
        self.successResultOf(again[0])
        self.assertEqual((len(self.watch), len(self.timers)), (0, 0))

    def test_no_news_left(self) -> None:
        """Nothing is left to be told once the clients have gone or the job has ended."""
        job_id = self.submit_one()
        told, gone = self.wait(job_id, None), self.wait(job_id, None)
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        self.finish(job_id)
        self.successResultOf(told)
        self.assertEqual((len(self.watch), len(self.timers)), (0, 0))

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
        refused = self.parked(job_id)
        self.queue.commit([model.begin_running(self.queue.jobs[job_id], 0, 1.0)])
        self.assertEqual(self.status(job_id), "running")
        self.clock.advance(SHORTLY)
        self.failureResultOf(waiting, ValueError)
        self.failureResultOf(refused, ValueError)
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

    def test_after_the_stop(self) -> None:
        """Whoever asks later is told of the stop, or how the job ended."""
        ended, job_id = self.submit_one(), self.submit_one()
        self.finish(ended)
        self.queue.close()
        self.failureResultOf(self.wait(job_id, None), DaemonStopping)
        self.assertEqual(self.wait(ended, None), (["success", ["success"]], []))

    def test_error_is_of_one_client(self) -> None:
        """An error in computing values is that client's alone."""
        job_id = self.submit_one()
        job = self.queue.jobs[job_id]
        bad = self.watch.wait(job, ["colour"], ["red"], 0, 60)
        good = self.parked(job_id)
        worse = self.watch.wait(job, ["status", "size"], None, 0, 60)
        self.finish(job_id)
        for waiting in (bad, worse):
            assert isinstance(waiting, Deferred)
            self.failureResultOf(waiting, KeyError)
        self.assertEqual(self.successResultOf(good), (["success", ["success"]], []))
        self.assertEqual((len(self.watch), len(self.timers)), (0, 0))


class ReentrancyTests(QueueScene):
    """What a client's Deferred runs may do anything to the watch."""

    def parked(self, job_id: int) -> Deferred[Any]:
        waiting = self.watch.wait(self.queue.jobs[job_id], ["status"], ["queued"], 0, 60)
        assert isinstance(waiting, Deferred)
        return waiting

    def three(self, act: Callable[[list[Deferred[Any]]], object]) -> tuple[int, list[Any]]:
        """Three clients of one job, of whom the first acts when it is told."""
        job_id = self.submit_one()
        waiting = [self.parked(job_id) for _ in range(3)]
        outcomes: list[Any] = [None] * 3

        def told(result: Any, place: int) -> None:
            outcomes[place] = result
            if not place:
                act(waiting)

        for place, each in enumerate(waiting):
            each.addBoth(told, place)
            each.addErrback(lambda failure: failure.trap(ZeroDivisionError))
        return job_id, outcomes

    def test_cancels_another(self) -> None:
        """One that is given up by another is out; the third is told, and so is everybody else."""
        events: list[str] = []
        self.events.subscribe(JobChanged, lambda event: events.append(event.after))
        job_id, outcomes = self.three(lambda waiting: waiting[1].cancel())
        self.finish(job_id)
        self.assertEqual(outcomes[0], (["success"], []))
        outcomes[1].trap(CancelledError)
        self.assertEqual(outcomes[2], (["success"], []))
        self.assertEqual((events[-1], self.status(job_id)), ("success", "success"))

    def test_waits_anew(self) -> None:
        """One that waits anew for the same job waits for what comes after."""
        anew: list[Any] = []

        def act(waiting: list[Deferred[Any]]) -> None:
            anew.append(self.watch.wait(self.queue.jobs[job_id], ["id"], [job_id], 0, 60))

        job_id, outcomes = self.three(act)
        self.watch.gone(job_id)
        for outcome in outcomes:
            outcome.trap(JobLost)
        self.assertEqual(len(self.watch), 1)
        self.finish(job_id)
        self.assertEqual(self.successResultOf(anew[0]), ([job_id], []))

    def test_waits_anew_as_it_stops(self) -> None:
        """One that waits anew when it hears of the stop is told again, at once."""
        anew: list[Any] = []
        job_id, outcomes = self.three(lambda _: anew.append(self.parked(job_id)))
        self.watch.close()
        for outcome in outcomes:
            outcome.trap(DaemonStopping)
        self.failureResultOf(anew[0], DaemonStopping)
        self.assertEqual((len(self.watch), len(self.timers)), (0, 0))

    def test_closes_all(self) -> None:
        """One may close the watch: the others hear of that, once."""
        job_id, outcomes = self.three(lambda _: self.watch.close())
        self.finish(job_id)
        self.assertEqual(outcomes[0], (["success"], []))
        for outcome in outcomes[1:]:
            outcome.trap(DaemonStopping)
        self.assertEqual((len(self.watch), len(self.timers)), (0, 0))

    def test_cancels_another_as_it_stops(self) -> None:
        """At the stop too, and when a job is archived."""
        for end in (lambda job_id: self.watch.gone(job_id), lambda _: self.watch.close()):
            job_id, outcomes = self.three(lambda waiting: waiting[2].cancel())
            end(job_id)
            outcomes[1].trap(JobLost, DaemonStopping)
            outcomes[2].trap(CancelledError)

    def test_raises(self) -> None:
        """One that raises doesn't keep the others from being told."""
        job_id, outcomes = self.three(lambda _: 1 // 0)
        self.finish(job_id)
        self.assertEqual(outcomes[1:], [(["success"], [])] * 2)


#: What a client does when it is told: something to a job, to another client, or to all.
ACTIONS = st.one_of(
    st.just(("nothing", 0)),
    st.just(("raise", 0)),
    st.just(("close", 0)),
    st.tuples(st.just("cancel"), st.integers(0, 9)),
    st.tuples(st.sampled_from(["wait", "step", "finish", "gone"]), st.integers(0, 2)),
    st.tuples(st.just("advance"), st.just(0)),
)


class _Crowd:
    """Clients of three jobs, each with something that it does once it is told."""

    def __init__(self, plan: list[tuple[int, tuple[str, int]]]) -> None:
        self.clock = Clock()
        self.timers = Timers(self.clock)
        self.watch = JobWatch(self.timers, values)
        inputs = [encode_opcode(delay())]
        self.jobs: list[Job] = [model.new_job(number, inputs, 1.0) for number in range(3)]
        self.clients: list[Deferred[Any]] = []
        self.told: list[int] = []
        self.depth = 0
        for job, action in plan:
            self.wait(job, action)

    def wait(self, number: int, action: tuple[str, int]) -> None:
        job = self.jobs[number]
        answer = self.watch.wait(job, ["status", "priority"], [job.status, job.priority], 0, 50)
        if not isinstance(answer, Deferred):
            assert job.finished
            return
        place = len(self.clients)
        self.clients.append(answer)
        self.told.append(0)
        answer.addBoth(self._told, place, action)
        answer.addErrback(lambda failure: failure.trap(ZeroDivisionError))

    def _told(self, _: Any, place: int, action: tuple[str, int]) -> None:
        self.told[place] += 1
        if self.depth < 20:
            self.depth += 1
            try:
                self.act(action)
            finally:
                self.depth -= 1

    def act(self, action: tuple[str, int]) -> None:
        what, number = action
        if what == "raise":
            raise ZeroDivisionError
        if what == "close":
            self.watch.close()
        elif what == "cancel" and number < len(self.clients):
            self.clients[number].cancel()
        elif what == "wait":
            self.wait(number, ("nothing", 0))
        elif what == "advance":
            self.clock.advance(SHORTLY)
        elif what == "gone":
            self.watch.gone(number)
        elif what in ("step", "finish"):
            job = self.jobs[number]
            if not job.finished:
                if what == "step":
                    job = model.reprioritize(job, -1 if job.priority else 1)
                else:
                    job = model.cancel(job, 2.0, "enough")
                self.jobs[number] = job
            self.watch.changed(job)


class CrowdTests(SynchronousTestCase):
    """Whatever clients do to each other while they are told."""

    @given(
        st.lists(st.tuples(st.integers(0, 2), ACTIONS), max_size=10),
        st.lists(ACTIONS, max_size=10),
    )
    def test_any(
        self, plan: list[tuple[int, tuple[str, int]]], happens: list[tuple[str, int]]
    ) -> None:
        """Nothing is raised, each is told once, and who isn't told yet still waits."""
        crowd = _Crowd(plan)
        for action in happens:
            if action[0] != "raise":
                crowd.act(action)
            self.assertLessEqual(max(crowd.told, default=0), 1)
            self.assertEqual(len(crowd.watch), crowd.told.count(0))
            # Those whose news is held back share one timer.
            self.assertLessEqual(len(crowd.timers), len(crowd.watch))
            self.assertEqual(len(crowd.timers) > 0, len(crowd.watch) > 0)
        crowd.clock.advance(100)
        crowd.clock.advance(100)
        crowd.watch.close()
        self.assertEqual(set(crowd.told), {1} if crowd.told else set())
        self.assertEqual((len(crowd.watch), len(crowd.timers)), (0, 0))
        self.flushLoggedErrors(ZeroDivisionError)
