"""ssconf: the files equal those written by the real daemon."""

from __future__ import annotations

from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.objects import Network
from ganeti_masterd.config.ssconf import file_content, natural, ssconf_values

from .sample import CLUSTER, DATA, NODE2, sample


class Ssconf(SynchronousTestCase):
    def test_real_files(self) -> None:
        """All 34 files of the real cluster come out byte for byte."""
        values = ssconf_values(sample())
        files = {
            path.name.removeprefix("ssconf_"): path.read_bytes()
            for path in (DATA / "ssconf").iterdir()
        }
        self.assertEqual(len(files), 34)
        self.assertEqual({key: file_content(lines) for key, lines in values.items()}, files)

    def test_less_usual_values(self) -> None:
        """Offline nodes, ports, tags, networks and uid ranges are in the right files."""
        snapshot = sample()
        node = replace(snapshot.nodes[NODE2], offline=True, vm_capable=False)
        node = replace(node, ndparams={"ssh_port": 2222}, master_candidate=False)
        cluster = replace(snapshot.cluster, uid_pool=((10, 20), (30, 30)), tags=("a", "b"))
        net = Network(name="net", network="192.0.2.0/24", uuid="u")
        self.assertEqual(cluster.uuid, CLUSTER)
        for section, obj in (("nodes", node), ("cluster", cluster), ("networks", net)):
            snapshot = snapshot.with_object(section, obj)
        values = ssconf_values(snapshot)
        self.assertEqual(values["offline_nodes"], ["node2"])
        self.assertEqual(values["online_nodes"], ["node1", "node3"])
        self.assertEqual(values["node_vm_capable"], ["node1=True", "node2=False", "node3=True"])
        self.assertEqual(values["master_candidates"], ["node1", "node3"])
        self.assertEqual(values["ssh_ports"], ["node1=22", "node2=2222", "node3=22"])
        self.assertEqual(values["cluster_tags"], ["a", "b"])
        self.assertEqual(values["networks"], ["u net"])
        self.assertEqual(values["uid_pool"], ["10-20", "30"])

    def test_no_value_ends_its_line(self) -> None:
        """Control characters of free texts are blanks: each value stays one line."""
        snapshot = sample()
        cluster = replace(
            snapshot.cluster, hvparams={"kvm": {"kernel_args": "ro\nroot=x"}}, master_netdev="a\nb"
        )
        group = replace(snapshot.group("default"), name="a\nb\x1b\u2028c")
        net = Network(name="n\r\nnet", network="192.0.2.0/24", uuid="u")
        for section, obj in (("nodegroups", group), ("cluster", cluster), ("networks", net)):
            snapshot = snapshot.with_object(section, obj)
        values = ssconf_values(snapshot)
        self.assertEqual(values["hvparams_kvm"], ["kernel_args=ro root=x"])
        self.assertEqual(values["master_netdev"], ["a b"])
        self.assertEqual(values["nodegroups"], [f"{group.uuid} a b  c"])
        self.assertEqual(values["networks"], ["u n  net"])

    def test_ports_of_a_group(self) -> None:
        """A group's parameter applies to nodes that don't set it themselves."""
        snapshot = sample()
        group = replace(snapshot.group("default"), ndparams={"ssh_port": 2022})
        values = ssconf_values(snapshot.with_object("nodegroups", group))
        self.assertEqual(values["ssh_ports"][0], "node1=2022")

    def test_natural_order(self) -> None:
        """Groups of digits are compared as numbers."""
        self.assertEqual(natural(["a10", "a2", "b", "a", "1"]), ["1", "a", "a2", "a10", "b"])
