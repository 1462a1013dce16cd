"""Tests of whether the daemon's user can read the daemon."""

from __future__ import annotations

import os
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.startup.accounts import Account
from ganeti_masterd.startup.checks import StartRefused
from ganeti_masterd.startup.installation import check_readable, parts

#: An account that doesn't exist: its name is in no group, its ids are unused.
STRANGER = Account("nobody", "nogroup", 54321, 54321)
ROOT = Account("root", "root", 0, 0)


class InstallationTests(SynchronousTestCase):
    """The start is refused if the user can't read the installation."""

    def setUp(self) -> None:
        self.folder = os.path.abspath(self.mktemp())
        os.makedirs(self.folder)
        self.file = self.folder + "/module.py"
        with open(self.file, "w", encoding="ascii"):
            pass

    def as_root(self) -> None:
        if os.geteuid() != 0:
            raise SkipTest("only root becomes somebody else")

    def opened(self, account: Account) -> list[str]:
        """Returns the files that are opened in a check for an account."""
        tried: list[str] = []
        real = os.open
        self.patch(os, "open", lambda path, *rest: tried.append(path) or real(path, *rest))
        check_readable(account, ["/nowhere/at/all"])
        return tried

    def test_parts(self) -> None:
        """One file from each place is returned, and this process can read it."""
        for path in parts():
            self.assertTrue(os.access(path, os.R_OK), path)
        self.assertTrue(any("/ganeti_masterd/" in path for path in parts()))

    def test_readable(self) -> None:
        """World-readable files pass, and this process has its own account again afterwards."""
        before = os.geteuid(), os.getegid(), os.getgroups()
        check_readable(STRANGER, ["/dev/null"])
        self.assertEqual((os.geteuid(), os.getegid(), os.getgroups()), before)

    def test_folder_in_the_way(self) -> None:
        """A folder that only root can enter is found, and named together with the user."""
        self.as_root()
        os.chmod(self.folder, 0o700)
        before = os.geteuid(), os.getegid(), os.getgroups()
        refused = self.assertRaises(
            StartRefused, check_readable, STRANGER, ["/dev/null", self.file]
        )
        self.assertIn(self.file, refused.message)
        self.assertIn("nobody", refused.message)
        self.assertEqual(refused.code, 1)
        self.assertEqual((os.geteuid(), os.getegid(), os.getgroups()), before)

    def test_root_stays_root(self) -> None:
        """For root nothing is opened, as root can read everything."""
        self.assertEqual(self.opened(ROOT), [])

    def test_an_ordinary_user(self) -> None:
        """For a process that isn't root nothing is checked, as it keeps its account."""
        self.patch(os, "geteuid", lambda: 1000)
        self.assertEqual(self.opened(STRANGER), [])
