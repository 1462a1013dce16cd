"""The disks of an instance that is down become disks of another template.

Between plain and DRBD the data stays where it is; all others are copied to new disks. New disks
take the place of the old ones in one transaction: whatever fails, or is killed, before that is
taken back, so that the instance is as it was; what is left to do after that is done in any case,
and its failures are warnings. Texts are those of real daemon 3.0.2 (protocol/disks.rst).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from ganeti_masterd.allocation.requests import AllocateSecondary
from ganeti_masterd.config.objects import Disk, Instance
from ganeti_masterd.config.parameters import effective
from ganeti_masterd.config.parameters.policy import violations
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.templates import DiskTemplate, summary_name, template_named
from ganeti_masterd.errors import ECODE_INVAL, ECODE_NORES, ECODE_STATE, OpExecError, prereq
from ganeti_masterd.locking.levels import Level
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.disks.activating import (
    current,
    note_removed,
    remove_disks,
    shut_disks,
)
from ganeti_masterd.logical_units.disks.making import create_disks, exclusive_storage
from ganeti_masterd.logical_units.disks.naming import ReservedNaming
from ganeti_masterd.logical_units.disks.syncing import wait_for_sync
from ganeti_masterd.logical_units.disks.trees import (
    DiskLocation,
    DiskSpecification,
    base_directory,
    build_disks,
    file_directory,
)
from ganeti_masterd.logical_units.instances import specification
from ganeti_masterd.logical_units.instances.base import require_stopped, require_usable
from ganeti_masterd.logical_units.instances.mirroring import (
    forget_mirrors,
    mirror_volumes,
    note_forgotten,
    volumes_of_mirrors,
)
from ganeti_masterd.logical_units.instances.placing import allocator_named
from ganeti_masterd.logical_units.instances.planning import specification_of
from ganeti_masterd.logical_units.instances.publishing import WholeInstance, changes_between
from ganeti_masterd.logical_units.instances.requirements import (
    check_access,
    check_exclusive_storage,
    require_room,
    room_in_groups,
)
from ganeti_masterd.logical_units.steps import node_objects
from ganeti_masterd.logical_units.steps.allocating import find_nodes_by
from ganeti_masterd.logical_units.steps.undo import UndoStack
from ganeti_masterd.logical_units.steps.wording import size_text
from ganeti_masterd.opcodes.instances import InstanceSetParams
from ganeti_masterd.rpc import calls

#: What an instance can't be while it is converted.
_REFUSAL = "cannot change disk template"


class Conversion(Struct, frozen=True, kw_only=True):
    """A conversion that was checked: from where to where, and what the new disks are to be.

    ``nodes`` are the uuids of the nodes of the new disks, the primary first.
    """

    old: DiskTemplate
    new: DiskTemplate
    wanted: Sequence[DiskSpecification]
    nodes: tuple[str, ...]
    directory: str = ""
    driver: str = "loop"

    @property
    def adds_mirrors(self) -> bool:
        """Whether plain volumes become the data of mirrors, where they are."""
        return self.new.internal and self.old.name == "plain"

    @property
    def drops_mirrors(self) -> bool:
        """Whether the data of mirrors become plain volumes, where they are."""
        return self.old.internal and self.new.name == "plain"


def plan_conversion(
    ctx: Context, instance: Instance, op: InstanceSetParams, remote: str | None
) -> Conversion:
    """Checks that an instance can be converted; chooses the node that is to mirror it.

    ``remote`` is the uuid of that node, None where an allocator decides. Raises
    ``OpPrereqError``.
    """
    snapshot = ctx.snapshot()
    disks = snapshot.disks_of(instance)
    old, new = _templates(snapshot, disks, op)
    require_stopped(ctx, instance, _REFUSAL, ("down",))
    if new.internal and remote is not None:
        _check_remote(ctx, instance, remote, op)
    group = snapshot.group_of(snapshot.nodes[instance.primary_node])
    allowed = effective.instance_policy(snapshot.cluster, group)["disk-templates"]
    if new.name not in allowed and not op.ignore_ipolicy:
        raise prereq(
            f"Disk template '{new.name}' in not allowed (allowed templates: {', '.join(allowed)})",
            ECODE_STATE,
        )
    wanted = _specifications(snapshot, instance, disks, new, op)
    base = base_directory(snapshot.cluster, new.name)
    params = [disk.params for disk in wanted]
    check_access(snapshot, instance.primary_node, instance.hypervisor, new.name, params)
    plan = Conversion(
        old=old,
        new=new,
        wanted=wanted,
        nodes=(instance.primary_node,),
        directory=(
            file_directory(base, op.file_storage_dir, instance.name, new.name) if base else ""
        ),
        driver=op.file_driver or "loop",
    )
    _check_storage(ctx, plan)
    if not new.internal:
        return plan
    if remote is None:
        remote = _allocated(ctx, instance, op)
    plan = replace(plan, nodes=(instance.primary_node, remote))
    _check_storage(ctx, plan, only=(remote,))
    return plan


def convert_disks(
    ctx: Context, instance: Instance, plan: Conversion, op: InstanceSetParams
) -> None:
    """Converts all disks; they are shut down at the end. Raises ``OpExecError``."""
    disks = ctx.snapshot().disks_of(instance)
    ctx.checkpoint()
    # Some disks ready and others not would be neither what was, nor what is recorded.
    with ctx.shielded():
        shut = shut_disks(ctx, instance)
    if not shut:
        raise OpExecError(
            "Cannot shutdown instance disks, unable to proceed with disk template conversion; "
            f"instance {instance.name} still has its {plan.old.name} disks"
        )
    instance = current(ctx, instance)
    ctx.feedback(
        f"Converting disk template from '{_called(disks)}' to '{_called(plan.wanted, plan.new)}'"
    )
    with UndoStack(ctx) as undo:
        if plan.adds_mirrors:
            made = mirror_volumes(ctx, undo, instance, disks, _built(ctx, instance, plan))
        elif plan.drops_mirrors:
            made = volumes_of_mirrors(disks, instance.primary_node)
        else:
            made = _copied(ctx, undo, instance, disks, plan)
        # The swap is whole, and the old devices have nobody else to remove them.
        with ctx.shielded():
            if plan.drops_mirrors:
                note_forgotten(ctx, instance, disks)
            elif not plan.adds_mirrors:
                note_removed(ctx, instance, disks)
            _swap(ctx, instance, disks, made, plan)
            undo.keep()
            _clear(ctx, instance, disks, plan)
    ctx.release(Level.NODE)
    try:
        once = not op.wait_for_sync
        if not wait_for_sync(ctx, current(ctx, instance), made, once=once) and not once:
            raise OpExecError(
                "There are some degraded disks for this instance, please cleanup manually: "
                f"instance {instance.name} was converted to {plan.new.name}"
            )
    finally:
        if not plan.drops_mirrors:
            with ctx.shielded():
                shut_disks(ctx, current(ctx, instance), made)


def _templates(
    snapshot: Snapshot, disks: Sequence[Disk], op: InstanceSetParams
) -> tuple[DiskTemplate, DiskTemplate]:
    """Returns the templates from which and to which is converted, both fit for that."""
    own = summary_name(disk.dev_type for disk in disks)
    old, new = template_named(own), template_named(op.disk_template or "")
    if own == "mixed":
        raise prereq("Conversion from mixed is not yet supported.", ECODE_INVAL)
    if not old.converts_from:
        raise prereq(f"Conversion from the '{own}' disk template is not supported", ECODE_INVAL)
    if not new.converts_to:
        raise prereq(f"Conversion to the '{new.name}' disk template is not supported", ECODE_INVAL)
    if old == new and new.name != "ext":
        raise prereq(f"Instance already has disk template {new.name}", ECODE_INVAL)
    enabled = snapshot.cluster.enabled_disk_templates
    if new.name not in enabled:
        raise prereq(
            f"Disk template '{new.name}' is not enabled for this cluster (enabled templates: "
            f"{', '.join(enabled)})",
            ECODE_STATE,
        )
    if new.lvm and not snapshot.cluster.volume_group_name:
        raise prereq(
            "Disk template conversions to lvm-based instances are not supported by the cluster",
            ECODE_STATE,
        )
    return old, new


def _check_remote(ctx: Context, instance: Instance, remote: str, op: InstanceSetParams) -> None:
    """Checks the node that is to mirror an instance. Raises ``OpPrereqError``."""
    snapshot = ctx.snapshot()
    node = snapshot.nodes[remote]
    if remote == instance.primary_node:
        raise prereq(
            f"Given new secondary node {node.name} is the same as the primary node of the instance",
            ECODE_STATE,
        )
    require_usable(snapshot, remote)
    group = snapshot.group_of(node)
    demand = specification.demand(
        effective.backend(snapshot.cluster, instance),
        op.disk_template or "",
        [disk.size for disk in snapshot.disks_of(instance)],
        len(instance.nics),
    )
    found = violations(effective.instance_policy(snapshot.cluster, group), demand)
    if found:
        text = (
            f"Instance does not meet target node group's ({group.name}) instance policy: "
            f"{', '.join(found)}"
        )
        if not op.ignore_ipolicy:
            raise prereq(text, ECODE_INVAL)
        ctx.warning(text)


def _specifications(
    snapshot: Snapshot,
    instance: Instance,
    disks: Sequence[Disk],
    new: DiskTemplate,
    op: InstanceSetParams,
) -> list[DiskSpecification]:
    """Returns what the new disks are to be: as large as the old ones, with names and modes."""
    params: Mapping[str, Any] = {}
    if new.name == "ext":
        params = dict(op.ext_params)
        provider = params.get("provider")
        if not provider:
            raise prereq("Missing provider for template 'ext'", ECODE_INVAL)
        for disk in disks:
            if disk.dev_type == "ext" and (disk.logical_id or ("",))[0] == provider:
                raise prereq(
                    f"Not converting, '{disk.iv_name}' of type ExtStorage already using provider "
                    f"'{provider}'",
                    ECODE_INVAL,
                )
    elif op.ext_params:
        raise prereq(
            f"The 'ext-params' option is only valid for the ext disk template, not {new.name}",
            ECODE_INVAL,
        )
    group = snapshot.group_of(snapshot.nodes[instance.primary_node])
    default = snapshot.cluster.volume_group_name or ""
    found = []
    for disk in disks:
        own = specification_of(disk)
        wanted = DiskSpecification(
            size=own.size,
            mode=own.mode,
            name=own.name,
            group=(own.group or default) if new.lvm else "",
            spindles=own.spindles if new.exclusive else None,
            params=params,
        )
        found.append(wanted)
    return specification.with_metadata_group(found, new, snapshot.cluster, group)


def _check_storage(ctx: Context, plan: Conversion, *, only: Sequence[str] = ()) -> None:
    """Checks that nodes (``only`` these, or all of the plan) can take what is made on them."""
    snapshot = ctx.snapshot()
    nodes = tuple(only) or plan.nodes
    check_exclusive_storage(snapshot, nodes, plan.new.name, plan.wanted)
    if any(exclusive_storage(snapshot, node) for node in nodes):
        return
    needed = room_in_groups(plan.new.name, plan.wanted)
    if plan.drops_mirrors:
        needed = {}
    elif plan.adds_mirrors and not only:
        # The data is there already.
        needed = {}
        for disk in plan.wanted:
            needed[disk.meta_group] = needed.get(disk.meta_group, 0) + plan.new.metadata
    require_room(ctx, nodes, needed)


def _allocated(ctx: Context, instance: Instance, op: InstanceSetParams) -> str:
    """Returns the uuid of the node that an allocator chose to mirror an instance."""
    snapshot = ctx.snapshot()
    given = allocator_named(op.iallocator)
    told = given or snapshot.cluster.default_iallocator or "the built-in allocator"
    ctx.feedback(f"Using {told} to choose new secondary")
    allocator, name = find_nodes_by(ctx, AllocateSecondary(name=instance.name), given)
    ctx.feedback(f"{allocator} choose {name} as new secondary")
    chosen = snapshot.node(name).uuid
    if chosen not in ctx.owned(Level.NODE):
        raise prereq(
            f"Can't find secondary node using iallocator {allocator}: it chose {name}, which is "
            f"not in the group of instance {instance.name}",
            ECODE_NORES,
        )
    _check_remote(ctx, instance, chosen, op)
    kept = {*snapshot.nodes_of(instance), chosen}
    ctx.release(Level.NODE, kept)
    ctx.release(Level.NODE_RES, kept)
    return chosen


def _built(ctx: Context, instance: Instance, plan: Conversion) -> list[Disk]:
    where = DiskLocation(
        instance_uuid=instance.uuid,
        nodes=plan.nodes,
        directory=plan.directory,
        driver=plan.driver,
    )
    return build_disks(plan.new.name, plan.wanted, where, ReservedNaming(ctx))


def _copied(
    ctx: Context,
    undo: UndoStack,
    instance: Instance,
    disks: Sequence[Disk],
    plan: Conversion,
) -> list[Disk]:
    """Makes new disks and copies the old ones to them; returns the new ones."""
    kind = _called(plan.wanted, plan.new)
    ctx.feedback(f"Generating new '{kind}' disk template...")
    new = _built(ctx, instance, plan)
    for index, disk in enumerate(new):
        ctx.feedback(f"* disk {index}, size {size_text(disk.size)}")
    ctx.feedback(f"Creating new empty disks of type '{kind}'...")
    create_disks(ctx, undo, instance, new)
    ctx.feedback(f"Populating the new empty disks of type '{kind}'...")
    node = instance.primary_node
    snapshot = ctx.snapshot()
    for index, (source, target) in enumerate(zip(disks, new, strict=True)):
        ctx.feedback(
            f" - copying data from disk {index} ({_called([source])}), size "
            f"{size_text(source.size)}"
        )
        sent = (
            node_objects.disk_child(snapshot, source, 0, instance, node)
            if source.template.internal
            else node_objects.disk(snapshot, source, instance, node)
        )
        answer = ctx.call_one(
            node,
            calls.BLOCKDEV_CONVERT,
            (sent, node_objects.disk(snapshot, target, instance, node)),
        )
        if answer.failed:
            ctx.feedback(f" - ERROR: Could not copy disk {index}: {answer.error}")
            ctx.info("Some disks failed to copy")
            ctx.info("The instance will not be affected, aborting operation")
            answer.or_fail(
                f"Error while converting the instance's template: disk {index} of instance "
                f"{instance.name} could not be copied on node {answer.node}, all disks are as "
                "they were"
            )
    return new


def _swap(
    ctx: Context,
    instance: Instance,
    old: Sequence[Disk],
    new: Sequence[Disk],
    plan: Conversion,
) -> None:
    """Makes the new disks those of the instance, in one transaction."""
    if not (plan.adds_mirrors or plan.drops_mirrors):
        ctx.feedback(
            f"Detaching old disks ({_called(old)}) from the instance and removing them from "
            "cluster config"
        )
        ctx.feedback(
            f"Adding new disks ({_called(new)}) to cluster config and attaching them to the "
            "instance"
        )
    after = replace(instance, disks=tuple(disk.uuid for disk in new))
    ctx.change_all(
        changes_between(
            WholeInstance(instance, tuple(old)),
            WholeInstance(after, tuple(new)),
            ctx.snapshot().cluster,
        )
    )


def _clear(ctx: Context, instance: Instance, old: Sequence[Disk], plan: Conversion) -> None:
    """Removes what is left of the old disks; failures are warnings."""
    if plan.adds_mirrors:
        return
    if plan.drops_mirrors:
        forget_mirrors(ctx, current(ctx, instance), old)
        return
    ctx.feedback(f"Removing old block devices of type '{_called(old)}'...")
    kept = ctx.snapshot().disks_of(current(ctx, instance))
    remove_disks(ctx, current(ctx, instance), old, kept=kept)


def _called(
    disks: Sequence[Disk] | Sequence[DiskSpecification], template: DiskTemplate | None = None
) -> str:
    """Returns what disks, all of one template, are called: ext with its provider."""
    first = disks[0]
    name = template.name if template is not None else first.dev_type  # type: ignore[union-attr]
    if name != "ext":
        return str(name)
    return f"ext:{first.params.get('provider')}"
