"""NICs: what opcodes may say of them, and what addresses and networks come of it."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from ganeti_masterd.config.addresspool import pool_of
from ganeti_masterd.config.objects import Nic
from ganeti_masterd.errors import (
    ECODE_INVAL,
    ECODE_NOENT,
    ECODE_NOTUNIQUE,
    ECODE_STATE,
    AddressPoolError,
    OpPrereqError,
)
from ganeti_masterd.logical_units.instances.nics import (
    NicWish,
    address_changes,
    normal_mac,
    normal_vlan,
    read_nic,
    read_nics,
    settle_nic,
    wish_of,
)
from ganeti_masterd.testing.context import SynchronousContext
from tests.logical_units.instances.creation import CreationCase


class NicCase(CreationCase):
    """Base: reads and settles NICs."""

    def setUp(self) -> None:
        super().setUp()
        self.begin()

    def begin(self, job_id: int = 7) -> None:
        """Begins a job whose reservations are among the world's."""
        self.ctx = SynchronousContext(
            self.world.now, self.world.nodes, job_id=job_id, clock=self.world.clock
        )
        self.ctx.store = self.world.store
        self.ctx.reservations = self.world.reservations

    def read(self, **given: Any) -> NicWish:
        """Reads one NIC."""
        return read_nic(given, self.world.now.cluster)

    def settle(self, before: Nic | None = None, conflicts_check: bool = True, **given: Any) -> Nic:
        """Reads and settles one NIC of an instance on node1."""
        old = None if before is None else wish_of(before)
        wish = read_nic(given, self.world.now.cluster, old=old)
        primary = self.world.now.node("node1").uuid
        return settle_nic(
            self.ctx, wish, 0, primary, conflicts_check=conflicts_check, before=before
        )

    def refused(self, text: str, code: str, **given: Any) -> None:
        """Expects a refusal."""
        error = self.assertRaises(OpPrereqError, self.settle, **given)
        self.assertEqual(error.args, (text, code))


class ReadingTests(NicCase):
    """What is said of a NIC."""

    def test_normal_forms(self) -> None:
        """MAC addresses are in lower case, VLANs have their separator."""
        self.assertEqual(normal_mac("AA:00:00:11:22:3f"), "aa:00:00:11:22:3f")
        self.assertEqual(normal_mac("Generate"), "auto")
        for given, expected in (
            ("100", ".100"),
            (".5", ".5"),
            (":5", ":5"),
            (":5:6", ":5:6"),
            (".5:6", ".5:6"),
            ("", ""),
        ):
            self.assertEqual(normal_vlan(given), expected)
        for wrong in ("x", ".", "1.2", ":5:", "100:5"):
            error = self.assertRaises(OpPrereqError, normal_vlan, wrong)
            self.assertEqual(
                error.args, (f"Specified VLAN parameter is invalid : {wrong}", ECODE_INVAL)
            )
        error = self.assertRaises(OpPrereqError, normal_mac, "zz")
        self.assertEqual(error.args, ("Invalid MAC address 'zz'", ECODE_INVAL))

    def test_only_what_is_given(self) -> None:
        """None and auto stand for what the cluster has."""
        self.assertEqual(self.read(mode="auto", link=None), NicWish())
        self.assertEqual(self.read(bridge="br0").parameters, {"link": "br0"})
        self.assertEqual(self.read(ip="none", name="none", network="none"), NicWish())

    def test_refusals(self) -> None:
        """What can't be, whichever node it is on."""
        for text, given in (
            (
                "If network is given, no mode or link is allowed to be passed",
                {"network": "net1", "mode": "routed"},
            ),
            (
                "Routed nic mode requires an ip address if not attached to a network",
                {"mode": "routed"},
            ),
            ("if ip=pool, parameter network must be passed too", {"ip": "pool"}),
            ("IP address set to auto but name checks have been skipped", {"ip": "auto"}),
            ("Invalid IP address '1.2'", {"ip": "1.2"}),
            ("Invalid NIC mode 'mixed'", {"mode": "mixed"}),
            ("Missing bridged NIC link", {"mode": "bridged", "link": ""}),
            ("Cannot pass 'bridge' and 'link' at the same time", {"bridge": "a", "link": "b"}),
            ("Invalid name '5'. Purely numeric NIC names are not allowed", {"name": "5"}),
        ):
            with self.subTest(text):
                self.refused(text, ECODE_INVAL, **given)
        error = self.assertRaises(
            OpPrereqError, read_nics, [{"name": "a"}, {"name": "a"}], self.world.now.cluster
        )
        self.assertEqual(error.args, ("NIC name 'a' already used", ECODE_NOTUNIQUE))
        error = self.assertRaises(OpPrereqError, read_nics, [{}] * 9, self.world.now.cluster)
        self.assertEqual(error.args[1], ECODE_STATE)

    def test_over_an_old_one(self) -> None:
        """What isn't given stays, but for parameters where the network changes."""
        old = NicWish(mac="aa:00:00:00:00:01", ip="10.0.0.1", parameters={"link": "br1"}, name="x")
        cluster = self.world.now.cluster
        self.assertEqual(read_nic({"name": "y"}, cluster, old=old), replace(old, name="y"))
        moved = read_nic({"network": "net1", "ip": "pool"}, cluster, old=old)
        self.assertEqual((moved.parameters, moved.mac, moved.ip), ({}, old.mac, "pool"))


