"""OP_NETWORK_ADD and OP_NETWORK_REMOVE: add and remove a network with its address pool.

Neither calls nodes. Opcodes that add, change or remove a network hold its lock exclusively; those
that use it (connections, instances) share it. So these two need no other lock.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from uuid import uuid4

from msgspec import Struct

from ganeti_masterd.config.addresspool import AddressPool, gateway6_fits, new_pool
from ganeti_masterd.config.objects import Network
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.ssconf import natural
from ganeti_masterd.config.tags import check_tag, joined_tags
from ganeti_masterd.errors import ECODE_EXISTS, ECODE_STATE, AddressPoolError, OpExecError, prereq
from ganeti_masterd.locking.levels import Level, WantedLocks, exclusive
from ganeti_masterd.logical_units.base import LogicalUnit
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.steps.locked_objects import add_object, remove_object
from ganeti_masterd.logical_units.steps.naming import check_name
from ganeti_masterd.opcodes.networks import NetworkAdd, NetworkRemove

_MAC_PREFIX = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){2}")


class Kept(Struct, frozen=True):
    """An address to be reserved: whose it is, and why it couldn't be reserved, if so."""

    owner: str
    address: str
    fault: str | None = None


class AddNetwork(LogicalUnit[NetworkAdd], runs=NetworkAdd):
    """Adds a network.

    Its first and last address, its gateway and the given ones are reserved, so that no instance
    gets them; with ``conflicts_check`` also those of nodes and of the master.
    """

    def expand(self, snapshot: Snapshot) -> None:
        """Parses the MAC prefix, and chooses the network's uuid."""
        prefix = self.op.mac_prefix
        self.mac_prefix = None if prefix is None else checked_mac_prefix(prefix)
        self.uuid = str(uuid4())

    def locks(self, level: Level, snapshot: Snapshot) -> WantedLocks:
        """Holds the new network."""
        if level is Level.NETWORK:
            return exclusive((), creating=self.uuid)
        return super().locks(level, snapshot)

    def check(self, ctx: Context) -> None:
        """Refuses a name in use or that is none, and invalid tags and gateways."""
        check_name("Network", self.op.network_name)
        existing = ctx.snapshot().lookup("network", self.op.network_name)
        if existing is not None:
            raise prereq(
                f"Desired network name '{self.op.network_name}' already exists as a network"
                f" (UUID: {existing.uuid})",
                ECODE_EXISTS,
            )
        ctx.reserve("network", self.op.network_name)
        for tag in self.op.tags:
            check_tag(tag)
        check_gateway6(self.op.gateway6, self.op.network6)

    def hook_environment(self, snapshot: Snapshot) -> Mapping[str, object]:
        """Returns the network as requested."""
        op = self.op
        return network_variables(
            name=op.network_name,
            subnet=op.network,
            gateway=op.gateway,
            subnet6=op.network6,
            gateway6=op.gateway6,
            mac_prefix=self.mac_prefix,
            tags=op.tags,
        )

    def exec(self, ctx: Context) -> None:
        """Creates the pool, then adds the network."""
        pool = self._pool(ctx)
        network = Network(
            name=self.op.network_name,
            mac_prefix=self.mac_prefix,
            network=self.op.network,
            network6=self.op.network6,
            gateway=self.op.gateway,
            gateway6=self.op.gateway6,
            uuid=self.uuid,
            tags=joined_tags((), self.op.tags),
        )
        add_object(ctx, "networks", pool.applied_to(network))

    def _pool(self, ctx: Context) -> AddressPool:
        try:
            pool = new_pool(self.op.network, self.op.gateway)
        except AddressPoolError as error:
            raise OpExecError(
                f"Cannot create IP address pool for network '{self.op.network_name}': {error}"
            )
        if self.op.conflicts_check:
            pool, kept = keep_cluster_addresses(pool, ctx.snapshot())
            _tell(ctx, kept)
        for address in self.op.add_reserved_ips or ():
            try:
                pool = pool.reserve(address, external=True)
            except AddressPoolError as error:
                raise OpExecError(f"Cannot reserve IP address '{address}': {error}")
        return pool


