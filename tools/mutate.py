"""Breaks a copy of the code in chosen ways, one at a time, and runs the tests that should notice.

``python -m tools.mutate [WORD ...]`` takes the mutations whose name or file contains one of the
words, all without words. It prints the survivors, and ends with 1 if there are any, or if a
mutation, or the tests that it names, no longer fit the code.

The list (``tests/mutations/*.toml``) is our own: mutmut and cosmic-ray make mutations of every line
by themselves and run one test command for all of them, which takes hours, and neither can be given
a mutation of which it is known why it matters and which tests should notice.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from types import FrameType
from typing import Any

from msgspec import Struct

ROOT = Path(__file__).resolve().parents[1]
LISTS = Path("tests", "mutations")

#: Where the copies of the code are made: on a disk, as some tests sync files.
COPIES = Path("/var/tmp")

#: Signals that end a run early; what it made is removed first.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

#: Seconds for the tests of one mutation; those that take longer hang, and so have noticed.
LIMIT = 120.0

#: Where tests make their temporary files, below their copy: what killed ones leave goes with it.
TEMPORARY = "_tmp"

#: What is not copied: nothing that tests read, and nothing compiled from unchanged code.
NOT_COPIED = shutil.ignore_patterns(
    ".*", "__pycache__", "_trial_temp*", "_build", "build", "dist", "*.egg-info"
)


class Stale(Exception):
    """The list doesn't fit the code any more, or its tests don't pass on unchanged code."""


class Interrupted(BaseException):
    """One of the signals ``ENDING`` came."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Processes:
    """The tests under way, each in a process group of its own. For use in any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._running: set[int] = set()
        self._ended = False

    @contextlib.contextmanager
    def started(self, command: Sequence[str], **how: Any) -> Iterator[subprocess.Popen[str]]:
        """Starts a process, which is killed with its children when the body is left.

        Raises ``RuntimeError`` after :meth:`end`, also where that comes during the body:
        how a process ended then says nothing.
        """
        with self._lock:
            self._check()
            process: subprocess.Popen[str] = subprocess.Popen(
                command, start_new_session=True, **how
            )
            self._running.add(process.pid)
        try:
            yield process
        finally:
            with self._lock:
                # Children too, also those that outlived their tests.
                _kill(process.pid)
                self._running.discard(process.pid)
            process.wait()
            self._check()

    def _check(self) -> None:
        if self._ended:
            raise RuntimeError("the run is over")

    def end(self) -> None:
        """Kills all that are under way; no other is started."""
        with self._lock:
            self._ended = True
            for pid in self._running:
                _kill(pid)


class Mutation(Struct, frozen=True, forbid_unknown_fields=True):
    """One way to break a file: ``old``, which is found there exactly once, becomes ``new``.

    ``why`` says what would go wrong in a cluster. ``tests`` are names as trial takes them, the
    likeliest to notice first.
    """

    name: str
    file: str
    old: str
    new: str
    why: str
    tests: list[str]

    def mutated(self, root: Path) -> str:
        """Returns the file's text after the mutation; raises :class:`Stale` if it doesn't fit."""
        path = root / self.file
        if not path.is_file():
            raise Stale(f"{self.name}: there is no file {self.file}")
        text = path.read_text(encoding="utf-8")
        found = text.count(self.old)
        if not self.old or found != 1:
            raise Stale(
                f"{self.name}: the old text is found {found} times in {self.file}, not once"
            )
        after = text.replace(self.old, self.new)
        if after == text:
            raise Stale(f"{self.name}: the new text is the old one")
        if path.suffix == ".py":
            try:
                compile(after, self.file, "exec")
            except SyntaxError as error:
                raise Stale(f"{self.name}: {self.file} is no Python after it: {error}")
        return after


class Verdict(Enum):
    """What the tests made of a mutation."""

    KILLED = "killed"
    HUNG = "killed (hung)"
    SURVIVED = "SURVIVED"


def load(root: Path) -> list[Mutation]:
    """Returns the whole list; raises :class:`Stale` naming every entry that doesn't fit."""
    found: list[Mutation] = []
    faults: list[str] = []
    for path in sorted((root / LISTS).glob("*.toml")):
        with path.open("rb") as file:
            found += [Mutation(**entry) for entry in tomllib.load(file)["mutation"]]
    names = [mutation.name for mutation in found]
    faults += [f"{name}: the name is used twice" for name in {*names} if names.count(name) > 1]
    for mutation in found:
        try:
            mutation.mutated(root)
        except Stale as fault:
            faults.append(str(fault))
        faults += [f"{mutation.name}: {fault}" for fault in _missing_tests(root, mutation)]
    if faults or not found:
        raise Stale("\n".join(sorted(faults)) or f"no mutations in {root / LISTS}")
    return found


