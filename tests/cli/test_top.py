"""What ``gnt-luxi top`` shows, and what its keys do; the terminal is in the functional tests."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.cli.topkeys import keys, pressed
from ganeti_masterd.cli.toplooks import MOST_JOBS, Looks
from ganeti_masterd.cli.topview import (
    FollowedJob,
    TopJob,
    TopState,
    Viewing,
    cut,
    moved,
    screen,
    shown_jobs,
    wrong,
)
from ganeti_masterd.errors import JobLost
from ganeti_masterd.luxi.calls import Calls
from tests.examples import examples

NOW = 100_000.0

JOBS = (
    TopJob(11, "queued", "INSTANCE_STARTUP(web2)", NOW - 5, said="Job 11 waits for node1"),
    TopJob(10, "running", "INSTANCE_CREATE(web1)", NOW - 60, 0, 2, "Formatting disks"),
)
FAILED = (TopJob(9, "error", "INSTANCE_REMOVE(old)", NOW - 3600, said="OpPrereqError: no"),)
STATE = TopState(
    "cluster.example",
    "node1",
    NOW,
    open_jobs=JOBS,
    failed=FAILED,
    nodes=3,
    instances={"up": 4, "down": 1},
)


def texts(state: TopState | None = STATE, viewing: Viewing | None = None, **more: Any) -> list[str]:
    """Returns the screen's lines at 80x24, without the empty ones."""
    lines = screen(state, viewing or Viewing(), 80, 24, **more)
    return [line.text for line in lines if line.text]


def line_of(lines: list[str], text: str) -> int:
    """Returns where the first line with a text is."""
    return next(index for index, line in enumerate(lines) if text in line)


class ScreenTests(SynchronousTestCase):
    """:func:`screen`."""

    def test_overview(self) -> None:
        """Title, running jobs with age and last line, waiting ones with the reason, failed ones."""
        lines = texts()
        self.assertTrue(
            lines[0].startswith("cluster.example  master node1  1 run, 1 wait  3 nodes")
        )
        words = lines[line_of(lines, "web1")].split()
        self.assertEqual(words[:4], ["10", "1", "min", "0/2"])
        self.assertEqual(words[-2:], ["Formatting", "disks"])
        self.assertIn("Job 11 waits for node1", lines[line_of(lines, "web2")])
        order = [line_of(lines, text) for text in ("Running: 1", "Waiting: 1", "Failed lately: 1")]
        self.assertEqual(order, sorted(order))

    def test_wrong_first(self) -> None:
        """What is wrong is above all jobs."""
        state = TopState(
            "c",
            "node1",
            NOW,
            drained=True,
            paused_until=NOW + 90,
            open_jobs=[TopJob(1, "running", "X", NOW - 7 * 3600), TopJob(2, "waiting", "Y", 0.0)],
            offline=[f"node{n}" for n in range(2, 10)],
            drained_nodes=["node1"],
        )
        found = list(wrong(state))
        self.assertEqual(len(found), 6)
        self.assertIn("Offline: node2, node3, node4, node5, node6 and 3 more", found)
        self.assertIn("Job 1 runs for 7 h by now", found)
        lines = texts(state)
        self.assertEqual([line[:2] for line in lines[1:7]], ["! "] * 6)
        self.assertEqual(list(wrong(STATE)), [])

    def test_disconnected(self) -> None:
        """While the daemon doesn't answer that is said, above what was known before."""
        self.assertIn("Not connected: gone; trying again", texts(None, trouble="gone"))
        lines = texts(trouble="gone")
        self.assertLess(line_of(lines, "Not connected"), line_of(lines, "web1"))
        self.assertIn("Waiting for the daemon's first answer", texts(None))

    def test_follow(self) -> None:
        """A job that is followed shows its newest lines, as many as there is room for."""
        followed = FollowedJob(JOBS[1], [f"line {n}" for n in range(100)])
        lines = texts(viewing=Viewing(following=10), followed=followed)
        self.assertIn("Job 10 running, 1 min: INSTANCE_CREATE(web1)", lines)
        self.assertIn("  line 99", lines)
        self.assertNotIn("  line 0", lines)
        self.assertEqual(len(lines), 24)

    def test_chosen_stays_on_the_screen(self) -> None:
        """Of more jobs than fit, those around the chosen one are shown."""
        jobs = [TopJob(n, "queued", f"DELAY({n})", NOW) for n in range(1, 300)]
        state = TopState("c", "node1", NOW, open_jobs=jobs, left_out=7)
        for chosen in (1, 150, 299):
            lines = texts(state, Viewing(chosen=chosen))
            self.assertEqual(sum(line.startswith(">") for line in lines), 1, chosen)
        self.assertIn("Waiting: 306", texts(state))

    def test_help(self) -> None:
        """The help shows all keys."""
        self.assertIn("  q, Ctrl-C         quit", texts(viewing=Viewing(help=True)))

    @settings(max_examples=examples(100, 2000), deadline=None)
    @given(
        st.integers(0, 120),
        st.integers(1, 40),
        st.text(max_size=50),
        st.booleans(),
        st.sampled_from([None, "it is gone"]),
    )
    def test_fits(
        self, width: int, height: int, said: str, asks: bool, trouble: str | None
    ) -> None:
        """Whatever is said, the screen has just its lines, none wider, all printable."""
        job = TopJob(7, "running", "X", NOW, said=said)
        state = TopState(said, "node1", NOW, open_jobs=[job])
        followed = FollowedJob(job, [said] * 3) if asks else None
        lines = screen(
            state, Viewing(help=False), width, height, followed=followed, trouble=trouble
        )
        self.assertEqual(len(lines), height)
        for line in lines:
            self.assertLessEqual(cell_len(line.text), width)
            self.assertTrue(line.text.isprintable())

    def test_cut(self) -> None:
        """A text that is cut ends with a mark; wide characters count twice."""
        self.assertEqual(cut("abcdef", 6), "abcdef")
        self.assertEqual(cut("abcdefg", 6), "abcde>")
        self.assertEqual(cut("\x1b[31mred\n", 20), " [31mred ")
        self.assertEqual(cut("日本語", 4), "日>")
        self.assertEqual(cut("abc", 0), "")