class SettlingTests(NicCase):
    """Addresses and parameters on a node."""

    def test_network(self) -> None:
        """A NIC in a network has the parameters of the group's connection."""
        nic = self.settle(network="net1", ip="pool")
        self.assertEqual((nic.network, nic.ip), (self.network().uuid, "192.0.2.2"))
        self.assertEqual(nic.nicparams, {"mode": "routed", "link": "tab9", "vlan": ""})
        self.assertEqual(
            self.ctx.lines,
            [
                " - INFO: NIC/0 inherits netparams ['tab9', 'routed', '']",
                " - INFO: Chose IP 192.0.2.2 from network net1",
            ],
        )

    def test_mac_prefix(self) -> None:
        """A new MAC address begins as the network says, else as the cluster says."""
        self.modify(self.network().uuid, mac_prefix="52:54:01")
        self.assertTrue(self.settle(network="net1").mac.startswith("52:54:01:"))
        self.assertTrue(self.settle().mac.startswith("aa:00:00:"))

    def test_taken(self) -> None:
        """Addresses that another job or instance has."""
        self.settle(network="net1", ip="192.0.2.4", mac="aa:00:00:11:22:33")
        self.begin(8)
        taken = "IP address 192.0.2.4 already in use or does not belong to network net1"
        self.refused(taken, ECODE_NOTUNIQUE, network="net1", ip="192.0.2.4")
        self.refused(
            "MAC address aa:00:00:11:22:33 already in use in cluster",
            ECODE_NOTUNIQUE,
            mac="AA:00:00:11:22:33",
        )
        self.world.reservations.drop(7)
        nic = self.settle(network="net1", ip="192.0.2.4")
        self.ctx.change_all(address_changes([nic]))
        self.world.reservations.drop(8)
        self.refused(taken, ECODE_NOTUNIQUE, network="net1", ip="192.0.2.4")
        self.refused(
            "IP address 192.0.2.99 already in use or does not belong to network net1",
            ECODE_NOTUNIQUE,
            network="net1",
            ip="192.0.2.99",
        )

    def test_external(self) -> None:
        """An address kept from instances is only given without the check."""
        self.refused(
            "IP address 192.0.2.0 already in use or does not belong to network net1",
            ECODE_NOTUNIQUE,
            network="net1",
            ip="192.0.2.0",
        )
        nic = self.settle(conflicts_check=False, network="net1", ip="192.0.2.0")
        self.assertEqual(nic.ip, "192.0.2.0")

    def test_outside(self) -> None:
        """An address of a network that the NIC is not in is only given without the check."""
        self.refused(
            "The requested IP address (192.0.2.5) belongs to network net1, but the target NIC "
            "does not.",
            ECODE_STATE,
            ip="192.0.2.5",
        )
        self.assertEqual(self.settle(conflicts_check=False, ip="192.0.2.5").network, None)
        self.assertEqual(self.settle(ip="203.0.113.3").ip, "203.0.113.3")

    def test_unknown(self) -> None:
        """Networks that aren't there, aren't connected, or are full."""
        self.refused("Network 'none9' not found", ECODE_NOENT, network="none9")
        self.refused(
            "No netparams found for network net2. Probably not connected to node's node1 nodegroup",
            ECODE_INVAL,
            network="net2",
        )
        for _ in range(5):
            self.settle(network="net1", ip="pool")
        self.refused(
            "Unable to get a free IP for NIC 0 from the address pool",
            ECODE_STATE,
            network="net1",
            ip="pool",
        )

    def test_change(self) -> None:
        """A NIC that is changed keeps what it has, and needs no reservation for that."""
        nic = self.settle(network="net1", ip="pool")
        self.ctx.change_all(address_changes([nic]))
        self.world.reservations.drop(7)
        same = self.settle(before=nic, name="front")
        self.assertEqual(same, replace(nic, name="front"))
        self.assertEqual(len(self.world.reservations), 0)
        other = self.settle(before=nic, ip="192.0.2.4")
        self.assertEqual((other.uuid, other.mac, other.ip), (nic.uuid, nic.mac, "192.0.2.4"))
        self.ctx.change_all(address_changes([other], [nic]))
        self.assertEqual(self.own_addresses(), "00001000")
        out = self.settle(before=other, network="none", ip="none")
        self.assertEqual((out.network, out.ip, out.nicparams), (None, None, {}))
        self.ctx.change_all(address_changes([out], [other]))
        self.assertEqual(self.own_addresses(), "00000000")

    def test_same_address(self) -> None:
        """Two NICs with one address on one link are only warned of."""
        self.create("diskless", nics=[{"ip": "203.0.113.5", "link": "br0"}], start=False)
        self.settle(ip="203.0.113.5", link="br0")
        self.assertIn("is also that of NIC 0 of instance", self.ctx.lines[-1])

    def test_address_changes(self) -> None:
        """An address that is taken by now fails the whole transaction; one that stays is left."""
        nic = self.settle(network="net1", ip="pool")
        self.ctx.change_all(address_changes([nic]))
        error = self.assertRaises(AddressPoolError, self.ctx.change_all, address_changes([nic]))
        self.assertIn("192.0.2.2", str(error))
        self.ctx.change_all(address_changes([nic], [nic]))
        self.assertTrue(pool_of(self.network()).is_own("192.0.2.2"))
        self.ctx.change_all(address_changes([], [nic]))
        self.assertFalse(pool_of(self.network()).is_own("192.0.2.2"))
        self.world.reservations.drop(7)
