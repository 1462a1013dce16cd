"""Reservations: no other job gets what a job has reserved."""

from __future__ import annotations

from random import Random

from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.addresspool import new_pool
from ganeti_masterd.config.objects import Disk, Instance, Network, Nic
from ganeti_masterd.config.reservations import (
    Reservations,
    with_ports,
    without_ports,
)
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.constants import LAST_DRBD_PORT
from ganeti_masterd.errors import OpPrereqError, ProgrammerError, ReservationError

from .sample import NODE1, NODE2, NODE3, sample


def mirrored() -> Snapshot:
    """Returns the sample with a drbd disk of an instance with a console port."""
    data = Disk(dev_type="plain", size=1, uuid="p", logical_id=("xenvg", "data"))
    disk = Disk(
        dev_type="drbd",
        size=1,
        uuid="d",
        logical_id=(NODE1, NODE2, 11000, 0, 1, "secret"),
        children=(data,),
    )
    nic = Nic(mac="aa:00:01:00:00:01", ip="192.0.2.9", network="net", uuid="n")
    instance = Instance(
        name="m", uuid="m", primary_node=NODE1, disks=("d",), nics=(nic,), network_port=11001
    )
    snapshot = sample().with_object("disks", disk).with_object("instances", instance)
    cluster = replace(snapshot.cluster, highest_used_port=11001)
    return snapshot.with_object("cluster", cluster)


class Fixed(Random):
    """A source of random numbers that repeats a few."""

    def __init__(self, *numbers: int) -> None:
        super().__init__()
        self.numbers = list(numbers)

    def getrandbits(self, count: int) -> int:
        return self.numbers.pop(0) if len(self.numbers) > 1 else self.numbers[0]


class Reserving(SynchronousTestCase):
    def setUp(self) -> None:
        self.held = Reservations(Random(1))
        self.snapshot = mirrored()

    def test_once(self) -> None:
        """A value reserved by one job is refused to others until it is released."""
        self.held.reserve(1, "instance", "new", self.snapshot)
        self.held.reserve(1, "instance", "new", self.snapshot)
        fault = self.assertRaises(
            ReservationError, self.held.reserve, 2, "instance", "new", self.snapshot
        )
        self.assertIn("instance name 'new' is reserved by job 1", str(fault))
        self.held.reserve(2, "node", "new", self.snapshot)
        self.assertEqual(self.held.owner("instance", "new"), 1)
        self.held.release(2, "instance", "new")
        self.assertEqual(self.held.owner("instance", "new"), 1)
        self.held.release(1, "instance", "new")
        self.assertIsNone(self.held.owner("instance", "new"))
        self.held.reserve(2, "instance", "new", self.snapshot)

    def test_dropped_at_the_end(self) -> None:
        """Dropping a job releases everything that it has reserved, and nothing else."""
        for value in ("a", "b"):
            self.held.reserve(1, "instance", value, self.snapshot)
        self.held.reserve(2, "instance", "c", self.snapshot)
        self.held.generate_mac(1, self.snapshot)
        self.held.drop(1)
        self.held.drop(1)
        self.assertEqual(len(self.held), 1)
        self.held.drop(2)
        self.assertEqual(len(self.held), 0)

    def test_in_the_configuration(self) -> None:
        """A value that the configuration uses is refused to any job."""
        for kind, value, code in (
            ("instance", "instance1", "already_exists"),
            ("node", "node1", "already_exists"),
            ("nodegroup", "default", "already_exists"),
            ("address", "198.51.100.1", "resource_not_unique"),
            ("address", "198.51.100.11", "resource_not_unique"),
            ("address", "198.51.100.201", "resource_not_unique"),
            ("address", ("net", "192.0.2.9"), "resource_not_unique"),
            ("mac", "AA:00:00:FE:EA:D1", "resource_not_unique"),
            ("volume", "xenvg/data", "resource_not_unique"),
            ("port", 11000, "resource_not_unique"),
            ("port", 11001, "resource_not_unique"),
            ("minor", (NODE2, 1), "resource_not_unique"),
        ):
            fault = self.assertRaises(
                OpPrereqError, self.held.reserve, 1, kind, value, self.snapshot
            )
            self.assertEqual(fault.args[1], code)
        self.assertEqual(len(self.held), 0)

    def test_free_elsewhere(self) -> None:
        """The same address on another network, or minor on another node, is free."""
        self.held.reserve(1, "address", "192.0.2.9", self.snapshot)
        self.held.reserve(1, "address", ("other", "192.0.2.9"), self.snapshot)
        self.held.reserve(1, "minor", (NODE1, 1), self.snapshot)
        self.assertEqual(len(self.held), 3)

    def test_unknown_kind(self) -> None:
        """Only what is declared can be reserved."""
        self.assertRaises(ProgrammerError, self.held.reserve, 1, "planet", "x", self.snapshot)


