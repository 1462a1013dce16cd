"""Hypervisor calls of simulated nodes: instances that run, start, stop and move.

All hypervisors behave like noded's ``fake`` one, with three differences. An instance gets its
maximum memory if the node has that much, otherwise what is left if that is at least its minimum,
otherwise it doesn't start. Under ``kvm`` a node that accepts a migrating instance lists it from
then on, waiting for its memory; a migration to a node that didn't accept it fails. And under
``kvm`` devices can be plugged into instances that run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from ganeti_masterd.constants import HV_MIGRATION_COMPLETED
from ganeti_masterd.simulation import guests
from ganeti_masterd.simulation.blocks import DeviceError
from ganeti_masterd.simulation.consoles import console
from ganeti_masterd.simulation.devices import device_path, open_devices
from ganeti_masterd.simulation.migrations import Migration
from ganeti_masterd.simulation.node import (
    Implementations,
    NodeFailure,
    SimulatedNode,
    Unexpected,
    member,
)
from ganeti_masterd.simulation.state import SimulatedInstance

calls = Implementations()

HYPERVISORS = frozenset({"chroot", "fake", "kvm", "lxc", "xen-hvm", "xen-pvm"})

#: Hypervisors under which devices can be plugged into instances that run.
PLUGGING = frozenset({"kvm"})

#: Hypervisors under which a node lists an instance from when it accepts it.
WAITING = frozenset({"kvm"})


class SimulatedHypervisorError(Exception):
    """The hypervisor refuses an operation."""


def free_memory(node: SimulatedNode) -> int:
    """Returns the memory that no instance uses, in MiB."""
    used = sum(instance.memory for _, instance in node.state.instances.items())
    hardware = node.hardware
    return max(0, hardware.memory - hardware.memory_dom0 - hardware.memory_reserved - used)


def known(name: str) -> str:
    """Returns a hypervisor's name; raises :class:`SimulatedHypervisorError` if there is none."""
    if name not in HYPERVISORS:
        raise SimulatedHypervisorError(f"Unknown hypervisor type '{name}'")
    return name


def space(node: SimulatedNode, hypervisor: str) -> dict[str, int]:
    """Returns memory and processors as ``node_info`` shows them."""
    known(hypervisor)
    hardware = node.hardware
    return {
        "memory_total": hardware.memory,
        "memory_dom0": hardware.memory_dom0,
        "memory_free": free_memory(node),
        "cpu_total": hardware.cpus,
        "cpu_dom0": hardware.cpus if hardware.cpus_dom0 is None else hardware.cpus_dom0,
        "cpu_nodes": 1,
        "cpu_sockets": 1,
    }


def names(node: SimulatedNode, hypervisor: str) -> list[str]:
    """Returns the instances that run under a hypervisor."""
    known(hypervisor)
    return [name for name, inst in node.state.instances.items() if inst.hypervisor == hypervisor]


@calls("instance_list")
def instance_list(
    node: SimulatedNode, hypervisors: Sequence[str], parameters: Mapping[str, Any]
) -> list[str]:
    """Returns the names of the instances that run under the hypervisors."""
    found: list[str] = []
    for hypervisor in hypervisors:
        member(parameters, hypervisor)
        try:
            found += names(node, hypervisor)
        except SimulatedHypervisorError as error:
            raise NodeFailure(f"Error enumerating instances (hypervisor {hypervisor}): {error}")
    return found


