"""New clusters: valid, of any size, with the keys of a real one."""

from __future__ import annotations

import json
from itertools import count

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.base import defaults_of
from ganeti_masterd.config.document import encode, parse
from ganeti_masterd.config.newcluster import new_cluster
from ganeti_masterd.config.objects import Cluster
from ganeti_masterd.config.ssconf import ssconf_values
from ganeti_masterd.config.verify import verify
from ganeti_masterd.errors import OpPrereqError

from .sample import document, uuid


class NewCluster(SynchronousTestCase):
    def test_groups(self) -> None:
        """Nodes can be given by name with their groups; the first is the master."""
        nodes = {"alpha": "racks", "beta": "default", "gamma": "racks"}
        snapshot = new_cluster("demo", nodes, 1.0)
        self.assertEqual(verify(snapshot), [])
        self.assertEqual(snapshot.master.name, "alpha")
        groups = {group.uuid: group.name for group in snapshot.groups.values()}
        self.assertEqual(sorted(groups.values()), ["default", "racks"])
        self.assertEqual({node.name: groups[node.group] for node in snapshot.nodes.values()}, nodes)
        self.assertRaises(OpPrereqError, new_cluster, "demo", {}, 1.0)

    def test_valid(self) -> None:
        """Clusters of any size pass verification, and are the same when read back."""
        for nodes in (1, 3, 10, 11, 300):
            snapshot = new_cluster("demo", nodes, 1800000000.5)
            self.assertEqual(verify(snapshot), [])
            content = encode(snapshot)
            again = parse(content)
            self.assertEqual(again, snapshot)
            self.assertEqual(again.master.shape, ())
            self.assertEqual(encode(again), content)
            self.assertEqual(len(again.nodes), nodes)
            self.assertEqual(len(snapshot.candidates()), min(nodes, 10))
            self.assertEqual(len(ssconf_values(snapshot)), 34)

    def test_like_a_real_one(self) -> None:
        """The file has the keys of a real one, in its order."""
        plain = json.loads(encode(new_cluster("demo", 1, 1)))
        real = document()
        self.assertEqual(list(plain), list(real))
        own = [key for key in plain["cluster"] if key in real["cluster"]]
        self.assertEqual(own, list(real["cluster"]))
        extra = set(plain["cluster"]) - set(real["cluster"])
        self.assertEqual(extra, {"volume_group_name", "drbd_usermode_helper"})
        for section in ("nodes", "nodegroups"):
            made = next(iter(plain[section].values()))
            self.assertEqual(list(made), list(next(iter(real[section].values()))))
        for params in ("hvparams", "diskparams", "ndparams", "data_collectors", "ipolicy"):
            self.assertEqual(set(plain["cluster"][params]), set(real["cluster"][params]))
        self.assertEqual(
            set(defaults_of(Cluster)) - set(plain["cluster"]),
            {"default_bridge", "default_hypervisor"},
        )

    def test_who_is_who(self) -> None:
        """node1 is the master; nodes have names, addresses and the group "default"."""
        numbers = count(1)
        snapshot = new_cluster("demo", 300, 5, uuids=lambda: uuid(next(numbers)))
        self.assertEqual(snapshot.master.name, "node1")
        self.assertEqual(snapshot.master.primary_ip, "198.51.100.1")
        self.assertEqual(snapshot.node("node255").primary_ip, "203.0.113.1")
        self.assertEqual(len({node.primary_ip for node in snapshot.nodes.values()}), 300)
        self.assertEqual(len(snapshot.members(snapshot.group("default"))), 300)
        self.assertEqual(snapshot.cluster.name, "demo")
        self.assertEqual(list(snapshot.nodes), sorted(snapshot.nodes))

    def test_choices(self) -> None:
        """Hypervisors, disk templates and the pool are as asked for."""
        snapshot = new_cluster(
            "demo",
            3,
            5,
            hypervisors=("kvm", "fake"),
            disk_templates=("file",),
            candidate_pool_size=2,
        )
        cluster = snapshot.cluster
        self.assertEqual(cluster.enabled_hypervisors, ("kvm", "fake"))
        self.assertEqual(cluster.enabled_disk_templates, ("file",))
        self.assertEqual(cluster.ipolicy["disk-templates"], ["file"])
        self.assertEqual(len(snapshot.candidates()), 2)
        self.assertEqual(len(cluster.candidate_certs), 2)
        self.assertEqual(verify(snapshot), [])

    def test_refused(self) -> None:
        """A cluster has at least one node, and no more than there are addresses."""
        self.assertRaises(OpPrereqError, new_cluster, "demo", 0, 1)
        self.assertRaises(OpPrereqError, new_cluster, "demo", 200000, 1)
