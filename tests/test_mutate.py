"""The runner of mutations, on a project of two files: what is killed, survives, hangs, is stale."""

from __future__ import annotations

import io
import os
import select
import signal
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tools.mutate import (
    LISTS,
    ROOT,
    Mutation,
    Stale,
    Verdict,
    attempt,
    chosen,
    load,
    main,
    run_tests,
)

COUNTER = '''\
"""Counts."""


def count(limit):
    """Counts up to a limit."""
    found = 0
    while found < limit:
        found += 1
    return found


def unused():
    """Is not tested."""
    return 1
'''

TESTS = '''\
"""Tests of counting."""

from unittest import TestCase

from project.counter import count


class CountTests(TestCase):
    """Counting."""

    def test_count(self):
        """Ends at the limit."""
        self.assertEqual(count(3), 3)
'''

CHECKS = "checks.test_counter"

KILLED = ("killed", "found < limit", "found <= limit")
SURVIVOR = ("survivor", "    return 1\n", "    return 2\n")
HANG = ("hang", "        found += 1\n", "        pass\n")


def entry(name: str, old: str, new: str, tests: str = CHECKS) -> str:
    """Returns an entry of the list."""
    return (
        f'[[mutation]]\nname = "{name}"\nwhy = "Counts wrongly."\nfile = "project/counter.py"\n'
        f"old = '''\n{old}'''\nnew = '''\n{new}'''\ntests = [\"{tests}\"]\n"
    )


def mutation(name: str, old: str, new: str) -> Mutation:
    """Returns a mutation of the project."""
    return Mutation(name, "project/counter.py", old, new, "Counts wrongly.", [CHECKS])


class ProjectCase(SynchronousTestCase):
    """Base of tests that need the project."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp()).resolve()
        for name, text in {
            "project/__init__.py": "",
            "project/counter.py": COUNTER,
            "checks/__init__.py": "",
            "checks/test_counter.py": TESTS,
        }.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")

    def list_of(self, *entries: str) -> None:
        """Makes the list of mutations."""
        folder = self.root / LISTS
        folder.mkdir(parents=True)
        (folder / "all.toml").write_text("\n".join(entries), encoding="utf-8")

    def command(self, *arguments: str) -> tuple[int, str]:
        """Runs the command; returns its exit code and what it printed."""
        output = io.StringIO()
        with redirect_stdout(output):
            code = main(arguments, self.root)
        return code, output.getvalue()

    def unchanged(self) -> None:
        """Asserts that the project's code is as it was."""
        self.assertEqual((self.root / "project/counter.py").read_text(encoding="utf-8"), COUNTER)


class AttemptTests(ProjectCase):
    """One mutation."""

    def test_killed(self) -> None:
        """A test that fails has noticed; the code is as before after."""
        self.assertIs(attempt(self.root, mutation(*KILLED)), Verdict.KILLED)
        self.unchanged()

    def test_survivor_after_a_killed_one(self) -> None:
        """What nobody tests survives, also right after a mutation of the same file."""
        attempt(self.root, mutation(*KILLED))
        self.assertIs(attempt(self.root, mutation(*SURVIVOR)), Verdict.SURVIVED)
        self.unchanged()

    def test_hang(self) -> None:
        """Tests that hang are ended, and have noticed."""
        self.assertIs(attempt(self.root, mutation(*HANG), limit=3.0), Verdict.HUNG)
        self.unchanged()

    def test_unchanged_code_passes(self) -> None:
        """Without a mutation the tests pass; tests that fail say why."""
        self.assertIs(run_tests(self.root, [CHECKS], 60.0)[0], True)
        passed, output = run_tests(self.root, ["checks.nosuch"], 60.0)
        self.assertIs(passed, False)
        self.assertIn("nosuch", output)


