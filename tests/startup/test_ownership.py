"""Owners, groups and modes of every file (protocol/startup.rst, Files and their owners)."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from unittest import SkipTest

from ganeti_masterd import safely
from ganeti_masterd.startup.accounts import Account
from ganeti_masterd.startup.ownership import (
    files_of,
    folders_of,
    groups_of,
    set_right,
)
from tests.startup.scene import RootTestCase

#: Unused ids: no user or group with them need exist.
ACCOUNT = Account("someone", "some", 54321, 54322)


class OwnershipTests(RootTestCase):
    """The owners and modes that a start by root corrects."""

    def test_table(self) -> None:
        """The modes are those that protocol/startup.rst lists."""
        modes = {
            os.path.relpath(place.path, self.root): place.mode
            for place in (*folders_of(self.paths, ACCOUNT), *files_of(self.paths, ACCOUNT))
        }
        for path, mode in {
            "var/lib/ganeti/config.data": 0o640,
            "var/lib/ganeti/queue": 0o750,
            "var/lib/ganeti/queue/archive": 0o750,
            "var/lib/ganeti/queue/serial": 0o640,
            "var/lib/ganeti/queue/drain": 0o644,
            "var/lib/ganeti/server.pem": 0o440,
            "var/lib/ganeti/client.pem": 0o440,
            "var/run/ganeti": 0o775,
            "var/run/ganeti/socket": 0o770,
        }.items():
            self.assertEqual(modes[path], mode, path)

    def test_set_right(self) -> None:
        """Files of luxid get the daemon's owner, group and mode; missing folders are created."""
        self.as_root()
        job = Path(self.paths.queue) / "job-7"
        job.write_bytes(b"{}")
        job.chmod(0o600)
        private = Path(self.paths.queue) / "job-8"
        private.write_bytes(b'{"osparams_private":{"x":"y"}}')
        private.chmod(0o600)
        other = Path(self.paths.queue) / "job-7.new"
        other.touch(0o600)
        os.rmdir(self.paths.sockets)
        set_right(self.paths, ACCOUNT)
        found = job.stat()
        self.assertEqual(
            (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)), (54321, 54322, 0o640)
        )
        self.assertEqual(stat.S_IMODE(private.stat().st_mode), 0o600)
        self.assertEqual(other.stat().st_uid, os.geteuid())
        found = os.stat(self.paths.sockets)
        self.assertEqual((found.st_uid, stat.S_IMODE(found.st_mode)), (54321, 0o770))
        self.assertEqual(os.stat(self.paths.config).st_uid, 54321)
        # ssconf belongs to the node daemon.
        self.assertEqual(os.stat(self.paths.ssconf("master_node")).st_uid, os.geteuid())

    def test_links(self) -> None:
        """Neither a symbolic nor a hard link lets the owner of another file change."""
        self.as_root()
        secret = Path(self.root) / "secret"
        secret.touch(0o600)
        job = Path(self.paths.queue) / "job-7"
        for link in (job.symlink_to, job.hardlink_to):
            link(secret)
            self.assertRaises(OSError, set_right, self.paths, ACCOUNT)
            job.unlink()
        self.assertEqual(secret.stat().st_uid, os.geteuid())
        self.assertEqual(stat.S_IMODE(secret.stat().st_mode), 0o600)

    def test_tree(self) -> None:
        """The whole simulated root changes its owner, but not the files that links point at."""
        self.as_root()
        outside = Path(self.root + ".outside")
        outside.touch()
        self.addCleanup(outside.unlink)
        os.symlink(outside, self.root + "/link")
        safely.give_tree(self.root, ACCOUNT.uid, ACCOUNT.gid)
        self.assertEqual({path.lstat().st_uid for path in Path(self.root).rglob("*")}, {54321})
        self.assertEqual(outside.stat().st_uid, os.geteuid())

    def test_groups(self) -> None:
        """Groups are set only where they are needed and this process may set them."""
        self.assertEqual(groups_of(self.paths, None), {})
        own = Account("", "", os.geteuid(), os.getegid())
        self.assertEqual(groups_of(self.paths, own)[self.paths.queue], os.getegid())

    def as_root(self) -> None:
        """Only root can give files away."""
        if os.geteuid() != 0:
            raise SkipTest("only root can give files away")
