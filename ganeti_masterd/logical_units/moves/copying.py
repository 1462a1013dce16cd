"""OP_INSTANCE_MOVE: an instance is stopped, its disks are copied, and it starts on another node.

The order of the calls and the texts are those of real daemon 3.0.2; docs/procedures.rst shows
the steps, docs/differences.rst what is different.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from ganeti_masterd.config.changes import Change, Update
from ganeti_masterd.config.objects import Disk, Instance
from ganeti_masterd.config.parameters import effective
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import ECODE_INVAL, ECODE_STATE, OpExecError, prereq
from ganeti_masterd.locking.levels import Level, WantedLocks, exclusive
from ganeti_masterd.logical_units.base import HookNodes
from ganeti_masterd.logical_units.context import Context, JobKilled
from ganeti_masterd.logical_units.disks.activating import note_removed, remove_disks
from ganeti_masterd.logical_units.disks.making import create_disks, exclusive_storage
from ganeti_masterd.logical_units.disks.transferring import copy_disks
from ganeti_masterd.logical_units.instances.base import InstanceUnit, require_online, require_usable
from ganeti_masterd.logical_units.instances.requirements import (
    check_bridges,
    require_memory,
    require_room,
)
from ganeti_masterd.logical_units.instances.whereabouts import require_not_elsewhere
from ganeti_masterd.logical_units.moves.failing_over import (
    ON_SOURCE,
    START,
    STARTING,
    STOP,
    FailoverState,
)
from ganeti_masterd.logical_units.moves.targets import require_networks, require_policy
from ganeti_masterd.logical_units.steps import node_objects
from ganeti_masterd.logical_units.steps.procedure import Procedure, Step, carry_out
from ganeti_masterd.logical_units.steps.undo import UndoStack
from ganeti_masterd.opcodes.instance_moves import InstanceMove
from ganeti_masterd.rpc import calls

#: Names that were made up for disks. Those of adopted volumes may be somebody else's on another
#: node.
_GIVEN = re.compile(r"(.*/)?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\..*")

#: The choice of no compression.
UNCOMPRESSED = "none"


class MoveInstance(InstanceUnit[InstanceMove], runs=InstanceMove):
    """Copies an instance with plain volumes or files to another node; it is down meanwhile."""

    #: The uuids of the node where it was, and of the one that gets it.
    source: str
    target: str

    def expand(self, snapshot: Snapshot) -> None:
        """Finds the instance and the node."""
        super().expand(snapshot)
        self.target = snapshot.node(self.op.target_node_uuid or self.op.target_node).uuid
        self.source = self.instance(snapshot).primary_node

    def locks(self, level: Level, snapshot: Snapshot) -> WantedLocks:
        """Holds both nodes."""
        if level in (Level.NODE, Level.NODE_RES):
            return exclusive((self.instance(snapshot).primary_node, self.target))
        return super().locks(level, snapshot)

    def check(self, ctx: Context) -> None:
        """Refuses disks that can't be copied, and nodes that can't take part."""
        snapshot = ctx.snapshot()
        instance = self.instance(snapshot)
        self.source = instance.primary_node
        tools = snapshot.cluster.compression_tools
        if self.op.compress not in (UNCOMPRESSED, *tools):
            raise prereq(
                f"Compression tool '{self.op.compress}' is not among those of the cluster: "
                f"{', '.join((UNCOMPRESSED, *tools))}",
                ECODE_INVAL,
            )
        for index, disk in enumerate(snapshot.disks_of(instance)):
            if not disk.template.copies:
                raise prereq(
                    f"Instance disk {index} has disk type {disk.dev_type} and is not suitable for "
                    "copying",
                    ECODE_STATE,
                )
        if self.target == self.source:
            raise prereq(
                f"Instance {instance.name} is already on the node "
                f"{snapshot.nodes[self.target].name}",
                ECODE_STATE,
            )
        require_usable(snapshot, self.target)
        require_online(snapshot, self.source)
        require_policy(ctx, instance, self.target, ignore=self.op.ignore_ipolicy)
        require_networks(snapshot, instance, self.target)
        self._check_resources(ctx, instance)
        check_bridges(ctx, instance.nics, (self.target,))
        if instance.admin_state == "up":
            require_not_elsewhere(ctx, instance, (self.target,))

    def _check_resources(self, ctx: Context, instance: Instance) -> None:
        snapshot = ctx.snapshot()
        if instance.admin_state == "up":
            needed = effective.backend(snapshot.cluster, instance)["maxmem"]
            reason = f"failing over instance {instance.name}"
            require_memory(ctx, self.target, instance.hypervisor, needed, reason)
        else:
            ctx.info("Not checking memory on the secondary node as instance will not be started")
        room: dict[str, int] = {}
        for disk in snapshot.disks_of(instance):
            if disk.template.lvm and disk.logical_id is not None:
                group = str(disk.logical_id[0])
                room[group] = room.get(group, 0) + disk.size
        if not exclusive_storage(snapshot, self.target):
            require_room(ctx, (self.target,), room)

    def hook_nodes(self, snapshot: Snapshot) -> HookNodes:
        """The master and both nodes."""
        nodes = tuple(dict.fromkeys((snapshot.master.uuid, self.source, self.target)))
        return HookNodes(nodes, nodes)

    def own_environment(self, snapshot: Snapshot) -> Mapping[str, object]:
        """Returns where it goes, and how long it has to stop."""
        return {
            "TARGET_NODE": snapshot.nodes[self.target].name,
            "SHUTDOWN_TIMEOUT": self.op.shutdown_timeout,
        }

    def exec(self, ctx: Context) -> None:
        """Runs the procedure."""
        state = CopyState(
            ctx,
            self.instance(ctx.snapshot()),
            self.target,
            timeout=self.op.shutdown_timeout,
            reason=self.op.reason,
            ignore_consistency=self.op.ignore_consistency,
            compress=self.op.compress,
        )
        carry_out(COPY, state)


def _is_given(disk: Disk) -> bool:
    return disk.logical_id is not None and bool(_GIVEN.fullmatch(str(disk.logical_id[1])))


class CopyState(FailoverState):
    """What the steps of a move work on."""

    def __init__(self, *arguments: Any, compress: str = UNCOMPRESSED, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._compress = compress
        self._made = UndoStack(self.ctx)

    @property
    def disks(self) -> tuple[Disk, ...]:
        """The disks of the instance."""
        return self.ctx.snapshot().disks_of(self.before)

    def announce_stop(self) -> None:
        """See ``FailoverState.announce_stop``."""
        names = self.names()
        self.ctx.info(
            f"Shutting down instance {names['instance']} on source node {names['source']}"
        )

    def announce_start(self) -> None:
        """See ``FailoverState.announce_start``."""
        names = self.names()
        self.ctx.info(f"Starting instance {names['instance']} on node {names['target']}")

    def announce_activation(self) -> None:
        """See ``FailoverState.announce_activation``."""

    def create(self) -> None:
        """Makes the disks on the target; what a move that broke off left there goes first."""
        moved = replace(self.before, primary_node=self.target)
        own = all(map(_is_given, self.disks))
        if own:
            self._remove_leftovers(moved)
        try:
            create_disks(self.ctx, self._made, moved, self.disks, fresh=own)
        except JobKilled:
            raise
        except OpExecError:
            with self.ctx.shielded():
                self.ctx.warning("Device creation failed")
            raise

    def _remove_leftovers(self, moved: Instance) -> None:
        """Removes disks of these names from the target, which has no right to them."""
        ctx, snapshot = self.ctx, self.ctx.snapshot()
        target = self.names()["target"]
        for disk in self.disks:
            sent = node_objects.disk(snapshot, disk, moved, self.target)
            found = ctx.call_one(self.target, calls.BLOCKDEV_FIND, (sent,)).or_fail(
                f"Can't look for {disk.iv_name} on node {target}"
            )
            if found is not None:
                ctx.info(f"Removing {disk.iv_name} that an earlier move left on node {target}")
                ctx.call_one(self.target, calls.BLOCKDEV_REMOVE, (sent,)).or_fail(
                    f"Could not remove {disk.iv_name} from node {target}"
                )

    def remove_copies(self) -> None:
        """Removes what was made on the target; raises ``OpExecError`` if some of it stays."""
        if not self._made.run():
            raise OpExecError(f"some disks are left on node {self.names()['target']}")

    def copy(self) -> None:
        """Copies the data."""
        try:
            copy_disks(self.ctx, self.before, self.source, self.target, compress=self._compress)
        except JobKilled:
            raise
        except OpExecError as error:
            with self.ctx.shielded():
                self.ctx.warning("Some disks failed to copy, aborting")
            raise OpExecError(f"Errors during disk copy: {error.args[0]}") from error

    def record(self) -> None:
        """Makes the target the node of the instance and of its disks, in one transaction."""
        target = self.target
        note_removed(self.ctx, self.before, self.disks, nodes=(self.source,))
        changes: list[Change] = [
            Update(disk.uuid, lambda now: replace(now, nodes=(target,))) for disk in self.disks
        ]
        changes.append(Update(self.before.uuid, lambda now: replace(now, primary_node=target)))
        self.ctx.change_all(changes)
        self._made.keep()

    def remove_originals(self) -> None:
        """Removes the disks from the source; what stays there is named in the log."""
        self.ctx.info("Removing the disks on the original node")
        remove_disks(self.ctx, self.before, self.disks, nodes=(self.source,))


_AGAIN = "gnt-instance move -n {target} {instance}"

#: Nothing is taken from the source before all is on the target.
COPY: Procedure[CopyState] = Procedure(
    "Move",
    (
        replace(STOP, finish=_AGAIN),
        Step(
            does="make the disks of {instance} on {target}",
            leaves=ON_SOURCE + "; there may be disks on {target}, which the next move removes",
            finish=_AGAIN,
            run=CopyState.create,
            undo=CopyState.remove_copies,
            skip=lambda state: not state.disks,
        ),
        Step(
            does="copy the disks of {instance} from {source} to {target}",
            leaves=ON_SOURCE + "; there are disks on {target}, which the next move removes",
            finish=_AGAIN,
            run=CopyState.copy,
        ),
        Step(
            does="make {target} the node of {instance}",
            leaves="{instance} is stopped; its node is {source} or {target}, and both have its "
            "disks",
            finish=START,
            run=CopyState.record,
            final=True,
            shielded=True,
        ),
        Step(
            does="remove the disks of {instance} from {source}",
            leaves="{instance} is stopped; its node is {target}, where the watcher starts it; "
            "{source} may have its old disks, which verify names",
            finish=START,
            run=CopyState.remove_originals,
            shielded=True,
        ),
        *STARTING,
    ),
)
