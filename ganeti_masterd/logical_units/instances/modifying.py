"""OP_INSTANCE_SET_PARAMS: an instance, its NICs, its disks or their template change.

Everything is checked first; then disks change one after the other, each change whole, and
all the rest in one transaction at the end. docs/differences.rst, Instances, says where this
differs from real daemon 3.0.2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from msgspec.structs import replace

from ganeti_masterd.config.objects import Instance
from ganeti_masterd.config.parameters import effective
from ganeti_masterd.config.parameters.merging import refuse_globals
from ganeti_masterd.config.parameters.policy import PolicyDemand, violations
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.templates import template_named
from ganeti_masterd.errors import ECODE_INVAL, ECODE_STATE, OpExecError, prereq
from ganeti_masterd.locking.levels import Level, WantedLocks, exclusive, shared
from ganeti_masterd.logical_units.base import HookNodes
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.disks.activating import current, shut_disks
from ganeti_masterd.logical_units.disks.making import exclusive_storage
from ganeti_masterd.logical_units.instances.base import (
    InstanceUnit,
    require_stopped,
    require_usable,
)
from ganeti_masterd.logical_units.instances.converting import (
    Conversion,
    convert_disks,
    plan_conversion,
)
from ganeti_masterd.logical_units.instances.device_changes import (
    ADD,
    ATTACH,
    LAST,
    MODIFY,
    REMOVE,
    DeviceChange,
    ModifiedEntries,
    read_changes,
)
from ganeti_masterd.logical_units.instances.environment import instance_environment
from ganeti_masterd.logical_units.instances.hotplugging import can_hotplug
from ganeti_masterd.logical_units.instances.modifying_disks import (
    DiskModification,
    check_disk_changes,
)
from ganeti_masterd.logical_units.instances.modifying_nics import (
    NicPlan,
    do_nics,
    plan_nics,
)
from ganeti_masterd.logical_units.instances.modifying_parameters import (
    ParameterPlan,
    check_memory,
    check_runtime_memory,
    parameter_entries,
    plan_parameters,
)
from ganeti_masterd.logical_units.instances.nics import COMMUNICATION_PREFIX, communication_nic
from ganeti_masterd.logical_units.instances.planning_disks import (
    attached_disk,
    plan_disks,
)
from ganeti_masterd.logical_units.instances.power import info_arguments
from ganeti_masterd.logical_units.instances.publishing import WholeInstance, changes_between
from ganeti_masterd.logical_units.instances.setting_up import tell_metadata
from ganeti_masterd.logical_units.steps import node_objects
from ganeti_masterd.opcodes.instances import InstanceSetParams
from ganeti_masterd.rpc import calls

#: The opcode's parameters of which at least one has to be given.
_CHANGES = (
    "beparams",
    "disk_template",
    "disks",
    "hvparams",
    "instance_communication",
    "nics",
    "offline",
    "os_name",
    "osparams",
    "osparams_private",
    "pnode",
    "pnode_uuid",
    "runtime_mem",
)


class ModifyInstance(InstanceUnit[InstanceSetParams], runs=InstanceSetParams):
    """Changes an instance; the result lists what changed, in the order in which it did."""

    def expand(self, snapshot: Snapshot) -> None:
        """Checks what is given by itself, and finds instance and nodes."""
        super().expand(snapshot)
        op = self.op
        if all(getattr(op, name) in (None, (), {}) for name in _CHANGES):
            raise prereq("No changes submitted", ECODE_INVAL)
        refuse_globals(op.hvparams, effective.NODE_WIDE, "hypervisor", "instance", "cluster")
        self._nic_changes = read_changes("NIC", op.nics)
        self._disk_changes = read_changes("disk", op.disks)
        primary = op.pnode_uuid or op.pnode
        self._primary = None if primary is None else snapshot.node(primary).uuid
        remote = op.remote_node_uuid or op.remote_node
        self._remote = None if remote is None else snapshot.node(remote).uuid
        self._expand_conversion()

    def _expand_conversion(self) -> None:
        op = self.op
        self._ignores_remote = False
        if op.disk_template is None:
            if op.ext_params:
                raise prereq(
                    "Parameters of an external storage provider are given by the disks, or with "
                    "a new disk template",
                    ECODE_INVAL,
                )
            return
        if op.disks:
            raise prereq(
                "Disk template conversion and other disk changes not supported at the same time",
                ECODE_INVAL,
            )
        if self._primary is not None:
            raise prereq(
                "Disk template conversion and a new primary node are not supported at the same "
                "time",
                ECODE_INVAL,
            )
        internal = template_named(op.disk_template).internal
        if internal and self._remote is not None and op.iallocator is not None:
            raise prereq("Do not specify both, iallocator and node", ECODE_INVAL)
        self._ignores_remote = self._remote is not None and not internal
        if not internal:
            self._remote = None

    def locks(self, level: Level, snapshot: Snapshot) -> WantedLocks:
        """Holds the nodes before and after the change; of a conversion those it may choose."""
        nodes = self._nodes(snapshot)
        if level is Level.NODEGROUP:
            return shared({snapshot.nodes[node].group for node in nodes})
        if level is Level.NODE:
            return exclusive(nodes)
        makes = any(change.action in (ADD, ATTACH) for change in self._disk_changes)
        if level is Level.NODE_RES and (makes or self.op.disk_template):
            return exclusive(nodes)
        return super().locks(level, snapshot)

    def _nodes(self, snapshot: Snapshot) -> set[str]:
        instance = self.instance(snapshot)
        nodes = {*snapshot.nodes_of(instance)}
        nodes |= {node for node in (self._primary, self._remote) if node is not None}
        for change in self._disk_changes:
            if change.action == ATTACH:
                nodes.update(attached_disk(snapshot, change.params).all_nodes())
        template = self.op.disk_template
        if template and template_named(template).internal and self._remote is None:
            groups = {snapshot.nodes[node].group for node in snapshot.nodes_of(instance)}
            for group in groups:
                nodes |= {node.uuid for node in snapshot.members(group)}
        return nodes

    def hook_nodes(self, snapshot: Snapshot) -> HookNodes:
        """The master and the nodes before the change."""
        return self._hook_nodes

    def hook_environment(self, snapshot: Snapshot) -> Mapping[str, object]:
        """Describes the instance with the NICs and sizes that it is to have."""
        instance = replace(self.instance(snapshot), nics=self._nics.nics)
        told = instance_environment(snapshot, instance, backend=self._parameters.filled_backend)
        if self.op.disk_template:
            told["NEW_DISK_TEMPLATE"] = self.op.disk_template
        if self.op.runtime_mem is not None:
            told["RUNTIME_MEMORY"] = self.op.runtime_mem
        return told

    # Checks

    def check(self, ctx: Context) -> None:
        """Checks everything, in the order of real daemon 3.0.2."""
        op, snapshot = self.op, ctx.snapshot()
        instance = self.instance(snapshot)
        self._hook_nodes = super().hook_nodes(snapshot)
        self._check_primary(ctx, instance)
        self._hotplug = (op.hotplug or op.hotplug_if_possible) and can_hotplug(
            ctx, instance, required=op.hotplug
        )
        nic_changes = [*self._nic_changes, *self._communication(snapshot, instance)]
        self._conversion: Conversion | None = None
        if op.disk_template is not None:
            if self._ignores_remote:
                ctx.warning(
                    "Changing the disk template to a non-mirrored one, the secondary node will "
                    "be ignored"
                )
            self._conversion = plan_conversion(ctx, instance, op, self._remote)
        self._disks = plan_disks(
            snapshot, instance, self._disk_changes, wait_for_sync=op.wait_for_sync
        )
        check_disk_changes(ctx, instance, self._disks, op, hotplug=self._hotplug)
        self._check_homes(snapshot, instance)
        self._check_offline(ctx, instance)
        self._parameters: ParameterPlan = plan_parameters(ctx, instance, op)
        check_memory(ctx, instance, self._parameters, op)
        check_runtime_memory(ctx, instance, self._parameters, op)
        self._nics: NicPlan = plan_nics(ctx, instance, nic_changes, op)
        self._check_policy(snapshot, instance)

    def _check_primary(self, ctx: Context, instance: Instance) -> None:
        """Checks that an instance can have another primary node, and doesn't run on the old one."""
        if self._primary in (None, instance.primary_node):
            self._primary = None
            return
        snapshot = ctx.snapshot()
        require_usable(snapshot, self._primary)
        if self.op.force:
            return
        answer = ctx.call_one(
            instance.primary_node, calls.INSTANCE_INFO, info_arguments(snapshot, instance)
        )
        if answer.failed:
            ctx.warning(f"Can't get instance runtime information: {answer.error}")
        elif answer.payload.known:
            raise prereq(f"Instance is still running on {answer.node}", ECODE_STATE)

    def _check_homes(self, snapshot: Snapshot, instance: Instance) -> None:
        """Refuses a new primary node that doesn't reach all disks."""
        if self._primary is None or self.op.force:
            return
        away = [
            f"disk/{index}"
            for index, disk in enumerate(self._disks.disks)
            if disk.all_nodes() and self._primary not in disk.all_nodes()
        ]
        if away:
            raise prereq(
                f"Disks of instance {instance.name} are not on node "
                f"{snapshot.nodes[self._primary].name}: {', '.join(away)}; move the instance, or "
                "use --force if they are there in truth",
                ECODE_STATE,
            )

    def _communication(self, snapshot: Snapshot, instance: Instance) -> list[DeviceChange]:
        """Returns the change that adds or removes the NIC to the metadata daemon."""
        wanted = self.op.instance_communication
        name = COMMUNICATION_PREFIX + instance.name
        there = any(nic.name == name for nic in instance.nics)
        if wanted is None or wanted == there:
            return []
        if wanted:
            return [DeviceChange(ADD, LAST, communication_nic(snapshot.cluster, instance.name))]
        return [DeviceChange(REMOVE, name, {})]

    def _check_offline(self, ctx: Context, instance: Instance) -> None:
        if self.op.offline is None:
            return
        text = (
            "can't change to offline without being down first"
            if self.op.offline
            else "can't change to online (down) without being offline first"
        )
        require_stopped(ctx, instance, text)

    def _check_policy(self, snapshot: Snapshot, instance: Instance) -> None:
        """Checks what changes against the policy of the primary's group."""
        op = self.op
        if op.ignore_ipolicy:
            return
        group = snapshot.group_of(snapshot.nodes[instance.primary_node])
        filled = self._parameters.filled_backend if op.beparams else {}
        disks = self._disks.disks
        others = any(step.action != MODIFY for step in self._disks.steps)
        nodes = snapshot.nodes_of(instance)
        spindles = filled.get("spindle_use")
        if op.beparams and any(exclusive_storage(snapshot, node) for node in nodes):
            spindles = sum(disk.spindles or 0 for disk in disks)
        demands = [
            PolicyDemand(
                memory=memory,
                cpus=filled.get("vcpus"),
                disk_sizes=[disk.size for disk in disks] if others else [],
                disk_types=[disk.dev_type for disk in disks] if others else None,
                nics=len(self._nics.nics) if self._nics.steps else None,
                spindles=spindles,
            )
            for memory in dict.fromkeys((filled.get("maxmem"), filled.get("minmem")))
        ]
        policy = effective.instance_policy(snapshot.cluster, group)
        found = dict.fromkeys(text for demand in demands for text in violations(policy, demand))
        if found:
            raise prereq(
                f"Instance allocation to group {group.uuid} ({group.name}) violates policy: "
                f"{', '.join(found)}",
                ECODE_INVAL,
            )

    # Work

    def exec(self, ctx: Context) -> ModifiedEntries:
        """Changes memory, then disks, then all that is only in the configuration."""
        op = self.op
        instance = self.instance(ctx.snapshot())
        result: ModifiedEntries = []
        with _telling_what_stays(ctx, instance, result):
            if op.runtime_mem is not None:
                self._balloon(ctx, instance, op.runtime_mem)
                result.append(("runtime_memory", op.runtime_mem))
            if self._disks.steps:
                work = DiskModification(ctx, instance, op, result, hotplug=self._hotplug)
                work.run(self._disks.steps)
            if self._conversion is not None:
                convert_disks(ctx, instance, self._conversion, op)
                result.append(("disk_template", op.disk_template))
            ctx.release(Level.NODE_RES)
            ctx.release(Level.NODE, () if self._primary is None else (self._primary,))
            ctx.checkpoint()
            # What is plugged in is what the configuration says next.
            with ctx.shielded():
                instance = current(ctx, instance)
                result += do_nics(ctx, instance, self._nics, hotplug=self._hotplug)
                active = instance.disks_active
                instance = self._write(ctx, instance)
                if op.offline and active:
                    shut_disks(ctx, instance)
        result += parameter_entries(op)
        if self._primary is not None:
            result.append(("pnode", ctx.snapshot().nodes[self._primary].name))
        if op.offline is not None:
            result.append(("admin_state", instance.admin_state))
        with ctx.shielded():
            tell_metadata(ctx, instance, {})
        return result

    def _balloon(self, ctx: Context, instance: Instance, memory: int) -> None:
        node = instance.primary_node
        sent = node_objects.instance(ctx.snapshot(), instance, node)
        ctx.call_one(node, calls.INSTANCE_BALLOON_MEMORY, (sent, memory)).or_fail(
            f"Cannot modify instance runtime memory ({instance.name}, to {memory} MiB)"
        )

    def _write(self, ctx: Context, instance: Instance) -> Instance:
        """Writes all that isn't of disks, in one transaction; returns the instance then."""
        fields: dict[str, Any] = {**self._parameters.fields(), "nics": self._nics.nics}
        if self._primary is not None:
            fields["primary_node"] = self._primary
        if self.op.offline:
            fields |= {
                "admin_state": "offline",
                "admin_state_source": "admin",
                "disks_active": False,
            }
        elif self.op.offline is not None:
            fields |= {"admin_state": "down", "admin_state_source": "admin"}
        after = replace(instance, **fields)
        ctx.change_all(
            changes_between(
                WholeInstance(instance, ()), WholeInstance(after, ()), ctx.snapshot().cluster
            )
        )
        return current(ctx, instance)


@contextmanager
def _telling_what_stays(ctx: Context, instance: Instance, done: ModifiedEntries) -> Iterator[None]:
    """If the body fails after some changes, logs which of them stay, then re-raises."""
    try:
        yield
    except OpExecError:
        if done:
            with ctx.shielded():
                ctx.warning(
                    f"Instance {instance.name} is changed in part; done and kept: "
                    f"{', '.join(what for what, _ in done)}",
                    hint="Repeat the command without these changes",
                )
        raise
