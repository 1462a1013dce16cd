"""Whether clients of wconfd's socket live, by their lock files."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.requests import config_lock
from ganeti_masterd.requests.config_lock import LiveLocks, WconfdClient

#: Locks a file as Ganeti's own tools do, says so, and waits for the end of its input.
LOCKER = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""


class LiveLocksTests(SynchronousTestCase):
    """Clients with lock files in a folder."""

    def setUp(self) -> None:
        self.folder = os.path.abspath(self.mktemp())
        os.mkdir(self.folder)
        self.lives = LiveLocks(self.folder)

    def client(self, name: str, pid: int = 5) -> WconfdClient:
        """Returns a client with a lock file in the folder."""
        return WconfdClient("tool", f"{self.folder}/{name}", pid)

    def test_while_it_is_locked(self) -> None:
        """A client lives as long as a process holds the lock on its file."""
        client = self.client("tool_1")
        self.assertFalse(self.lives(client))
        process = subprocess.Popen(
            [sys.executable, "-c", LOCKER, client.lock_file],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        self.assertEqual(process.stdout.readline(), b"locked\n")
        self.assertTrue(self.lives(client))
        process.communicate()
        self.assertTrue(os.path.exists(client.lock_file))
        self.assertFalse(self.lives(client))

    def test_elsewhere(self) -> None:
        """No file outside of the folder is looked at, nor a folder or a link taken for one."""
        looked: list[str] = []
        self.patch(config_lock, "is_locked", looked.append)
        for path in ("/etc/passwd", f"{self.folder}/../x", f"{self.folder}/", self.folder, "x", ""):
            self.assertFalse(self.lives(WconfdClient("tool", path, 5)), path)
        self.assertFalse(self.lives(self.client("..")))
        self.assertEqual(looked, [])
        self.patch(config_lock, "is_locked", self.fails(errno.EISDIR))
        self.assertFalse(self.lives(self.client("folder")))

    def fails(self, code: int) -> object:
        """Returns a function that fails with an ``OSError``."""

        def fail(path: str) -> bool:
            raise OSError(code, os.strerror(code), path)

        return fail

    def test_unreadable(self) -> None:
        """Where the file may not be read the process tells whether the client lives."""
        self.patch(config_lock, "is_locked", self.fails(errno.EACCES))
        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait()
        self.assertTrue(self.lives(self.client("own", os.getpid())))
        self.assertTrue(self.lives(self.client("init", 1)))
        self.assertFalse(self.lives(self.client("ended", ended.pid)))
        self.assertFalse(self.lives(self.client("no pid", 2**80)))