class KeyTests(SynchronousTestCase):
    """:func:`keys` and :func:`pressed`."""

    def press(self, text: str, viewing: Viewing | None = None) -> Viewing | None:
        found: Viewing | None = viewing or Viewing()
        for key in keys(text):
            assert found is not None
            found = pressed(key, found, STATE)
        return found

    def test_names(self) -> None:
        """Sequences of a terminal become names; unknown ones are nothing."""
        self.assertEqual(
            list(keys("a\x1b[A\x1bOB\r\x7f\x1b[15~\x1b[1;5C\x1b")),
            ["a", "up", "down", "enter", "backspace", "escape"],
        )

    def test_choose_and_follow(self) -> None:
        """Arrows choose among what is shown, Enter follows, Escape comes back."""
        self.assertEqual(self.press("j"), Viewing(chosen=10))
        self.assertEqual(self.press("jj\x1b[B\x1b[B"), Viewing(chosen=9))
        self.assertEqual(self.press("jjk"), Viewing(chosen=10))
        following = self.press("jj\r")
        self.assertEqual(following, Viewing(chosen=11, following=11))
        self.assertEqual(self.press("\x1b", following), Viewing(chosen=11))
        self.assertIsNone(moved(None, Viewing(chosen=4), 1))

    def test_filter(self) -> None:
        """A filter is typed, mended, taken or dropped; meanwhile keys do nothing else."""
        self.assertEqual(self.press("/wq\x7f"), Viewing(typing="w"))
        self.assertEqual(self.press("/web1\r"), Viewing(filter="web1"))
        self.assertEqual(self.press("/old\x1b", Viewing(filter="x")), Viewing(filter="x"))
        self.assertEqual(self.press("\x1b", Viewing(filter="x")), Viewing())
        self.assertEqual([job.id for job in shown_jobs(STATE, "WEB")], [10, 11])
        self.assertEqual(self.press("jj\r", Viewing(filter="old")), Viewing(9, 9, "old"))

    def test_quit(self) -> None:
        """Both q and Ctrl-C quit; the second also while a filter is typed."""
        self.assertIsNone(self.press("q"))
        self.assertIsNone(self.press("\x03"))
        self.assertIsNone(self.press("/a\x03"))

    def test_help(self) -> None:
        """The help comes and goes."""
        self.assertEqual(self.press("?"), Viewing(help=True))
        self.assertEqual(self.press("??"), Viewing())
        self.assertEqual(self.press("?b"), Viewing())


