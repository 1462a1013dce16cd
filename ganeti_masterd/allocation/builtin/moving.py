"""Moving existing instances: off their nodes, or to other groups.

Instances are moved one after the other, the largest first, each into the room that is left
by then. One that can't be moved stays and is reported with the reason; the others move.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from msgspec import Struct

from ganeti_masterd.allocation.builtin.placing import (
    NodesChosen,
    NoPlace,
    new_primary,
    new_secondary,
    place,
)
from ganeti_masterd.allocation.builtin.room import RoomDemand, Rooms
from ganeti_masterd.config.ssconf import natural_key

MovePlan = tuple[NodesChosen, list[dict[str, Any]]]


class Moving(Struct):
    """The result of several moves, in the iallocator's format."""

    moved: list[list[Any]]
    failed: list[list[str]]
    jobs: list[list[dict[str, Any]]]


def relocate(rooms: Rooms, demand: RoomDemand, leaving: Collection[str]) -> NodesChosen:
    """Returns an instance's nodes after leaving some of them, in its own group.

    A DRBD instance gets another secondary, an externally mirrored one another primary.
    Raises :class:`NoPlace`.
    """
    rooms.take(demand)
    primary = demand.nodes[0]
    group = rooms.hosts[primary].group
    if demand.mirrored_internally:
        return new_secondary(rooms, demand, primary, group, leaving)
    return new_primary(rooms, demand, group, {*leaving, primary})


def mirror(rooms: Rooms, demand: RoomDemand) -> NodesChosen:
    """Returns an instance's primary, and a node that can become its secondary (DRBD)."""
    primary = demand.nodes[0]
    return new_secondary(rooms, demand, primary, rooms.hosts[primary].group, ())


def evacuate(rooms: Rooms, names: Sequence[str], mode: str) -> Moving:
    """Moves instances off their primaries, their secondaries, or all of their nodes.

    They stay in their groups. No instance is moved to a node that any of them leaves.
    """
    demands = [rooms.instances[name] for name in names]
    leaving = {node for demand in demands for node in _left(demand, mode)}

    def plan(demand: RoomDemand) -> MovePlan:
        return _evacuation(rooms, demand, mode, leaving)

    return _move(rooms, demands, plan)


def change_group(rooms: Rooms, names: Sequence[str], targets: Collection[str]) -> Moving:
    """Moves instances to one of the groups ``targets`` (uuids; any but their own if empty).

    A mirror of which one end is in a target group already keeps that end if it can.
    """
    demands = [rooms.instances[name] for name in names]

    def plan(demand: RoomDemand) -> MovePlan:
        own = {rooms.hosts[node].group for node in demand.nodes}
        kept = _kept_end(rooms, demand, targets) if len(own) > 1 else None
        if kept is not None:
            return kept, _whole_move(rooms, demand, kept.nodes)
        if len(own) > 1:
            own -= set(targets)
        groups = [
            uuid
            for uuid, group in rooms.groups.items()
            if uuid not in own
            and (uuid in targets if targets else group.alloc_policy != "unallocable")
        ]
        found = place(rooms, demand, groups)
        return found, _whole_move(rooms, demand, found.nodes)

    return _move(rooms, demands, plan)


def _kept_end(rooms: Rooms, demand: RoomDemand, targets: Collection[str]) -> NodesChosen | None:
    """Returns where a split mirror can be if it keeps the end that is in a target group.

    That end, the primary one if both are, becomes or stays the primary. None if it can't.
    """
    for node in demand.nodes:
        host = rooms.hosts[node]
        if host.group not in targets or rooms.refusal(host, demand) is not None:
            continue
        with suppress(NoPlace):
            return new_secondary(rooms, demand, node, host.group, demand.nodes)
    return None


