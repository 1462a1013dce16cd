"""The IPv4 addresses of a network: which are taken, and for whom. Pure.

A network has two strings of 0 and 1 with one character for each address, from the
network's own to its broadcast address (real daemon 3.0.2). ``reservations``
marks the addresses of instances. ``ext_reservations`` marks those that instances
must not get: the network's first and last address, its gateway, nodes, and
any that the administrator named. An address may be in both.

A pool is an immutable value: reserving or releasing an address returns another pool.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from msgspec import Struct
from msgspec.structs import replace

from ganeti_masterd.config.objects import Network
from ganeti_masterd.errors import AddressPoolError

#: The longest and the shortest prefix that a network may have.
LONGEST_PREFIX = 30
SHORTEST_PREFIX = 16


class AddressPool(Struct, frozen=True):
    """Which addresses of a subnet are taken: one bit each, the first address the highest bit."""

    subnet: IPv4Network
    own: int = 0
    external: int = 0

    @property
    def size(self) -> int:
        """How many addresses the subnet has."""
        return self.subnet.num_addresses

    @property
    def reserved_count(self) -> int:
        """How many addresses are taken, by instances or externally."""
        return (self.own | self.external).bit_count()

    @property
    def free_count(self) -> int:
        """How many addresses are free."""
        return self.size - self.reserved_count

    @property
    def map(self) -> str:
        """Each address as a character: ``X`` taken, ``.`` free."""
        return self._text(self.own | self.external).replace("0", ".").replace("1", "X")

    @property
    def external_addresses(self) -> list[str]:
        """The externally reserved addresses, in order."""
        return [str(self.subnet[place]) for place in _places(self._text(self.external), "1")]

    def contains(self, address: str | None) -> bool:
        """Whether an address is in the subnet; False for None."""
        return address is not None and _parses_into(address, self.subnet)

    def is_own(self, address: str) -> bool:
        """Whether an instance has the address.

        Raises ``AddressPoolError`` if it isn't in the subnet.
        """
        return bool(self.own & self._bit(address))

    def is_external(self, address: str) -> bool:
        """Whether the address is externally reserved; raises like :meth:`is_own`."""
        return bool(self.external & self._bit(address))

    def reserve(self, address: str, *, external: bool = False) -> AddressPool:
        """Returns the pool with an address taken.

        Raises ``AddressPoolError``, in the real daemon's words, if it is already taken
        in the same way or isn't in the subnet.
        """
        bit = self._bit(address)
        if external:
            if self.external & bit:
                raise AddressPoolError(f"IP {address} is already externally reserved")
            return replace(self, external=self.external | bit)
        if self.own & bit:
            raise AddressPoolError(f"IP {address} is already used by an instance")
        return replace(self, own=self.own | bit)

    def release(self, address: str, *, external: bool = False) -> AddressPool:
        """Returns the pool with an address released.

        Raises ``AddressPoolError`` if it isn't taken in that way or isn't in the subnet.
        """
        bit = self._bit(address)
        if external:
            if not self.external & bit:
                raise AddressPoolError(f"IP {address} is not externally reserved")
            return replace(self, external=self.external & ~bit)
        if not self.own & bit:
            raise AddressPoolError(f"IP {address} is not used by an instance")
        return replace(self, own=self.own & ~bit)

    def first_free(self, besides: Container[str] = ()) -> str:
        """Returns the lowest address that is free and not among ``besides``.

        ``besides`` are addresses that jobs have reserved. Raises ``AddressPoolError`` if
        none is left.
        """
        for place in _places(self._text(self.own | self.external), "0"):
            address = str(self.subnet[place])
            if address not in besides:
                return address
        raise AddressPoolError(f"{self.subnet} is full")

    def applied_to(self, network: Network) -> Network:
        """Returns the network with this pool as its own."""
        return replace(
            network,
            reservations=self._text(self.own),
            ext_reservations=self._text(self.external),
        )

    def _bit(self, address: str) -> int:
        try:
            place = int(IPv4Address(address)) - int(self.subnet.network_address)
        except ValueError:
            raise AddressPoolError(f"{self.subnet} does not contain {address}")
        if not 0 <= place < self.size:
            raise AddressPoolError(f"{self.subnet} does not contain {address}")
        return 1 << (self.size - 1 - place)

    def _text(self, bits: int) -> str:
        return f"{bits:0{self.size}b}"


def checked_subnet(text: str) -> IPv4Network:
    """Returns a subnet that can have a pool.

    Raises ``AddressPoolError`` for one of more than 65,536 addresses or fewer
    than 4 (real daemon 3.0.2), and for text that isn't a subnet.
    """
    try:
        subnet = IPv4Network(text)
    except ValueError as error:
        raise AddressPoolError(f"'{text}' is not an IPv4 network: {error}")
    if subnet.prefixlen < SHORTEST_PREFIX:
        raise AddressPoolError(
            f"A big network with {subnet.num_addresses} host(s) is currently not supported."
            f" please specify at most a /{SHORTEST_PREFIX} network"
        )
    if subnet.prefixlen > LONGEST_PREFIX:
        raise AddressPoolError(
            f"A network with only {subnet.num_addresses} host(s) is too small, please specify at"
            f" least a /{LONGEST_PREFIX} network"
        )
    return subnet


def new_pool(subnet: str, gateway: str | None = None) -> AddressPool:
    """Returns a new network's pool: first address, last address and gateway are reserved.

    Raises ``AddressPoolError`` like :func:`checked_subnet`, and for a gateway that
    is the first or last address or isn't in the subnet.
    """
    network = checked_subnet(subnet)
    pool = AddressPool(network)
    for address in (network[0], network[-1]):
        pool = pool.reserve(str(address), external=True)
    return pool if gateway is None else pool.reserve(gateway, external=True)


def pool_of(network: Network) -> AddressPool:
    """Returns the pool of a network of the configuration.

    Addresses for which its reservation strings have no character are free.
    """
    subnet = IPv4Network(network.network, strict=False)
    own, external = (
        int((text or "0").ljust(subnet.num_addresses, "0")[: subnet.num_addresses], 2)
        for text in (network.reservations, network.ext_reservations)
    )
    return AddressPool(subnet, own, external)


def gateway6_fits(gateway: str | None, subnet: str | None) -> bool:
    """Whether an IPv6 gateway can serve a subnet: it is inside the subnet or link-local.

    True if either is None.
    """
    if gateway is None or subnet is None:
        return True
    address = IPv6Address(gateway)
    return address in IPv6Network(subnet) or address.is_link_local


def _parses_into(address: str, subnet: IPv4Network) -> bool:
    try:
        return IPv4Address(address) in subnet
    except ValueError:
        return False


def _places(text: str, char: str) -> Iterator[int]:
    """The positions of a character in a text, in ascending order."""
    place = text.find(char)
    while place != -1:
        yield place
        place = text.find(char, place + 1)
