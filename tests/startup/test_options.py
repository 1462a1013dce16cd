"""The command line: which options are accepted, and how others are refused."""

from __future__ import annotations

import io
import sys
from typing import Any

from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd import __version__
from ganeti_masterd.options import Options
from ganeti_masterd.startup.checks import StartRefused
from ganeti_masterd.startup.preflight import confirm


class OptionsTests(SynchronousTestCase):
    """Options after ``twistd gnt-masterd``."""

    def parsed(self, *args: str) -> Options:
        """Returns the options of a command line."""
        options = Options()
        options.parseOptions(args)
        return options

    def refused(self, *args: str) -> str:
        """Returns the message for a command line that ends the process with exit code 1."""
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
        self.assertIsNone(options["monitoring-hosts"])
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
        given = self.parsed(
            "--monitoring=tcp:1", "--monitoring-hosts=Proxy.example, ganeti.example."
        )
        self.assertEqual(given["monitoring-hosts"], ("proxy.example", "ganeti.example"))
        self.assertTrue(options["debug"])

    def test_simulate(self) -> None:
        """Simulated nodes are a number or the path of a file."""
        self.assertEqual(self.parsed("--simulate=3")["simulate"], 3)
        self.assertEqual(self.parsed("--simulate=a.toml")["simulate"], "a.toml")
        self.assertEqual(self.parsed("--simulate=/3")["simulate"], "/3")
        for wrong in ("0", "-1", ""):
            said = self.refused(f"--simulate={wrong}")
            self.assertIn("must be a whole number, 1 or more", said)

    def test_monitoring(self) -> None:
        """Options about the pages are refused where there are none."""
        for name in ("hosts", "certificate", "client-ca", "users"):
            option = f"--monitoring-{name}"
            self.assertIn(f"{option} needs --monitoring\n", self.refused(f"{option}=some"))
            self.assertIn("some", self.parsed("--monitoring=tcp:1", f"{option}=some")[option[2:]])

    def test_only_wconfd(self) -> None:
        """It is for real nodes, and a node that isn't the master needs two more options."""
        options = self.parsed("--only-wconfd", "--force-node", "--no-voting", "--yes-do-it")
        self.assertTrue(options["only-wconfd"] and options["force-node"])
        self.assertFalse(self.parsed()["only-wconfd"])
        for other in (["--simulate=3"], ["--check-only"]):
            self.assertIn("can't be combined with --", self.refused("--only-wconfd", *other))
        for given in (["--only-wconfd"], ["--no-voting"], []):
            self.assertIn("--force-node needs", self.refused("--force-node", *given))

    def test_positional(self) -> None:
        """Positional arguments are refused: usage on standard error, exit code 1."""
        said = self.refused("foo", "bar")
        self.assertIn("takes no arguments, but got: foo bar", said)
        self.assertIn("--require-master-ip", said)

    def test_wrong_values(self) -> None:
        """Values that make no sense are refused in the same way."""
        for args in (
            ("--stop-timeout=-1",),
            ("--stop-timeout=nan",),
            ("--stop-timeout=inf",),
            ("--stop-timeout=soon",),
            ("--socket-mode=888",),
            ("--socket-mode=1777",),
            ("--socket-mode=0o1660",),
            ("--socket-mode=6_60",),
            ("--socket-mode=66",),
            ("--socket-mode=",),
            ("--max-connections=1_000",),
            ("--max-message-size=1e6",),
            ("--simulate=0",),
            ("--simulate",),
            ("--syslog=maybe",),
            ("--ack=perhaps",),
            ("--simulate-log=never",),
            ("--monitoring-hosts=",),
            ("--monitoring=tcp:1", "--monitoring-nodes=9"),
            ("--monitoring=tcp:1", "--monitoring-nodes=often"),
            ("--monitoring-nodes=60",),
            ("--monitoring-hosts=a b",),
            ("--monitoring-hosts=a.example,,b.example",),
            ("--monitoring-hosts=a.example:80",),
            ("--monitoring-hosts=http://a.example",),
            ("--max-connections=0",),
            ("--no-such-option",),
        ):
            said = self.refused(*args).splitlines()[-1]
            self.assertIn("gnt-masterd: ", said, args)
            self.assertIn(args[0].partition("=")[0].lstrip("-"), said)

    def test_shown_defaults(self) -> None:
        """Passing the default that the help shows has no effect, for every option."""
        silent = self.parsed()
        shown = str(silent)
        for name, _, default, *_ in Options.optParameters:
            if default is None:
                self.assertIsNone(silent[name], name)
                continue
            self.assertIsInstance(default, str, name)
            self.assertIn(f"[default: {default}]", " ".join(shown.split()), name)
            self.assertEqual(self.parsed(f"--{name}", default)[name], silent[name], name)

    def test_socket_modes(self) -> None:
        """Modes are octal; one that admits everyone or excludes the daemon is refused."""
        for option in ("--socket-mode", "--monitor-socket-mode"):
            for text, mode in (("660", 0o660), ("0600", 0o600), ("0o770", 0o770)):
                self.assertEqual(self.parsed(option, text)[option.lstrip("-")], mode)
            for text, reason in (
                ("432", "would keep out"),
                ("666", "would let every user"),
                ("0777", "would let every user"),
                ("060", "would keep out"),
                ("rw-rw----", "must be an octal file mode"),
            ):
                said = self.refused(option, text).splitlines()[-1]
                self.assertIn(f"gnt-masterd: {option} {text}: {reason}", said)

    def test_version(self) -> None:
        """The version is the daemon's, not Twisted's."""
        said = io.StringIO()
        self.patch(sys, "stdout", said)
        ended = self.assertRaises(SystemExit, self.parsed, "--version")
        self.assertEqual((ended.code, said.getvalue()), (0, f"gnt-masterd {__version__}\n"))

    def test_twistd_pid_file(self) -> None:
        """No PID file is written by twistd unless asked for, as the daemon locks its own."""
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
        confirm(io.StringIO("YES\n"), terminal)
        self.assertIn("Type YES", terminal.getvalue())
        for answer in ("yes\n", "Yes\n", "Y\n", "\n", "", "YES!\n", "NO\nYES\n"):
            refused = self.assertRaises(StartRefused, confirm, io.StringIO(answer), terminal)
            self.assertEqual(refused.code, 1)
