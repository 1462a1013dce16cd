"""Storage units of nodes: listing, changing and repairing them, by opcodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ganeti_masterd.config.objects import Cluster, Instance, Node
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.ssconf import natural
from ganeti_masterd.config.templates import TEMPLATES, template_named
from ganeti_masterd.errors import ECODE_STATE, OpPrereqError, prereq
from ganeti_masterd.locking.levels import Level, WantedLocks, exclusive
from ganeti_masterd.logical_units.base import LogicalUnit
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.disks.consistency import faulty_disks
from ganeti_masterd.logical_units.nodes.finding import by_name, node_of
from ganeti_masterd.logical_units.nodes.listing import NodesListing
from ganeti_masterd.opcodes.os_storage import (
    NodeModifyStorage,
    NodeQueryStorage,
    RepairNodeStorage,
)
from ganeti_masterd.rpc import calls

#: Kinds of storage that nodes can list, in the real daemon's order.
REPORTED = ("sharedfile", "lvm-vg", "lvm-pv", "file", "gluster")

FIELDS = frozenset({"allocatable", "free", "name", "node", "size", "type", "used"})

#: The fields of a unit that can be changed, and whether it can be repaired, by kind.
MODIFIABLE: Mapping[str, frozenset[str]] = {"lvm-pv": frozenset({"allocatable"})}
REPAIRABLE = frozenset({"lvm-vg"})


def check_enabled(cluster: Cluster, kind: str) -> None:
    """Refuses a kind of storage that no enabled disk template uses.

    Physical volumes are enabled with their group. The real daemon gives no error code here.
    """
    used = {template_named(name).storage for name in cluster.enabled_disk_templates}
    wanted = "lvm-vg" if kind == "lvm-pv" else kind
    if wanted not in used:
        raise OpPrereqError(
            f"No disk template of storage type '{wanted}' is enabled in this cluster. Enabled"
            f" disk templates are: {','.join(cluster.enabled_disk_templates)}"
        )


def arguments_of(cluster: Cluster, kind: str) -> list[Any]:
    """Returns the arguments that a node needs to find units of a kind."""
    directories = {
        template.storage: getattr(cluster, template.directory)
        for template in TEMPLATES.values()
        if template.directory is not None
    }
    return [[directories[kind]]] if kind in directories else []


def units_of(
    rows: Sequence[Sequence[Any]], fields: Sequence[str]
) -> dict[str, dict[str, Any]] | None:
    """Returns a node's storage units by name, from its rows; None if these don't fit. Pure.

    The first of ``fields`` must be the name.
    """
    if any(len(row) != len(fields) or not isinstance(row[0], str) for row in rows):
        return None
    return {row[0]: dict(zip(fields, row, strict=True)) for row in rows}


class ListStorage(NodesListing[NodeQueryStorage], runs=NodeQueryStorage):
    """Lists storage units of nodes, in natural order of nodes and units."""

    known = FIELDS
    kind: str

    def check(self, ctx: Context) -> None:
        """Finds the kind: the requested one, or that of the first enabled template."""
        cluster = ctx.snapshot().cluster
        if self.op.storage_type is not None:
            check_enabled(cluster, self.op.storage_type)
            self.kind = self.op.storage_type
            return
        self.kind = template_named(cluster.enabled_disk_templates[0]).storage
        if self.kind not in REPORTED:
            # The real daemon gives no error code here.
            raise OpPrereqError(
                f"Storage reporting for storage type '{self.kind}' is not supported. Please use"
                " the --storage-type option to specify one of the supported storage types"
                f" ({', '.join(REPORTED)}) or set the default disk template to one that supports"
                " storage reporting."
            )

    def exec(self, ctx: Context) -> list[list[Any]]:
        """Returns a row for each unit; nodes that fail are only named in the log."""
        snapshot = ctx.snapshot()
        nodes = by_name(snapshot.nodes[uuid] for uuid in ctx.owned(Level.NODE))
        fields = ["name", *(f for f in self.op.output_fields if f not in ("name", "node", "type"))]
        arguments = (self.kind, arguments_of(snapshot.cluster, self.kind), self.op.name, fields)
        answers = ctx.call([node.uuid for node in nodes], calls.STORAGE_LIST, arguments)
        rows = []
        for node in nodes:
            answer = answers[node.uuid]
            units = {} if answer.failed else units_of(answer.payload, fields)
            if answer.failed or units is None:
                if not answer.offline:
                    fault = answer.error or "what it says makes no sense"
                    ctx.warning(f"Can't get storage data from node {node.name}: {fault}")
                continue
            for name in natural(units):
                known = {**units[name], "node": node.name, "type": self.kind}
                rows.append([known[field] for field in self.op.output_fields])
        return rows


class ModifyStorage(LogicalUnit[NodeModifyStorage], runs=NodeModifyStorage):
    """Changes a storage unit of a node, such as whether a volume is allocatable."""

    node: Node

    def expand(self, snapshot: Snapshot) -> None:
        """Finds the node; refuses fields that can't be changed."""
        self.node = node_of(snapshot, self.op)
        kind = self.op.storage_type
        if kind not in MODIFIABLE:
            raise prereq(f"Storage units of type '{kind}' can not be modified")
        wrong = sorted(set(self.op.changes) - MODIFIABLE[kind])
        if wrong:
            raise prereq(
                f"The following fields can not be modified for storage units of type '{kind}':"
                f" {wrong}"
            )

    def locks(self, level: Level, snapshot: Snapshot) -> WantedLocks:
        """Holds the node."""
        return exclusive(self.node.uuid) if level is Level.NODE else super().locks(level, snapshot)

    def check(self, ctx: Context) -> None:
        """Refuses a kind that isn't in use."""
        check_enabled(ctx.snapshot().cluster, self.op.storage_type)

    def exec(self, ctx: Context) -> None:
        """Makes the call to the node."""
        op = self.op
        kind_arguments = arguments_of(ctx.snapshot().cluster, op.storage_type)
        arguments = (op.storage_type, kind_arguments, op.name, op.changes)
        answer = ctx.call_one(self.node.uuid, calls.STORAGE_MODIFY, arguments)
        answer.require(f"Failed to modify storage unit '{op.name}' on {self.node.name}")


