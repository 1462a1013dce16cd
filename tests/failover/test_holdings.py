"""What has to be read from another candidate, by digests."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.failover.holdings import (
    Held,
    Lacking,
    OwnFiles,
    ids_to_ask,
    lacking,
    serial_of,
)
from ganeti_masterd.jobs.model import encode_job
from ganeti_masterd.journal.layout import QueueFiles
from ganeti_masterd.replication.comparison import sha1
from tests.failover.scene import ended, queued, running

OWN = OwnFiles(
    b"{}", 10, {1: encode_job(ended(1)), 2: encode_job(running(2)), 3: encode_job(queued(3))}
)


def held(config: bytes = b"{}", archived: dict[int, str] | None = None, **jobs: bytes) -> Held:
    """Returns what a candidate holds; jobs as ``j1=content``."""
    digests = {int(name[1:]): sha1(body) for name, body in jobs.items()}
    return Held("node3", sha1(config), None, digests, archived or {})


class LackingTests(SynchronousTestCase):
    """The difference."""

    def lacking(self, other: Held, *archived: int) -> Lacking:
        return lacking(OWN, other, lambda job_id: job_id in archived)

    def test_same(self) -> None:
        """What is the same need not be read."""
        same = held(**{f"j{job_id}": body for job_id, body in OWN.jobs.items()})
        self.assertFalse(self.lacking(same))

    def test_behind(self) -> None:
        """Nor what isn't there."""
        self.assertFalse(self.lacking(held()))

    def test_jobs(self) -> None:
        """Only a job that may have gone on there counts: not one that has ended here."""
        other = held(j1=b"1", j2=b"2", j3=OWN.jobs[3], j4=b"4", j5=b"5")
        self.assertEqual(self.lacking(other, 5), Lacking(False, (2, 4), ()))

    def test_archived(self) -> None:
        """An unfinished job that is in the archive there has ended."""
        self.assertEqual(ids_to_ask(OWN, {3: "x"}), [2])
        self.assertEqual(self.lacking(held(archived={1: "x", 2: "y"})), Lacking(False, (), (2,)))

    def test_damaged(self) -> None:
        """A file here that makes no sense may be better there."""
        own = OwnFiles(b"{}", 10, {1: b"{", 2: b'{"ops": []}'})
        self.assertEqual(own.unfinished, {1, 2})

    def test_paths(self) -> None:
        """All files that differ, by path and in words."""
        files = QueueFiles(queue="/q", config="/c")
        some = Lacking(True, (2,), (30_001,))
        self.assertEqual(some.paths(files), ["/c", "/q/job-2", "/q/archive/3/job-30001"])
        self.assertEqual(some.text(), "its configuration and 2 of its jobs (2, 30001)")
        many = Lacking(False, tuple(range(1, 12)), ())
        self.assertEqual(many.text(), "11 of its jobs (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, ...)")


class SerialTests(SynchronousTestCase):
    """The number in another node's file."""

    def test_found(self) -> None:
        """It is found above and below this node's own."""
        for number in (0, 3, 10, 11, 5000):
            self.assertEqual(serial_of(sha1(b"%d\n" % number), 10), number)

    def test_none(self) -> None:
        """No file has no number, and other content none that is found."""
        self.assertIsNone(serial_of(None, 10))
        self.patch(__import__("ganeti_masterd.failover.holdings", fromlist=["x"]), "SEARCH", 100)
        self.assertIsNone(serial_of(sha1(b"many"), 10))
