"""Instances with real disks in a :class:`~tests.logical_units.world.World`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ganeti_masterd.config.changes import Add, Change, Update
from ganeti_masterd.config.objects import Instance
from ganeti_masterd.config.reservations import with_ports
from ganeti_masterd.locking.levels import Level
from ganeti_masterd.logical_units.disks.making import create_disks
from ganeti_masterd.logical_units.disks.naming import ReservedNaming
from ganeti_masterd.logical_units.disks.trees import DiskLocation, DiskSpecification, build_disks
from ganeti_masterd.logical_units.steps.undo import UndoStack
from ganeti_masterd.testing.context import SynchronousContext
from tests.logical_units.world import World


def made_instance(
    world: World,
    template: str = "plain",
    name: str = "db.example.com",
    *,
    nodes: Sequence[str] = ("node2", "node3"),
    sizes: Sequence[int] = (64,),
    **about: Any,
) -> Instance:
    """Makes disks on nodes of these names, and the instance that has them; returns it.

    ``about`` are further keys of the instance; it is down, its disks are assembled.
    """
    ctx = SynchronousContext(world.now, world.nodes, job_id=0, clock=world.clock)
    uuids = tuple(world.now.node(node).uuid for node in nodes)
    where = DiskLocation(instance_uuid=f"i-{name}", nodes=uuids, directory=f"/srv/files/{name}")
    wanted = [
        DiskSpecification(
            size=size, group="xenvg", meta_group="xenvg", params=about.pop("params", {})
        )
        for size in (() if template == "diskless" else sizes)
    ]
    ctx.store, ctx.reservations = world.store, world.reservations
    disks = build_disks(template, wanted, where, ReservedNaming(ctx))
    about.setdefault("hypervisor", "fake")
    instance = Instance(
        name=name,
        uuid=f"i-{name}",
        primary_node=uuids[0],
        disks=tuple(disk.uuid for disk in disks),
        disks_active=True,
        **about,
    )
    with UndoStack(ctx) as undo:
        create_disks(ctx, undo, instance, disks)
        undo.keep()
    ports = [port for disk in disks for port in disk.ports()]
    changes: list[Change] = [Add("disks", disk) for disk in disks]
    changes += [
        Add("instances", instance),
        Update(world.now.cluster.uuid, lambda now: with_ports(now, ports)),
    ]
    ctx.change_all(changes)
    world.reservations.drop(0)
    world.locks.populate(Level.INSTANCE, [name])
    return world.now.instances[instance.uuid]


def devices(world: World) -> dict[str, int]:
    """Returns how many devices each node holds, without nodes that have none."""
    counts = {
        node.name: len(world.nodes.node(node.name).state.devices)
        for node in world.now.nodes.values()
    }
    return {name: count for name, count in counts.items() if count}
