"""Job files that can't be understood, on a disk that forgets what was not synced."""

from __future__ import annotations

import errno
from collections.abc import Callable
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.jobs.files import QueueFolder, set_aside
from ganeti_masterd.testing.disk import ForgetfulDisk, PowerCut
from tests.journal.scene import put

FOLDER = QueueFolder("/queue")
CORRUPT = {7: "no document", 8: "no document", 20_001: "another job"}
BODIES = {job_id: b"{%d" % job_id for job_id in CORRUPT}

#: What a crash keeps of each name: the oldest state, the newest, or any.
SURVIVALS: list[Callable[[int], int]] = [
    lambda n: 0,
    lambda n: n - 1,
    *(Random(seed).randrange for seed in range(20)),
]


class SetAsideTests(SynchronousTestCase):
    def disk(self) -> ForgetfulDisk:
        disk = ForgetfulDisk([FOLDER.queue])
        for job_id, body in BODIES.items():
            put(disk, FOLDER.job(job_id), body)
        return disk

    def assert_kept(self, disk: ForgetfulDisk) -> None:
        """Each file is whole where it was or in the archive."""
        for job_id, body in BODIES.items():
            places = (FOLDER.job(job_id), FOLDER.corrupt_job(job_id))
            self.assertIn(body, [disk.read(path) for path in places], job_id)

    def assert_moved(self, disk: ForgetfulDisk) -> None:
        self.assertEqual(disk.names(FOLDER.queue), ["archive"])
        self.assertEqual(
            disk.names(FOLDER.archive_directory(7)), ["job-7.corrupt", "job-8.corrupt"]
        )
        for job_id, body in BODIES.items():
            self.assertEqual(disk.read(FOLDER.corrupt_job(job_id)), body)

    def test_durable(self) -> None:
        """Once it returns, no crash undoes any of it."""
        for survival in SURVIVALS:
            disk = self.disk()
            set_aside(FOLDER, disk, CORRUPT)
            disk.crash(survival)
            self.assert_moved(disk)

    def test_crashes(self) -> None:
        """A crash at any effect loses no file, and the next start finishes."""
        disk = self.disk()
        before = disk.power.effects
        set_aside(FOLDER, disk, CORRUPT)
        effects = disk.power.effects - before
        for survival in SURVIVALS:
            for last in range(effects):
                disk = self.disk()
                disk.power.cut_after(last)
                self.assertRaises(PowerCut, set_aside, FOLDER, disk, CORRUPT)
                disk.crash(survival)
                self.assert_kept(disk)
                set_aside(FOLDER, disk, CORRUPT)
                disk.crash(survival)
                self.assert_moved(disk)

    def test_failures(self) -> None:
        """A disk that refuses anything is heard of, and no file is lost."""
        for method in ("write", "sync", "rename", "unlink", "make_directory", "sync_directory"):
            disk = self.disk()
            disk.faults = {method: OSError(errno.EIO, "broken")}
            self.assertRaises(OSError, set_aside, FOLDER, disk, CORRUPT)
            disk.crash(lambda n: 0)
            self.assert_kept(disk)

    def test_nothing(self) -> None:
        """Without a corrupt file nothing is made, not even the archive."""
        disk = self.disk()
        before = disk.power.effects
        set_aside(FOLDER, disk, {})
        self.assertEqual(disk.power.effects, before)

    def test_gone(self) -> None:
        """A file that is no longer there is passed over."""
        disk = self.disk()
        set_aside(FOLDER, disk, {9: "no document", **CORRUPT})
        self.assert_moved(disk)
