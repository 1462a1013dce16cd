"""The process that replaces job files: what it does, and that it ends when it should."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from select import select
from threading import Event
from typing import Any
from unittest.mock import patch

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.journal import clerk as clerk_module
from ganeti_masterd.journal import clerk_process
from ganeti_masterd.journal.clerk import PAUSE, SHOWN, WEIGHT, Clerk
from ganeti_masterd.journal.clerk_process import ClerkFault, Orders
from ganeti_masterd.journal.disk import RealDisk
from ganeti_masterd.journal.files import File
from ganeti_masterd.journal.thread import WAITING

#: Seconds after which what another process should do is given up.
PATIENCE = 20

#: A process that has a clerk at work and then dies without a word.
DIES = """
import os, signal, sys
from ganeti_masterd.journal.clerk import Clerk
from ganeti_masterd.journal.disk import RealDisk
clerk = Clerk(lambda: None, keep=[int(sys.argv[2])], worth=1)
for _ in clerk.replace(RealDisk(), [(sys.argv[1] + "/job-1", b"1")]):
    pass
os.kill(clerk.process_id, signal.SIGSTOP)
os.kill(os.getpid(), signal.SIGKILL)
"""


class RecordingDisk(RealDisk):
    """A disk that notes which files this process wrote itself."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[str] = []

    def write(self, path: str, content: bytes, mode: int) -> None:
        self.written.append(path)
        super().write(path, content, mode)