@calls("all_instances_info")
def all_instances_info(
    node: SimulatedNode, hypervisors: Sequence[str], parameters: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the instances that run under the hypervisors, by name."""
    found: dict[str, Any] = {}
    for hypervisor in hypervisors:
        member(parameters, hypervisor)
        for name in _names(node, hypervisor):
            found[name] = _info(node.state.instances[name])
    return found


@calls("instance_info")
def instance_info(
    node: SimulatedNode, name: str, hypervisor: str, parameters: Mapping[str, Any]
) -> dict[str, Any]:
    """One instance; an empty dict if it doesn't run."""
    _expected(hypervisor)
    instance = node.state.instances.get(name)
    if instance is None or instance.hypervisor != hypervisor:
        return {}
    return _info(instance)


@calls("hypervisor_validate_params")
def hypervisor_validate_params(
    node: SimulatedNode, hypervisor: str, parameters: Mapping[str, Any]
) -> None:
    """Accepts any parameters of a known hypervisor."""
    try:
        known(hypervisor)
    except SimulatedHypervisorError as error:
        raise NodeFailure(str(error))


@calls("instance_start")
def instance_start(
    node: SimulatedNode, instance: Mapping[str, Any], paused: bool, reason: Sequence[Any]
) -> None:
    """Starts an instance; does nothing if it runs already.

    One whose first disk has an image of the description on it is a guest that boots from it.
    """
    try:
        held = node.state.instances.get(instance["name"])
        if instance["name"] in names(node, instance["hypervisor"]) and held and not held.state:
            return
        paths = open_devices(node, member(instance, "disks_info"))
        image = guests.image_on(node, instance["disks_info"])
        if image is not None and not image.boots:
            return
        _mark_up(node, instance, paths)
        if image is not None:
            guests.booted(node, instance, image)
    except DeviceError as error:
        raise NodeFailure(f"Block device error: {error}")
    except SimulatedHypervisorError as error:
        raise NodeFailure(f"Hypervisor error: {error}")


@calls("instance_shutdown")
def instance_shutdown(
    node: SimulatedNode, instance: Mapping[str, Any], timeout: float, reason: Sequence[Any]
) -> None:
    """Stops an instance; does nothing if it doesn't run."""
    _expected(instance["hypervisor"])
    member(instance, "disks_info")
    node.state.instances.pop(instance["name"])


@calls("instance_reboot")
def instance_reboot(
    node: SimulatedNode,
    instance: Mapping[str, Any],
    kind: str,
    timeout: float,
    reason: Sequence[Any],
) -> None:
    """Reboots a running instance, ``soft`` or ``hard``; other kinds are done by the master."""
    name = instance["name"]
    if not instance_info(node, name, instance["hypervisor"], {}):
        raise NodeFailure(f"Cannot reboot instance '{name}' that is not running")
    if kind == "hard":
        instance_shutdown(node, instance, timeout, reason)
        instance_start(node, instance, False, reason)
    elif kind != "soft":
        raise NodeFailure(f"Invalid reboot_type received: '{kind}'")


@calls("instance_balloon_memory")
def instance_balloon_memory(node: SimulatedNode, instance: Mapping[str, Any], memory: int) -> None:
    """Changes the memory of an instance; does nothing if it doesn't run."""
    running = node.state.instances.get(instance["name"])
    if running is None:
        return
    if memory - running.memory > free_memory(node):
        raise NodeFailure(
            f"Failed to balloon instance memory: Failed to balloon memory for"
            f" {instance['name']}: not enough memory"
        )
    node.state.instances[instance["name"]] = replace(running, memory=memory)


@calls("instance_migratable")
def instance_migratable(node: SimulatedNode, instance: Mapping[str, Any]) -> None:
    """Fails unless the instance runs here."""
    if instance["name"] not in _names(node, instance["hypervisor"]):
        raise NodeFailure(f"Instance {instance['name']} is not running")


@calls("migration_info")
def migration_info(node: SimulatedNode, instance: Mapping[str, Any]) -> str:
    """Returns an empty text, as the target needs no information."""
    _expected(instance["hypervisor"])
    return ""


@calls("accept_instance")
def accept_instance(
    node: SimulatedNode, instance: Mapping[str, Any], info: str, target: str
) -> None:
    """Prepares for an instance that will be migrated here."""
    if instance["name"] in _names(node, instance["hypervisor"]):
        raise NodeFailure("Failed to accept instance: Can't accept instance, already running")
    if instance["hypervisor"] not in WAITING:
        return
    try:
        _mark_up(node, instance, open_devices(node, instance["disks_info"]), incoming=True)
    except (DeviceError, SimulatedHypervisorError) as error:
        raise NodeFailure(f"Failed to accept instance: {error}")


@calls("instance_migrate")
def instance_migrate(
    node: SimulatedNode, cluster: str, instance: Mapping[str, Any], target: str, live: bool
) -> None:
    """Starts to send an instance's memory to the target; the status shows the progress."""
    name, hypervisor = instance["name"], instance["hypervisor"]
    _expected(hypervisor)
    world = node.world
    here = node.state.instances.get(name)
    if hypervisor in WAITING and (here is None or here.incoming):
        raise NodeFailure("Failed to migrate instance: Instance not running, cannot migrate")
    awaiting = _awaiting(node, name)
    world.cluster.migrations[name] = Migration(
        source=node.name,
        target=awaiting,
        memory=0 if here is None else here.memory,
        speed=world.migration_speed(),
        started=world.now(),
        fails_at=(world.cluster.facts.get("failing_migrations") or {}).get(name),
        broken=hypervisor in WAITING and awaiting is None,
        may_postcopy="postcopy-ram"
        in str(instance.get("hvparams", {}).get("migration_caps") or ""),
    )


def _awaiting(node: SimulatedNode, name: str) -> str | None:
    """Returns the node that has accepted an instance, if it can be reached."""
    for other in node.world.nodes():
        held = other.state.instances.get(name)
        if held is not None and held.incoming and node.world.joined(node.name, other.name):
            return other.name
    return None


@calls("instance_get_migration_status")
def instance_get_migration_status(
    node: SimulatedNode, instance: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns how far a migration is; an unknown one is complete, as under ``fake``.

    Where ``migration_caps`` allow it, a question makes the migration switch to postcopy.
    """
    _expected(instance["hypervisor"])
    migration = node.world.cluster.migrations.get(instance["name"])
    if migration is None or migration.source != node.name:
        return {"status": HV_MIGRATION_COMPLETED}
    if migration.target is not None and not node.world.joined(node.name, migration.target):
        migration = replace(migration, broken=True)
        node.world.cluster.migrations[instance["name"]] = migration
    now = node.world.now()
    status = migration.status(now)
    if migration.switches(now):
        node.world.cluster.migrations[instance["name"]] = replace(migration, postcopy=True)
    return status


@calls("instance_finalize_migration_src")
def instance_finalize_migration_src(
    node: SimulatedNode, instance: Mapping[str, Any], success: bool, live: bool
) -> None:
    """Removes the instance here if the migration succeeded; else it goes on running here.

    The target has all of its memory and runs it from then on, even if the target is never notified.
    """
    _expected(instance["hypervisor"])
    name = instance["name"]
    migration = node.world.cluster.migrations.pop(name)
    if not success:
        return
    node.state.instances.pop(name)
    for other in node.world.nodes():
        held = other.state.instances.get(name)
        if held is not None and held.incoming and migration and migration.target == other.name:
            other.state.instances[name] = replace(held, incoming=False)


@calls("instance_finalize_migration_dst")
def instance_finalize_migration_dst(
    node: SimulatedNode, instance: Mapping[str, Any], info: str, success: bool
) -> None:
    """Lets the instance run here if the migration succeeded, else removes it."""
    if not success:
        node.state.instances.pop(instance["name"])
        return
    held = node.state.instances.get(instance["name"])
    if held is not None and instance["hypervisor"] in WAITING:
        node.state.instances[instance["name"]] = replace(held, incoming=False)
        _watch(node, instance["name"])
        return
    try:
        _mark_up(node, instance, _paths(node, instance["disks_info"]))
    except SimulatedHypervisorError as error:
        raise NodeFailure(f"Failed to finalize migration on the target node: {error}")


@calls("hotplug_supported")
def hotplug_supported(node: SimulatedNode, instance: Mapping[str, Any]) -> None:
    """Devices can be plugged into running instances, under some hypervisors."""
    if _expected(instance["hypervisor"]) not in PLUGGING:
        raise NodeFailure("Hotplug is not supported: Hotplug is not supported by this hypervisor")
    if instance["name"] not in names(node, instance["hypervisor"]):
        raise NodeFailure("Hotplug is not supported: Instance is probably down")


@calls("hotplug_device")
def hotplug_device(
    node: SimulatedNode,
    instance: Mapping[str, Any],
    action: str,
    kind: str,
    device: Mapping[str, Any],
    extra: Sequence[Any] | None,
    index: int,
) -> None:
    """Plugs in, unplugs or changes a device: a running instance holds its disks open."""
    hotplug_supported(node, instance)
    if kind != "disk":
        return
    running = node.state.instances[instance["name"]]
    try:
        paths = open_devices(node, [device])
    except DeviceError as error:
        raise NodeFailure(f"Hotplug is not supported: {error}")
    others = tuple(path for path in running.disks if path not in paths)
    held = (*others, *paths) if action == "hotadd" else others
    node.state.instances[instance["name"]] = replace(running, disks=held)


@calls("instance_console_info")
def instance_console_info(
    node: SimulatedNode, instances: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """How to reach the consoles; nothing listens there."""
    for about in instances.values():
        _expected(about["instance"]["hypervisor"])
    return {name: console(about) for name, about in instances.items()}


@calls("instance_metadata_modify")
def instance_metadata_modify(node: SimulatedNode, instance: Mapping[str, Any]) -> None:
    """Keeps what the metadata daemon would serve to the instance of its installation."""
    name, package = instance["name"], (instance.get("osparams") or {}).get(guests.PACKAGE)
    kept = dict(node.state.facts.get(guests.PACKAGES) or {})
    if kept.get(name) != package:
        kept[name] = package
        node.state.facts[guests.PACKAGES] = {key: at for key, at in kept.items() if at}


def _info(instance: SimulatedInstance) -> dict[str, Any]:
    return {"memory": instance.memory, "vcpus": instance.vcpus, "state": instance.state, "time": 0}


def _expected(name: str) -> str:
    """Calls :func:`known` where noded doesn't expect an error; raises ``Unexpected`` then."""
    try:
        return known(name)
    except SimulatedHypervisorError as error:
        raise Unexpected(str(error))


def _names(node: SimulatedNode, hypervisor: str) -> list[str]:
    """Calls :func:`names` where noded doesn't expect an error; raises ``Unexpected`` then."""
    _expected(hypervisor)
    return names(node, hypervisor)


def _paths(node: SimulatedNode, disks: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Returns the paths of an instance's disks, whether or not they exist."""
    try:
        return tuple(device_path(node, disk) for disk in disks)
    except DeviceError as error:
        raise Unexpected(str(error))


def _mark_up(
    node: SimulatedNode,
    instance: Mapping[str, Any],
    disks: tuple[str, ...],
    *,
    incoming: bool = False,
) -> None:
    """Marks an instance as running, with the memory that is available and its disks open."""
    name = instance["name"]
    parameters = instance["beparams"]
    free = free_memory(node)
    here = node.state.instances.get(name)
    if here is not None:
        free += here.memory
    least = int(parameters["minmem"])
    memory = max(least, min(int(parameters["maxmem"]), free))
    if free < least:
        raise SimulatedHypervisorError(
            f"Failed to start instance {name}: not enough memory"
            f" ({parameters['minmem']} MiB needed, {free} MiB free)"
        )
    node.state.instances[name] = SimulatedInstance(
        known(instance["hypervisor"]), memory, int(parameters["vcpus"]), disks, incoming
    )
    if not incoming:
        _watch(node, name)


def _watch(node: SimulatedNode, name: str) -> None:
    """Has it noticed if an instance that runs here now runs elsewhere, too."""
    world = node.world
    world.watch.started(node.name, name, world.cluster, world.nodes(), world.now())
