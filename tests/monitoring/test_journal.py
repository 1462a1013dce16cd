"""Tests that the real journal reports faults to monitoring."""

from __future__ import annotations

import errno

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.errors import JobQueueError
from ganeti_masterd.monitoring.parts import MonitoredJournal
from tests.journal.scene import Scene, job


class FaultTests(SynchronousTestCase):
    """Why commits fail."""

    def test_until_one_succeeds(self) -> None:
        """A failed commit is reported as the fault until one succeeds."""
        scene = Scene()
        opened = scene.open()
        journal: MonitoredJournal = opened
        self.assertIsNone(journal.fault)

        def full(entries: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        patched = self.patch(scene.store, "append", full)
        failed = opened.commit([job(1)])
        scene.thread.step()
        self.failureResultOf(failed, JobQueueError)
        self.assertIn("No space left on device", journal.fault or "")
        patched.restore()
        taken = opened.commit([job(1)])
        scene.thread.step()
        self.successResultOf(taken)
        self.assertIsNone(journal.fault)
        self.assertEqual(journal.backlog, 1)
