"""Choosing nodes for one instance.

New instances, and those that leave all of their nodes, may get a place that loses the memory
for the failure of a node (N+1), if there is no other. Moves to one other node never do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from ganeti_masterd.allocation.builtin.room import HostRoom, RoomDemand, Rooms, policy_faults, score
from ganeti_masterd.config.ssconf import natural_key

#: Groups are tried in this order of their policies; those with other policies only if they
#: are requested.
RANKS = {"preferred": 0, "last_resort": 1}


#: How many nodes that lack the same are named, unless there is only one more.
MOST_NAMES = 5


class NodesChosen(Struct, frozen=True):
    """Where an instance can be placed: its nodes, the primary first, and their score."""

    group: str
    nodes: list[str]
    score: float
    #: Whether any one node may fail, see :class:`Rooms`.
    spare: bool = True


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
    in ``only`` (None for all) and not in ``avoid``. Its room isn't taken yet. If no place
    keeps the memory for the failure of a node (N+1), it is the best of the others.
    """
    try:
        return _place(rooms, demand, groups, only, avoid)
    except NoPlace:
        with rooms.without_spare():
            found = _place(rooms, demand, groups, only, avoid)
        return replace(found, spare=False)


def _place(
    rooms: Rooms,
    demand: RoomDemand,
    groups: Collection[str] | None,
    only: Collection[str] | None,
    avoid: Collection[str],
) -> NodesChosen:
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
    for rating, _, primary in sorted(_candidates(rooms, demand, hosts)):
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
    rating, _, host = min(_candidates(rooms, demand, hosts, primary))
    return host, rating


def _candidates(
    rooms: Rooms, demand: RoomDemand, hosts: Iterable[HostRoom], primary: str | None = None
) -> list[tuple[float, list[tuple[int, int, str]], HostRoom]]:
    """Returns the hosts that can take an instance, each after its score and its own rank.

    The ranks differ, so that the least of them is the best. Raises :class:`NoPlace` if there are
    none.
    """
    refused: dict[str, list[str]] = {}
    ranked = []
    for host in hosts:
        fault = rooms.refusal(host, demand, primary)
        if fault is not None:
            refused.setdefault(fault, []).append(host.name)
            continue
        ratio = rooms.groups[host.group].ipolicy["vcpu-ratio"]
        rating = score(host, demand, ratio, secondary=primary is not None)
        ranked.append((rating, host.rank, host))
    if not ranked:
        role = "primary" if primary is None else "secondary"
        raise NoPlace(f"no node can be the {role}: {_lacking(refused)}")
    return ranked


def _lacking(refused: Mapping[str, list[str]]) -> str:
    """Returns what nodes lacked, by fault, the most frequent first: names, the first few only."""
    told = []
    for fault, nodes in sorted(refused.items(), key=lambda one: (-len(one[1]), one[0])):
        names = sorted(nodes, key=natural_key)
        left = len(names) - MOST_NAMES
        # A list for the sake of leaving out one name would be as long.
        if left > 1:
            names = [*names[:MOST_NAMES], f"{left} more"]
        told.append(f"{fault} ({', '.join(names)})")
    return "; ".join(told) or "there is none"


def _hosts(
    rooms: Rooms, group: str, only: Collection[str] | None, avoid: Collection[str]
) -> list[HostRoom]:
    return [
        host
        for host in rooms.members(group)
        if host.name not in avoid and (only is None or host.name in only)
    ]
