"""Tests of what a scrape reads of the disk."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.monitoring import files
from ganeti_masterd.monitoring.files import NodeFiles, NoFiles
from ganeti_masterd.startup.simulated_keys import VALID_DAYS
from ganeti_masterd.startup.simulated_keys import files as simulated_files

_DAY = 86400.0


class FilesTests(SynchronousTestCase):
    """:class:`NodeFiles`."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.path = self.folder / "server.pem"
        self.files = NodeFiles({"server": str(self.path)}, str(self.folder))

    def write(self, now: float) -> None:
        """Puts a new certificate and its key in place, as ``gnt-cluster renew-crypto`` does."""
        new = self.folder / "new"
        new.write_bytes(next(simulated_files(now))[1])
        os.replace(new, self.path)

    def test_expiry(self) -> None:
        """A certificate's expiry is read past its key, and again once the file is another one."""
        self.write(1_000_000.0)
        self.assertEqual(self.files.expiries(), {"server": 1_000_000.0 + VALID_DAYS * _DAY})
        self.patch(files, "_parsed", lambda path: 5.0)
        self.assertEqual(self.files.expiries(), {"server": 1_000_000.0 + VALID_DAYS * _DAY})
        self.path.write_bytes(b"another")
        self.assertEqual(self.files.expiries(), {"server": 5.0})

    def test_no_certificate(self) -> None:
        """A file that is missing, or has none, is left out, until it has one."""
        self.assertEqual(self.files.expiries(), {})
        self.path.write_bytes(b"rubbish")
        self.assertEqual(self.files.expiries(), {})
        self.write(1_000_000.0)
        self.assertEqual(list(self.files.expiries()), ["server"])
        self.path.unlink()
        self.assertEqual(self.files.expiries(), {})

    def test_room(self) -> None:
        """The room is that of the folder's file system; None once the folder is gone."""
        room = self.files.room()
        assert room is not None
        free, size = room
        self.assertTrue(0 <= free <= size)
        self.assertGreater(size, 0)
        self.folder.rmdir()
        self.assertIsNone(self.files.room())

    def test_none(self) -> None:
        """Without files nothing is known."""
        self.assertEqual((NoFiles().expiries(), NoFiles().room()), ({}, None))
