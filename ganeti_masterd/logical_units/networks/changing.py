"""OP_NETWORK_SET_PARAMS: changes a network's gateways, reserved addresses and MAC prefix."""

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

#: As a MAC prefix: use the cluster's again.
NONE = "none"


class SetNetworkParameters(LogicalUnit[NetworkSetParams], runs=NetworkSetParams):
    """Changes a network; holds it exclusively, so that no instance gets an address meanwhile.

    An address that can't be reserved or released is a warning; the other addresses still are, as
    with the real daemon 3.0.2.
    """

    def expand(self, snapshot: Snapshot) -> None:
        """Finds the network; refuses to change a gateway and reserved addresses together."""
        if self.op.gateway and (self.op.add_reserved_ips or self.op.remove_reserved_ips):
            raise prereq("Cannot modify gateway and reserved ips at once", ECODE_INVAL)
        self.uuid = snapshot.network(self.op.network_name).uuid

    def locks(self, level: Level, snapshot: Snapshot) -> WantedLocks:
        """Holds the network exclusively."""
        if level is Level.NETWORK:
            return exclusive(self.uuid)
        return super().locks(level, snapshot)

    def check(self, ctx: Context) -> None:
        """Refuses invalid gateways and prefixes."""
        self.network = ctx.snapshot().networks[self.uuid]
        gateway = self.op.gateway
        if gateway and gateway != self.network.gateway:
            check_gateway(pool_of(self.network), gateway)
        self.changed = changed_network(self.network, self.op)
        if self.op.gateway6 or self.op.network6:
            check_gateway6(self.changed.gateway6, self.changed.network6)

    def hook_environment(self, snapshot: Snapshot) -> Mapping[str, object]:
        """Returns the network as it will be."""
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
        """Changes the network; logs the addresses that can't be reserved or released."""
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
        # The lock excludes all other changes; the serial would reveal one made without it.
        ctx.change(self.uuid, lambda _: changed, self.network.serial_no)


def check_gateway(pool: AddressPool, gateway: str) -> None:
    """Refuses a new gateway that isn't in the network or is in use; raises ``OpPrereqError``.

    (The real daemon checks only addresses of instances, and for others fails half-way with an
    ``AddressPoolError``.)
    """
    if not pool.contains(gateway):
        raise prereq(f"Gateway IP address '{gateway}' is not in the network {pool.subnet}")
    if pool.is_own(gateway) or pool.is_external(gateway):
        raise prereq(f"Gateway IP address '{gateway}' is already reserved", ECODE_STATE)


def changed_network(network: Network, op: NetworkSetParams) -> Network:
    """Returns the network with all changes except those of reserved addresses. Pure.

    A new gateway, which must be free, is reserved instead of the old one.
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
    """Returns the pool with ``more`` reserved and ``fewer`` released. Pure.

    Also returns a message for each address for which that wasn't possible.
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
