"""Pools of addresses: what they hold, take, give back and refuse."""

from __future__ import annotations

from ipaddress import IPv4Network

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.addresspool import (
    AddressPool,
    checked_subnet,
    gateway6_fits,
    new_pool,
    pool_of,
)
from ganeti_masterd.config.objects import Network
from ganeti_masterd.errors import AddressPoolError
from tests.examples import examples

EXAMPLES = examples(50, 500)

#: What a pool can be asked to do, to an address by its place.
STEPS = st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 15)), max_size=40)


class PoolTests(SynchronousTestCase):
    """One pool as a value."""

    def setUp(self) -> None:
        self.pool = new_pool("192.0.2.0/29", "192.0.2.6")

    def test_new(self) -> None:
        """A new pool keeps its first and last address and the gateway from instances."""
        self.assertEqual(self.pool.external_addresses, ["192.0.2.0", "192.0.2.6", "192.0.2.7"])
        self.assertEqual(self.pool.map, "X.....XX")
        self.assertEqual(
            (self.pool.size, self.pool.reserved_count, self.pool.free_count), (8, 3, 5)
        )

    def test_texts(self) -> None:
        """The texts of a network are those of the real daemon, and are read back."""
        pool = self.pool.reserve("192.0.2.3")
        plain = Network(name="n", network="192.0.2.0/29", uuid="n-1")
        network = pool.applied_to(plain)
        self.assertEqual(network.reservations, "00010000")
        self.assertEqual(network.ext_reservations, "10000011")
        self.assertEqual(pool_of(network), pool)

    def test_missing_texts(self) -> None:
        """A text that is missing or too short has its addresses free."""
        bare = Network(name="n", network="192.0.2.0/29", uuid="n-1")
        self.assertEqual(pool_of(bare).free_count, 8)
        short = Network(name="n", network="192.0.2.0/29", uuid="n-1", reservations="01")
        self.assertEqual(pool_of(short).map, ".X......")

    def test_first_free(self) -> None:
        """The lowest address that nobody has or has set aside is the next."""
        pool = self.pool.reserve("192.0.2.1")
        self.assertEqual(pool.first_free(), "192.0.2.2")
        self.assertEqual(pool.first_free({"192.0.2.2", "192.0.2.3"}), "192.0.2.4")

    def test_full(self) -> None:
        """A full pool says so, with its subnet."""
        pool = AddressPool(IPv4Network("192.0.2.0/30"), 0b0110, 0b1001)
        error = self.assertRaises(AddressPoolError, pool.first_free)
        self.assertEqual(str(error), "192.0.2.0/30 is full")
        free = AddressPool(IPv4Network("192.0.2.0/30"), 0b0100, 0b1001)
        self.assertRaises(AddressPoolError, free.first_free, {"192.0.2.2"})

    def test_twice(self) -> None:
        """An address is taken once in each way, and both ways go together."""
        pool = self.pool.reserve("192.0.2.3").reserve("192.0.2.3", external=True)
        self.assertEqual((pool.is_own("192.0.2.3"), pool.is_external("192.0.2.3")), (True, True))
        for external, words in (
            (False, "IP 192.0.2.3 is already used by an instance"),
            (True, "IP 192.0.2.3 is already externally reserved"),
        ):
            error = self.assertRaises(
                AddressPoolError, pool.reserve, "192.0.2.3", external=external
            )
            self.assertEqual(str(error), words)

    def test_release_of_what_is_free(self) -> None:
        """What isn't taken in that way can't be given back."""
        for external, words in (
            (False, "IP 192.0.2.3 is not used by an instance"),
            (True, "IP 192.0.2.3 is not externally reserved"),
        ):
            error = self.assertRaises(
                AddressPoolError, self.pool.release, "192.0.2.3", external=external
            )
            self.assertEqual(str(error), words)

    def test_elsewhere(self) -> None:
        """Addresses of other networks, other families and no addresses are none of the pool's."""
        for address in ("192.0.2.8", "192.0.1.255", "2001:db8::1", "node1"):
            self.assertFalse(self.pool.contains(address))
            error = self.assertRaises(AddressPoolError, self.pool.reserve, address)
            self.assertEqual(str(error), f"192.0.2.0/29 does not contain {address}")
        self.assertFalse(self.pool.contains(None))
        self.assertTrue(self.pool.contains("192.0.2.5"))

    def test_sizes(self) -> None:
        """Networks from /16 to /30 have pools, others don't, and no host bits are taken."""
        for good in ("10.1.0.0/16", "192.0.2.4/30"):
            self.assertEqual(str(checked_subnet(good)), good)
        for bad, words in (
            ("10.0.0.0/15", "A big network with 131072 host"),
            ("192.0.2.4/31", "A network with only 2 host"),
            ("192.0.2.5/24", "is no IPv4 network"),
        ):
            self.assertIn(words, str(self.assertRaises(AddressPoolError, checked_subnet, bad)))

    def test_gateways_that_can_not_be(self) -> None:
        """A gateway is of the network, and neither its first nor its last address."""
        for gateway in ("192.0.2.9", "192.0.2.0", "192.0.2.7"):
            self.assertRaises(AddressPoolError, new_pool, "192.0.2.0/29", gateway)

    def test_big(self) -> None:
        """The largest network is filled from its first free address to its last."""
        pool = new_pool("10.1.0.0/16")
        self.assertEqual(pool.first_free(), "10.1.0.1")
        full = AddressPool(pool.subnet, (1 << 65536) - 1 - 2, 0)
        self.assertEqual((full.first_free(), full.free_count), ("10.1.255.254", 1))

    @settings(max_examples=EXAMPLES, deadline=None)
    @given(STEPS)
    def test_as_two_sets(self, steps: list[tuple[bool, bool, int]]) -> None:
        """Whatever is taken and given back, a pool is two sets of addresses, in text and back."""
        subnet = IPv4Network("192.0.2.16/28")
        pool = AddressPool(subnet)
        model: dict[bool, set[str]] = {False: set(), True: set()}
        for take, external, place in steps:
            address = str(subnet[place])
            possible = (address in model[external]) is not take
            try:
                pool = (pool.reserve if take else pool.release)(address, external=external)
            except AddressPoolError:
                self.assertFalse(possible)
                continue
            self.assertTrue(possible)
            (model[external].add if take else model[external].remove)(address)
        taken = model[False] | model[True]
        self.assertEqual(pool.reserved_count, len(taken))
        self.assertEqual(set(pool.external_addresses), model[True])
        self.assertEqual({str(subnet[at]) for at, c in enumerate(pool.map) if c == "X"}, taken)
        network = Network(name="n", network=str(subnet), uuid="n-1")
        self.assertEqual(pool_of(pool.applied_to(network)), pool)


class Gateway6Tests(SynchronousTestCase):
    """IPv6 gateways."""

    def test_where_it_may_be(self) -> None:
        """In the subnet or local to the link; without a subnet anywhere."""
        for gateway, subnet, fits in (
            ("2001:db8::1", "2001:db8::/64", True),
            ("fe80::1", "2001:db8::/64", True),
            ("2001:db9::1", "2001:db8::/64", False),
            ("2001:db9::1", None, True),
            (None, "2001:db8::/64", True),
        ):
            self.assertEqual(gateway6_fits(gateway, subnet), fits, gateway)
