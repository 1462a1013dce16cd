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
    """Returns what a node holds, with a document of that serial number."""
    cluster = replace(CLUSTER.cluster, tags=(text,) if text else ())
    config = CLUSTER.with_object("cluster", cluster).with_serial(NOW, serial)
    return Copy(node, encode(config), job_serial, {job.id: encode_job(job) for job in jobs})


class ChooseTests(SynchronousTestCase):
    """The choice."""

    def test_furthest_of_each(self) -> None:
        """Of each job the state that is furthest."""
        own = copy("node2", 5, queued(1), running(2), ended(3))
        others = [
            copy("node1", 5, running(1), queued(2)),
            copy("node3", 4, ended(1), queued(4), job_serial=9),
        ]
        newest = choose(own, others, ("node1", "node2"))
        self.assertEqual(newest.jobs, {1: encode_job(ended(1)), 4: encode_job(queued(4))})
        self.assertEqual((newest.config_of, newest.serial), ("node2", 9))

    def test_equally_far(self) -> None:
        """Of two that are equally far the one of the candidate that is ahead."""
        changed = reprioritize(queued(1), -10)
        ahead, behind = copy("node3", 6, changed), copy("node3", 4, changed)
        own = copy("node2", 5, queued(1))
        self.assertEqual(choose(own, [ahead], ["node1"]).jobs, {1: encode_job(changed)})
        self.assertEqual(choose(own, [behind], ["node1"]).jobs, {})

    def test_damaged(self) -> None:
        """Any file that makes sense goes before one that doesn't."""
        own = Copy("node2", copy("node2", 5).config, 1, {1: b"{"})
        other = copy("node3", 5, queued(1))
        self.assertEqual(choose(own, [other], ["node1"]).jobs, {1: encode_job(queued(1))})

    def test_serial_above_every_id(self) -> None:
        """No id that any of them knows is given again, whatever their serials say."""
        own = copy("node2", 5, queued(3), job_serial=1)
        other = Copy("node3", own.config, 2, {}, {8: encode_job(ended(8))})
        self.assertEqual(choose(own, [other], ["node1"]).serial, 8)

    def test_equal_below_the_top(self) -> None:
        """Only the newest must be one; that older ones differ is no matter."""
        own = copy("node2", 5, text="a")
        others = [copy("node1", 5, text="b"), copy("node3", 6)]
        self.assertEqual(choose(own, others, ["node1"]).config_of, "node3")
        self.assertRaises(StartRefused, choose, own, others[:1], ["node1"])

    def test_other_cluster(self) -> None:
        """Files of another cluster, or that are none, are left out and told of."""
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
        """The new master's serial is far above what the old one may have reached alone."""
        after = promoted(CLUSTER, "node3", NOW + 1)
        self.assertEqual(after.master.name, "node3")
        self.assertEqual(after.header.serial_no, CLUSTER.header.serial_no + 1000)
        self.assertEqual((after.header.mtime, after.cluster.mtime), (NOW + 1, NOW + 1))
        self.assertEqual(parse(encode(after)), after)
