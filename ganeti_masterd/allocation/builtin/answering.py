"""Answering a document: finds out what is requested, and makes the answer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import Any

import msgspec

from ganeti_masterd.allocation.builtin import moving
from ganeti_masterd.allocation.builtin.placing import NodesChosen, NoPlace, place
from ganeti_masterd.allocation.builtin.room import Occupancy, RoomDemand, Rooms

#: The name of the built-in allocator in parameters and messages.
NAME = "builtin"

#: By how much the score of nodes that no other creation holds may be worse.
ABOUT_AS_GOOD = 0.05

AllocatorReply = Mapping[str, Any]


def answer(document: Mapping[str, Any], options: Collection[str] = ()) -> dict[str, Any]:
    """Returns ``{"success", "info", "result"}``, as a script would write it.

    ``options`` are those for a script's command line; ``ignore-soft-errors`` lifts the
    policy's limits on how far processors and spindles are overcommitted. ``warnings``
    names new instances that leave too little memory for the failure of a node.

    Never raises because of the document's content: if that is malformed, the answer has
    ``success`` False, and its ``info`` says what is wrong.
    """
    try:
        request = document["request"]
        answering = _ANSWERS.get(request["type"])
        if answering is None:
            return _failed(f"Unknown request '{request['type']}'")
        return {"success": True, **answering(_rooms(document, options), request)}
    except NoPlace as error:
        return _failed(f"No place found: {error}")
    except KeyError as error:
        return _failed(f"The document has no {error}")
    except msgspec.ValidationError as error:
        return _failed(f"The document makes no sense: {error}")


def place_each(
    document: Mapping[str, Any],
    wanted: Iterable[Mapping[str, Any]],
    pending: Iterable[tuple[Mapping[str, Any], Sequence[str]]],
    unseen: Iterable[str],
    occupancy: Occupancy | None = None,
) -> Iterator[list[str]]:
    """Yields the names of the nodes for each instance ``wanted``, none for one without a place.

    No place is one, too, that loses the memory for the failure of a node. Each instance takes
    its room before the next one is placed. ``pending`` are instances that are being made, and
    their nodes: one that isn't in the document takes its room, one that isn't up yet its
    memory. ``unseen`` are instances in the document whose disks its nodes don't count yet.
    Their nodes are avoided where that makes little difference, as their locks are held.
    ``occupancy`` is that of earlier documents. Raises ``msgspec.ValidationError`` if the
    document is malformed.
    """
    rooms = Rooms(document, occupancy=occupancy)
    busy: set[str] = set()
    for described, nodes in pending:
        demand = _demand(described)
        there = rooms.instances.get(demand.name)
        if there is None:
            rooms.put(demand, nodes)
            busy.update(nodes)
        elif there.admin_state != "up":
            rooms.reserve(nodes[:1], memory=demand.memory)
    for name in unseen:
        demand = rooms.instances[name]
        rooms.reserve(demand.nodes, disk=demand.local_disk)
    for described in wanted:
        demand = _demand(described)
        found = _place_beside(rooms, demand, described, busy)
        if found is None:
            yield []
        else:
            rooms.put(demand, found.nodes)
            busy.update(found.nodes)
            yield found.nodes


def _place_beside(
    rooms: Rooms, demand: RoomDemand, described: Mapping[str, Any], busy: AbstractSet[str]
) -> NodesChosen | None:
    """Returns a place, on nodes that are not ``busy`` if these are about as good.

    None if there is none with the memory for the failure of a node.
    """
    try:
        groups = _groups(rooms, described)
        best = place(rooms, demand, groups)
    except NoPlace:
        return None
    if not best.spare:
        return None
    if not busy.isdisjoint(best.nodes):
        with suppress(NoPlace):
            other = place(rooms, demand, groups, avoid=busy)
            if other.spare and other.score <= best.score + ABOUT_AS_GOOD:
                return other
    return best


def _rooms(document: Mapping[str, Any], options: Collection[str]) -> Rooms:
    return Rooms(document, ignore_ratios="ignore-soft-errors" in options)


def _failed(info: str) -> dict[str, Any]:
    return {"success": False, "info": info, "result": []}


def _demand(described: Mapping[str, Any]) -> RoomDemand:
    return msgspec.convert({**described, "nodes": []}, RoomDemand)


def _groups(rooms: Rooms, described: Mapping[str, Any]) -> list[str] | None:
    """Returns the group requested by name or uuid; None if the request names none."""
    name = described.get("group_name")
    if name is None:
        return None
    found = [uuid for uuid, group in rooms.groups.items() if name in (uuid, group.name)]
    if not found:
        raise NoPlace(f"there is no group {name}")
    return found


def _placed(rooms: Rooms, found: NodesChosen) -> str:
    group = rooms.groups[found.group]
    return (
        f"Selected group {group.name} ({group.alloc_policy}), score {found.score:.4f},"
        f" for node(s) {', '.join(found.nodes)}"
    )


def _allocate(rooms: Rooms, request: Mapping[str, Any]) -> AllocatorReply:
    found = place(
        rooms, _demand(request), _groups(rooms, request), only=request.get("restrict-to-nodes")
    )
    warnings = [] if found.spare else [_without_spare(request["name"], found)]
    return {"info": _placed(rooms, found), "result": found.nodes, "warnings": warnings}


def _without_spare(name: str, found: NodesChosen) -> str:
    return (
        f"No place for instance {name} keeps the memory for the failure of a node (N+1); with it "
        f"on {', '.join(found.nodes)}, not all instances can fail over"
    )


def _multi_allocate(rooms: Rooms, request: Mapping[str, Any]) -> AllocatorReply:
    placed: list[Any] = []
    failed = []
    why = []
    warnings = []
    for described in request["instances"]:
        demand = _demand(described)
        try:
            only = described.get("restrict-to-nodes")
            found = place(rooms, demand, _groups(rooms, described), only=only)
        except NoPlace as error:
            failed.append(demand.name)
            why.append(f"{demand.name}: {error}")
            continue
        rooms.put(demand, found.nodes)
        placed.append([demand.name, found.nodes])
        if not found.spare:
            warnings.append(_without_spare(demand.name, found))
    info = "; ".join([f"{len(placed)} of {len(placed) + len(failed)} instances placed", *why])
    return {"info": info, "result": [placed, failed], "warnings": warnings}


def _allocate_secondary(rooms: Rooms, request: Mapping[str, Any]) -> AllocatorReply:
    found = moving.mirror(rooms, _as_drbd(rooms.instances[request["name"]]))
    return {"info": _placed(rooms, found), "result": found.nodes[1]}


def _as_drbd(demand: RoomDemand) -> RoomDemand:
    return msgspec.structs.replace(demand, disk_template="drbd")


def _relocate(rooms: Rooms, request: Mapping[str, Any]) -> AllocatorReply:
    demand = rooms.instances[request["name"]]
    found = moving.relocate(rooms, demand, request["relocate_from"])
    return {"info": _placed(rooms, found), "result": found.nodes[-1:]}


def _evacuate(rooms: Rooms, request: Mapping[str, Any]) -> AllocatorReply:
    return moving.described(moving.evacuate(rooms, request["instances"], request["evac_mode"]))


def _change_group(rooms: Rooms, request: Mapping[str, Any]) -> AllocatorReply:
    targets = request["target_groups"]
    unknown = sorted(set(targets) - set(rooms.groups))
    if unknown:
        raise NoPlace(f"there is no group {', '.join(unknown)}")
    return moving.described(moving.change_group(rooms, request["instances"], targets))


_ANSWERS: Mapping[str, Callable[[Rooms, Mapping[str, Any]], AllocatorReply]] = {
    "allocate": _allocate,
    "allocate-secondary": _allocate_secondary,
    "change-group": _change_group,
    "multi-allocate": _multi_allocate,
    "node-evacuate": _evacuate,
    "relocate": _relocate,
}
