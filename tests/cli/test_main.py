"""The whole program: its options, and its exit codes on errors."""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import sys
from importlib.metadata import version
from typing import Any

import click
from click.shell_completion import ShellComplete

from ganeti_masterd.cli import command, session
from ganeti_masterd.cli.main import program
from tests.cli.doubles import FAILED_ROW, OK_ROW, CommandCase, FolderCase, job_answers

GNT_LUXI = [sys.executable, "-c", "from ganeti_masterd.cli.main import main; main()"]


class OptionTests(FolderCase):
    """Global options, and no daemon."""

    def test_help(self) -> None:
        """The help of every command needs no daemon, and explains each option."""
        result = self.invoke("--help")
        self.assertEqual(result.exit_code, 0)
        for name, each in program.commands.items():
            self.assertIn(f"  {name} ", result.output)
            self.assertNotIn("...\n", each.get_short_help_str(66) + "\n")
            self.assertIn("--json", self.invoke(name, "-h").output)
            for parameter in each.params:
                if isinstance(parameter, click.Option):
                    self.assertTrue(parameter.help, parameter)

    def test_shown_defaults(self) -> None:
        """Giving the default that the help shows is the same as not giving the option."""
        walked = 0
        for each in (program, *program.commands.values()):
            context = click.Context(each)
            for parameter in each.params:
                if not isinstance(parameter, click.Option) or not parameter.show_default:
                    continue
                walked += 1
                default = parameter.get_default(context)
                self.assertIsInstance(default, str, parameter.name)
                self.assertIn(f"[default: {default}", " ".join(each.get_help(context).split()))
                parameter.type_cast_value(context, default)
        self.assertTrue(walked)

    def test_version(self) -> None:
        """--version prints only the version."""
        self.assertEqual(self.invoke("--version").output, f"gnt-luxi {version('ganeti-masterd')}\n")

    def test_no_daemon(self) -> None:
        """Without a daemon, a message has path, reason and what to start; the exit code is 1."""
        result = self.invoke("--root", self.folder, "info")
        self.assertEqual((result.exit_code, result.stdout), (1, ""))
        self.assertRegex(
            result.stderr,
            f"^gnt-luxi: No master daemon at {self.folder}/var/run/ganeti/socket/ganeti-query: "
            f"there is no such socket. Start one there: twistd .* --root {self.folder} ",
        )

    def test_environment(self) -> None:
        """Without options GANETI_ROOTDIR is used."""
        os.environ["GANETI_ROOTDIR"] = self.folder
        self.assertIn(f"at {self.folder}/var/run", self.invoke("jobs").stderr)

    def test_dead_socket(self) -> None:
        """A socket on which nothing listens has a different message than a missing one."""
        path = self.path("socket")
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(path)
        result = self.invoke("--socket", path, "jobs")
        self.assertIn("nothing listens on it", result.stderr)
        self.assertEqual(result.exit_code, 1)

    def test_too_long(self) -> None:
        """A root whose path is too long for a socket is an error without the error's class."""
        result = self.invoke("--root", "/long" * 30, "jobs")
        self.assertRegex(result.stderr, "^gnt-luxi: The root /long.* is too long")
        result = self.invoke("--socket", "/long" * 30, "jobs")
        self.assertRegex(result.stderr, "^gnt-luxi: The socket /long.* can't be used: ")

    def test_wrong_use(self) -> None:
        """Usage errors have exit code 2."""
        for args in (
            ["--root", "a", "--socket", "b", "jobs"],
            ["--timeout", "0", "jobs"],
            ["--timeout", "x", "jobs"],
            ["nothing"],
        ):
            self.assertEqual(self.invoke(*args).exit_code, 2, args)

    def test_timeout(self) -> None:
        """A daemon that doesn't answer in time is an error."""
        path = self.path("socket")
        with socket.socket(socket.AF_UNIX) as silent:
            silent.bind(path)
            silent.listen()
            result = self.invoke("--socket", path, "--timeout", "0.05", "jobs")
        self.assertEqual(result.exit_code, 1)
        self.assertIn("gnt-luxi: QueryJobs: no answer within 0.05 seconds", result.stderr)

    def test_interrupt(self) -> None:
        """Ctrl-C ends the command with code 130, silently."""

        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        self.patch(session.Session, "client", property(interrupted))
        result = self.invoke("info")
        self.assertEqual((result.exit_code, result.output), (130, ""))