def chosen(mutations: Sequence[Mutation], words: Sequence[str]) -> list[Mutation]:
    """Returns the mutations whose name or file contains one of the words; all without words."""
    return [
        mutation
        for mutation in mutations
        if not words or any(word in mutation.name or word in mutation.file for word in words)
    ]


@contextlib.contextmanager
def copies(root: Path, count: int) -> Iterator[list[Path]]:
    """Yields so many copies of the tree, which are removed at the end."""
    folder = tempfile.mkdtemp(prefix="mutations-", dir=COPIES)
    try:
        trees = [Path(folder, str(number)) for number in range(count)]
        for tree in trees:
            shutil.copytree(root, tree, ignore=NOT_COPIED)
            (tree / TEMPORARY).mkdir()
        yield trees
    finally:
        # A signal that comes now waits until they are gone.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        shutil.rmtree(folder)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def attempt(
    tree: Path, mutation: Mutation, limit: float = LIMIT, processes: Processes | None = None
) -> Verdict:
    """Runs a mutation's tests on a copy of the tree that has it; the copy is as before after."""
    path = tree / mutation.file
    before = path.read_text(encoding="utf-8")
    after = mutation.mutated(tree)
    try:
        _rewrite(path, after)
        for test in mutation.tests:
            passed = run_tests(tree, [test], limit, processes)[0]
            if passed is None:
                return Verdict.HUNG
            if not passed:
                return Verdict.KILLED
        return Verdict.SURVIVED
    finally:
        _rewrite(path, before)


def run_tests(
    tree: Path, tests: Sequence[str], limit: float, processes: Processes | None = None
) -> tuple[bool | None, str]:
    """Runs tests in a tree up to the first that fails; returns whether all passed, and the output.

    None for tests that took longer than ``limit`` seconds; they are killed with their children.
    """
    command = [sys.executable, "-m", "twisted.trial", "--exitfirst", "--reporter=text"]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    if (tree / TEMPORARY).is_dir():
        environment["TMPDIR"] = str(tree / TEMPORARY)
    environment.pop("GANETI_MASTERD_SOAK", None)
    passed: bool | None = None
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        with (
            (processes or Processes()).started(
                [*command, f"--temp-directory={tree / '_trial_temp'}", *tests],
                cwd=tree,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            ) as process,
            contextlib.suppress(subprocess.TimeoutExpired),
        ):
            passed = process.wait(limit) == 0
        output.seek(0)
        return passed, output.read()


def check_unchanged(
    pool: ThreadPoolExecutor,
    trees: Sequence[Path],
    mutations: Sequence[Mutation],
    limit: float,
    processes: Processes,
) -> None:
    """Raises :class:`Stale` if the tests fail without any mutation: they would tell nothing."""
    named = {test for mutation in mutations for test in mutation.tests}
    # None twice in one run: not those within a folder or module that is named as well.
    tests = sorted(t for t in named if not any(t.startswith(f"{other}.") for other in named))
    shares = [tests[number :: len(trees)] for number in range(len(trees))]
    for passed, output in pool.map(
        lambda tree, share: run_tests(tree, share, limit, processes) if share else (True, ""),
        trees,
        shares,
    ):
        if not passed:
            raise Stale(f"the tests don't pass on unchanged code:\n{output[-4000:]}")


