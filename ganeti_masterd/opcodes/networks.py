"""Opcodes of networks, and of their connections with node groups."""

from __future__ import annotations

from ganeti_masterd.opcodes.base import Hooks, Opcode
from ganeti_masterd.opcodes.checks import NonEmptyStr, ObjectName
from ganeti_masterd.opcodes.types import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    NicMode,
    Tag,
)


class NetworkAdd(Opcode, tag="OP_NETWORK_ADD", frozen=True, kw_only=True):
    """Adds a network with its pool of IPv4 addresses."""

    HOOKS = Hooks("network-add", "NETWORK")
    SUMMARY = "network_name"

    network_name: ObjectName
    network: IPv4Network
    gateway: IPv4Address | None = None
    network6: IPv6Network | None = None
    gateway6: IPv6Address | None = None
    mac_prefix: NonEmptyStr | None = None
    add_reserved_ips: tuple[IPv4Address, ...] | None = None
    conflicts_check: bool = True
    tags: tuple[Tag, ...] = ()


class NetworkRemove(Opcode, tag="OP_NETWORK_REMOVE", frozen=True, kw_only=True):
    """Removes a network that no group is connected to."""

    HOOKS = Hooks("network-remove", "NETWORK")
    SUMMARY = "network_name"

    network_name: ObjectName
    force: bool = False


class NetworkSetParams(Opcode, tag="OP_NETWORK_SET_PARAMS", frozen=True, kw_only=True):
    """Changes a network's parameters; leaves those that are null as they are."""

    HOOKS = Hooks("network-modify", "NETWORK")
    SUMMARY = "network_name"

    network_name: ObjectName
    gateway: IPv4Address | None = None
    network6: IPv6Network | None = None
    gateway6: IPv6Address | None = None
    mac_prefix: NonEmptyStr | None = None
    add_reserved_ips: tuple[IPv4Address, ...] | None = None
    remove_reserved_ips: tuple[IPv4Address, ...] | None = None


class NetworkConnect(Opcode, tag="OP_NETWORK_CONNECT", frozen=True, kw_only=True):
    """Connects a network to a node group, with a NIC mode and a link."""

    HOOKS = Hooks("network-connect", "NETWORK")
    SUMMARY = "network_name"

    group_name: ObjectName
    network_name: ObjectName
    network_mode: NicMode
    network_link: NonEmptyStr
    network_vlan: str = ""
    conflicts_check: bool = True


class NetworkDisconnect(Opcode, tag="OP_NETWORK_DISCONNECT", frozen=True, kw_only=True):
    """Disconnects a network from a node group."""

    HOOKS = Hooks("network-disconnect", "NETWORK")
    SUMMARY = "network_name"

    group_name: ObjectName
    network_name: ObjectName