class RemoveNetwork(LogicalUnit[NetworkRemove], runs=NetworkRemove):
    """Removes a network to which no group is connected and in which no instance is.

    ``force`` only tells the client not to ask for confirmation; it has no effect here, as in the
    real daemon.
    """

    def expand(self, snapshot: Snapshot) -> None:
        """Finds the network."""
        self.uuid = snapshot.network(self.op.network_name).uuid

    def locks(self, level: Level, snapshot: Snapshot) -> WantedLocks:
        """Holds the network exclusively: opcodes that connect or use it share it."""
        if level is Level.NETWORK:
            return exclusive(self.uuid)
        return super().locks(level, snapshot)

    def check(self, ctx: Context) -> None:
        """Refuses a network that is still connected or used."""
        snapshot = ctx.snapshot()
        groups = natural(
            group.name for group in snapshot.groups.values() if self.uuid in group.networks
        )
        if groups:
            ctx.warning(
                f"Network '{self.op.network_name}' is connected to the following node groups:"
                f" {', '.join(groups)}"
            )
            raise prereq("Network still connected", ECODE_STATE)
        # The real daemon doesn't check that, and leaves NICs in a removed network.
        instances = natural(
            instance.name
            for instance in snapshot.instances.values()
            if any(nic.network == self.uuid for nic in instance.nics)
        )
        if instances:
            raise prereq(
                f"Network '{self.op.network_name}' is still used by the instances"
                f" {', '.join(instances)}",
                ECODE_STATE,
            )

    def hook_environment(self, snapshot: Snapshot) -> Mapping[str, object]:
        """Returns the network's name."""
        return {"NETWORK_NAME": self.op.network_name}

    def exec(self, ctx: Context) -> None:
        """Removes the network and its lock."""
        remove_object(ctx, "networks", self.uuid)


def keep_cluster_addresses(pool: AddressPool, snapshot: Snapshot) -> tuple[AddressPool, list[Kept]]:
    """Returns the pool with the addresses of nodes and of the master reserved.

    Also returns each of them that is in the subnet, twice if two of them are the same. Pure.
    """
    owners = [
        (f"node '{node.name}'", address)
        for node in snapshot.nodes.values()
        for address in dict.fromkeys((node.primary_ip, node.secondary_ip))
    ]
    owners.append(("", snapshot.cluster.master_ip))
    kept = []
    for owner, address in owners:
        if not pool.contains(address):
            continue
        try:
            pool = pool.reserve(address, external=True)
        except AddressPoolError as error:
            kept.append(Kept(owner, address, str(error)))
        else:
            kept.append(Kept(owner, address))
    return pool, kept


def checked_mac_prefix(prefix: str) -> str:
    """Returns a MAC prefix (three bytes) in lower case; raises ``OpPrereqError`` for a bad one."""
    if not _MAC_PREFIX.fullmatch(prefix.lower()):
        raise prereq(f"Invalid MAC address prefix '{prefix}'")
    return prefix.lower()


def check_gateway6(gateway: str | None, subnet: str | None) -> None:
    """Refuses an IPv6 gateway that isn't in the subnet."""
    if not gateway6_fits(gateway, subnet):
        raise prereq(f"IPv6 gateway '{gateway}' is not in the network {subnet}")


def network_variables(
    *,
    name: str,
    subnet: str,
    gateway: str | None,
    subnet6: str | None,
    gateway6: str | None,
    mac_prefix: str | None,
    tags: Iterable[str],
) -> dict[str, object]:
    """Returns the hook variables of a network, without those that are unset."""
    variables = {
        "NETWORK_NAME": name,
        "NETWORK_SUBNET": subnet,
        "NETWORK_GATEWAY": gateway,
        "NETWORK_SUBNET6": subnet6,
        "NETWORK_GATEWAY6": gateway6,
        "NETWORK_MAC_PREFIX": mac_prefix,
        "NETWORK_TAGS": " ".join(tags),
    }
    return {key: value for key, value in variables.items() if value}


def _tell(ctx: Context, kept: Iterable[Kept]) -> None:
    """Logs the addresses that were reserved or couldn't be, with the real daemon's messages."""
    for one in kept:
        say: Callable[[str], None] = ctx.info if one.fault is None else ctx.warning
        if one.fault is None and one.owner:
            say(f"Reserved IP address of {one.owner} ({one.address})")
        elif one.fault is None:
            say(f"Reserved cluster master IP address ({one.address})")
        elif one.owner:
            say(f"Cannot reserve IP address '{one.address}' of {one.owner}: {one.fault}")
        else:
            say(f"Cannot reserve cluster master IP address ({one.address}): {one.fault}")
