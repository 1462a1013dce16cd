"""OP_GROUP_ADD, OP_GROUP_REMOVE and OP_GROUP_RENAME: add, remove and rename a node group."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from uuid import uuid4

from msgspec.structs import replace

from ganeti_masterd.config.objects import NodeGroup
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.ssconf import natural
from ganeti_masterd.errors import ECODE_EXISTS, ECODE_STATE, prereq
from ganeti_masterd.locking.levels import Level, WantedLocks, exclusive
from ganeti_masterd.logical_units.base import HookNodes, LogicalUnit
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.groups.one_group import OnOneGroup
from ganeti_masterd.logical_units.groups.parameters import changed_group
from ganeti_masterd.logical_units.steps.locked_objects import add_object, remove_object
from ganeti_masterd.logical_units.steps.naming import check_name
from ganeti_masterd.opcodes.groups import GroupAdd, GroupRemove, GroupRename
from ganeti_masterd.opcodes.networks import NetworkConnect

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)

#: NIC parameters that connect a group to the metadata daemon's network (real daemon 3.0.2).
COMMUNICATION_MODE: Final = "routed"
COMMUNICATION_LINK = "communication_rt"


class AddGroup(LogicalUnit[GroupAdd], runs=GroupAdd):
    """Adds a node group without nodes.

    If the cluster has a network for the metadata daemon, a further job connects the group to it.
    """

    def expand(self, snapshot: Snapshot) -> None:
        """Chooses the group's uuid."""
        self.uuid = str(uuid4())

    def locks(self, level: Level, snapshot: Snapshot) -> WantedLocks:
        """Holds the new group."""
        if level is Level.NODEGROUP:
            return exclusive((), creating=self.uuid)
        return super().locks(level, snapshot)

    def check(self, ctx: Context) -> None:
        """Refuses invalid names and parameters."""
        snapshot = ctx.snapshot()
        check_new_name(
            snapshot,
            self.op.group_name,
            "Desired group name '{name}' already exists as a node group (UUID: {uuid})",
        )
        ctx.reserve("nodegroup", self.op.group_name)
        plain = NodeGroup(name=self.op.group_name, uuid=self.uuid)
        self.group = changed_group(plain, self.op, snapshot.cluster)

    def hook_environment(self, snapshot: Snapshot) -> Mapping[str, object]:
        """Returns the group's name."""
        return {"GROUP_NAME": self.op.group_name}

    def exec(self, ctx: Context) -> dict[str, Any] | None:
        """Adds the group; returns the job that connects it, None if there is none."""
        ctx.checkpoint()
        # A kill comes before all of it or after.
        with ctx.shielded():
            add_object(ctx, "nodegroups", self.group)
            return self._connect(ctx)

    def _connect(self, ctx: Context) -> dict[str, Any] | None:
        snapshot = ctx.snapshot()
        name = snapshot.cluster.instance_communication_network
        if not name or snapshot.lookup("network", name) is None:
            return None
        connect = NetworkConnect(
            group_name=self.uuid,
            network_name=name,
            network_mode=COMMUNICATION_MODE,
            network_link=COMMUNICATION_LINK,
        )
        return {"jobs": [(True, job) for job in ctx.submit([[connect]])]}


class RemoveGroup(OnOneGroup[GroupRemove], runs=GroupRemove):
    """Removes a node group that has no nodes. The last one stays."""

    def check(self, ctx: Context) -> None:
        """Refuses a group that has nodes, and the only one that there is."""
        snapshot = ctx.snapshot()
        members = snapshot.members(self.uuid)
        if members:
            names = natural(node.name for node in members)
            raise prereq(
                f"Group '{self.op.group_name}' not empty, has the following nodes:"
                f" {', '.join(names)}",
                ECODE_STATE,
            )
        if len(snapshot.groups) == 1:
            raise prereq(
                f"Group '{self.op.group_name}' is the only group, cannot be removed", ECODE_STATE
            )

    def hook_environment(self, snapshot: Snapshot) -> Mapping[str, object]:
        """Returns the group's name."""
        return {"GROUP_NAME": self.op.group_name}

    def exec(self, ctx: Context) -> None:
        """Removes it and its lock."""
        remove_object(ctx, "nodegroups", self.uuid)


class RenameGroup(OnOneGroup[GroupRename], runs=GroupRename):
    """Gives a node group another name. Hooks run on the master and on the group's nodes."""

    def check(self, ctx: Context) -> None:
        """Refuses a name that can't be."""
        check_new_name(
            ctx.snapshot(),
            self.op.new_name,
            "Desired new name '{name}' clashes with existing node group (UUID: {uuid})",
        )
        ctx.reserve("nodegroup", self.op.new_name)

    def hook_nodes(self, snapshot: Snapshot) -> HookNodes:
        """The master and the nodes of the group."""
        members = [node.uuid for node in snapshot.members(self.uuid)]
        nodes = tuple(dict.fromkeys((snapshot.master.uuid, *members)))
        return HookNodes(nodes, nodes)

    def hook_environment(self, snapshot: Snapshot) -> Mapping[str, object]:
        """Tells both names."""
        return {"OLD_NAME": self.op.group_name, "NEW_NAME": self.op.new_name}

    def exec(self, ctx: Context) -> str:
        """Renames it; returns the new name."""
        ctx.change(self.uuid, lambda group: replace(group, name=self.op.new_name))
        return self.op.new_name


def check_new_name(snapshot: Snapshot, name: str, refusal: str) -> None:
    """Refuses a name that a group has, as ``refusal`` says, or that can't be one."""
    check_name("Group", name)
    existing = snapshot.lookup("nodegroup", name)
    if existing is not None:
        raise prereq(refusal.format(name=name, uuid=existing.uuid), ECODE_EXISTS)
    if _UUID.fullmatch(name):
        raise prereq(f"Group name '{name}' looks like a uuid, by which groups are found too")
