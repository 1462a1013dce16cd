"""Objects as node daemons take them, beside those that the real master daemon sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.base import load
from ganeti_masterd.config.objects import Disk, Instance, Network, Nic
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import ConfigurationError
from ganeti_masterd.logical_units.steps import node_objects
from tests.config.sample import DATA, GROUP, INSTANCE1, NODE1, NODE2, NODE3, sample

RECORDED = json.loads((DATA / "noded_rpc.json").read_text("utf-8"))
#: What is added to a filled instance.
ADDED = ("secondary_nodes", "disks_info")


def sent(value: Any) -> Any:
    """Returns a value as it arrives."""
    return json.loads(msgspec.json.encode(value))


def found(value: Any, *keys: str) -> Iterator[dict[str, Any]]:
    """All dictionaries within a value that have these keys."""
    if isinstance(value, dict):
        if all(key in value for key in keys):
            yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from found(item, *keys)


def drbd(**settings: Any) -> Disk:
    """A DRBD disk between the first two nodes."""
    below = {"nodes": (NODE1, NODE2), "serial_no": 1, "ctime": 1.5, "mtime": 1.5}
    children = (
        Disk(dev_type="plain", logical_id=("vg", "a_data"), size=1024, uuid="d", **below),
        Disk(
            dev_type="plain",
            logical_id=("vg", "a_meta"),
            size=128,
            uuid="m",
            params={"stripes": 7},
            **below,
        ),
    )
    top = {"logical_id": (NODE1, NODE2, 11000, 3, 5, "secret"), **below, **settings}
    return Disk(dev_type="drbd", children=children, size=1024, uuid="top", **top)


class RecordedTests(SynchronousTestCase):
    """Every object that was recorded has exactly the keys and values that we send."""

    def setUp(self) -> None:
        self.snapshot = sample()

    def test_instances(self) -> None:
        """A filled instance with its disks, as sent with a dozen calls."""
        seen = 0
        for _, procedure, arguments, _ in RECORDED:
            for plain in found(arguments, *ADDED):
                own = {key: value for key, value in plain.items() if key not in ADDED}
                disks = [load(Disk, _stored(each)) for each in plain["disks_info"]]
                for each in own["nics"]:
                    each.pop("netinfo", None)
                built = node_objects.instance(
                    self.snapshot, load(Instance, own), plain["primary_node"], disks=disks
                )
                for each in built["nics"]:
                    each.pop("netinfo", None)
                self.assertEqual(sent(built), plain, procedure)
                seen += 1
        self.assertGreater(seen, 80)

    def test_metadata(self) -> None:
        """What instance_metadata_modify was sent."""
        for _, procedure, arguments, _ in RECORDED:
            if procedure == "instance_metadata_modify":
                plain = arguments[0]
                own = {key: value for key, value in plain.items() if key != "osparams_secret"}
                built = node_objects.instance_metadata(load(Instance, own))
                self.assertEqual(sent(built), plain)

    def test_disks(self) -> None:
        """Disks, those that were only to be created too."""
        instance = self.snapshot.instances[INSTANCE1]
        seen = 0
        for _, procedure, arguments, _ in RECORDED:
            if procedure.startswith("blockdev_"):
                for plain in found(arguments, "dev_type", "dynamic_params"):
                    disk = load(Disk, _stored(plain))
                    built = node_objects.disk(self.snapshot, disk, instance, NODE1)
                    self.assertEqual(sent(built), plain, procedure)
                    seen += 1
        self.assertGreater(seen, 50)

    def test_master_network(self) -> None:
        """The master's address."""
        (plain,) = (
            arguments[0]
            for _, procedure, arguments, _ in RECORDED
            if procedure == "node_activate_master_ip"
        )
        cluster = replace(self.snapshot.cluster, master_ip=plain["ip"])
        self.assertEqual(node_objects.master_network(cluster), plain)


def _stored(plain: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in plain.items() if key != "dynamic_params"}