class CompletionTests(CommandCase):
    """Completions for shells."""

    def complete(self, *args: str, incomplete: str = "") -> list[str]:
        completion = ShellComplete(program, {}, "gnt-luxi", "_GNT_LUXI_COMPLETE")
        return [item.value for item in completion.get_completions(list(args), incomplete)]

    def test_words(self) -> None:
        """Commands, options and special words of arguments are completed."""
        self.assertEqual(self.complete(incomplete="pa"), ["pause-watcher"])
        self.assertIn("--status", self.complete("jobs", incomplete="--"))
        self.assertIn("error", self.complete("jobs", "--status"))
        self.assertEqual(self.complete("priority", incomplete="l"), ["low"])
        self.assertEqual(self.complete("drain", incomplete="of"), ["off"])
        self.assertEqual(self.complete("pause-watcher"), ["off", "status"])
        self.assertEqual(self.complete("archive", "--age"), ["all"])

    def test_job_ids(self) -> None:
        """Ids of jobs in the queue are completed, the latest first."""
        self.daemon.answers["QueryJobs"] = job_answers(OK_ROW, FAILED_ROW, {**OK_ROW, "id": 70})
        self.assertEqual(self.complete("--socket", self.socket, "watch"), ["70", "8", "7"])
        found = self.complete("--socket", self.socket, "watch", "8", incomplete="7")
        self.assertEqual(found, ["70", "7"])

    def test_no_daemon(self) -> None:
        """Without a daemon or a valid answer, nothing is completed and nothing printed."""
        self.assertEqual(self.complete("--socket", self.path("none"), "watch"), [])
        self.assertEqual(self.complete("--root", "/long" * 40, "watch"), [])
        self.daemon.answers["QueryJobs"] = 5
        self.assertEqual(self.complete("--socket", self.socket, "watch"), [])

    def test_limit(self) -> None:
        """The number of completions is limited."""
        rows = [{**OK_ROW, "id": number} for number in range(1, 200)]
        self.daemon.answers["QueryJobs"] = job_answers(*rows)
        found = self.complete("--socket", self.socket, "cancel")
        self.assertEqual(len(found), command.COMPLETIONS)


class ProcessTests(CommandCase):
    """The program as a process."""

    def start(self, *args: str, **options: Any) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [*GNT_LUXI, "--socket", self.socket, *args],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            **options,
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        assert process.stderr is not None
        self.addCleanup(process.stderr.close)
        return process

    def test_broken_pipe(self) -> None:
        """A closed pipe ends the program silently."""
        rows = [{**OK_ROW, "id": number} for number in range(1, 5000)]
        self.daemon.answers["QueryJobs"] = job_answers(*rows)
        reading, writing = os.pipe()
        process = self.start("jobs", stdout=writing)
        os.close(writing)
        os.close(reading)
        _, errors = process.communicate(timeout=20)
        self.assertEqual((process.returncode, errors), (141, b""))

    def test_interrupted(self) -> None:
        """Ctrl-C while it waits ends it with code 130, silently."""
        running = {**OK_ROW, "status": "running", "opstatus": ["running"], "end_ts": None}
        self.daemon.answers["QueryJobs"] = job_answers(running)

        def interrupt(*_: object) -> object:
            process.send_signal(signal.SIGINT)
            process.wait(20)
            return None

        self.daemon.answers["WaitForJobChange"] = interrupt
        process = self.start("watch", "7", stdout=subprocess.DEVNULL)
        _, errors = process.communicate(timeout=20)
        self.assertEqual((process.returncode, errors), (130, b""))

    def test_narrow_letters(self) -> None:
        """Characters that the output can't encode are escaped, not an error."""
        self.daemon.answers["Echo"] = "é→"
        process = self.start(
            "call",
            "Echo",
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONIOENCODING": "latin-1"},
        )
        output, errors = process.communicate(timeout=20)
        assert process.stdout is not None
        self.assertEqual((output, errors), (b'"\xe9\\u2192"\n', b""))

    def test_terminal(self) -> None:
        """On a real terminal a table is printed in colours."""
        self.daemon.answers["QueryJobs"] = job_answers(OK_ROW, FAILED_ROW)
        ours, its = pty.openpty()
        self.addCleanup(os.close, ours)
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
        environment.pop("NO_COLOR", None)
        process = self.start("jobs", stdout=its, env=environment)
        self.assertEqual(process.wait(20), 0)
        os.close(its)
        shown = os.read(ours, 65536).decode()
        self.assertIn("Opcodes", shown)
        self.assertIn("\x1b[32msuccess", shown)

    def test_quick(self) -> None:
        """A plain command loads neither Twisted nor rich."""
        self.daemon.answers["QueryConfigValues"] = [False]
        code = (
            "import sys; from ganeti_masterd.cli.main import program\n"
            f"program(['--socket', {self.socket!r}, 'drain'], standalone_mode=False)\n"
            "print([name for name in sys.modules if name in ('rich', 'twisted.internet')])"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        self.assertEqual(done.stdout, "The queue is open\n[]\n")
