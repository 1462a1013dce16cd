"""OP_GROUP_SET_PARAMS: a group's own parameters, which override the cluster's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec.structs import replace

from ganeti_masterd.config.base import Params
from ganeti_masterd.config.objects import Cluster, Instance, NodeGroup
from ganeti_masterd.config.parameters import effective
from ganeti_masterd.config.parameters.devices import can_access, disk_parameters
from ganeti_masterd.config.parameters.merging import (
    DEFAULT,
    disk_state,
    hypervisor_state,
    updated,
)
from ganeti_masterd.config.parameters.policy import (
    PolicyDemand,
    check_policy_templates,
    updated_policy,
    violations,
)
from ganeti_masterd.config.parameters.types import NODE, enforce
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.ssconf import natural
from ganeti_masterd.errors import prereq
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.groups.one_group import OnOneGroup
from ganeti_masterd.opcodes.groups import GroupAdd, GroupSetParams

#: Parameters of a group that the opcode may change.
CHANGEABLE = ("ndparams", "diskparams", "alloc_policy", "hv_state", "disk_state", "ipolicy")


class SetGroupParameters(OnOneGroup[GroupSetParams], runs=GroupSetParams):
    """Changes a group's parameters. Instances that break a new policy are named, and stay."""

    def expand(self, snapshot: Snapshot) -> None:
        """Finds the group; refuses an opcode that changes nothing."""
        if all(getattr(self.op, name) is None for name in CHANGEABLE):
            raise prereq("Please pass at least one modification")
        super().expand(snapshot)

    def check(self, ctx: Context) -> None:
        """Refuses parameters that are invalid, or conflict with the group's instances."""
        snapshot = ctx.snapshot()
        group = snapshot.groups[self.uuid]
        self.changed = changed_group(group, self.op, snapshot.cluster)
        instances = [
            instance for node in snapshot.members(group) for instance in snapshot.instances_on(node)
        ]
        if self.op.diskparams:
            check_access(snapshot, instances, self.changed.diskparams)
        if self.op.ipolicy:
            names = newly_violating(snapshot, instances, group, self.changed)
            if names:
                ctx.warning(
                    "After the ipolicy change the following instances violate them:"
                    f" {', '.join(names)}"
                )

    def hook_environment(self, snapshot: Snapshot) -> Mapping[str, object]:
        """Returns the group's name and the requested allocation policy."""
        return {"GROUP_NAME": self.op.group_name, "NEW_ALLOC_POLICY": self.op.alloc_policy}

    def exec(self, ctx: Context) -> list[tuple[str, str]]:
        """Changes the group; returns the new node and disk parameters, if any were given."""
        op, cluster = self.op, ctx.snapshot().cluster
        changed: NodeGroup = ctx.change(self.uuid, lambda group: changed_group(group, op, cluster))
        return [
            (name, str(dict(getattr(changed, name))))
            for name in ("ndparams", "diskparams")
            if getattr(op, name)
        ]


def changed_group(
    group: NodeGroup, change: GroupAdd | GroupSetParams, cluster: Cluster
) -> NodeGroup:
    """Returns a group with the changes of an opcode. Pure.

    The value "default" removes a parameter. Raises ``OpPrereqError`` and ``TypeEnforcementError``
    for invalid values, and for a policy with disk templates that the cluster doesn't allow.
    """
    if change.ndparams:
        given = enforce(change.ndparams, NODE, special=(DEFAULT,))
        group = replace(group, ndparams=updated(group.ndparams, given))
    if change.diskparams:
        group = replace(group, diskparams=_disk_parameters(group, dict(change.diskparams)))
    if change.alloc_policy:
        group = replace(group, alloc_policy=change.alloc_policy)
    if change.hv_state:
        state = hypervisor_state(group.hv_state_static, change.hv_state)
        group = replace(group, hv_state_static=state)
    if change.disk_state:
        group = replace(
            group, disk_state_static=disk_state(group.disk_state_static, change.disk_state)
        )
    if change.ipolicy:
        policy = updated_policy(group.ipolicy, change.ipolicy, of_group=True)
        group = replace(group, ipolicy=policy)
        filled = effective.instance_policy(cluster, group)
        check_policy_templates(filled, cluster.enabled_disk_templates)
    return group


def check_access(
    snapshot: Snapshot, instances: Iterable[Instance], params: Mapping[str, Params]
) -> None:
    """Refuses an access mode that an instance's hypervisor doesn't support for its disks."""
    for instance in instances:
        for disk in snapshot.disks_of(instance):
            access = params.get(disk.dev_type, {}).get("access", "kernelspace")
            if not can_access(instance.hypervisor, disk.dev_type, access):
                raise prereq(
                    f"While verify diskparams options: Instance {instance.name}: cannot use"
                    f" '{access}' access setting with {instance.hypervisor} hypervisor and"
                    f" {disk.dev_type} disk type."
                )


def newly_violating(
    snapshot: Snapshot, instances: Iterable[Instance], before: NodeGroup, after: NodeGroup
) -> list[str]:
    """Returns the names of instances that satisfy a group's old policy but not the new one."""
    old, new = (effective.instance_policy(snapshot.cluster, each) for each in (before, after))
    found = []
    for instance in instances:
        demand = demand_of(snapshot, instance)
        if violations(new, demand) and not violations(old, demand):
            found.append(instance.name)
    return natural(found)


def demand_of(snapshot: Snapshot, instance: Instance) -> PolicyDemand:
    """Returns an instance's use of the resources that policies limit."""
    backend = effective.backend(snapshot.cluster, instance)
    disks = snapshot.disks_of(instance)
    return PolicyDemand(
        memory=backend["maxmem"],
        cpus=backend["vcpus"],
        disk_sizes=[disk.size for disk in disks],
        disk_types=[disk.dev_type for disk in disks],
        nics=len(instance.nics),
        spindles=_spindles(snapshot, instance, backend),
    )


def _spindles(snapshot: Snapshot, instance: Instance, backend: Params) -> Any:
    """Returns its disks' spindles if nodes assign those; None, which isn't checked, if unknown."""
    nodes = [snapshot.nodes[uuid] for uuid in snapshot.nodes_of(instance) if uuid in snapshot.nodes]
    if not any(effective.of_node(snapshot, node).get("exclusive_storage") for node in nodes):
        return backend["spindle_use"]
    known = [disk.spindles for disk in snapshot.disks_of(instance) if disk.spindles is not None]
    return sum(known) if len(known) == len(instance.disks) else None


def _disk_parameters(group: NodeGroup, change: Mapping[Any, Params]) -> dict[str, dict[str, Any]]:
    """Returns a group's disk parameters, with those of the given templates updated."""
    given = disk_parameters(change, resets=True)
    return {
        **{template: dict(params) for template, params in group.diskparams.items()},
        **{
            template: updated(group.diskparams.get(template, {}), params)
            for template, params in given.items()
        },
    }
