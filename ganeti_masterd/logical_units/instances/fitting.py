"""Whether nodes can take a new instance: their storage, their group's policy, what they say.

Nothing is changed; whatever is missing is an ``OpPrereqError``.
"""

from __future__ import annotations

from collections.abc import Sequence

from ganeti_masterd.config.objects import Nic
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.disks.trees import DiskSpecification
from ganeti_masterd.logical_units.instances import adopting, requirements, specification
from ganeti_masterd.logical_units.instances.planning import WantedInstance


def completed_disks(
    ctx: Context, wanted: WantedInstance, nodes: Sequence[str], *, adopts: bool
) -> list[DiskSpecification]:
    """Returns the disks of an instance on nodes (uuids, the primary first), which have the room.

    They have their group of metadata, and those that are adopted their sizes.
    """
    snapshot, template = ctx.snapshot(), wanted.template
    primary = snapshot.nodes[nodes[0]]
    requirements.check_exclusive_storage(snapshot, nodes, template.name, wanted.disks)
    disks = specification.with_metadata_group(
        wanted.disks, template, snapshot.cluster, snapshot.group_of(primary)
    )
    if adopts:
        disks = adopting.found_disks(ctx, primary.uuid, disks, template)
    else:
        needed = requirements.room_in_groups(template.name, disks)
        requirements.require_room(ctx, nodes, needed)
    given = [disk.params for disk in disks]
    requirements.check_access(snapshot, primary.uuid, wanted.hypervisor, template.name, given)
    return disks


def check_policy(snapshot: Snapshot, wanted: WantedInstance, primary: str) -> None:
    """Checks an instance against the policy of its primary node's group. Pure."""
    sizes = [disk.size for disk in wanted.disks]
    demand = specification.demand(
        wanted.filled_backend, wanted.template.name, sizes, len(wanted.nics)
    )
    group = snapshot.group_of(snapshot.nodes[primary])
    specification.check_policy_kept(snapshot.cluster, group, demand)


def ask_nodes(
    ctx: Context, wanted: WantedInstance, nodes: Sequence[str], *, force_variant: bool
) -> None:
    """Asks all nodes of an instance about its hypervisor and its operating system."""
    requirements.check_hypervisor_on_nodes(ctx, nodes, wanted.hypervisor, wanted.filled_hypervisor)
    if not wanted.os:
        return
    filled = specification.filled_os(ctx.snapshot().cluster, wanted.os, wanted.os_parameters)
    with filled.kept_from_errors():
        requirements.check_system_on_nodes(
            ctx, nodes, wanted.os, filled.together(), force_variant=force_variant
        )


def ask_primary(
    ctx: Context, wanted: WantedInstance, primary: str, nics: Sequence[Nic], *, starts: bool
) -> None:
    """Asks the primary node for bridges and, if the instance will start, for memory."""
    requirements.check_bridges(ctx, nics, (primary,))
    if starts:
        needed = wanted.filled_backend["maxmem"]
        reason = f"creating instance {wanted.name}"
        requirements.require_memory(ctx, primary, wanted.hypervisor, needed, reason)
