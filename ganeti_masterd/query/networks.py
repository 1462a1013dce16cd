"""The fields of networks, including those of their address pools."""

from __future__ import annotations

from typing import Any

from ganeti_masterd.config.addresspool import AddressPool, pool_of
from ganeti_masterd.config.objects import Network
from ganeti_masterd.query.fields import View, common, fields, number, other, text
from ganeti_masterd.query.names import natural


def _pool(view: View, network: Network) -> AddressPool | None:
    """Returns the network's pool; None, which shows as empty, if it has no reservations."""
    if network.uuid not in view.memo:
        has_one = network.reservations or network.ext_reservations
        view.memo[network.uuid] = pool_of(network) if has_one else None
    pool: AddressPool | None = view.memo[network.uuid]
    return pool


def _groups(view: View, network: Network) -> list[list[Any]]:
    """Returns [name, NIC mode, NIC link, VLAN] of each connected group, sorted by its uuid."""
    found = []
    for _, group in sorted(view.snapshot.groups.items()):
        nic = group.networks.get(network.uuid)
        if nic is not None:
            found.append([group.name, nic.get("mode"), nic.get("link"), nic.get("vlan", "")])
    return found


def _instances(view: View, network: Network) -> list[str]:
    users: dict[str, list[str]] | None = view.memo.get("users of networks")
    if users is None:
        users = view.memo["users of networks"] = {}
        for instance in view.snapshot.instances.values():
            for uuid in {nic.network for nic in instance.nics if nic.network is not None}:
                users.setdefault(uuid, []).append(instance.name)
    return natural(users.get(network.uuid, ()))


NETWORK_FIELDS = fields(
    text("name", "Network", of=lambda network: network.name, doc="The network's name."),
    text("network", "Subnet", of=lambda network: network.network, doc="The IPv4 addresses in it."),
    other("gateway", "Gateway", of=lambda network: network.gateway, doc="Its IPv4 gateway."),
    other("network6", "IPv6Subnet", of=lambda network: network.network6, doc="Its IPv6 prefix."),
    other("gateway6", "IPv6Gateway", of=lambda network: network.gateway6, doc="Its IPv6 gateway."),
    other(
        "mac_prefix",
        "MacPrefix",
        of=lambda network: network.mac_prefix,
        doc="The prefix of MAC addresses in it.",
    ),
    number(
        "free_count",
        "FreeCount",
        given=lambda view, network: pool.free_count if (pool := _pool(view, network)) else 0,
        doc="How many addresses are free.",
    ),
    number(
        "reserved_count",
        "ReservedCount",
        given=lambda view, network: pool.reserved_count if (pool := _pool(view, network)) else 0,
        doc="How many addresses are taken.",
    ),
    text(
        "map",
        "Map",
        given=lambda view, network: pool.map if (pool := _pool(view, network)) else "",
        doc="Each address as a character: X taken, . free.",
    ),
    text(
        "external_reservations",
        "ExternalReservations",
        given=lambda view, network: (
            ", ".join(pool.external_addresses) if (pool := _pool(view, network)) else ""
        ),
        doc="The externally reserved addresses, which instances don't get.",
    ),
    number(
        "group_cnt",
        "NodeGroups",
        given=lambda view, network: len(_groups(view, network)),
        doc="How many node groups are connected.",
    ),
    other(
        "group_list",
        "GroupList",
        given=_groups,
        doc="The node groups that are connected: name, NIC mode, NIC link, VLAN.",
    ),
    number(
        "inst_cnt",
        "Instances",
        given=lambda view, network: len(_instances(view, network)),
        doc="How many instances are in it.",
    ),
    other("inst_list", "InstanceList", given=_instances, doc="The instances that are in it."),
    common("network"),
)