class ClerkTests(SynchronousTestCase):
    """A clerk with a real process."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)
        self.disk = RecordingDisk()
        self.resumed = Event()
        self.clerk = self.make()

    def make(self, **more: Any) -> Clerk:
        clerk = Clerk(self.resumed.set, **{"worth": 2, **more})
        self.addCleanup(clerk.close)
        return clerk

    def files(self, count: int, content: bytes = b"x") -> list[File]:
        """Returns new contents for files."""
        return [(f"{self.folder}/job-{n}", b"%d %s" % (n, content)) for n in range(count)]

    def drive(self, steps: Iterator[object]) -> None:
        """Runs steps as the disk thread does."""
        for step in steps:
            if step is WAITING:
                self.assertTrue(self.resumed.wait(PATIENCE), "the process does not answer")
                self.resumed.clear()

    def replace(self, files: list[File]) -> None:
        self.drive(self.clerk.replace(self.disk, files))

    def assert_replaced(self, files: list[File]) -> None:
        """The folder has these files and no others."""
        found = {str(path): path.read_bytes() for path in self.folder.iterdir()}
        self.assertEqual(found, dict(files))

    def process_id(self) -> int:
        process_id = self.clerk.process_id
        assert process_id is not None
        return process_id

    def test_replaces(self) -> None:
        """All files are replaced by the process, with their mode, none by this one."""
        for content in (b"old", b"new"):
            self.replace(self.files(200, content))
        self.assert_replaced(self.files(200, b"new"))
        self.assertEqual((self.folder / "job-7").stat().st_mode & 0o7777, 0o640)
        self.assertEqual(self.disk.written, [])

    def test_in_turn(self) -> None:
        """The process has two groups at most; the disk thread may do other things between."""
        steps = self.clerk.replace(self.disk, self.files(500))
        self.assertEqual([next(steps), next(steps)], [None, None])
        self.drive(steps)
        self.assert_replaced(self.files(500))

    def test_many_descriptors(self) -> None:
        """It is heard on a descriptor beyond 1,023, as with a thousand clients."""
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], 2048), max(before[1], 2048)))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        with open(os.devnull, "rb") as some:
            for _ in range(1100):
                self.addCleanup(os.close, os.dup(some.fileno()))
        self.replace(self.files(200, b"new"))
        self.assert_replaced(self.files(200, b"new"))
        self.assertEqual(self.disk.written, [])

    def test_few_files(self) -> None:
        """Few files need no process."""
        self.replace(self.files(1))
        self.assert_replaced(self.files(1))
        self.assertIsNone(self.clerk.process_id)

    def test_large_files(self) -> None:
        """A file too large for a message is written here; the others go in several messages."""
        large = [(path, content * WEIGHT) for path, content in self.files(2)]
        half = [(f"{path}9", b"y" * (WEIGHT // 2 + 1)) for path, _ in self.files(5)]
        self.replace([large[0], *half, large[1]])
        self.assert_replaced([*large, *half])
        self.assertEqual(self.disk.written, [f"{path}.following" for path, _ in large])

    def test_fault(self) -> None:
        """What the disk says comes as OSError, after all that was under way; all goes on then."""
        files = self.files(200)
        nowhere = str(self.folder / "gone" / "job-1")
        error = self.assertRaises(OSError, self.replace, [*files[:40], (nowhere, b""), *files[40:]])
        self.assertEqual((error.errno, error.filename), (errno.ENOENT, f"{nowhere}.following"))
        before = self.process_id()
        self.replace(files)
        self.assert_replaced(files)
        self.assertEqual(self.process_id(), before)

    def test_stopped(self) -> None:
        """One that is stopped is killed and told of; this one does the work, then a new process."""
        self.patch(clerk_module, "LOOK", 0.01)
        clock = [0.0]
        self.clerk = self.make(clock=lambda: clock[0])
        self.replace(self.files(100, b"old"))
        before = self.process_id()
        os.kill(before, signal.SIGSTOP)
        assert self.clerk._process is not None
        self.clerk._process._patience = 0.0
        self.replace(self.files(100, b"new"))
        self.assert_replaced(self.files(100, b"new"))
        self.assertEqual(len(self.disk.written), 100)
        self.assertIn("did not answer", self.clerk.fault or "")
        self.assertRaises(ProcessLookupError, os.kill, before, 0)
        clock[0] += SHOWN
        self.assertIsNone(self.clerk.fault)
        self.replace(self.files(100, b"newer"))
        self.assert_replaced(self.files(100, b"newer"))
        self.assertEqual(len(self.disk.written), 100)
        self.assertIsNone(self.clerk.fault)

    def test_killed_between(self) -> None:
        """A process that died meanwhile is noticed: this one does the work, then a new one."""
        self.replace(self.files(100, b"old"))
        before = self.process_id()
        os.kill(before, signal.SIGKILL)
        self.assertTrue(self.resumed.wait(PATIENCE))
        self.replace(self.files(100, b"new"))
        self.assert_replaced(self.files(100, b"new"))
        self.assertEqual(len(self.disk.written), 100)
        self.assertIsNone(self.clerk.process_id)
        self.replace(self.files(100, b"newer"))
        self.assert_replaced(self.files(100, b"newer"))
        self.assertEqual(len(self.disk.written), 100)

    def test_killed_at_work(self) -> None:
        """What a killed process was at is done here, and so is the rest."""
        steps = self.clerk.replace(self.disk, self.files(300))
        next(steps)
        os.kill(self.process_id(), signal.SIGKILL)
        self.drive(steps)
        self.assert_replaced(self.files(300))
        self.assertGreaterEqual(len(self.disk.written), 200)

    def test_fault_and_killed(self) -> None:
        """A fault counts also where the process dies after it: what failed was not replaced."""
        nowhere = str(self.folder / "gone" / "job-1")
        steps = self.clerk.replace(self.disk, [(nowhere, b""), *self.files(200)])
        self.assertEqual([next(steps), next(steps)], [None, None])
        self.assertTrue(self.resumed.wait(PATIENCE))
        os.kill(self.process_id(), signal.SIGKILL)
        error = self.assertRaises(OSError, self.drive, steps)
        self.assertEqual(error.errno, errno.ENOENT)

    def test_no_answer(self) -> None:
        """A process whose answers make no sense is not used any more."""

        def refuse(data: bytes) -> None:
            raise msgspec.DecodeError("no answer")

        self.patch(clerk_process, "decode_answer", refuse)
        self.replace(self.files(100))
        self.assert_replaced(self.files(100))
        self.assertIsNone(self.clerk.process_id)

    def test_cannot_be_started(self) -> None:
        """Where no process can be started, this one does it all."""
        self.patch(sys, "executable", str(self.folder / "no-python"))
        for content in (b"old", b"new"):
            self.replace(self.files(100, content))
        self.assert_replaced(self.files(100, b"new"))

    def test_not_a_clerk(self) -> None:
        """A program that ends at once is no harm either; it is not tried again for a minute."""
        now = 1000.0
        self.clerk = self.make(clock=lambda: now)
        with patch.object(sys, "executable", "/bin/false"):
            self.replace(self.files(100))
        self.assert_replaced(self.files(100))
        now += PAUSE - 1
        self.replace(self.files(100))
        self.assertEqual((self.clerk.process_id, len(self.disk.written)), (None, 200))
        now += 1
        self.replace(self.files(100))
        self.assertIsNotNone(self.clerk.process_id)
        self.assertEqual(len(self.disk.written), 200)

    def test_odd_paths(self) -> None:
        """Files whose paths are no UTF-8 can't be told to a process: they are written here."""
        files = [(f"{self.folder}/job-{n}\udcff", b"x") for n in range(100)]
        self.replace(files)
        self.assert_replaced(files)
        self.assertEqual(len(self.disk.written), 100)

    def test_closed(self) -> None:
        """The process is gone once the clerk is closed; twice is fine."""
        self.replace(self.files(100))
        process_id = self.process_id()
        self.clerk.close()
        self.clerk.close()
        self.assertRaises(ProcessLookupError, os.kill, process_id, 0)
        self.assertIsNone(self.clerk.process_id)

    def test_signals(self) -> None:
        """Signals to all processes of a service are the daemon's business."""
        self.replace(self.files(100))
        before = self.process_id()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(before, number)
        self.replace(self.files(100, b"new"))
        self.assert_replaced(self.files(100, b"new"))
        self.assertEqual(self.process_id(), before)

    def test_groups(self) -> None:
        """Files get the group of their directory, as from the daemon's own disk."""
        if os.geteuid() != 0:
            self.skipTest("Only root can give files away")
        self.clerk = self.make(groups={str(self.folder): 12345})
        self.replace(self.files(10))
        self.assertEqual({path.stat().st_gid for path in self.folder.iterdir()}, {12345})

    def lock(self) -> int:
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        self.addCleanup(os.close, descriptor)
        return descriptor

    def test_holds_the_lock(self) -> None:
        """The lock is held as long as the process lives, whoever else lets go of it."""
        ours = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(ours, fcntl.LOCK_EX)
        self.clerk = self.make(keep=[ours])
        self.replace(self.files(100))
        os.close(ours)
        other = self.lock()
        self.assertRaises(BlockingIOError, fcntl.flock, other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.clerk.close()
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def test_ends_with_the_daemon(self) -> None:
        """The process dies with a daemon that is killed, even where it is stopped itself."""
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        ran = subprocess.run(
            [sys.executable, "-c", DIES, str(self.folder), str(writing)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            timeout=PATIENCE,
            pass_fds=[writing],
            check=False,
        )
        os.close(writing)
        self.assertEqual(ran.returncode, -signal.SIGKILL)
        # Readable, with nothing to read, once nobody can write any more.
        self.assertEqual(select([reading], [], [], PATIENCE)[0], [reading], "it lives on")
        self.assertEqual(os.read(reading, 1), b"")

    def test_of_another_daemon(self) -> None:
        """A process whose daemon died before it could look ends by itself."""
        orders = msgspec.json.encode(Orders(0, os.getpid() + 1, {})).decode()
        command = [sys.executable, "-m", clerk_process.__name__, orders]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        ran = subprocess.run(command, env=env, timeout=PATIENCE, check=False)
        self.assertEqual(ran.returncode, 1)


class ReplaceTests(SynchronousTestCase):
    """What the process does with one message."""

    def test_answers(self) -> None:
        """Null where all went well, else what the system said."""
        folder = self.mktemp()
        os.makedirs(folder)
        path = f"{folder}/job-1"
        self.assertIsNone(clerk_process.replace(RealDisk(), [(path, b"1")]))
        fault = clerk_process.replace(RealDisk(), [(f"{path}/below", b"1")])
        self.assertEqual(
            fault, ClerkFault(errno.ENOTDIR, "Not a directory", f"{path}/below.following")
        )
        answer = clerk_process.decode_answer(clerk_process.encode(fault))
        self.assertEqual(answer, fault)