def _move(
    rooms: Rooms, demands: Iterable[RoomDemand], plan: Callable[[RoomDemand], MovePlan]
) -> Moving:
    result = Moving([], [], [])
    ordered = sorted(demands, key=lambda one: (-one.memory, natural_key(one.name)))
    for demand in ordered:
        rooms.take(demand)
        try:
            if not demand.mirrored_internally and not demand.reached_anywhere:
                raise NoPlace(f"Instances of type {demand.disk_template} cannot be relocated")
            found, opcodes = plan(demand)
        except NoPlace as error:
            rooms.put(demand, demand.nodes)
            result.failed.append([demand.name, str(error)])
            continue
        rooms.put(demand, found.nodes)
        group = rooms.groups[found.group].name
        result.moved.append([demand.name, group, found.nodes])
        result.jobs.append(opcodes)
    return result


def _left(demand: RoomDemand, mode: str) -> Sequence[str]:
    if mode == "primary-only":
        return demand.nodes[:1]
    return demand.nodes[1:] if mode == "secondary-only" else demand.nodes


def _evacuation(rooms: Rooms, demand: RoomDemand, mode: str, leaving: Collection[str]) -> MovePlan:
    primary = demand.nodes[0]
    group = rooms.hosts[primary].group
    if not demand.mirrored_internally:
        if mode == "secondary-only":
            raise NoPlace(f"Instances of type {demand.disk_template} have no secondary node")
        found = new_primary(rooms, demand, group, {*leaving, primary})
        return found, [_migration(demand.name, found.nodes[0])]
    if mode == "secondary-only":
        found = new_secondary(rooms, demand, primary, group, {*leaving, *demand.nodes})
        return found, [_replacement(demand.name, found.nodes[1])]
    if mode == "primary-only":
        (secondary,) = demand.nodes[1:]
        refusal = "it is to be left too" if secondary in leaving else None
        refusal = refusal or rooms.refusal(rooms.hosts[secondary], demand)
        if refusal is not None:
            raise NoPlace(f"its secondary node {secondary} can't take over: {refusal}")
        return NodesChosen(group, [secondary, primary], 0.0), [_migration(demand.name)]
    found = place(rooms, demand, [group], avoid={*leaving, *demand.nodes})
    return found, _whole_move(rooms, demand, found.nodes)


def _whole_move(rooms: Rooms, demand: RoomDemand, nodes: Sequence[str]) -> list[dict[str, Any]]:
    """Returns the opcodes that move an instance from its nodes to others, some maybe its own.

    A mirror has two ends, so that it walks: its secondary is replaced, it is migrated
    there, and its secondary is replaced again. What is on an offline node has no end to
    copy from: it first goes to its secondary.
    """
    if not demand.mirrored_internally:
        return [_migration(demand.name, nodes[0])]
    primary, secondary = nodes
    at, mirror = demand.nodes
    opcodes = []
    if rooms.hosts[at].offline and at != primary:
        opcodes.append(_migration(demand.name))
        at, mirror = mirror, at
    if at != primary:
        if mirror != primary:
            opcodes.append(_replacement(demand.name, primary))
        opcodes.append(_migration(demand.name))
        at, mirror = primary, at
    if mirror != secondary:
        opcodes.append(_replacement(demand.name, secondary))
    return opcodes


def _migration(name: str, target: str | None = None) -> dict[str, Any]:
    """Returns the opcode that migrates an instance to a node, or to its secondary if None.

    An instance that is down is failed over instead. Its memory stays as it is, and the
    nodes may have different versions of the hypervisor (hail 3.0.2 says the same).
    """
    return {
        "OP_ID": "OP_INSTANCE_MIGRATE",
        "instance_name": name,
        "target_node": target,
        "allow_failover": True,
        "allow_runtime_changes": False,
        "ignore_hvversions": True,
    }


def _replacement(name: str, node: str) -> dict[str, Any]:
    """Returns the opcode that gives an instance another secondary."""
    return {
        "OP_ID": "OP_INSTANCE_REPLACE_DISKS",
        "instance_name": name,
        "mode": "replace_new_secondary",
        "remote_node": node,
        "disks": [],
    }


def described(result: Moving) -> Mapping[str, Any]:
    """Returns the result in the iallocator's format, and the sentence for ``info``."""
    moved, failed = len(result.moved), len(result.failed)
    return {
        "info": f"{failed} instances failed to move and {moved} were moved successfully",
        "result": [result.moved, result.failed, result.jobs],
    }