class FilledTests(SynchronousTestCase):
    """What takes effect is filled in."""

    def setUp(self) -> None:
        self.snapshot = self.changed(
            hvparams={"fake": {"migration_mode": "live", "own": 1, "os": 1}},
            os_hvp={"noop": {"fake": {"os": 2}}},
            beparams={"default": {"maxmem": 128, "minmem": 64}},
            osparams={"noop": {"a": 1, "b": 1}, "noop+big": {"b": 2}},
            nicparams={"default": {"mode": "routed", "link": "100", "vlan": ""}},
        )
        self.instance = Instance(
            name="i",
            uuid="i",
            os="noop+big",
            hypervisor="fake",
            primary_node=NODE1,
            hvparams={"own": 9},
            beparams={"maxmem": 512},
            osparams={"c": 3},
            nics=(Nic(mac="aa:00:00:00:00:01", uuid="n", network="net", nicparams={"link": "x"}),),
        )

    def changed(self, **settings: Any) -> Snapshot:
        snapshot = sample()
        network = Network(name="net", network="198.51.100.0/24", uuid="net", tags=("t",))
        snapshot = snapshot.with_object("networks", network)
        return snapshot.with_object("cluster", replace(snapshot.cluster, **settings))

    def built(self, **settings: Any) -> Any:
        return sent(node_objects.instance(self.snapshot, self.instance, NODE1, **settings))

    def test_parameters(self) -> None:
        """Of the hypervisor, the backend, the OS and the network interfaces."""
        snapshot = self.snapshot
        os_hvp = {"noop+big": {"fake": {"os": 2}}}
        self.snapshot = snapshot.with_object("cluster", replace(snapshot.cluster, os_hvp=os_hvp))
        built = self.built()
        self.assertEqual(built["hvparams"], {"migration_mode": "live", "own": 9, "os": 2})
        self.assertEqual(built["beparams"], {"maxmem": 512, "minmem": 64})
        self.assertEqual(built["osparams"], {"a": 1, "b": 2, "c": 3})
        (nic,) = built["nics"]
        self.assertEqual(nic["nicparams"], {"mode": "routed", "link": "x", "vlan": ""})
        self.assertEqual(nic["netinfo"]["network"], "198.51.100.0/24")
        self.assertEqual(nic["netinfo"]["tags"], ["t"])

    def test_overrides(self) -> None:
        """An opcode's own parameters go over all; the configuration isn't touched."""
        built = self.built(hvparams={"own": 0}, beparams={"minmem": 1}, osparams={"pw": "hush"})
        self.assertEqual(built["hvparams"]["own"], 0)
        self.assertEqual(built["beparams"], {"maxmem": 512, "minmem": 1})
        self.assertEqual(built["osparams"]["pw"], "hush")
        self.assertEqual(self.instance.hvparams, {"own": 9})
        self.assertNotIn("pw", self.built()["osparams"])

    def test_nic_alone(self) -> None:
        """A network interface to be plugged in has its own parameters only, and its network."""
        built = sent(node_objects.nic(self.snapshot, self.instance.nics[0]))
        self.assertEqual(built["nicparams"], {"link": "x"})
        self.assertEqual(built["netinfo"]["name"], "net")
        lost = replace(self.instance.nics[0], network="gone")
        self.assertNotIn("netinfo", node_objects.nic(self.snapshot, lost))

    def test_later_keys(self) -> None:
        """Keys of later versions stay here; where a device is plugged in goes along."""
        plain = {**self.instance.plain(), "novelty": 1}
        nic = {**self.instance.nics[0].plain(), "novelty": 1, "pci": 5}
        built = node_objects.instance(
            self.snapshot, load(Instance, {**plain, "nics": [nic]}), NODE1
        )
        self.assertNotIn("novelty", built)
        self.assertNotIn("novelty", built["nics"][0])
        self.assertEqual(built["nics"][0]["pci"], 5)
        self.assertNotIn("/rest", sent(built))

    def test_private(self) -> None:
        """Private OS parameters travel with the instance, secret ones only when given."""
        instance = replace(self.instance, osparams_private={"p": "hush"})
        built = node_objects.instance_metadata(instance, secret={"s": "still"})
        self.assertEqual(built["osparams_private"], {"p": "hush"})
        self.assertEqual(built["osparams_secret"], {"s": "still"})
        self.assertEqual(built["hvparams"], {"own": 9})
        given = node_objects.instance_metadata(instance, private={})
        self.assertEqual(given["osparams_private"], {})


