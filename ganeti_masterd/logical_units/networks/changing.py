"""OP_NETWORK_SET_PARAMS: another gateway, other reserved addresses, other names of things."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from ganeti_masterd.config.addresspool import AddressPool, pool_of
from ganeti_masterd.config.objects import Network
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import ECODE_INVAL, ECODE_STATE, AddressPoolError, prereq
from ganeti_masterd.locking.levels import Level, WantedLocks, exclusive
from ganeti_masterd.logical_units.base import LogicalUnit
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.networks.declaring import (
    check_gateway6,
    checked_mac_prefix,
    network_variables,
)
from ganeti_masterd.opcodes.networks import NetworkSetParams

#: As a prefix of MAC addresses: back to the cluster's.
NONE = "none"


class SetNetworkParameters(LogicalUnit[NetworkSetParams], runs=NetworkSetParams):
    """Changes a network; holds it alone, so that no instance draws an address meanwhile.

    An address that can't be reserved or given back is a warning, the others
    are (real daemon 3.0.2).
    """

    def expand(self, snapshot: Snapshot) -> None:
        """Finds the network; a gateway and reserved addresses don't change at once."""
        if self.op.gateway and (self.op.add_reserved_ips or self.op.remove_reserved_ips):
            raise prereq("Cannot modify gateway and reserved ips at once", ECODE_INVAL)
        self.uuid = snapshot.network(self.op.network_name).uuid

    def locks(self, level: Level, snapshot: Snapshot) -> WantedLocks:
        """Holds the network alone."""
        if level is Level.NETWORK:
            return exclusive(self.uuid)
        return super().locks(level, snapshot)

    def check(self, ctx: Context) -> None:
        """Refuses gateways and a prefix that can't be."""
        self.network = ctx.snapshot().networks[self.uuid]
        gateway = self.op.gateway
        if gateway and gateway != self.network.gateway:
            check_gateway(pool_of(self.network), gateway)
        self.changed = changed_network(self.network, self.op)
        if self.op.gateway6 or self.op.network6:
            check_gateway6(self.changed.gateway6, self.changed.network6)

    def hook_environment(self, snapshot: Snapshot) -> Mapping[str, object]:
        """Describes the network as it is to be."""
        return network_variables(
            name=self.op.network_name,
            subnet=self.changed.network,
            gateway=self.changed.gateway,
            subnet6=self.changed.network6,
            gateway6=self.changed.gateway6,
            mac_prefix=self.changed.mac_prefix,
            tags=self.changed.tags,
        )

    def exec(self, ctx: Context) -> None:
        """Says what of the addresses can't be done, and does the rest."""
        if self.op.gateway and self.op.gateway == self.network.gateway:
            ctx.warning(f"Gateway is already {self.op.gateway}")
        pool, faults = changed_reservations(
            pool_of(self.changed),
            self.op.add_reserved_ips or (),
            self.op.remove_reserved_ips or (),
            self.network.gateway,
        )
        for fault in faults:
            ctx.warning(fault)
        changed = pool.applied_to(self.changed)
        # The lock keeps all others from it; the serial would show who didn't ask for it.
        ctx.change(self.uuid, lambda _: changed, self.network.serial_no)


def check_gateway(pool: AddressPool, gateway: str) -> None:
    """Refuses a new gateway that isn't in the network, or that is taken; raises ``OpPrereqError``.

    (The real daemon looks at addresses of instances alone, and fails half-way
    with an ``AddressPoolError`` for the others.)
    """
    if not pool.contains(gateway):
        raise prereq(f"Gateway IP address '{gateway}' is not in the network {pool.subnet}")
    if pool.is_own(gateway) or pool.is_external(gateway):
        raise prereq(f"Gateway IP address '{gateway}' is already reserved", ECODE_STATE)


def changed_network(network: Network, op: NetworkSetParams) -> Network:
    """Returns the network with all but the reserved addresses as asked. Pure.

    A new gateway, which must be free, is kept from instances in place of the old one.
    """
    changed = network
    if op.gateway and op.gateway != network.gateway:
        pool = pool_of(network).reserve(op.gateway, external=True)
        if network.gateway and pool.contains(network.gateway) and pool.is_external(network.gateway):
            pool = pool.release(network.gateway, external=True)
        changed = replace(pool.applied_to(network), gateway=op.gateway)
    if op.mac_prefix:
        prefix = None if op.mac_prefix == NONE else checked_mac_prefix(op.mac_prefix)
        changed = replace(changed, mac_prefix=prefix)
    return replace(
        changed,
        network6=op.network6 or changed.network6,
        gateway6=op.gateway6 or changed.gateway6,
    )


def changed_reservations(
    pool: AddressPool, more: Iterable[str], fewer: Iterable[str], gateway: str | None
) -> tuple[AddressPool, list[str]]:
    """Returns the pool with ``more`` kept from instances and ``fewer`` not any longer. Pure.

    And in words what of it could not be done.
    """
    faults = []
    for address in more:
        try:
            pool = pool.reserve(address, external=True)
        except AddressPoolError as error:
            faults.append(f"Cannot reserve IP address {address}: {error}")
    for address in fewer:
        if address == gateway:
            faults.append("Cannot unreserve Gateway's IP")
            continue
        try:
            pool = pool.release(address, external=True)
        except AddressPoolError as error:
            faults.append(f"Cannot release IP address {address}: {error}")
    return pool, faults
