"""A new root for a test, and a machine that is what the test says."""

from __future__ import annotations

import shutil
import tempfile

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.startup import simulated_root
from ganeti_masterd.startup.accounts import Account
from ganeti_masterd.startup.paths import Paths


class Host:
    """An ``IMachine``: who runs this, what the host is called, which names and accounts exist."""

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