class Generating(SynchronousTestCase):
    def setUp(self) -> None:
        self.held = Reservations(Random(1))
        self.snapshot = mirrored()

    def test_macs(self) -> None:
        """MAC addresses have the cluster's or a network's prefix and differ from all others."""
        made = {self.held.generate_mac(job, self.snapshot) for job in range(50)}
        self.assertEqual(len(made), 50)
        for mac in made:
            self.assertRegex(mac, r"^aa:00:01(:[0-9a-f]{2}){3}$")
        mac = self.held.generate_mac(1, self.snapshot, "AA:BB:CC")
        self.assertTrue(mac.startswith("aa:bb:cc:"))

    def test_macs_in_use(self) -> None:
        """A MAC that is in use or reserved is skipped; it is an error if none is free."""
        held = Reservations(Fixed(1, 1, 2, 2, 3))
        self.assertEqual(held.generate_mac(1, self.snapshot), "aa:00:01:00:00:02")
        self.assertEqual(held.generate_mac(1, self.snapshot), "aa:00:01:00:00:03")
        fault = self.assertRaises(OpPrereqError, held.generate_mac, 2, self.snapshot)
        self.assertEqual(fault.args[1], "insufficient_resources")

    def test_ports(self) -> None:
        """Ports come from the pool first, then from above all that were used."""
        cluster = replace(self.snapshot.cluster, tcpudp_port_pool=(10990, 10980))
        snapshot = self.snapshot.with_object("cluster", cluster)
        made = [self.held.generate_port(job, snapshot) for job in (1, 2, 1, 2)]
        self.assertEqual(made, [10980, 10990, 11002, 11003])
        after = with_ports(cluster, made[:3])
        self.assertEqual((after.tcpudp_port_pool, after.highest_used_port), ((), 11002))
        back = without_ports(after, [11002, 10980, 11002])
        self.assertEqual(back.tcpudp_port_pool, (10980, 11002))
        self.assertEqual(back.highest_used_port, 11002)

    def test_no_port_left(self) -> None:
        """When all ports are in use, that is an error."""
        cluster = replace(self.snapshot.cluster, highest_used_port=LAST_DRBD_PORT)
        snapshot = self.snapshot.with_object("cluster", cluster)
        fault = self.assertRaises(OpPrereqError, self.held.generate_port, 1, snapshot)
        self.assertEqual(fault.args[1], "insufficient_resources")

    def test_minors(self) -> None:
        """The lowest free minor of each node is reserved, even twice for one job."""
        ask = self.held.generate_minors
        self.assertEqual(ask(1, [NODE1, NODE2], self.snapshot), [1, 0])
        self.assertEqual(ask(1, [NODE1, NODE3], self.snapshot), [2, 0])
        self.assertEqual(ask(2, [NODE2], self.snapshot), [2])
        self.held.drop(1)
        self.assertEqual(ask(2, [NODE1], self.snapshot), [1])

    def test_addresses_of_hosts(self) -> None:
        """What a node has, one that was added later too, no pool gives; nor is it taken by hand."""
        plain = Network(name="lan", network="203.0.113.0/29", uuid="net")
        snapshot = self.snapshot.with_object(
            "networks", new_pool("203.0.113.0/29").applied_to(plain)
        )
        node = replace(snapshot.nodes[NODE2], primary_ip="203.0.113.1", secondary_ip="203.0.113.2")
        cluster = replace(snapshot.cluster, master_ip="203.0.113.3")
        snapshot = snapshot.with_object("nodes", node).with_object("cluster", cluster)
        for address in ("203.0.113.1", "203.0.113.2", "203.0.113.3"):
            value = ("net", address)
            error = self.assertRaises(
                OpPrereqError, self.held.reserve, 1, "address", value, snapshot
            )
            self.assertEqual(error.args[1], "resource_not_unique")
        self.assertEqual(self.held.generate_address(1, "net", snapshot), "203.0.113.4")

    def test_addresses(self) -> None:
        """The next address is the lowest that neither the pool, a NIC nor a job has."""
        plain = Network(name="lan", network="192.0.2.8/29", uuid="net")
        network = new_pool("192.0.2.8/29", "192.0.2.10").reserve("192.0.2.11").applied_to(plain)
        snapshot = self.snapshot.with_object("networks", network)
        # 8 and 10 are reserved, 11 is in the pool, 9 is a NIC's but not in the pool.
        self.assertEqual(self.held.generate_address(1, "net", snapshot), "192.0.2.12")
        self.held.reserve(2, "address", ("net", "192.0.2.13"), snapshot)
        self.held.reserve(2, "address", ("other", "192.0.2.14"), snapshot)
        self.assertEqual(self.held.generate_address(1, "net", snapshot), "192.0.2.14")
        self.assertEqual(self.held.owner("address", ("net", "192.0.2.14")), 1)
        error = self.assertRaises(OpPrereqError, self.held.generate_address, 1, "net", snapshot)
        self.assertEqual(
            error.args,
            (
                "no free address found in network 'lan': 192.0.2.8/29 is full",
                "insufficient_resources",
            ),
        )
        self.held.drop(1)
        self.assertEqual(self.held.generate_address(3, "net", snapshot), "192.0.2.12")