def run(
    root: Path, mutations: Sequence[Mutation], *, jobs: int = 2, limit: float = LIMIT
) -> list[Mutation]:
    """Tries mutations, ``jobs`` at a time, and prints what became of each; returns survivors.

    Raises :class:`Interrupted`, with nothing left behind, if a signal ends it.
    """
    survivors: list[Mutation] = []
    processes = Processes()
    with _interruptible(), copies(root, jobs) as trees, _threads(jobs, processes) as pool:
        free: SimpleQueue[Path] = SimpleQueue()
        for tree in trees:
            free.put(tree)
        check_unchanged(pool, trees, mutations, limit * 5, processes)

        def judge(mutation: Mutation) -> None:
            tree = free.get()
            began = time.monotonic()
            try:
                verdict = attempt(tree, mutation, limit, processes)
            finally:
                free.put(tree)
            print(f"{verdict.value:14} {time.monotonic() - began:6.1f} s  {mutation.name}")
            sys.stdout.flush()
            if verdict is Verdict.SURVIVED:
                survivors.append(mutation)

        for _ in pool.map(judge, mutations):
            pass
    return sorted(survivors, key=mutations.index)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Raises :class:`Interrupted` where the body is when a signal comes, once."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        # What is cleaned up now is not to be cut short by another.
        for each in ENDING:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(number)

    before = {each: signal.signal(each, interrupt) for each in ENDING}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextlib.contextmanager
def _threads(count: int, processes: Processes) -> Iterator[ThreadPoolExecutor]:
    """Yields a pool; if the body raises, what its threads wait for is killed, and they end."""
    with ThreadPoolExecutor(count) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            processes.end()
            raise


def shown(root: Path, mutation: Mutation) -> str:
    """Returns a mutation as people should see a survivor: why it matters, and its diff."""
    before = (root / mutation.file).read_text(encoding="utf-8")
    diff = difflib.unified_diff(
        before.splitlines(keepends=True),
        mutation.mutated(root).splitlines(keepends=True),
        mutation.file,
        mutation.file,
        n=1,
    )
    tests = " ".join(mutation.tests)
    return f"{mutation.name}: {mutation.why}\nNot noticed by: {tests}\n{''.join(diff)}"


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Runs the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="tools.mutate", description="Try chosen mutations.")
    parser.add_argument("words", nargs="*", help="parts of names or files; none for all")
    parser.add_argument("--jobs", type=int, default=2, help="mutations side by side (2)")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds for one (120)")
    options = parser.parse_args(arguments)
    try:
        mutations = chosen(load(root), options.words)
        if not mutations:
            raise Stale(f"no mutation has one of these in its name or file: {options.words}")
        survivors = run(root, mutations, jobs=options.jobs, limit=options.limit)
    except Stale as fault:
        print(f"The list of mutations has to be mended:\n{fault}")
        return 1
    except Interrupted as signalled:
        return 128 + signalled.number
    for mutation in survivors:
        print(f"\n{shown(root, mutation)}", end="")
    print(f"\n{len(mutations)} mutations, {len(survivors)} survived")
    return 1 if survivors else 0


def _kill(group: int) -> None:
    """Kills a process group, if it is still there."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _missing_tests(root: Path, mutation: Mutation) -> Iterator[str]:
    """Yields a fault for each of its tests that no file or folder can hold."""
    if not mutation.tests:
        yield "it names no tests"
    for test in mutation.tests:
        path = root.joinpath(*test.split("."))
        if path.is_dir():
            continue
        # The last names may be a class and a method, which the module has to hold.
        names: list[str] = []
        while not path.with_suffix(".py").is_file() and path != root:
            names.append(path.name)
            path = path.parent
        if path == root or not _defined(path.with_suffix(".py"), names):
            yield f"there are no tests {test}"


def _defined(path: Path, names: Sequence[str]) -> bool:
    """Whether a file defines classes or functions of these names."""
    text = path.read_text(encoding="utf-8")
    return all(re.search(rf"(?m)^\s*(class|def|async def) {name}\b", text) for name in names)


def _rewrite(path: Path, text: str) -> None:
    """Writes a source file, and forgets what Python compiled from the one before.

    Python compares times in seconds and sizes, which two mutations may share.
    """
    path.write_text(text, encoding="utf-8")
    for compiled in path.parent.joinpath("__pycache__").glob(f"{path.stem}.*.pyc"):
        compiled.unlink()


if __name__ == "__main__":
    sys.exit(main())