class Daemon(Calls):
    """Answers like a daemon with these jobs."""

    def __init__(self) -> None:
        self.jobs: dict[int, tuple[str, Any]] = {1: ("error", ["OpExecError", ["no"]])}
        self.asked: list[str] = []

    def call(self, method: str, *args: Any) -> Any:
        self.asked.append(method)
        match method, args:
            case "QueryConfigValues", _:
                return ["cluster.example", "node1", True, None]
            case "Query", ["job", fields, filter_]:
                wanted = {each[2] for each in filter_[1:]} if filter_[0] == "|" else {filter_[2]}
                found = [(n, status) for n, (status, _) in self.jobs.items() if status in wanted]
                return {"data": [[[0, value] for value in row[: len(fields)]] for row in found]}
            case "Query", ["node", _, _]:
                return {
                    "data": [
                        [[0, "node1"], [0, False], [0, False]],
                        [[0, "node2"], [0, True], [0, False]],
                    ]
                }
            case "Query", _:
                return {"data": [[[0, "up"]], [[0, "up"]], [[0, "down"]]]}
            case "QueryJobs", [ids, _]:
                return [self.row(job_id) for job_id in ids]
            case "QueryJobWait", [job_id]:
                if self.jobs[job_id][0] == "queued":
                    return {
                        "id": job_id,
                        "sentence": f"Job {job_id} waits",
                        "kind": "slot",
                        "jobs": [],
                    }
                raise JobLost("gone")
        raise AssertionError(method)

    def row(self, job_id: int) -> list[Any]:
        if job_id not in self.jobs:
            return [job_id, None]
        status, result = self.jobs[job_id]
        begun = None if status == "queued" else [20, 0]
        log = [[1, [21, 0], "message", "first"], [2, [22, 0], "message", "second"]]
        ended = [30, 0] if status == "error" else None
        return [job_id, status, ["DELAY"], [10, 0], begun, ended, [status], [result], [log]]


class LookTests(SynchronousTestCase):
    """:class:`Looks`."""

    def setUp(self) -> None:
        self.daemon = Daemon()
        self.now = 100.0
        self.looks = Looks(self.daemon, lambda: self.now)

    def test_state(self) -> None:
        """All of it comes from what the daemon answers."""
        self.daemon.jobs |= {2: ("running", None), 3: ("queued", None), 4: ("success", 0)}
        state = self.looks.state()
        self.assertEqual(
            (state.cluster, state.master, state.drained), ("cluster.example", "node1", True)
        )
        self.assertEqual((state.nodes, list(state.offline)), (2, ["node2"]))
        self.assertEqual(state.instances, {"up": 2, "down": 1})
        self.assertEqual(
            [(job.id, job.status, job.since, job.said) for job in state.open_jobs],
            [(2, "running", 20.0, "second"), (3, "queued", 10.0, "Job 3 waits")],
        )
        self.assertEqual([job.said for job in state.failed], ["OpExecError: no"])

    def test_seldom(self) -> None:
        """Lists of all nodes and instances aren't asked for at each look; nor if time goes back."""
        for now, queries in ((100.0, 4), (101.0, 5), (111.0, 9), (50.0, 13)):
            self.now = now
            self.looks.state()
            self.assertEqual(self.daemon.asked.count("Query"), queries)

    def test_many(self) -> None:
        """Of very many jobs only so many are asked for in full; the others are counted."""
        self.daemon.jobs = dict.fromkeys(range(1, MOST_JOBS + 51), ("queued", None))
        state = self.looks.state()
        self.assertEqual((len(state.open_jobs), state.left_out), (MOST_JOBS, 50))
        self.assertLessEqual(self.daemon.asked.count("QueryJobWait"), 20)

    def test_job(self) -> None:
        """A job has its log; it is None once gone. One that ends meanwhile is no fault."""
        found = self.looks.job(1)
        assert found is not None
        self.assertEqual([line.split()[-1] for line in found.log], ["first", "second"])
        self.assertEqual(found.job.said, "OpExecError: no")
        self.assertIsNone(self.looks.job(77))
        self.daemon.jobs[5] = ("waiting", None)
        found = self.looks.job(5)
        assert found is not None
        self.assertEqual(found.job.said, "")
