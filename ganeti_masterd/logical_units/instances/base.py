"""What logical units of one instance have in common: whom they lock, and where hooks run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Generic, TypeVar

from ganeti_masterd.config.objects import Instance
from ganeti_masterd.config.parameters import effective
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import ECODE_NOTUNIQUE, ECODE_STATE, OpPrereqError, prereq
from ganeti_masterd.locking.levels import Level, WantedLocks, exclusive, shared
from ganeti_masterd.logical_units.base import HookNodes, LogicalUnit
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.instances.environment import instance_environment
from ganeti_masterd.opcodes.targets import InstanceOpcode
from ganeti_masterd.rpc import calls
from ganeti_masterd.rpc.results import InstanceInfo

I_co = TypeVar("I_co", bound=InstanceOpcode, covariant=True)

#: ``state`` of an instance that the hypervisor knows and that is shut down.
SHUT_DOWN = 1


class InstanceUnit(LogicalUnit[I_co], Generic[I_co]):
    """A logical unit of an opcode on one instance that exists.

    It locks the instance, and its nodes where :attr:`node_levels` say so; hooks run on the master
    and on all its nodes. Subclasses say ``runs=`` as those of ``LogicalUnit`` do.
    """

    #: The levels at which the nodes of the instance are locked.
    node_levels: ClassVar[tuple[Level, ...]] = ()
    #: Whether others may share the instance's lock.
    shares: ClassVar[bool] = False
    #: Whether the instance may be one that is only planned.
    forthcoming_too: ClassVar[bool] = False

    #: The uuid of the instance, from :meth:`expand` on.
    uuid: str

    def expand(self, snapshot: Snapshot) -> None:
        """Finds the instance; see ``LogicalUnit.expand``."""
        instance = instance_of(snapshot, self.op)
        if instance.forthcoming and not self.forthcoming_too:
            raise prereq(
                f"Instance '{instance.name}': forthcoming instances not supported for this "
                "operation",
                ECODE_STATE,
            )
        self.uuid = instance.uuid

    def locks(self, level: Level, snapshot: Snapshot) -> WantedLocks:
        """See ``LogicalUnit.locks``."""
        instance = self.instance(snapshot)
        if level is Level.INSTANCE:
            return shared(instance.name) if self.shares else exclusive(instance.name)
        if level in self.node_levels:
            return exclusive(snapshot.nodes_of(instance))
        return super().locks(level, snapshot)

    def instance(self, snapshot: Snapshot) -> Instance:
        """Returns the instance as it is; raises ``OpPrereqError`` if it is gone."""
        found: Instance = snapshot.find("instance", self.uuid)
        return found

    def hook_nodes(self, snapshot: Snapshot) -> HookNodes:
        """Returns the master and the nodes of the instance."""
        nodes = tuple(
            dict.fromkeys((snapshot.master.uuid, *snapshot.nodes_of(self.instance(snapshot))))
        )
        return HookNodes(nodes, nodes)

    def hook_environment(self, snapshot: Snapshot) -> Mapping[str, object]:
        """Returns the variables of the instance and those of :meth:`own_environment`."""
        return {
            **instance_environment(snapshot, self.instance(snapshot)),
            **self.own_environment(snapshot),
        }

    def own_environment(self, snapshot: Snapshot) -> Mapping[str, object]:
        """Returns the variables of this opcode alone."""
        return {}


def instance_of(snapshot: Snapshot, op: InstanceOpcode) -> Instance:
    """Returns the instance that an opcode is about.

    Raises ``OpPrereqError``: ``unknown_entity`` if there is none of that name,
    ``resource_not_unique`` if its uuid isn't the one that the opcode expects.
    """
    instance = snapshot.instance(op.instance_name)
    if op.instance_uuid is not None and op.instance_uuid != instance.uuid:
        raise OpPrereqError(
            f"The instances UUID '{instance.uuid}' does not match the expected UUID "
            f"'{op.instance_uuid}' for instance '{instance.name}'. Maybe the instance changed "
            "since you submitted this job.",
            ECODE_NOTUNIQUE,
        )
    return instance


def require_online(snapshot: Snapshot, node: str, text: str = "Can't use offline node") -> None:
    """Raises ``OpPrereqError`` with ``wrong_state`` if a node (its uuid) is marked offline."""
    if snapshot.nodes[node].offline:
        raise prereq(f"{text}: {snapshot.nodes[node].name}", ECODE_STATE)


def require_usable(snapshot: Snapshot, node: str) -> None:
    """Raises ``OpPrereqError`` with ``wrong_state`` if a node (its uuid) can't get instances."""
    found = snapshot.nodes[node]
    require_online(snapshot, node)
    if found.drained:
        raise prereq(f"Can't use drained node {found.name}", ECODE_STATE)
    if not found.vm_capable:
        raise prereq(f"Can't use non-vm_capable node {found.name}", ECODE_STATE)


def require_state(instance: Instance, allowed: tuple[str, ...], text: str | None = None) -> None:
    """Raises ``OpPrereqError`` with ``wrong_state`` unless the administrator's state is allowed.

    ``allowed`` are of ``up``, ``down``, ``offline``; ``text`` says what can't be done.
    """
    if instance.admin_state not in allowed:
        because = text or f"can't use instance from outside {', '.join(allowed)} states"
        raise prereq(
            f"Instance '{instance.name}' is marked to be {instance.admin_state}, {because}",
            ECODE_STATE,
        )


def require_stopped(
    ctx: Context, instance: Instance, text: str, allowed: tuple[str, ...] = ("down", "offline")
) -> None:
    """Raises ``OpPrereqError`` unless an instance is meant not to run, and doesn't.

    ``wrong_state`` if it runs; ``environment_error`` if its primary node can't say. One that
    is marked offline isn't asked, with a warning.
    """
    require_state(instance, allowed, text)
    snapshot = ctx.snapshot()
    if snapshot.nodes[instance.primary_node].offline:
        ctx.warning("Primary node offline, ignoring check that instance is down")
        return
    if runs(ctx, instance):
        raise prereq(f"Instance {instance.name} is running, {text}", ECODE_STATE)


def runs(ctx: Context, instance: Instance) -> bool:
    """Whether an instance runs on its primary node; raises ``OpPrereqError`` if that can't say."""
    filled = effective.hypervisor(ctx.snapshot().cluster, instance)
    found = ctx.call_one(
        instance.primary_node,
        calls.INSTANCE_INFO,
        (instance.name, instance.hypervisor, filled),
    ).or_refuse(f"Can't retrieve instance information for instance '{instance.name}'")
    return is_running(found)


def is_running(info: InstanceInfo) -> bool:
    """Whether the payload of ``instance_info`` tells of an instance that runs."""
    return info.known and info.state != SHUT_DOWN
