"""Checks that the cluster's new parameters fit the objects in the configuration. Pure.

Each check gets the configuration before the change and the cluster after it,
and raises ``OpPrereqError`` naming the object that doesn't fit.
"""

from __future__ import annotations

from collections.abc import Iterable

from ganeti_masterd.config.objects import Cluster
from ganeti_masterd.config.parameters import effective
from ganeti_masterd.config.parameters.devices import can_access, check_nic
from ganeti_masterd.config.parameters.policy import Policy, violations
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.ssconf import natural
from ganeti_masterd.config.templates import named_by
from ganeti_masterd.errors import ECODE_INVAL, ECODE_STATE, ConfigurationError, prereq
from ganeti_masterd.logical_units.groups.parameters import demand_of

#: Templates that need a volume group.
LVM_TEMPLATES = named_by(lambda template: template.lvm)


def check_templates_unused(snapshot: Snapshot, after: Cluster) -> None:
    """Checks that no disk and no instance uses a template that gets disabled."""
    disabled = set(snapshot.cluster.enabled_disk_templates) - set(after.enabled_disk_templates)
    for template in sorted(disabled):
        users = [
            f"disk {disk.uuid} " + (f"(on {owner.name})" if owner else "(detached)")
            for disk in snapshot.disks.values()
            if disk.dev_type == template
            for owner in (snapshot.owner_of(disk),)
        ]
        if users:
            listed = "\n * ".join(users)
            raise prereq(
                f"Cannot disable disk template '{template}', because there is at least one disk"
                f" using it:\n * {listed}",
                ECODE_STATE,
            )
    if "diskless" in disabled:
        for instance in snapshot.instances.values():
            if not instance.disks:
                raise prereq(
                    "Cannot disable disk template 'diskless', because there is at least one"
                    f" instance using it:\n * {instance.name}",
                    ECODE_STATE,
                )


def check_hypervisors_unused(snapshot: Snapshot, after: Cluster) -> None:
    """Checks that no instance uses a hypervisor that gets disabled."""
    disabled = set(snapshot.cluster.enabled_hypervisors) - set(after.enabled_hypervisors)
    users = natural(i.name for i in snapshot.instances.values() if i.hypervisor in disabled)
    if users:
        raise prereq(
            f"Cannot disable hypervisor(s) {', '.join(sorted(disabled))}, because there is at least"
            f" one instance using them: {', '.join(users)}",
            ECODE_STATE,
        )


def check_volume_group(snapshot: Snapshot, after: Cluster) -> None:
    """Checks that LVM templates have a volume group, which is kept while disks use it."""
    before = snapshot.cluster
    if after.volume_group_name:
        return
    lvm = bool(LVM_TEMPLATES.intersection(after.enabled_disk_templates))
    if lvm and before.volume_group_name is None:
        raise prereq("Please specify a volume group when enabling lvm-based disk-templates.")
    if lvm:
        raise prereq("Cannot unset volume group if lvm-based disk templates are or get enabled.")
    if any(disk.template.lvm for disk in snapshot.disks.values()):
        raise prereq("Cannot disable lvm storage while lvm-based instances exist")


def check_drbd_helper(snapshot: Snapshot, after: Cluster) -> None:
    """Checks that the DRBD helper is kept while DRBD is enabled or used."""
    before = snapshot.cluster
    if after.drbd_usermode_helper:
        return
    if "drbd" not in after.enabled_disk_templates:
        if before.drbd_usermode_helper and any(
            disk.template.internal for disk in snapshot.disks.values()
        ):
            raise prereq("Cannot disable drbd helper while drbd-based instances exist", ECODE_INVAL)
    elif before.drbd_usermode_helper:
        raise prereq("Cannot disable drbd helper while DRBD is enabled.", ECODE_STATE)
    elif "drbd" not in before.enabled_disk_templates:
        raise prereq("Cannot enable DRBD without a DRBD usermode helper set.", ECODE_STATE)


def check_nics(snapshot: Snapshot, after: Cluster) -> None:
    """Checks that every NIC that inherits the cluster's parameters is valid with the new ones."""
    faults = []
    for instance in snapshot.instances.values():
        for index, nic in enumerate(instance.nics):
            where = f"Instance {instance.name}, nic/{index}"
            filled = effective.of_nic(after, nic)
            try:
                check_nic(filled)
            except ConfigurationError as error:
                faults.append(f"{where}: {error}")
            if filled["mode"] == "routed" and not nic.ip:
                faults.append(f"{where}: routed NIC with no ip address")
    if faults:
        listed = "\n".join(faults)
        raise prereq(f"Cannot apply the change, errors:\n{listed}")


def check_disk_access(snapshot: Snapshot, after: Cluster, templates: Iterable[str]) -> None:
    """Checks that every hypervisor supports its instances' disks with the new access mode."""
    access = {
        name: after.diskparams.get(name, {}).get("access", "kernelspace") for name in templates
    }
    for instance in snapshot.instances.values():
        for disk in snapshot.disks_of(instance):
            mode = access.get(disk.dev_type)
            if mode is not None and not can_access(instance.hypervisor, disk.dev_type, mode):
                raise prereq(
                    f"Instance {instance.name}: cannot use '{mode}' access setting with"
                    f" {instance.hypervisor} hypervisor and {disk.dev_type} disk type."
                )


def policy_breakers(snapshot: Snapshot, after: Cluster) -> list[str]:
    """Returns the instances, in natural order, that break the new policy but kept the old one.

    An instance is checked with the policies of the groups of all its nodes.
    """
    found = set()
    for instance in snapshot.instances.values():
        demand = demand_of(snapshot, instance)
        groups = {
            snapshot.nodes[uuid].group
            for uuid in snapshot.nodes_of(instance)
            if uuid in snapshot.nodes
        }
        for uuid in groups & snapshot.groups.keys():
            group = snapshot.groups[uuid]
            old: Policy = effective.instance_policy(snapshot.cluster, group)
            new: Policy = effective.instance_policy(after, group)
            if violations(new, demand) and not violations(old, demand):
                found.add(instance.name)
    return natural(found)
