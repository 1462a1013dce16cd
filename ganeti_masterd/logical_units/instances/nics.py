"""Network interfaces: from what an opcode says of them to what the configuration holds.

Creation and change share all rules and one normal form of MAC addresses and VLANs
(docs/differences.rst, Instances). :func:`read_nic` is pure; :func:`settle_nic` takes the
addresses, once the primary node is known; :func:`address_changes` makes them permanent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address
from typing import Any
from uuid import uuid4

from msgspec import Struct

from ganeti_masterd.config.addresspool import pool_of
from ganeti_masterd.config.base import Params
from ganeti_masterd.config.changes import Change, Update
from ganeti_masterd.config.objects import Cluster, Network, Nic
from ganeti_masterd.config.parameters import effective
from ganeti_masterd.config.parameters.devices import NIC_MODES, check_nic
from ganeti_masterd.config.parameters.merging import AUTO
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import (
    ECODE_INVAL,
    ECODE_NOTUNIQUE,
    ECODE_STATE,
    ConfigurationError,
    OpPrereqError,
    ReservationError,
    prereq,
)
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.instances.naming import NONE, check_device_names, device_name

#: The most NICs that an instance can have.
MOST_NICS = 8

#: As an address: one of the network's pool.
POOL = "pool"
#: As a MAC address: a new one.
GENERATED = (AUTO, "generate")

#: The refusal of a routed NIC without an address, as real daemon 3.0.2 words it at creation.
NO_ADDRESS = "Routed nic mode requires an ip address if not attached to a network"

#: What the name of the NIC to the metadata daemon begins with.
COMMUNICATION_PREFIX = "ganeti:communication:"

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_VLAN = re.compile(r"[.:]\d+(:\d+)*")


class NicWish(Struct, frozen=True, kw_only=True):
    """A NIC as an opcode wants it, checked by itself.

    ``mac`` may be ``auto``; ``ip`` may be ``pool``; ``parameters`` are only those given;
    ``network`` is a name or uuid as given.
    """

    mac: str = AUTO
    ip: str | None = None
    parameters: Params = {}
    network: str | None = None
    name: str | None = None


def normal_mac(given: str) -> str:
    """Returns a MAC address in lower case, ``auto`` for one to be made.

    Raises ``OpPrereqError``.
    """
    mac = given.lower()
    if mac in GENERATED:
        return AUTO
    if not _MAC.fullmatch(mac):
        raise prereq(f"Invalid MAC address '{given}'", ECODE_INVAL)
    return mac


def normal_vlan(given: str) -> str:
    """Returns a VLAN as the configuration holds it: ``100`` is ``.100``; ``:1:2`` is a trunk.

    Raises ``OpPrereqError``.
    """
    vlan = f".{given}" if given.isdecimal() else given
    if vlan and not _VLAN.fullmatch(vlan):
        raise prereq(f"Specified VLAN parameter is invalid : {given}", ECODE_INVAL)
    return vlan


def read_nic(
    given: Mapping[Any, str | None],
    cluster: Cluster,
    *,
    old: NicWish | None = None,
    resolved: str | None = None,
    without_address: str = NO_ADDRESS,
) -> NicWish:
    """Returns what an opcode says of a NIC, checked.

    What isn't given is as in ``old``, a NIC that is to be changed; its parameters go where
    it comes into a network or leaves it. ``resolved`` is the address of the instance's name,
    for ``ip=auto``; None if that wasn't looked up. ``without_address`` is the refusal of a
    routed NIC that has no address. Raises ``OpPrereqError``.
    """
    before = old or NicWish()
    network = _none(given["network"]) if "network" in given else before.network
    params = _parameters(given)
    if network is not None and set(params) & {"mode", "link"}:
        raise prereq("If network is given, no mode or link is allowed to be passed", ECODE_INVAL)
    if network == before.network:
        params = {**before.parameters, **params}
    mac = given.get("mac")
    wish = NicWish(
        mac=before.mac if mac is None else normal_mac(mac),
        ip=_address(given["ip"], resolved) if "ip" in given else before.ip,
        parameters=params,
        network=network,
        name=device_name("NIC", given["name"]) if "name" in given else before.name,
    )
    _check(wish, cluster, without_address)
    return wish


def read_nics(
    given: Sequence[Mapping[Any, str | None]],
    cluster: Cluster,
    *,
    old: Sequence[NicWish] = (),
    resolved: str | None = None,
) -> list[NicWish]:
    """Returns what an opcode says of all NICs of an instance; see :func:`read_nic`."""
    if len(given) > MOST_NICS:
        raise prereq(
            f"Instance has too many network interfaces ({len(given)} of at most {MOST_NICS})",
            ECODE_STATE,
        )
    before = [*old, *[None] * len(given)]
    wishes = [
        read_nic(each, cluster, old=before[index], resolved=resolved)
        for index, each in enumerate(given)
    ]
    check_device_names("NIC", [wish.name for wish in wishes])
    return wishes


def wish_of(nic: Nic) -> NicWish:
    """Returns the wish for a NIC that is as one of the configuration."""
    return NicWish(
        mac=nic.mac,
        ip=nic.ip,
        parameters={} if nic.network else nic.nicparams,
        network=nic.network,
        name=nic.name,
    )


def communication_nic(cluster: Cluster, instance: str) -> dict[str, str]:
    """Returns the NIC by which an instance reaches the metadata daemon, as opcodes say it.

    Raises ``OpPrereqError`` with ``wrong_state`` if the cluster has no network for that.
    """
    network = cluster.instance_communication_network
    if not network:
        raise prereq(
            f"Instance '{instance}' can't have instance communication: the cluster has no "
            "instance communication network",
            ECODE_STATE,
        )
    return {
        "name": COMMUNICATION_PREFIX + instance,
        "mac": "generate",
        "ip": POOL,
        "network": network,
    }


def settle_nic(
    ctx: Context,
    wish: NicWish,
    index: int,
    primary: str,
    *,
    conflicts_check: bool = True,
    before: Nic | None = None,
) -> Nic:
    """Returns the NIC of an instance with that primary node (uuid); its addresses are reserved.

    ``before`` is the NIC that it takes the place of: it keeps its uuid, and what the two
    have in common is its own already. Raises ``OpPrereqError``. The transaction that adds
    the NIC contains :func:`address_changes`.
    """
    snapshot = ctx.snapshot()
    network = None if wish.network is None else snapshot.network(wish.network)
    params = wish.parameters
    if network is not None:
        params = {**network_parameters(snapshot, network, primary), **params}
        shown = [params[key] for key in sorted(params)]
        ctx.info(f"NIC/{index} inherits netparams {shown}")
    uuid = network.uuid if network is not None else None
    address = wish.ip
    kept = before is not None and (before.network, before.ip) == (uuid, address)
    if address is not None and not kept:
        if network is not None:
            address = _address_in(ctx, network, address, index, conflicts_check)
        else:
            _check_outside(ctx, address, primary, conflicts_check)
    nic = Nic(
        mac=_mac(ctx, wish, network, before),
        ip=address,
        nicparams=dict(params),
        network=uuid,
        name=wish.name,
        uuid=before.uuid if before is not None else str(uuid4()),
    )
    if address is not None and network is None and not kept:
        _warn_of_same(ctx, nic, index)
    return nic


def require_distinct(nics: Sequence[Nic]) -> None:
    """Refuses NICs of one instance that have a MAC address, or a network's address, in common.

    What one job has reserved once it may reserve again, so :func:`settle_nic` doesn't see that.
    Raises ``OpPrereqError`` with ``resource_not_unique``.
    """
    seen: set[tuple[str | None, str]] = set()
    for nic in nics:
        held: list[tuple[str | None, str, str]]
        held = [(None, nic.mac.lower(), f"MAC address {nic.mac}")]
        if nic.network and nic.ip:
            held.append((nic.network, nic.ip, f"IP address {nic.ip}"))
        for network, value, shown in held:
            if (network, value) in seen:
                raise prereq(f"{shown} is given to two NICs of one instance", ECODE_NOTUNIQUE)
            seen.add((network, value))


def network_parameters(snapshot: Snapshot, network: Network, primary: str) -> Params:
    """Returns what NICs of instances on a node (its uuid) get from a network.

    Raises ``OpPrereqError`` if the network isn't connected to the node's group.
    """
    node = snapshot.nodes[primary]
    params = snapshot.group_of(node).networks.get(network.uuid)
    if params is None:
        raise prereq(
            f"No netparams found for network {network.name}. Probably not connected to node's "
            f"{node.name} nodegroup",
            ECODE_INVAL,
        )
    return params


def address_changes(taken: Iterable[Nic], released: Iterable[Nic] = ()) -> list[Change]:
    """Returns the changes of networks that go with the NICs of one transaction.

    ``taken`` are NICs that come, ``released`` those that go; one that stays is in neither,
    or in both.
    """
    came, went = _by_network(taken), _by_network(released)
    return [
        Update(uuid, _moved(went.get(uuid, set()), came.get(uuid, set())))
        for uuid in dict.fromkeys((*went, *came))
    ]


def _none(value: str | None) -> str | None:
    return None if value is None or value.lower() == NONE else value


def _parameters(given: Mapping[Any, str | None]) -> dict[str, str]:
    """Returns the parameters that are given; the old name ``bridge`` stands for a link."""
    named = {"mode": given.get("mode"), "link": given.get("link"), "vlan": given.get("vlan")}
    bridge = _none(given.get("bridge"))
    if bridge is not None:
        if named["link"] not in (None, bridge):
            raise prereq("Cannot pass 'bridge' and 'link' at the same time", ECODE_INVAL)
        named["link"] = bridge
    params = {key: value for key, value in named.items() if value is not None and value != AUTO}
    if "vlan" in params:
        params["vlan"] = normal_vlan(params["vlan"])
    return params


def _address(given: str | None, resolved: str | None) -> str | None:
    address = _none(given)
    if address is None:
        return None
    if address.lower() == POOL:
        return POOL
    if address.lower() == AUTO:
        if resolved is None:
            raise prereq("IP address set to auto but name checks have been skipped", ECODE_INVAL)
        return resolved
    try:
        return str(ip_address(address))
    except ValueError:
        raise prereq(f"Invalid IP address '{given}'", ECODE_INVAL)


def _check(wish: NicWish, cluster: Cluster, without_address: str) -> None:
    if wish.network is not None:
        return
    if wish.ip == POOL:
        raise prereq("if ip=pool, parameter network must be passed too", ECODE_INVAL)
    filled = {**cluster.nicparams.get("default", {}), **wish.parameters}
    if filled.get("mode") not in NIC_MODES:
        raise prereq(f"Invalid NIC mode '{filled.get('mode')}'", ECODE_INVAL)
    if filled["mode"] == "routed" and wish.ip is None:
        raise prereq(without_address, ECODE_INVAL)
    try:
        check_nic(filled)
    except ConfigurationError as error:
        raise prereq(str(error.args[0]), ECODE_INVAL)


def _mac(ctx: Context, wish: NicWish, network: Network | None, before: Nic | None) -> str:
    if wish.mac == AUTO:
        return ctx.new_mac(network.mac_prefix if network is not None else None)
    if before is not None and before.mac.lower() == wish.mac.lower():
        return before.mac
    try:
        ctx.reserve("mac", wish.mac)
    except (OpPrereqError, ReservationError):
        raise prereq(f"MAC address {wish.mac} already in use in cluster", ECODE_NOTUNIQUE)
    return wish.mac


def _address_in(
    ctx: Context, network: Network, address: str, index: int, conflicts_check: bool
) -> str:
    """Reserves an address of a network; returns it."""
    if address == POOL:
        try:
            chosen = ctx.new_address(network.uuid)
        except OpPrereqError:
            raise prereq(
                f"Unable to get a free IP for NIC {index} from the address pool", ECODE_STATE
            )
        ctx.info(f"Chose IP {chosen} from network {network.name}")
        return chosen
    pool = pool_of(network)
    free = (
        pool.contains(address)
        and not pool.is_own(address)
        and not (conflicts_check and pool.is_external(address))
    )
    try:
        if not free:
            raise ReservationError("the network has it not free")
        ctx.reserve("address", (network.uuid, address))
    except (OpPrereqError, ReservationError):
        raise prereq(
            f"IP address {address} already in use or does not belong to network {network.name}",
            ECODE_NOTUNIQUE,
        )
    return address


def _check_outside(ctx: Context, address: str, primary: str, conflicts_check: bool) -> None:
    """Refuses an address of a network that the NIC is not in."""
    if not conflicts_check:
        return
    snapshot = ctx.snapshot()
    for uuid in snapshot.group_of(snapshot.nodes[primary]).networks:
        network = snapshot.networks.get(uuid)
        if network is not None and pool_of(network).contains(address):
            raise prereq(
                f"The requested IP address ({address}) belongs to network {network.name}, but the"
                " target NIC does not.",
                ECODE_STATE,
            )


def _warn_of_same(ctx: Context, nic: Nic, index: int) -> None:
    """Warns of an address that another NIC has on the same link."""
    snapshot = ctx.snapshot()
    where = _place(snapshot.cluster, nic)
    for instance in snapshot.instances.values():
        for place, other in enumerate(instance.nics):
            if other.ip != nic.ip or other.uuid == nic.uuid:
                continue  # most of them: quicker than filling in their parameters
            if _place(snapshot.cluster, other) == where:
                ctx.warning(
                    f"IP address {nic.ip} of NIC {index} is also that of NIC {place} of instance "
                    f"{instance.name}"
                )


def _place(cluster: Cluster, nic: Nic) -> tuple[Any, ...]:
    filled = effective.of_nic(cluster, nic)
    return nic.network, nic.ip, filled.get("mode"), filled.get("link")


def _by_network(nics: Iterable[Nic]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for nic in nics:
        if nic.network and nic.ip:
            found.setdefault(nic.network, set()).add(nic.ip)
    return found


def _moved(went: set[str], came: set[str]) -> Any:
    def moved(network: Network) -> Network:
        pool = pool_of(network)
        for address in sorted(went - came):
            if pool.contains(address) and pool.is_own(address):
                pool = pool.release(address)
        for address in sorted(came - went):
            pool = pool.reserve(address)
        return pool.applied_to(network)

    return moved
