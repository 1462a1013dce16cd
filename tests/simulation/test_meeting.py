"""Where simulated clusters meet."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.simulation.meeting import MeetingPlace, Parcel


class MeetingTests(SynchronousTestCase):
    """Two clusters that know one folder."""

    def setUp(self) -> None:
        self.folder = self.mktemp()
        self.one, self.other = MeetingPlace(self.folder), MeetingPlace(self.folder)

    def test_there(self) -> None:
        """What is sent arrives once, and the sender learns of it."""
        self.assertIsNone(self.other.take("magic"))
        self.one.send("magic", Parcel(64, ("data",)))
        self.assertFalse(self.one.taken("magic"))
        self.assertIsNone(self.other.take("another"))
        self.assertEqual(self.other.take("magic"), Parcel(64, ("data",)))
        self.assertIsNone(self.other.take("magic"))
        self.assertTrue(self.one.taken("magic"))
        self.one.withdraw("magic")
        self.assertEqual(os.listdir(self.folder), [])

    def test_withdrawn(self) -> None:
        """What is taken back can't be taken any more."""
        self.one.send("../magic", Parcel(64, ()))
        self.one.withdraw("../magic")
        self.one.withdraw("../magic")
        self.assertIsNone(self.other.take("../magic"))
        self.assertFalse(self.one.taken("../magic"))
