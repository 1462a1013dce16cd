"""``gnt-luxi switch``: the command around the steps."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.cli import switch
from ganeti_masterd.switching import checks
from ganeti_masterd.switching.plan import TO, planned
from ganeti_masterd.switching.steps import SwitchFault
from tests.cli.doubles import FolderCase
from tests.switching.test_plan import SWITCHED, UNDER_LUXID, Memory
from tests.test_packaging import PROJECT


class Told(Memory):
    """A node in memory that also tells its standing."""

    def standing(self) -> Any:
        return self.now


class SwitchTests(FolderCase):
    """Output and exit codes; the node is in memory."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(os, "geteuid", lambda: 0)
        self.node = Told(UNDER_LUXID)
        self.found: list[str] = []
        self.patch(switch, "make_node", lambda *_: self.node)
        self.patch(checks, "faults", lambda *_: self.found)

    def run_it(self, *words: str, code: int = 0) -> Any:
        done = self.invoke("--root", self.folder, "switch", *words)
        self.assertEqual(done.exit_code, code, done.output)
        return done

    def test_there_and_back(self) -> None:
        """Each step is said, and at the end which daemon serves."""
        done = self.run_it("to")
        self.assertTrue(done.stdout.startswith("gnt-masterd serves this cluster now\n"))
        self.assertEqual(done.stderr.splitlines(), [step.does for step in planned(TO, UNDER_LUXID)])
        self.assertIn("nothing to do", self.run_it("to").stdout)
        document = json.loads(self.run_it("back", "--json").stdout)
        self.assertEqual((document["direction"], document["failed"]), ("back", None))
        self.assertEqual(document["done"][0], "drain")

    def test_plan(self) -> None:
        """--dry-run says the steps and their undos, and does none."""
        lines = self.run_it("to", "--dry-run").stdout.splitlines()
        self.assertEqual(lines[1], " 1. Close the job queue (undo: Open the job queue)")
        self.assertEqual(len(lines), 1 + len(planned(TO, UNDER_LUXID)))
        self.node.now = SWITCHED
        self.assertIn("There is nothing to do", self.run_it("to", "--dry-run").stdout)
        self.assertEqual(self.node.effects, 0)

    def test_checks(self) -> None:
        """All that the checks find is said, and nothing is done."""
        self.found = ["first", "second"]
        done = self.run_it("to", code=1)
        self.assertEqual(done.stderr, "gnt-luxi: Nothing was changed:\n  first\n  second\n")
        self.assertEqual(self.node.effects, 0)

    def test_failure(self) -> None:
        """The step and its reason, and that all was undone; as JSON too."""
        self.node = Told(UNDER_LUXID, 3)
        done = self.run_it("to", "--json", code=1)
        self.assertTrue(
            done.stderr.endswith(
                "gnt-luxi: processes: broken\nAll was undone: it is as it was before\n"
            )
        )
        document = json.loads(done.stdout)
        self.assertEqual((document["failed"], document["fault"]), ("processes", "broken"))
        self.assertEqual(document["undone"], ["stop-luxid", "drain"])

    def test_undo_that_fails(self) -> None:
        """What is left is the last that is said."""

        def fail(name: str) -> None:
            raise SwitchFault("no vote")

        self.node = Told(UNDER_LUXID, 3)
        self.patch(self.node, "start_peer", fail)
        done = self.run_it("to", code=1)
        self.assertIn("Not all could be undone, see to these steps:\n  stop-luxid: ", done.stderr)

    def test_interrupted(self) -> None:
        """A signal lets the step end, undoes all, and is what the exit code says."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self.node = Told(UNDER_LUXID)
            self.patch(
                self.node, "wait_for_jobs", lambda number=number: os.kill(os.getpid(), number)
            )
            done = self.run_it("to", code=130)
            self.assertIn(f"{number.name}: all steps are undone", done.stderr)
            self.assertEqual(self.node.now, UNDER_LUXID)
        self.assertEqual(signal.getsignal(signal.SIGHUP), signal.SIG_DFL)

    def test_who_and_where(self) -> None:
        """Not for other users, sockets, or simulations."""
        done = self.invoke("--socket", self.path("s"), "switch", "to")
        self.assertIn("give its --root", done.stderr)
        os.makedirs(self.path("node1", "simulation"))
        done = self.invoke("--root", self.path("node1"), "switch", "to")
        self.assertIn("is a simulation", done.stderr)
        self.patch(os, "geteuid", lambda: 1000)
        self.assertIn("Only root can switch a node", self.run_it("back", code=1).stderr)


class PlaceTests(SynchronousTestCase):
    """Where the command finds what it puts in place."""

    def test_share(self) -> None:
        """The hook and the unit are there, in a checkout as well."""
        names = os.listdir(switch.own_share())
        self.assertLessEqual({"daemon-util.sh", "gnt-masterd.service"}, set(names))
        self.assertIn("deploy", os.listdir(PROJECT))