class CommandTests(ProjectCase):
    """The command."""

    def test_survivor(self) -> None:
        """A survivor is shown with its reason and its diff, and fails the run."""
        self.list_of(entry(*KILLED), entry(*SURVIVOR))
        code, output = self.command()
        self.assertEqual(code, 1)
        self.assertRegex(output, r"(?m)^killed .* killed$")
        self.assertRegex(output, r"(?m)^SURVIVED .* survivor$")
        self.assertIn("survivor: Counts wrongly.\nNot noticed by: checks.test_counter\n", output)
        self.assertIn("-    return 1\n+    return 2\n", output)
        self.assertIn("2 mutations, 1 survived", output)
        self.unchanged()

    def test_chosen(self) -> None:
        """Words choose by name and by file; a run without survivors succeeds."""
        self.list_of(entry(*KILLED), entry(*SURVIVOR))
        code, output = self.command("kill")
        self.assertEqual((code, output.splitlines()[-1]), (0, "1 mutations, 0 survived"))
        self.assertEqual(len(chosen(load(self.root), ["counter.py"])), 2)
        code, output = self.command("nosuch")
        self.assertEqual(code, 1)
        self.assertIn("no mutation has one of these", output)

    def test_stale(self) -> None:
        """An entry whose old text isn't found exactly once fails the run, with its name."""
        self.list_of(
            entry(*KILLED),
            entry("gone", "no such text", "x"),
            entry("twice", "found", "lost"),
            entry("idle", "return 1", "return 1"),
            entry("broken", "return found", "return ("),
            entry("untested", "return 1", "return 2", tests="checks.test_nothing"),
            entry("no-class", "return 1", "return 2", tests=f"{CHECKS}.NoTests"),
            entry("no-test", "return 1", "return 2", tests=f"{CHECKS}.CountTests.test_none"),
        )
        code, output = self.command()
        self.assertEqual(code, 1)
        for fault in (
            "gone: the old text is found 0 times in project/counter.py, not once",
            "twice: the old text is found 4 times in project/counter.py, not once",
            "idle: the new text is the old one",
            "broken: project/counter.py is no Python after it",
            "untested: there are no tests checks.test_nothing",
            f"no-class: there are no tests {CHECKS}.NoTests",
            f"no-test: there are no tests {CHECKS}.CountTests.test_none",
        ):
            self.assertIn(fault, output)
        self.assertNotIn("survived", output)

    def test_one_test(self) -> None:
        """An entry may name a class, or one test of it."""
        first, *rest = KILLED
        names = ("CountTests", "CountTests.test_count")
        self.list_of(*(entry(f"{first}-{name}", *rest, tests=f"{CHECKS}.{name}") for name in names))
        code, output = self.command()
        self.assertEqual((code, output.splitlines()[-1]), (0, "2 mutations, 0 survived"))

    def test_file_that_moved(self) -> None:
        """An entry whose file is gone fails the run."""
        self.list_of(entry(*KILLED))
        (self.root / "project/counter.py").rename(self.root / "project/counting.py")
        code, output = self.command()
        self.assertEqual(code, 1)
        self.assertIn("killed: there is no file project/counter.py", output)

    def test_same_name_twice(self) -> None:
        """Names are unique, as people choose by them."""
        self.list_of(entry(*KILLED), entry(*KILLED))
        self.assertIn("the name is used twice", self.command()[1])

    def test_tests_that_fail_anyway(self) -> None:
        """Tests that don't pass on unchanged code can't notice anything: the run fails."""
        self.list_of(entry(*SURVIVOR))
        path = self.root / "checks/test_counter.py"
        path.write_text(TESTS.replace("count(3), 3", "count(3), 4"), encoding="utf-8")
        code, output = self.command()
        self.assertEqual(code, 1)
        self.assertIn("the tests don't pass on unchanged code", output)
        self.assertNotIn("survived", output)


#: Runs the command with copies in a folder of the test's.
RUN = """
import sys
from pathlib import Path
from tools import mutate
mutate.COPIES = Path(sys.argv[1])
sys.exit(mutate.main([], Path(sys.argv[2])))
"""

#: A test that hangs when the mutation is there, in a process and in its child.
HANGING = """
import subprocess
import sys
from unittest import TestCase

from project.counter import unused


class HangTests(TestCase):
    def test_hang(self):
        if unused() == 2:
            with open({pipe!r}, "w") as pipe:
                code = "print('hangs', end='', flush=True); import signal; signal.pause()"
                subprocess.run([sys.executable, "-c", code], stdout=pipe)
"""


class SignalTests(ProjectCase):
    """A run that is interrupted."""

    def test_leaves_nothing(self) -> None:
        """Copies and tests, with the processes that these began, are gone; it isn't a verdict."""
        pipe = f"{self.root}.pipe"
        os.mkfifo(pipe)
        (self.root / "checks/test_counter.py").write_text(HANGING.format(pipe=pipe))
        self.list_of(entry(*SURVIVOR))
        copies = self.root.with_name("copies")
        copies.mkdir()
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            hanging = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
            self.addCleanup(os.close, hanging)
            command = subprocess.Popen(
                [sys.executable, "-c", RUN, str(copies), str(self.root)],
                cwd=ROOT,
                stdout=subprocess.PIPE,
            )
            self.addCleanup(command.communicate)
            self.addCleanup(command.kill)
            self.assertEqual(self.read(hanging), b"hangs")
            self.assertEqual(len(list(copies.iterdir())), 1)
            command.send_signal(each)
            # The end of the pipe comes once everybody who has it open is gone.
            self.assertEqual(self.read(hanging), b"")
            self.assertEqual(command.communicate(timeout=60)[0], b"")
            self.assertEqual(command.returncode, 128 + each)
            self.assertEqual(list(copies.iterdir()), [])
            self.unchanged()

    def read(self, pipe: int) -> bytes:
        """Returns what comes next in a pipe, nothing for its end."""
        poll = select.poll()
        poll.register(pipe, select.POLLIN)
        self.assertTrue(poll.poll(60_000))
        return os.read(pipe, 100)


class ListTests(SynchronousTestCase):
    """The list of this project."""

    def test_fits(self) -> None:
        """Every entry fits the code: whoever moves code sees at once which to mend."""
        try:
            found = load(ROOT)
        except Stale as fault:
            self.fail(f"tests/mutations has to be mended:\n{fault}")
        self.assertGreater(len(found), 50)
