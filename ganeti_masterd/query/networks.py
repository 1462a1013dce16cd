"""The fields of networks, and what their pools of addresses hold."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Any, NamedTuple

from ganeti_masterd.config.objects import Network
from ganeti_masterd.query.fields import View, common, fields, number, other, text
from ganeti_masterd.query.names import natural


class Pool(NamedTuple):
    """Addresses of a network: a character each, ``X`` for one that is taken."""

    map: str
    external: str


def pool_of(network: Network) -> Pool:
    """Returns a network's pool; an empty one where the configuration has none.

    The configuration keeps two texts of 0 and 1, a character for each address.
    """
    own, external = network.reservations or "", network.ext_reservations or ""
    size = max(len(own), len(external))
    if not size:
        return Pool("", "")
    taken = int(own.ljust(size, "0"), 2) | int(external.ljust(size, "0"), 2)
    marks = f"{taken:0{size}b}".replace("0", ".").replace("1", "X")
    subnet = IPv4Network(network.network, strict=False)
    names = [
        str(subnet[place])
        for place, bit in enumerate(external[: subnet.num_addresses])
        if bit == "1"
    ]
    return Pool(marks, ", ".join(names))


def _pool(view: View, network: Network) -> Pool:
    pool: Pool | None = view.memo.get(network.uuid)
    if pool is None:
        pool = view.memo[network.uuid] = pool_of(network)
    return pool


def _groups(view: View, network: Network) -> list[list[Any]]:
    """[name, NIC mode, NIC link, VLAN] of each node group that is connected, by its uuid."""
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
        doc="What the MAC addresses in it begin with.",
    ),
    number(
        "free_count",
        "FreeCount",
        given=lambda view, network: _pool(view, network).map.count("."),
        doc="How many addresses are free.",
    ),
    number(
        "reserved_count",
        "ReservedCount",
        given=lambda view, network: _pool(view, network).map.count("X"),
        doc="How many addresses are taken.",
    ),
    text(
        "map",
        "Map",
        given=lambda view, network: _pool(view, network).map,
        doc="Each address as a character: X taken, . free.",
    ),
    text(
        "external_reservations",
        "ExternalReservations",
        given=lambda view, network: _pool(view, network).external,
        doc="The addresses that are kept for others than instances.",
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
