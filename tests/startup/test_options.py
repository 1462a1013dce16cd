"""The command line: what is taken, what is refused and how."""

from __future__ import annotations

import io
import sys
from typing import Any

from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.startup.checks import Refused
from ganeti_masterd.tap import Options, _confirm


class OptionsTests(SynchronousTestCase):
    """``twistd gnt-masterd`` and what comes after it."""

    def parsed(self, *args: str) -> Options:
        """Returns the options of a command line."""
        options = Options()
        options.parseOptions(args)
        return options

    def refused(self, *args: str) -> str:
        """Returns what is said of a command line that ends the process with 1."""
        said = io.StringIO()
        self.patch(sys, "stderr", said)
        ended = self.assertRaises(SystemExit, self.parsed, *args)
        self.assertEqual(ended.code, 1)
        return said.getvalue()

    def test_defaults(self) -> None:
        """Nothing is on by default."""
        options = self.parsed()
        for flag in ("debug", "no-voting", "yes-do-it", "require-master-ip", "json-log"):
            self.assertFalse(options[flag])
        for name in ("user", "group", "stop-timeout", "monitoring", "simulate", "root"):
            self.assertIsNone(options[name])
        self.assertEqual((options["syslog"], options["socket-mode"]), ("no", 0o660))

    def test_values(self) -> None:
        """Values have their types."""
        options = self.parsed(
            *("--stop-timeout=2.5", "--socket-mode", "770", "--syslog=only", "--simulate=5", "-d")
        )
        self.assertEqual(options["stop-timeout"], 2.5)
        self.assertEqual(options["socket-mode"], 0o770)
        self.assertEqual(options["syslog"], "only")
        self.assertEqual(options["simulate"], 5)
        self.assertTrue(options["debug"])

    def test_simulate(self) -> None:
        """Simulated nodes are a number or the path of a file."""
        self.assertEqual(self.parsed("--simulate=3")["simulate"], 3)
        self.assertEqual(self.parsed("--simulate=a.toml")["simulate"], "a.toml")
        self.assertEqual(self.parsed("--simulate=/3")["simulate"], "/3")
        for wrong in ("0", "-1", ""):
            said = self.refused(f"--simulate={wrong}")
            self.assertIn("Parameter type enforcement failed", said)

    def test_positional(self) -> None:
        """Positional arguments are refused: usage on standard error, exit code 1."""
        said = self.refused("foo", "bar")
        self.assertIn("takes no arguments, but got: foo bar", said)
        self.assertIn("--require-master-ip", said)

    def test_wrong_values(self) -> None:
        """So is every value that can't be."""
        for args in (
            ("--stop-timeout=-1",),
            ("--stop-timeout=nan",),
            ("--stop-timeout=inf",),
            ("--stop-timeout=soon",),
            ("--socket-mode=888",),
            ("--socket-mode=1777",),
            ("--simulate=0",),
            ("--simulate",),
            ("--syslog=maybe",),
            ("--ack=perhaps",),
            ("--simulate-log=never",),
            ("--max-connections=0",),
            ("--no-such-option",),
        ):
            self.assertIn("gnt-masterd: ", self.refused(*args), args)

    def test_twistd_pid_file(self) -> None:
        """No PID file of twistd is written unless it was told to: ours is locked."""
        for given, kept in (("twistd.pid", ""), ("/run/x.pid", "/run/x.pid"), ("", "")):
            options = Options()
            parent: Any = usage.Options()
            parent["pidfile"] = given
            options.parent = parent
            options.parseOptions([])
            self.assertEqual(parent["pidfile"], kept)

    def test_confirm(self) -> None:
        """Only an uppercase YES starts a daemon without a vote."""
        terminal = io.StringIO()
        _confirm(io.StringIO("YES\n"), terminal)
        self.assertIn("Type YES", terminal.getvalue())
        for answer in ("yes\n", "Yes\n", "Y\n", "\n", "", "YES!\n", "NO\nYES\n"):
            refused = self.assertRaises(Refused, _confirm, io.StringIO(answer), terminal)
            self.assertEqual(refused.code, 1)