class RepairStorage(LogicalUnit[RepairNodeStorage], runs=RepairNodeStorage):
    """Has a node repair a volume group, unless that would lose a disk's last good half."""

    node: Node

    def expand(self, snapshot: Snapshot) -> None:
        """Finds the node; refuses kinds that can't be repaired."""
        self.node = node_of(snapshot, self.op)
        if self.op.storage_type not in REPAIRABLE:
            raise prereq(f"Storage units of type '{self.op.storage_type}' can not be repaired")

    def locks(self, level: Level, snapshot: Snapshot) -> WantedLocks:
        """Holds the node."""
        return exclusive(self.node.uuid) if level is Level.NODE else super().locks(level, snapshot)

    def check(self, ctx: Context) -> None:
        """Refuses to repair if the other half of an active disk on this node is faulty."""
        snapshot = ctx.snapshot()
        check_enabled(snapshot.cluster, self.op.storage_type)
        here = (*snapshot.instances_on(self.node), *snapshot.secondaries_on(self.node))
        for instance in {one.uuid: one for one in here}.values():
            if not instance.disks_active:
                continue
            for uuid in snapshot.nodes_of(instance):
                if uuid != self.node.uuid:
                    self._check_disks(ctx, instance, snapshot.nodes[uuid])

    def _check_disks(self, ctx: Context, instance: Instance, node: Node) -> None:
        try:
            faulty = faulty_disks(ctx, instance, node.uuid)
        except OpPrereqError as error:
            text, code = error.args
        else:
            if not faulty:
                return
            text = f"Instance '{instance.name}' has faulty disks on node '{node.name}'"
            code = ECODE_STATE
        if not self.op.ignore_consistency:
            raise prereq(text, code)
        ctx.warning(text)

    def exec(self, ctx: Context) -> None:
        """Makes the call to the node."""
        op = self.op
        ctx.feedback(f"Repairing storage unit '{op.name}' on {self.node.name} ...")
        kind_arguments = arguments_of(ctx.snapshot().cluster, op.storage_type)
        arguments = (op.storage_type, kind_arguments, op.name, "fix-consistency")
        answer = ctx.call_one(self.node.uuid, calls.STORAGE_EXECUTE, arguments)
        answer.require(f"Failed to repair storage unit '{op.name}' on {self.node.name}")
