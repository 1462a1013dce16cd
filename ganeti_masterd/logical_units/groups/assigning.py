"""OP_GROUP_ASSIGN_NODES: moves nodes to another group."""

from __future__ import annotations

from collections.abc import Collection

from msgspec import Struct
from msgspec.structs import replace

from ganeti_masterd.config.changes import Change, Update
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.ssconf import natural
from ganeti_masterd.errors import OpExecError
from ganeti_masterd.locking.levels import Level, WantedLocks, exclusive
from ganeti_masterd.logical_units.base import LogicalUnit
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.opcodes.groups import GroupAssignNodes


class Splits(Struct, frozen=True):
    """Names, in natural order, of instances whose mirror has its ends in two groups."""

    new: list[str]
    lasting: list[str]


class AssignNodes(LogicalUnit[GroupAssignNodes], runs=GroupAssignNodes):
    """Puts nodes into a group, all at once.

    Holds the nodes, their groups and the new group exclusively, so that no instance changes its
    nodes while the check for split instances runs.
    """

    def expand(self, snapshot: Snapshot) -> None:
        """Finds the group and the nodes."""
        self.group_uuid = snapshot.group(self.op.group_name).uuid
        named = self.op.nodes or self.op.node_uuids or snapshot.nodes
        self.node_uuids = tuple(dict.fromkeys(snapshot.node(name).uuid for name in named))

    def locks(self, level: Level, snapshot: Snapshot) -> WantedLocks:
        """Holds the nodes and all groups that they leave or enter exclusively."""
        if level is Level.NODEGROUP:
            left = [snapshot.node(uuid).group for uuid in self.node_uuids]
            return exclusive((self.group_uuid, *left))
        if level is Level.NODE:
            return exclusive(self.node_uuids)
        return super().locks(level, snapshot)

    def check(self, ctx: Context) -> None:
        """Refuses, unless ``force``, to split instances that aren't split."""
        splits = splits_by(ctx.snapshot(), self.node_uuids, self.group_uuid)
        if not splits.new:
            return
        names = ", ".join(splits.new)
        if not self.op.force:
            # The real daemon's error class, though this is a prerequisite.
            raise OpExecError(
                "The following instances get split by this change and --force was not given:"
                f" {names}"
            )
        ctx.warning(f"This operation will split the following instances: {names}")
        if splits.lasting:
            ctx.warning(
                "In addition, these already-split instances continue to be split across groups:"
                f" {', '.join(splits.lasting)}"
            )

    def exec(self, ctx: Context) -> None:
        """Moves the nodes; the serials of the groups that they leave and enter increase, too."""
        changes = assignments(ctx.snapshot(), self.node_uuids, self.group_uuid)
        if changes:
            ctx.change_all(changes)


def splits_by(snapshot: Snapshot, nodes: Collection[str], group_uuid: str) -> Splits:
    """Returns the mirrored instances that moving nodes into a group would split. Pure.

    Only disks that the cluster itself mirrors (DRBD) tie two nodes together.
    """
    moving = frozenset(nodes)
    new: list[str] = []
    lasting: list[str] = []
    for instance in snapshot.instances.values():
        if not any(disk.template.internal for disk in snapshot.disks_of(instance)):
            continue
        ends = [snapshot.nodes[uuid] for uuid in snapshot.nodes_of(instance)]
        after = {group_uuid if node.uuid in moving else node.group for node in ends}
        if len(after) > 1:
            before = {node.group for node in ends}
            (lasting if len(before) > 1 else new).append(instance.name)
    return Splits(natural(new), natural(lasting))


def assignments(snapshot: Snapshot, nodes: Collection[str], group_uuid: str) -> list[Change]:
    """Returns the changes that put nodes into a group; none for a node already there. Pure."""
    moving = [uuid for uuid in nodes if snapshot.nodes[uuid].group != group_uuid]
    if not moving:
        return []
    touched = dict.fromkeys((*(snapshot.nodes[uuid].group for uuid in moving), group_uuid))
    return [
        *(Update(uuid, lambda node: replace(node, group=group_uuid)) for uuid in moving),
        # A copy, so that only the serial changes.
        *(Update(uuid, replace) for uuid in touched),
    ]
