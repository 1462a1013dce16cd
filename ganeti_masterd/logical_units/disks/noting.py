"""What an opcode notes of devices before it touches them (``Context.note_devices``)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ganeti_masterd.config.objects import Disk, Instance, hide_secret
from ganeti_masterd.jobs.devices import Fate, NotedDevice
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.steps import node_objects


def disk_devices(
    ctx: Context,
    instance: Instance,
    disk: Disk,
    nodes: Iterable[str],
    *,
    children: Sequence[int] | None = None,
    itself: bool = True,
    fate: Fate = Fate.REMOVE,
    mirror_fate: Fate | None = None,
) -> list[NotedDevice]:
    """Returns what a disk consists of on nodes (uuids): the volumes below it, then itself.

    ``children`` are the volumes that count, by default all; ``itself``: whether the disk does.
    ``fate`` is that of all of them, ``mirror_fate`` another one for the disk itself.
    """
    snapshot = ctx.snapshot()
    chosen = range(len(disk.children)) if children is None else children
    found = []
    for node in nodes:
        name = snapshot.nodes[node].name
        for child in chosen:
            sent = node_objects.disk_child(snapshot, disk, child, instance, node)
            found.append(_device(instance, node, name, sent, fate))
        if itself:
            sent = node_objects.disk(snapshot, disk, instance, node)
            own = fate if mirror_fate is None else mirror_fate
            found.append(_device(instance, node, name, sent, own))
    return found


def renamed_device(
    ctx: Context, instance: Instance, node: str, old: Disk, new: Disk
) -> NotedDevice:
    """Returns a device that is renamed on a node (its uuid)."""
    snapshot = ctx.snapshot()
    return NotedDevice(
        node=node,
        node_name=snapshot.nodes[node].name,
        owner=instance.name,
        fate=Fate.RENAME,
        disk=node_objects.disk(snapshot, new, instance, node),
        old=tuple(old.logical_id or ()),
    )


def directory(ctx: Context, instance: Instance, node: str, path: str) -> NotedDevice:
    """Returns a directory on a node (its uuid)."""
    name = ctx.snapshot().nodes[node].name
    return NotedDevice(
        node=node, node_name=name, owner=instance.name, fate=Fate.DIRECTORY, path=path
    )


def transfer_daemon(
    ctx: Context, instance: Instance, node: str, name: str, *, fills: tuple[int, ...] = ()
) -> NotedDevice:
    """Returns an import or export daemon on a node (its uuid), by the name that this gave it.

    ``fills``: the index of the disk that it writes to, if it does.
    """
    node_name = ctx.snapshot().nodes[node].name
    return NotedDevice(
        node=node,
        node_name=node_name,
        owner=instance.name,
        fate=Fate.DAEMON,
        path=name,
        fills=fills,
    )


def instance_in_the_making(
    ctx: Context, instance: Instance, fate: Fate, fills: Iterable[int] = ()
) -> NotedDevice:
    """Returns an instance that isn't complete yet; ``fills``: disks filled from elsewhere."""
    node = instance.primary_node
    return NotedDevice(
        node=node,
        node_name=ctx.snapshot().nodes[node].name,
        owner=instance.name,
        fate=fate,
        path=instance.uuid,
        fills=tuple(fills),
    )


def helper_vm(ctx: Context, instance: Instance, disk: Disk) -> NotedDevice:
    """Returns the helper VM that runs in an instance's place, and boots from a disk."""
    node = instance.primary_node
    return NotedDevice(
        node=node,
        node_name=ctx.snapshot().nodes[node].name,
        owner=instance.name,
        fate=Fate.GUEST,
        disk=node_objects.disk(ctx.snapshot(), disk, instance, node),
    )


def _device(
    instance: Instance, node: str, name: str, sent: dict[str, object], fate: Fate
) -> NotedDevice:
    # The volumes below it are devices of their own, each of which may have come to be anybody's.
    known = {key: value for key, value in sent.items() if key != "children"}
    logical_id = known.get("logical_id")
    if known.get("dev_type") == "drbd" and isinstance(logical_id, (list, tuple)):
        # A node that takes an end down doesn't ask for it.
        known["logical_id"] = tuple(hide_secret(logical_id, ""))
    return NotedDevice(node=node, node_name=name, owner=instance.name, fate=fate, disk=known)
