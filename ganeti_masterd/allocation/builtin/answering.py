"""Answering a document: finds out what is requested, and makes the answer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec

from ganeti_masterd.allocation.builtin import moving
from ganeti_masterd.allocation.builtin.placing import NodesChosen, NoPlace, place
from ganeti_masterd.allocation.builtin.room import RoomDemand, Rooms

#: The name of the built-in allocator in parameters and messages.
NAME = "builtin"

AllocatorReply = Mapping[str, Any]


def answer(document: Mapping[str, Any], options: Collection[str] = ()) -> dict[str, Any]:
    """Returns ``{"success", "info", "result"}``, as a script would write it.

    ``options`` are those for a script's command line; ``ignore-soft-errors`` lifts the
    policy's limits on how far processors and spindles are overcommitted.

    Never raises because of the document's content: if that makes no sense, the answer has
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
    return {"info": _placed(rooms, found), "result": found.nodes}


def _multi_allocate(rooms: Rooms, request: Mapping[str, Any]) -> AllocatorReply:
    placed: list[Any] = []
    failed = []
    why = []
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
    info = "; ".join([f"{len(placed)} of {len(placed) + len(failed)} instances placed", *why])
    return {"info": info, "result": [placed, failed]}


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
