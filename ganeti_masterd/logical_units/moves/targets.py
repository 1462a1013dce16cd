"""To which node an instance may move: what of its disks goes there, and what is asked of it.

Texts are those of real daemon 3.0.2; docs/differences.rst, Instances says where a rule differs.
"""

from __future__ import annotations

from ganeti_masterd.config.objects import Instance
from ganeti_masterd.config.parameters import effective
from ganeti_masterd.config.parameters.policy import violations
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.templates import Mirroring, summary_name, template_named
from ganeti_masterd.errors import ECODE_INVAL, ECODE_STATE, prereq
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.groups.parameters import demand_of


def mirroring_of(snapshot: Snapshot, instance: Instance) -> frozenset[Mirroring]:
    """Returns the ways in which an instance's disks are mirrored: one, unless they differ. Pure."""
    kinds = [disk.template for disk in snapshot.disks_of(instance)]
    return frozenset(kind.mirroring for kind in kinds or [template_named("diskless")])


def require_mirrored(snapshot: Snapshot, instance: Instance, what: str) -> Mirroring:
    """Returns how an instance's disks are mirrored, all in the same way. Pure.

    ``what`` can't be done otherwise: ``migrations``. Raises ``OpPrereqError``.
    """
    kinds = mirroring_of(snapshot, instance)
    if Mirroring.NONE in kinds:
        layout = summary_name(disk.dev_type for disk in snapshot.disks_of(instance))
        raise prereq(f"Instance's disk layout '{layout}' does not allow {what}", ECODE_STATE)
    if len(kinds) > 1:
        raise prereq(
            "Instance mixes internal and external mirroring. This is not currently supported.",
            ECODE_STATE,
        )
    (kind,) = kinds
    return kind


def require_policy(ctx: Context, instance: Instance, node: str, *, ignore: bool) -> None:
    """Refuses a node (its uuid) whose group's policy an instance violates; ``ignore``: a warning.

    Within the group where the instance is, nothing is checked. Raises ``OpPrereqError`` with
    ``wrong_input``.
    """
    snapshot = ctx.snapshot()
    group = snapshot.group_of(snapshot.nodes[node])
    if group.uuid == snapshot.nodes[instance.primary_node].group:
        return
    policy = effective.instance_policy(snapshot.cluster, group)
    found = violations(policy, demand_of(snapshot, instance))
    if not found:
        return
    text = (
        f"Instance does not meet target node group's ({group.name}) instance policy: "
        f"{', '.join(found)}"
    )
    if not ignore:
        raise prereq(text, ECODE_INVAL)
    ctx.warning(text)


def require_networks(snapshot: Snapshot, instance: Instance, node: str) -> None:
    """Refuses a node (its uuid) whose group isn't connected to the instance's networks. Pure.

    Raises ``OpPrereqError`` with ``wrong_state``.
    """
    group = snapshot.group_of(snapshot.nodes[node])
    for index, nic in enumerate(instance.nics):
        network = snapshot.networks.get(nic.network) if nic.network else None
        if network is not None and network.uuid not in group.networks:
            raise prereq(
                f"Network '{network.name}' of network interface {index} of instance "
                f"'{instance.name}' is not connected to node group '{group.name}', which node "
                f"{snapshot.nodes[node].name} is in",
                ECODE_STATE,
            )
