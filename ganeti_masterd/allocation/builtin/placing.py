"""Choosing nodes for one instance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from msgspec import Struct

from ganeti_masterd.allocation.builtin.room import HostRoom, RoomDemand, Rooms, policy_faults, score
from ganeti_masterd.config.ssconf import natural_key

#: Groups are tried in this order of their policies; those with other policies only if they
#: are requested.
RANKS = {"preferred": 0, "last_resort": 1}


class NodesChosen(Struct, frozen=True):
    """Where an instance can be placed: its nodes, the primary first, and their score."""

    group: str
    nodes: list[str]
    score: float


class NoPlace(Exception):
    """There is no place for an instance; the message says why, group by group."""


def place(
    rooms: Rooms,
    demand: RoomDemand,
    groups: Collection[str] | None = None,
    *,
    only: Collection[str] | None = None,
    avoid: Collection[str] = (),
) -> NodesChosen:
    """Returns the best place for a whole instance; raises :class:`NoPlace` if there is none.

    It is in one of ``groups`` (uuids; None for all that may be allocated to), on nodes
    in ``only`` (None for all) and not in ``avoid``. Its room isn't taken yet.
    """
    chosen = (
        [uuid for uuid, group in rooms.groups.items() if group.alloc_policy in RANKS]
        if groups is None
        else list(groups)
    )
    refused = []
    found: list[tuple[int, float, list[tuple[int, int, str]], NodesChosen]] = []
    for uuid in chosen:
        group = rooms.groups[uuid]
        try:
            place = _within(rooms, demand, uuid, only, avoid)
        except NoPlace as error:
            refused.append(f"group {group.name}: {error}")
        else:
            rank = RANKS.get(group.alloc_policy, len(RANKS))
            found.append((rank, place.score, natural_key(group.name), place))
    if not found:
        raise NoPlace("; ".join(refused) or "no group may be allocated to")
    return min(found)[-1]


def new_primary(
    rooms: Rooms, demand: RoomDemand, group: str, avoid: Collection[str]
) -> NodesChosen:
    """Returns the best node of a group for an instance whose data every node reaches."""
    host, rating = _best(rooms, demand, _hosts(rooms, group, None, avoid))
    return NodesChosen(group, [host.name], rating)


def new_secondary(
    rooms: Rooms, demand: RoomDemand, primary: str, group: str, avoid: Collection[str]
) -> NodesChosen:
    """Returns an instance's primary and the best secondary in a group."""
    host, rating = _best(rooms, demand, _hosts(rooms, group, None, avoid), primary)
    return NodesChosen(group, [primary, host.name], rating)


def _within(
    rooms: Rooms,
    demand: RoomDemand,
    uuid: str,
    only: Collection[str] | None,
    avoid: Collection[str],
) -> NodesChosen:
    group = rooms.groups[uuid]
    faults = policy_faults(demand, group.ipolicy)
    networks = [nic["network"] for nic in demand.nics if nic.get("network")]
    faults += [
        f"not connected to network {network}"
        for network in networks
        if network not in group.networks
    ]
    if faults:
        raise NoPlace(", ".join(faults))
    hosts = _hosts(rooms, uuid, only, avoid)
    if not demand.mirrored_internally:
        host, rating = _best(rooms, demand, hosts)
        return NodesChosen(uuid, [host.name], rating)
    return _pair(rooms, demand, uuid, hosts)


def _pair(rooms: Rooms, demand: RoomDemand, uuid: str, hosts: Sequence[HostRoom]) -> NodesChosen:
    """Returns the best primary for which there is a secondary, and its best secondary."""
    # A host that can't be the secondary of a node with which it shares no instance yet
    # can't be the secondary of any other node either.
    mirrors = [host for host in hosts if rooms.refusal(host, demand, "") is None]
    if not mirrors:
        _best(rooms, demand, hosts, "")
    refusal: NoPlace | None = None
    for rating, _, primary in _ranked(rooms, demand, hosts):
        try:
            secondary, mirrored = _best(rooms, demand, mirrors, primary.name)
        except NoPlace as error:
            refusal = error
        else:
            return NodesChosen(uuid, [primary.name, secondary.name], rating + mirrored)
    assert refusal is not None
    raise refusal


def _best(
    rooms: Rooms, demand: RoomDemand, hosts: Iterable[HostRoom], primary: str | None = None
) -> tuple[HostRoom, float]:
    rating, _, host = _ranked(rooms, demand, hosts, primary)[0]
    return host, rating


def _ranked(
    rooms: Rooms, demand: RoomDemand, hosts: Iterable[HostRoom], primary: str | None = None
) -> list[tuple[float, list[tuple[int, int, str]], HostRoom]]:
    """Returns the hosts that can take an instance, the best first, each after its score.

    Raises :class:`NoPlace` if there are none.
    """
    refused: Counter[str] = Counter()
    ranked = []
    for host in hosts:
        fault = rooms.refusal(host, demand, primary)
        if fault is not None:
            refused[fault] += 1
            continue
        ratio = rooms.groups[host.group].ipolicy["vcpu-ratio"]
        rating = score(host, demand, ratio, secondary=primary is not None)
        ranked.append((rating, natural_key(host.name), host))
    if not ranked:
        role = "primary" if primary is None else "secondary"
        counts = ", ".join(f"{count} x {fault}" for fault, count in sorted(refused.items()))
        raise NoPlace(f"no node can be the {role} ({counts or 'there is none'})")
    return sorted(ranked, key=lambda one: one[:2])


def _hosts(
    rooms: Rooms, group: str, only: Collection[str] | None, avoid: Collection[str]
) -> list[HostRoom]:
    return [
        host
        for host in rooms.members(group)
        if host.name not in avoid and (only is None or host.name in only)
    ]
