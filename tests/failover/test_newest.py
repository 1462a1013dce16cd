"""Which of several copies is the newest."""

from __future__ import annotations

from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.document import encode, parse
from ganeti_masterd.config.newcluster import new_cluster
from ganeti_masterd.failover.newest import Copy, choose, promoted
from ganeti_masterd.jobs.model import Job, encode_job, reprioritize
from ganeti_masterd.startup.checks import StartRefused
from tests.failover.scene import NOW, ended, queued, running

CLUSTER = new_cluster("cluster", 3, NOW, file_storage_dir="/srv")


def copy(node: str, serial: int, *jobs: Job, job_serial: int = 0, text: str = "") -> Copy:
    """Returns a node's copy whose configuration has that serial number."""
    cluster = replace(CLUSTER.cluster, tags=(text,) if text else ())
    config = CLUSTER.with_object("cluster", cluster).with_serial(NOW, serial)
    return Copy(node, encode(config), job_serial, {job.id: encode_job(job) for job in jobs})


class ChooseTests(SynchronousTestCase):
    """The choice."""

    def test_furthest_of_each(self) -> None:
        """For each job the state furthest along is taken."""
        own = copy("node2", 5, queued(1), running(2), ended(3))
        others = [
            copy("node1", 5, running(1), queued(2)),
            copy("node3", 4, ended(1), queued(4), job_serial=9),
        ]
        newest = choose(own, others, ("node1", "node2"))
        self.assertEqual(newest.jobs, {1: encode_job(ended(1)), 4: encode_job(queued(4))})
        self.assertEqual((newest.config_of, newest.serial), ("node2", 9))

    def test_equally_far(self) -> None:
        """Of two equal states that of the candidate with the newer configuration is taken."""
        changed = reprioritize(queued(1), -10)
        ahead, behind = copy("node3", 6, changed), copy("node3", 4, changed)
        own = copy("node2", 5, queued(1))
        self.assertEqual(choose(own, [ahead], ["node1"]).jobs, {1: encode_job(changed)})
        self.assertEqual(choose(own, [behind], ["node1"]).jobs, {})

    def test_damaged(self) -> None:
        """Any readable file is preferred to a damaged one."""
        own = Copy("node2", copy("node2", 5).config, 1, {1: b"{"})
        other = copy("node3", 5, queued(1))
        self.assertEqual(choose(own, [other], ["node1"]).jobs, {1: encode_job(queued(1))})

    def test_serial_above_every_id(self) -> None:
        """No job id that any candidate knows is given again, whatever their serials are."""
        own = copy("node2", 5, queued(3), job_serial=1)
        other = Copy("node3", own.config, 2, {}, {8: encode_job(ended(8))})
        self.assertEqual(choose(own, [other], ["node1"]).serial, 8)

    def test_equal_below_the_top(self) -> None:
        """Older configurations may differ under the same serial; only the newest must not."""
        own = copy("node2", 5, text="a")
        others = [copy("node1", 5, text="b"), copy("node3", 6)]
        self.assertEqual(choose(own, others, ["node1"]).config_of, "node3")
        self.assertRaises(StartRefused, choose, own, others[:1], ["node1"])

    def test_other_cluster(self) -> None:
        """Files of another cluster and unreadable ones are left out and reported."""
        cluster = replace(CLUSTER.cluster, uuid="other", cluster_name="elsewhere")
        foreign = encode(CLUSTER.with_object("cluster", cluster).with_serial(NOW, 99))
        own = copy("node2", 5)
        others = [
            Copy("node1", foreign, 50, {1: encode_job(ended(1))}),
            Copy("node3", b"[", 60, {2: encode_job(ended(2))}),
        ]
        newest = choose(own, others, ["node1"])
        self.assertEqual((newest.config_of, newest.serial, newest.jobs), ("node2", 0, {}))
        self.assertIn("of another cluster, elsewhere", newest.ignored[0])
        self.assertIn("node3's config.data", newest.ignored[1])

    def test_promoted(self) -> None:
        """The new master's serial is far above any that the old one may have reached unseen."""
        after = promoted(CLUSTER, "node3", NOW + 1)
        self.assertEqual(after.master.name, "node3")
        self.assertEqual(after.header.serial_no, CLUSTER.header.serial_no + 1000)
        self.assertEqual((after.header.mtime, after.cluster.mtime), (NOW + 1, NOW + 1))
        self.assertEqual(parse(encode(after)), after)