class DiskTests(SynchronousTestCase):
    """Disks of each kind, for each node."""

    def setUp(self) -> None:
        snapshot = sample()
        group = replace(
            snapshot.groups[GROUP], diskparams={"drbd": {"data-stripes": 3, "metavg": "fast"}}
        )
        self.snapshot = snapshot.with_object("nodegroups", group)
        for number, uuid in enumerate((NODE1, NODE2, NODE3), 1):
            node = replace(self.snapshot.nodes[uuid], secondary_ip=f"192.0.2.{number}")
            self.snapshot = self.snapshot.with_object("nodes", node)
        self.instance = replace(snapshot.instances[INSTANCE1], primary_node=NODE1)

    def built(self, disk: Disk, node: str) -> Any:
        return sent(node_objects.disk(self.snapshot, disk, self.instance, node))

    def test_drbd_parameters(self) -> None:
        """The group's over the cluster's, by their names on the wire, in all three disks."""
        built = self.built(drbd(params={"protocol": "A"}), NODE1)
        params = built["params"]
        self.assertEqual(len(params), 13)
        self.assertEqual(params["default-metavg"], "fast")
        self.assertEqual(params["protocol"], "A")
        self.assertEqual(params["disabled-barriers"], "n")
        self.assertEqual(params["disable-meta-flush"], False)
        data, meta = built["children"]
        self.assertEqual(data["params"], {"stripes": 3})
        self.assertEqual(meta["params"], {"stripes": 7})

    def test_drbd_ends(self) -> None:
        """Each end sees itself as local; another node sees nothing."""
        one, two = ("192.0.2.1", 3), ("192.0.2.2", 5)
        for node, local, remote in ((NODE1, one, two), (NODE2, two, one)):
            self.assertEqual(
                self.built(drbd(), node)["dynamic_params"],
                {
                    "local-ip": local[0],
                    "remote-ip": remote[0],
                    "local-minor": local[1],
                    "remote-minor": remote[1],
                },
            )
        built = self.built(drbd(), NODE3)
        self.assertEqual(built["dynamic_params"], {})
        self.assertEqual([child["dynamic_params"] for child in built["children"]], [{}, {}])

    def test_drbd_instance(self) -> None:
        """The other node of a DRBD disk is the instance's secondary."""
        built = node_objects.instance(self.snapshot, self.instance, NODE2, disks=[drbd()])
        self.assertEqual(built["secondary_nodes"], [NODE2])
        self.assertEqual(built["disks_info"][0]["dynamic_params"]["local-ip"], "192.0.2.2")

    def test_node_is_gone(self) -> None:
        """A disk on a node that isn't there is a fault of the configuration."""
        logical_id = (NODE1, "gone", 11000, 3, 5, "secret")
        error = self.assertRaises(
            ConfigurationError, self.built, drbd(logical_id=logical_id), NODE1
        )
        self.assertNotIn("secret", str(error))
        self.instance = replace(self.instance, primary_node="gone")
        self.assertRaises(ConfigurationError, self.built, drbd(), NODE1)

    def test_plain_disk(self) -> None:
        """As configured: nothing filled in, nothing for a node."""
        built = sent(node_objects.plain_disk(drbd(params={"protocol": "A"})))
        self.assertEqual(built["params"], {"protocol": "A"})
        self.assertNotIn("dynamic_params", built)
        self.assertNotIn("dynamic_params", built["children"][0])
        self.assertEqual(built["serial_no"], 1)

    def test_address_of_the_master(self) -> None:
        """IPv6 has its own family; what is no address is a fault."""
        cluster = self.snapshot.cluster
        built = node_objects.master_network(replace(cluster, master_ip="2001:db8::1"))
        self.assertEqual(built["ip_family"], 10)
        bad = replace(cluster, master_ip="cluster")
        self.assertRaises(ConfigurationError, node_objects.master_network, bad)
