"""A new root for a test, and a machine whose properties the test sets."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.document import apply_rows
from ganeti_masterd.jobs.model import decode_job_of, merge_log
from ganeti_masterd.journal.disk import RealDisk
from ganeti_masterd.journal.layout import QueueFiles
from ganeti_masterd.journal.recovery import Identity, Recovered, recover
from ganeti_masterd.startup import simulated_root
from ganeti_masterd.startup.accounts import Account
from ganeti_masterd.startup.configuration import read_config
from ganeti_masterd.startup.paths import Paths

#: Holds a lock of one kind on a file until its standard input ends.
HOLD = """
import fcntl, sys
file = open(sys.argv[1], "a+")
getattr(fcntl, sys.argv[2])(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def recovered(paths: Paths) -> Recovered:
    """Opens the journal of a root as the daemon does; whoever asks closes its store."""
    snapshot = read_config(paths)
    return recover(
        paths.journal,
        identity=Identity(snapshot.cluster.uuid, snapshot.master.name),
        files=QueueFiles(queue=paths.queue, config=paths.config),
        disk=RealDisk(),
        merge_log=merge_log,
        check_job=decode_job_of,
        merge_config=apply_rows,
        now=time.time,
    )


class Host:
    """An ``IMachine`` with a user id, a host name, and the names and accounts that exist."""

    def __init__(self) -> None:
        self.user = 0
        self.name = "node1"
        self.known = {"node1", "node2"}
        self.accounts = {
            ("gnt-masterd", "gnt-daemons"): Account("gnt-masterd", "gnt-daemons", 7, 8)
        }

    def uid(self) -> int:
        return self.user

    def host_name(self) -> str:
        return self.name

    def resolves(self, name: str) -> bool:
        return name in self.known

    def account(self, user: str | None, group: str | None) -> Account | None:
        return self.accounts.get((user or "", group or ""))


class RootTestCase(SynchronousTestCase):
    """Each test has a root with a cluster of three nodes, with a path short enough for a socket."""

    def setUp(self) -> None:
        self.root = tempfile.mkdtemp(prefix="gnt-")
        self.addCleanup(shutil.rmtree, self.root)
        self.paths = Paths(self.root)
        simulated_root.prepare(self.paths, 3)

    def hold(self, path: str, kind: str) -> None:
        """Lets another process hold a lock until the test ends."""
        other = subprocess.Popen(
            [sys.executable, "-c", HOLD, path, kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert other.stdin is not None
        assert other.stdout is not None
        self.addCleanup(other.wait)
        self.addCleanup(other.stdout.close)
        self.addCleanup(other.stdin.close)
        other.stdout.readline()
