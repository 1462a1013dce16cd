"""The network through which instances reach their node's metadata daemon."""

from __future__ import annotations

from typing import Final

from ganeti_masterd.config.objects import Network
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.opcodes.base import Opcode
from ganeti_masterd.opcodes.networks import NetworkAdd, NetworkConnect

IPV4_NETWORK = "169.254.0.0/16"
IPV6_NETWORK = "fe80::/10"
MAC_PREFIX = "52:54:00"
MODE: Final = "routed"
LINK = "communication_rt"


def warn_of_odd_network(ctx: Context, network: Network) -> None:
    """Warns if an existing network isn't set up as one for this purpose should be."""
    for what, value, usual in (
        ("has an IPv4 gateway", network.gateway, None),
        ("has a non-standard IPv4 network address", network.network, IPV4_NETWORK),
        ("has an IPv6 gateway", network.gateway6, None),
        ("has a non-standard IPv6 network address", network.network6, IPV6_NETWORK),
        ("has a non-standard MAC prefix", network.mac_prefix, MAC_PREFIX),
    ):
        if value != usual:
            ctx.warning(
                f"Supplied instance communication network '{network.name}' {what} '{value}', this"
                f" might pose a security risk (default is '{usual}')."
            )


def ensuring(snapshot: Snapshot, name: str) -> list[Opcode]:
    """Returns the opcodes after which the network exists and every group is connected to it."""
    network = snapshot.lookup("network", name)
    opcodes: list[Opcode] = []
    if network is None:
        opcodes.append(
            NetworkAdd(
                network_name=name,
                network=IPV4_NETWORK,
                network6=IPV6_NETWORK,
                mac_prefix=MAC_PREFIX,
            )
        )
    opcodes += [
        NetworkConnect(
            group_name=group.uuid, network_name=name, network_mode=MODE, network_link=LINK
        )
        for group in snapshot.groups.values()
        if network is None or network.uuid not in group.networks
    ]
    return opcodes


def tell_of_change(ctx: Context, snapshot: Snapshot, name: str) -> bool:
    """Logs the effect of the network's new name; returns whether the name is new."""
    old = snapshot.cluster.instance_communication_network
    if name == old:
        ctx.feedback(f"Instance communication network already is '{name}', nothing to do.")
        return False
    if old and snapshot.lookup("network", old) is not None:
        ctx.feedback(f"Previous instance communication network '{old}' should be removed manually.")
    if name:
        ctx.feedback(
            f"Changing instance communication network to '{name}', only new instances will be"
            " affected."
        )
    else:
        ctx.feedback(
            "Disabling instance communication network, only new instances will be affected."
        )
    return True
