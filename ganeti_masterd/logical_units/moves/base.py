"""What the logical units of failover and migration have in common: nodes, locks, checks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Generic, TypeVar

from ganeti_masterd.allocation.requests import Relocate
from ganeti_masterd.config.parameters import effective
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.templates import Mirroring, summary_name
from ganeti_masterd.errors import ECODE_INVAL, ECODE_STATE, OpExecError, prereq
from ganeti_masterd.locking.levels import Level, WantedLocks, all_exclusive, exclusive
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.instances.base import InstanceUnit, require_online, require_usable
from ganeti_masterd.logical_units.instances.placing import allocator_named
from ganeti_masterd.logical_units.instances.requirements import check_bridges, require_memory
from ganeti_masterd.logical_units.moves.targets import (
    mirroring_of,
    require_mirrored,
    require_networks,
    require_policy,
)
from ganeti_masterd.logical_units.steps.allocating import find_nodes_by
from ganeti_masterd.opcodes.instance_moves import InstanceFailover, InstanceMigrate

R_co = TypeVar("R_co", bound=InstanceFailover | InstanceMigrate, covariant=True)


class RelocationUnit(InstanceUnit[R_co], Generic[R_co]):
    """A logical unit that gives an instance another primary node, which has its data already.

    With DRBD that is the secondary node; otherwise the node that was named, or that an
    allocator chooses.
    """

    #: What it does, as texts have it: "migrations", "migrated".
    what: ClassVar[str]
    moved: ClassVar[str]

    #: The primary node's uuid before, and the uuid of the node that takes over: empty until it
    #: is chosen, and for a cleanup that is to find it.
    source: str
    target: str
    #: The other nodes of the instance.
    others: tuple[str, ...]
    #: MiB of memory that the target has left; None if it wasn't asked.
    free: int | None

    def expand(self, snapshot: Snapshot) -> None:
        """Finds the instance, and the node that is named."""
        super().expand(snapshot)
        named = self.op.target_node_uuid or self.op.target_node
        self._named = None if named is None else snapshot.node(named).uuid
        self.source = self.target = ""
        self.others = ()
        self.free = None

    def locks(self, level: Level, snapshot: Snapshot) -> WantedLocks:
        """Holds the nodes of the instance, or all of them where an allocator is to choose."""
        instance = self.instance(snapshot)
        if level not in (Level.NODE, Level.NODE_RES):
            return super().locks(level, snapshot)
        if mirroring_of(snapshot, instance) != {Mirroring.EXTERNAL}:
            return exclusive(snapshot.nodes_of(instance))
        if self._named is not None:
            return exclusive((instance.primary_node, self._named))
        return all_exclusive

    # Steps of check

    def choose_target(self, ctx: Context, *, required: bool = True) -> None:
        """Sets :attr:`target`; unless ``required`` no allocator is asked. Raises ``OpPrereqError``.

        The locks of nodes that have nothing to do with it are given back.
        """
        snapshot = ctx.snapshot()
        instance = self.instance(snapshot)
        self.source = instance.primary_node
        self.others = snapshot.nodes_of(instance)[1:]
        kind = require_mirrored(snapshot, instance, self.what)
        if kind is Mirroring.INTERNAL:
            self.target = self._other_end(snapshot)
        elif self._named is not None and self.op.iallocator is not None:
            raise prereq("Do not specify both, iallocator and node", ECODE_INVAL)
        elif self._named is not None or required:
            self.target = self._named or self._allocated(ctx)
            if self.target == self.source:
                name = snapshot.nodes[self.source].name
                raise prereq(
                    f"Cannot migrate instance {instance.name} to its primary ({name})", ECODE_STATE
                )
        if self.target:
            for level in (Level.NODE, Level.NODE_RES):
                ctx.release(level, (self.source, self.target, *self.others))

    def _other_end(self, snapshot: Snapshot) -> str:
        instance = self.instance(snapshot)
        elsewhere = self._named is not None and self.others != (self._named,)
        if elsewhere or self.op.iallocator is not None:
            template = summary_name(disk.dev_type for disk in snapshot.disks_of(instance))
            raise prereq(
                f"Instances with disk types {template} cannot be {self.moved} to arbitrary nodes "
                "(neither an iallocator nor a target node can be passed)",
                ECODE_INVAL,
            )
        if len(self.others) != 1:
            raise prereq(
                f"Instance '{instance.name}' has {len(self.others)} secondary nodes, not one",
                ECODE_STATE,
            )
        return self.others[0]

    def _allocated(self, ctx: Context) -> str:
        instance = self.instance(ctx.snapshot())
        request = Relocate(name=instance.name, leaving=(instance.primary_node,))
        allocator, found = find_nodes_by(ctx, request, allocator_named(self.op.iallocator))
        snapshot = ctx.snapshot()
        node = snapshot.node(found[0]).uuid
        if node not in ctx.owned(Level.NODE):
            raise OpExecError(
                f"The allocator chose node {found[0]} for instance {instance.name}, which is not "
                "locked"
            )
        ctx.info(
            f"Selected nodes for instance {instance.name} via iallocator {allocator}: "
            f"{', '.join(found)}"
        )
        return node

    def require_target(self, ctx: Context, *, memory: bool) -> None:
        """Refuses a target that is offline, lacks memory (where asked), a bridge or a network."""
        snapshot = ctx.snapshot()
        instance = self.instance(snapshot)
        require_online(snapshot, self.target)
        require_policy(ctx, instance, self.target, ignore=self.op.ignore_ipolicy)
        require_networks(snapshot, instance, self.target)
        if memory:
            needed = effective.backend(snapshot.cluster, instance)["minmem"]
            self.free = require_memory(
                ctx,
                self.target,
                instance.hypervisor,
                needed,
                f"migrating instance {instance.name}",
            )
        else:
            self.tell_no_memory(ctx)
        check_bridges(ctx, instance.nics, (self.target,))

    def tell_no_memory(self, ctx: Context) -> None:
        """Says that the target isn't asked for memory."""
        ctx.info("Not checking memory on the secondary node as instance will not be started")

    def require_able(self, snapshot: Snapshot) -> None:
        """Refuses a target that is to get no instances."""
        require_usable(snapshot, self.target)

    def nodes_environment(self, snapshot: Snapshot) -> Mapping[str, object]:
        """Returns the variables of the nodes; after the opcode they are those of that time."""
        instance = self.instance(snapshot)
        primary = snapshot.nodes[instance.primary_node].name
        target = snapshot.nodes.get(self.target)
        internal = mirroring_of(snapshot, instance) == {Mirroring.INTERNAL}
        others = snapshot.nodes_of(instance)[1:]
        return {
            "OLD_PRIMARY": primary,
            "NEW_PRIMARY": "" if target is None else target.name,
            "OLD_SECONDARY": snapshot.nodes[others[0]].name if internal and others else "",
            "NEW_SECONDARY": primary if internal else "",
        }
