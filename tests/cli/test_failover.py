"""``gnt-luxi master-failover``: the command around the fail-over."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from typing import Any

from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.cli import failover
from ganeti_masterd.cli.main import program
from ganeti_masterd.failover.errand import FailOverOutcome, FailOverReport, FailOverWishes
from ganeti_masterd.startup import simulated_root
from ganeti_masterd.startup.paths import Paths

REPORT = FailOverReport(
    old="node1",
    own="node2",
    config_of="node3",
    config_serial=1011,
    serial=204,
    jobs=[4, 5],
    journals=["/j.dropped"],
    running=True,
)


class CommandTests(SynchronousTestCase):
    """Prompts, output and exit codes."""

    def setUp(self) -> None:
        self.root = tempfile.mkdtemp(prefix="gnt-")
        self.addCleanup(shutil.rmtree, self.root)
        self.wishes: list[FailOverWishes] = []
        self.outcome = FailOverOutcome(REPORT)
        self.patch(failover, "_carry_out", self._carry_out)
        self.patch(os, "geteuid", lambda: 0)

    def _carry_out(self, _: Any, paths: Paths, wishes: FailOverWishes) -> FailOverOutcome:
        self.assertEqual(paths.root, self.root)
        self.wishes.append(wishes)
        return self.outcome

    def run_it(self, *args: str, place: str | None = None, answer: str = "") -> Result:
        where = place or f"--root={self.root}"
        return CliRunner().invoke(program, [where, "master-failover", *args], input=answer)

    def test_done(self) -> None:
        """A fail-over prints what was taken from where, what is kept, and warnings."""
        self.outcome = FailOverOutcome(REPORT, None, ["node1 does not answer"])
        result = self.run_it()
        self.assertEqual(
            (result.exit_code, result.output),
            (
                0,
                "Warning: node1 does not answer\n"
                "node2 is the master now, node1 was\n"
                "Configuration: node3's; its serial number is 1011 now\n"
                "Jobs: numbers up to 204 may have been given; from other candidates: 4, 5\n"
                "A journal from when node2 was the master before is kept as /j.dropped\n",
            ),
        )
        self.assertEqual(self.wishes, [FailOverWishes()])

    def test_json(self) -> None:
        """With --json the output is one document."""
        document = json.loads(self.run_it("--json").output)
        self.assertEqual(
            document,
            {
                "old": "node1",
                "new": "node2",
                "configuration_of": "node3",
                "configuration_serial": 1011,
                "job_serial": 204,
                "jobs_taken": [4, 5],
                "journals": ["/j.dropped"],
                "running": True,
                "warnings": [],
            },
        )

    def test_refused(self) -> None:
        """A refusal has exit code 1, and its reason is printed after the warnings."""
        self.outcome = FailOverOutcome(None, "node2 is no master candidate", ["something"])
        result = self.run_it()
        self.assertEqual(
            (result.exit_code, result.output),
            (1, "Warning: something\ngnt-luxi: node2 is no master candidate\n"),
        )

    def test_does_not_run(self) -> None:
        """It is a failure if the daemon isn't running afterwards, except with --no-start."""
        self.outcome = FailOverOutcome(FailOverReport(*_fields(REPORT)[:-1], running=False))  # type: ignore[misc]
        result = self.run_it()
        self.assertEqual(result.exit_code, 1)
        self.assertIn("node2 is the master now, but its daemon isn't running", result.output)
        self.assertEqual(self.run_it("--no-start").exit_code, 0)
        self.assertFalse(self.wishes[-1].start)

    def test_no_voting_asks(self) -> None:
        """With --no-voting an uppercase YES is required; on any other answer nothing is done."""
        for answer in ("", "yes\n", "no\n"):
            result = self.run_it("--no-voting", answer=answer)
            self.assertEqual(result.exit_code, 1)
            self.assertIn("Aborted: nothing was done", result.output)
        self.assertEqual(self.wishes, [])
        self.assertEqual(self.run_it("--no-voting", answer="YES\n").exit_code, 0)
        self.assertEqual(self.run_it("--no-voting", "--yes-do-it", "--keep-own").exit_code, 0)
        self.assertEqual(
            self.wishes, [FailOverWishes(vote=False), FailOverWishes(vote=False, keep_own=True)]
        )

    def test_simulation(self) -> None:
        """Simulated nodes are refused, because they share a root."""
        simulated_root.prepare(Paths(self.root), 3)
        os.makedirs(f"{self.root}/simulation", exist_ok=True)
        result = self.run_it()
        self.assertEqual(result.exit_code, 1)
        self.assertIn("is a simulation: its nodes share this one root", result.output)

    def test_place_and_user(self) -> None:
        """The command needs a root rather than a socket, and the user root."""
        result = self.run_it(place="--socket=/nowhere")
        self.assertEqual(result.exit_code, 1)
        self.assertIn("give the node's --root", result.output)
        self.patch(os, "geteuid", lambda: 1000)
        result = self.run_it()
        self.assertEqual((result.exit_code, self.wishes), (1, []))
        self.assertIn("Only root", result.output)


class ChildTests(SynchronousTestCase):
    """The command with its real implementation."""

    def test_in_a_child(self) -> None:
        """A refusal is passed on from the child process; nothing else is printed."""
        root = tempfile.mkdtemp(prefix="gnt-")
        self.addCleanup(shutil.rmtree, root)
        simulated_root.prepare(Paths(root), 3)
        shutil.rmtree(f"{root}/simulation", ignore_errors=True)
        command = (
            "import os; os.geteuid = lambda: 0\nfrom ganeti_masterd.cli.main import main; main()"
        )
        done = subprocess.run(
            [sys.executable, "-c", command, "--root", root, "master-failover"],
            env={**os.environ, "GANETI_HOSTNAME": "node1"},
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual((done.returncode, done.stdout), (1, ""), done.stderr)
        self.assertTrue(done.stderr.startswith("gnt-luxi: node1 is the master already"))
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)


def _fields(report: FailOverReport) -> list[Any]:
    return [getattr(report, name) for name in report.__struct_fields__]
