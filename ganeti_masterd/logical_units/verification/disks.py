"""OP_GROUP_VERIFY_DISKS: finds missing and inactive disks of a group's instances."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from twisted.logger import Logger

from ganeti_masterd.config.objects import Disk, Instance
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.ssconf import natural
from ganeti_masterd.locking.levels import Level, WantedLocks, shared
from ganeti_masterd.logical_units.base import LogicalUnit
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.steps import node_objects
from ganeti_masterd.logical_units.verification.pictures import volumes_by_node
from ganeti_masterd.opcodes.verification import GroupVerifyDisks
from ganeti_masterd.rpc import calls
from ganeti_masterd.rpc.interfaces import Target

log = Logger()


def instances_of(snapshot: Snapshot, group: str) -> dict[str, Instance]:
    """Returns the instances, by uuid, that have a node in a group."""
    return {
        instance.uuid: instance
        for node in snapshot.members(group)
        for instance in (*snapshot.instances_on(node), *snapshot.secondaries_on(node))
    }


class VerifyGroupDisks(LogicalUnit[GroupVerifyDisks], runs=GroupVerifyDisks):
    """Checks the volumes and mirrors of instances whose disks should be active.

    Shares the group's nodes and instances, and the instances' nodes in other groups with these
    groups.
    """

    uuid: str

    def expand(self, snapshot: Snapshot) -> None:
        """Finds the group."""
        self.uuid = snapshot.group(self.op.group_name).uuid

    def locks(self, level: Level, snapshot: Snapshot) -> WantedLocks:
        """Shares everything that is checked."""
        instances = instances_of(snapshot, self.uuid).values()
        nodes = {node.uuid for node in snapshot.members(self.uuid)}
        nodes.update(uuid for one in instances for uuid in snapshot.nodes_of(one))
        nodes &= snapshot.nodes.keys()
        if level is Level.INSTANCE:
            return shared(instance.name for instance in instances)
        if level is Level.NODEGROUP:
            return shared({self.uuid, *(snapshot.nodes[uuid].group for uuid in nodes)})
        if level is Level.NODE:
            return shared(nodes)
        return super().locks(level, snapshot)

    def exec(self, ctx: Context) -> list[Any]:
        """Returns errors by node, instances to activate, and missing volumes by instance.

        Nodes are named by uuid, instances by name; a missing volume is ``[node, volume]``.
        """
        snapshot = ctx.snapshot()
        active = [one for one in instances_of(snapshot, self.uuid).values() if one.disks_active]
        errors: dict[str, str] = {}
        inactive: set[str] = set()
        missing: dict[str, list[list[str]]] = {}
        self._look_at_volumes(ctx, active, errors, inactive, missing)
        self._look_at_mirrors(ctx, active, errors, inactive)
        self._look_at_links(ctx, [one for one in active if one.name not in inactive], inactive)
        return [errors, natural(inactive), missing]

    def _look_at_volumes(
        self,
        ctx: Context,
        instances: Iterable[Instance],
        errors: dict[str, str],
        inactive: set[str],
        missing: dict[str, list[list[str]]],
    ) -> None:
        snapshot = ctx.snapshot()
        owners = {
            (uuid, volume): instance.name
            for instance in instances
            for uuid, volumes in volumes_by_node(snapshot, instance).items()
            for volume in volumes
        }
        asked = dict.fromkeys(
            uuid for uuid, _ in owners if uuid in snapshot.nodes and snapshot.nodes[uuid].vm_capable
        )
        told = ctx.call(asked, calls.LV_LIST, ([],)) if asked else {}
        silent = set()
        for uuid, answer in told.items():
            if answer.failed:
                silent.add(uuid)
                if not answer.offline:
                    errors[uuid] = _logged(answer.node, "its volumes", answer.error)
                continue
            for volume, state in answer.payload.items():
                name = owners.pop((uuid, volume), None)
                if name is not None and not state.online:
                    inactive.add(name)
        for (uuid, volume), name in owners.items():
            # A volume of which a node couldn't tell the state doesn't count as missing.
            if uuid in told and uuid not in silent:
                missing.setdefault(name, []).append([uuid, volume])

    def _look_at_mirrors(
        self,
        ctx: Context,
        instances: Iterable[Instance],
        errors: dict[str, str],
        inactive: set[str],
    ) -> None:
        snapshot = ctx.snapshot()
        on_node: dict[str, list[Any]] = {}
        owners: dict[str, str] = {}
        for instance in instances:
            for disk in snapshot.disks_of(instance):
                if disk.template.internal:
                    owners[disk.uuid] = instance.name
                    for uuid in snapshot.nodes_of(instance):
                        on_node.setdefault(uuid, []).append((instance, disk))

        def arguments(target: Target) -> list[Any]:
            return [
                [
                    node_objects.disk(snapshot, disk, instance, target.key)
                    for instance, disk in on_node[target.key]
                ]
            ]

        told = ctx.call(on_node, calls.DRBD_NEEDS_ACTIVATION, arguments) if on_node else {}
        for uuid, answer in told.items():
            if answer.offline:
                continue
            if answer.failed:
                errors[uuid] = _logged(answer.node, "its mirrors", answer.error)
            else:
                inactive.update(owners[disk] for disk in answer.payload if disk in owners)

    def _look_at_links(
        self, ctx: Context, instances: Iterable[Instance], inactive: set[str]
    ) -> None:
        """Finds mirrors that are degraded although each half by itself is well.

        Their ends don't talk to each other, or one waits for the other in vain. Where the
        other node is marked offline, or the mirror is being filled, there is nothing to do.
        What a node can't say is an error of :meth:`_look_at_mirrors` already.
        """
        snapshot = ctx.snapshot()
        on_node: dict[str, list[tuple[Instance, Disk]]] = {}
        for instance in instances:
            if any(snapshot.nodes[uuid].offline for uuid in snapshot.nodes_of(instance)):
                continue
            mirrors = [disk for disk in snapshot.disks_of(instance) if disk.template.internal]
            for disk in mirrors:
                on_node.setdefault(instance.primary_node, []).append((instance, disk))

        def arguments(target: Target) -> list[Any]:
            return [
                [
                    node_objects.disk(snapshot, disk, instance, target.key)
                    for instance, disk in on_node[target.key]
                ]
            ]

        told = ctx.call(on_node, calls.BLOCKDEV_GETMIRRORSTATUS_MULTI, arguments) if on_node else {}
        for uuid, answer in told.items():
            if answer.failed:
                continue
            for (instance, disk), (known, state) in zip(
                on_node[uuid], answer.payload, strict=False
            ):
                if known and isinstance(state, Mapping) and _is_broken(state):
                    inactive.add(instance.name)
                    ctx.warning(
                        f"{disk.iv_name} of instance {instance.name} is degraded on node "
                        f"{answer.node} and is not being filled"
                    )


def _is_broken(state: Mapping[str, Any]) -> bool:
    """Whether a mirror's state, as a node tells it, calls for something to be done."""
    return bool(state.get("is_degraded")) and state.get("sync_percent") is None


def _logged(node: str, what: str, error: str | None) -> str:
    log.warn("Node {node} can't tell of {what}: {error}", node=node, what=what, error=error)
    return error or ""
