"""Following jobs: every step, log line and end, once and in order."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.cli import following
from ganeti_masterd.cli.following import Ended, Event, LineSaid, LogFollower, StatusMoved
from ganeti_masterd.errors import JobLost, LuxiError
from ganeti_masterd.luxi.calls import Calls
from tests.luxi.doubles import examples

FINAL = ("success", "error", "canceled")


class State:
    """A state of a job: statuses, and how many log lines it has."""

    def __init__(self, status: str, opcodes: Sequence[str] = (), lines: int = 0) -> None:
        self.status = status
        self.opcodes = list(opcodes) or [status]
        self.lines = lines


class Pretended(Calls):
    """A daemon whose jobs go through the given states, one step at each call.

    ``archive`` are jobs that are archived as soon as they have ended.
    """

    def __init__(self, jobs: dict[int, list[State]], archive: Sequence[int] = ()) -> None:
        self.jobs = {job: list(states) for job, states in jobs.items()}
        self.archive = archive
        self.calls: list[tuple[Any, ...]] = []
        self.timeouts: list[float | None] = []
        self.dialect = "3.x"

    def tick(self) -> None:
        for states in self.jobs.values():
            if len(states) > 1:
                del states[0]

    def call(self, method: str, *args: Any, timeout: float | None = None) -> Any:
        self.calls.append((method, *args))
        self.timeouts.append(timeout)
        result = getattr(self, method)(*args)
        self.tick()
        return result

    def QueryJobs(self, ids: list[int], fields: list[str]) -> Any:
        return [self.row(job, fields) for job in ids]

    def row(self, job: int, fields: list[str]) -> list[Any]:
        if job not in self.jobs:
            return [job if name == "id" else None for name in fields]
        state = self.jobs[job][0]
        size = len(state.opcodes)
        values = {
            "id": job,
            "status": state.status,
            "opstatus": state.opcodes,
            "summary": ["X"] * size,
            "received_ts": [1, 0],
            "start_ts": None,
            "end_ts": None,
            "opresult": [None] * size,
            "oplog": [self.lines(state, 0), *([[]] * (size - 1))],
        }
        return [values[name] for name in fields]

    def lines(self, state: State, after: int) -> list[Any]:
        return [[n, [n, 0], "message", f"line {n}"] for n in range(after + 1, state.lines + 1)]

    def WaitForJobChange(
        self, job: int, fields: list[str], previous: Any, serial: int, wait: float
    ) -> Any:
        for _ in range(5 if wait else 1):
            state = self.jobs[job][0]
            if state.status in FINAL and job in self.archive:
                if self.dialect == "classic":
                    return None
                raise JobLost(f"Job {job} is gone")
            values, lines = [state.status, state.opcodes], self.lines(state, serial)
            if values != previous or lines:
                return [values, lines]
            self.tick()
        return "nochange" if self.dialect == "classic" else [previous, []]


class FollowerTests(SynchronousTestCase):
    """With a daemon whose jobs change at each call."""

    def setUp(self) -> None:
        self.rests: list[float] = []

    def follow(self, daemon: Calls, *jobs: int) -> list[Event]:
        follower = LogFollower(daemon, jobs, timeout=9, rest=self.rests.append)
        return list(follower.events())

    def test_one(self) -> None:
        """One job's events are its state, changes, log and end; calls wait for changes."""
        daemon = Pretended(
            {
                5: [
                    State("queued", ["queued", "queued"]),
                    State("running", ["running", "queued"]),
                    State("running", ["running", "queued"], 2),
                    State("queued", ["success", "queued"], 2),
                    State("success", ["success", "success"], 3),
                ]
            }
        )
        events = self.follow(daemon, 5)
        self.assertEqual(
            events[:-1],
            [
                StatusMoved(5, "queued", 0, 2),
                StatusMoved(5, "running", 0, 2),
                LineSaid(5, (1, 0), "message", "line 1"),
                LineSaid(5, (2, 0), "message", "line 2"),
                StatusMoved(5, "queued", 1, 2),
                LineSaid(5, (3, 0), "message", "line 3"),
                StatusMoved(5, "success", 2, 2),
            ],
        )
        assert isinstance(events[-1], Ended)
        self.assertEqual(events[-1].outcome.status, "success")
        waits = [call for call in daemon.calls if call[0] == "WaitForJobChange"]
        self.assertEqual({wait[5] for wait in waits}, {following.PATIENCE})
        self.assertIn(following.PATIENCE + 9, daemon.timeouts)
        self.assertEqual(self.rests, [])

    def test_ended_already(self) -> None:
        """A job that has already ended yields its log and end, without waiting."""
        daemon = Pretended({5: [State("error", lines=1)]})
        kinds = [type(event) for event in self.follow(daemon, 5)]
        self.assertEqual(kinds, [StatusMoved, LineSaid, Ended])
        self.assertNotIn("WaitForJobChange", [call[0] for call in daemon.calls])

    def test_unknown(self) -> None:
        """The error names all jobs that don't exist, and is raised without waiting."""
        daemon = Pretended({5: [State("queued")]})
        error = self.assertRaises(JobLost, self.follow, daemon, 5, 6, 7)
        self.assertEqual(str(error), "There is no job 6, 7")

    def test_archived_meanwhile(self) -> None:
        """The end of a job that was archived meanwhile is read from the archive."""
        for dialect in ("3.x", "classic"):
            daemon = Pretended({5: [State("running"), State("success")]}, archive=[5])
            daemon.dialect = dialect
            events = self.follow(daemon, 5)
            self.assertEqual([type(event) for event in events], [StatusMoved, Ended], dialect)

    def test_nothing_new(self) -> None:
        """An answer at its time-out, of either kind of daemon, makes no event."""
        for dialect in ("3.x", "classic"):
            daemon = Pretended({5: [State("running")] * 20 + [State("success")]})
            daemon.dialect = dialect
            events = self.follow(daemon, 5)
            self.assertEqual(
                [type(event) for event in events], [StatusMoved, StatusMoved, Ended], dialect
            )

    def test_gone(self) -> None:
        """A job that disappears while it is followed is an error, not an endless wait."""
        daemon = Pretended({5: [State("running")]})
        daemon.WaitForJobChange = lambda *args: daemon.jobs.clear()  # type: ignore[method-assign]
        self.assertRaises(JobLost, self.follow, daemon, 5)

    def test_nonsense(self) -> None:
        """Answers that make no sense are LUXI errors."""
        for name, answer in [
            ("WaitForJobChange", [["running"], []]),
            ("WaitForJobChange", 5),
            ("QueryJobs", [[5, "running", 3]]),
            ("QueryJobs", [5]),
            ("QueryJobs", 5),
        ]:
            daemon = Pretended({5: [State("running")]})
            setattr(daemon, name, lambda *args, answer=answer: answer)
            with self.subTest(name=name, answer=answer):
                self.assertRaises(LuxiError, self.follow, daemon, 5)

    def test_many_cost_little(self) -> None:
        """Of a thousand jobs only running ones are asked about one by one."""
        daemon = Pretended(
            {
                job: [State("queued")] * (job // 50) + [State("running"), State("success")]
                for job in range(1, 1001)
            }
        )
        ends = [e for e in self.follow(daemon, *range(1, 1001)) if isinstance(e, Ended)]
        self.assertEqual(sorted(event.job for event in ends), list(range(1, 1001)))
        self.assertLess(len(daemon.calls), 200)
        self.assertEqual(set(self.rests), {following.REST})

    @examples(100)
    @given(st.data())
    def test_any_histories(self, data: st.DataObject) -> None:
        """Whatever jobs do, each line appears once and in order, each end once and last."""
        histories = {}
        for job in range(1, data.draw(st.integers(1, 6)) + 1):
            lines, states = 0, []
            for status in data.draw(st.lists(st.sampled_from(["queued", "waiting", "running"]))):
                lines += data.draw(st.integers(0, 2)) if status == "running" else 0
                states.append(State(status, lines=lines))
            final = data.draw(st.sampled_from(FINAL))
            histories[job] = [*states, State(final, lines=lines + data.draw(st.integers(0, 2)))]
        archive = data.draw(st.sets(st.sampled_from(sorted(histories))))
        events = self.follow(Pretended(histories, sorted(archive)), *histories)
        for job, states in histories.items():
            own = [event for event in events if event.job == job]
            serials = [event.time[0] for event in own if isinstance(event, LineSaid)]
            self.assertEqual(serials, list(range(1, states[-1].lines + 1)))
            self.assertEqual([e for e in own if isinstance(e, Ended)], own[-1:])
            moves = [event for event in own if isinstance(event, StatusMoved)]
            self.assertTrue(all(a != b for a, b in pairwise(moves)))
            self.assertIsInstance(own[0], StatusMoved)
