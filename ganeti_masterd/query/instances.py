"""The fields of instances: what is configured, and what the nodes report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from ganeti_masterd.config.objects import Instance, Node
from ganeti_masterd.query.entries import NO_DATA, OFFLINE, Entry
from ganeti_masterd.query.fields import (
    Matching,
    Need,
    View,
    common,
    fields,
    flag,
    number,
    other,
    text,
    unit,
)
from ganeti_masterd.query.instance_devices import disk_fields, nic_fields
from ganeti_masterd.query.instance_parameters import hypervisor, parameter_fields

#: The value of ``Sighting.state`` for a running instance.
_RUNS = 0


class Sighting(Struct, frozen=True, gc=False):
    """An instance known to a hypervisor: on which node (a uuid), and with which resources.

    ``memory`` is in MiB. ``gc=False``: a big cluster has very many of these.
    """

    node: str
    memory: int
    vcpus: int
    state: int


class Running(Struct, frozen=True):
    """Where instances are running.

    ``found`` is by name of the instance. ``failed`` has the nodes (uuids) that didn't answer,
    each with the cell to show instead.
    """

    found: Mapping[str, Sighting]
    failed: Mapping[str, Entry]


def _live(view: View, instance: Instance) -> Sighting | Entry | None:
    """Returns where it runs, None if it doesn't, an entry if its primary node didn't answer."""
    running: Running = view.live[Need.INSTANCE_INFO]
    failed = running.failed.get(instance.primary_node)
    return failed if failed is not None else running.found.get(instance.name)


def status(view: View, instance: Instance) -> str:
    """Returns an instance's status, which compares its wanted state with its actual state."""
    live = _live(view, instance)
    if isinstance(live, Entry):
        return "ERROR_nodeoffline" if live is OFFLINE else "ERROR_nodedown"
    if live is None:
        return _status_stopped(view, instance)
    if live.node != instance.primary_node:
        return "ERROR_wrongnode"
    if live.state == _RUNS:
        return "running" if instance.admin_state == "up" else "ERROR_up"
    if instance.admin_state == "up":
        return "USER_down" if _user_may_stop(view, instance) else "ERROR_down"
    return "ADMIN_down"


def _status_stopped(view: View, instance: Instance) -> str:
    """Returns the status of an instance that isn't running."""
    if instance.admin_state == "up":
        return "ERROR_down"
    if instance.admin_state == "offline":
        return "ADMIN_offline"
    if instance.admin_state_source == "user" and view.snapshot.cluster.enabled_user_shutdown:
        return "USER_down"
    return "ADMIN_down"


def _user_may_stop(view: View, instance: Instance) -> bool:
    """Whether users may shut it down from inside; with KVM a parameter must allow it too."""
    if not view.snapshot.cluster.enabled_user_shutdown:
        return False
    return instance.hypervisor != "kvm" or bool(hypervisor(view, instance).get("user_shutdown"))


def _runs(view: View, instance: Instance) -> Any:
    live = _live(view, instance)
    # Here luxid doesn't distinguish nodes that are offline from those that don't answer.
    return NO_DATA if isinstance(live, Entry) else live is not None


def _running(attribute: str) -> Any:
    def value(view: View, instance: Instance) -> Any:
        live = _live(view, instance)
        if live is None or isinstance(live, Entry):
            return live
        return getattr(live, attribute)

    return value


def _console(view: View, instance: Instance) -> Any:
    return view.live[Need.CONSOLE].get(instance.uuid, NO_DATA)


def _node_name(view: View, instance: Instance) -> str | None:
    node = view.snapshot.nodes.get(instance.primary_node)
    return None if node is None else node.name


def _group(view: View, node: Node | None) -> Any:
    return None if node is None else view.snapshot.groups.get(node.group)


def _primary_group(view: View, instance: Instance) -> str | None:
    group = _group(view, view.snapshot.nodes.get(instance.primary_node))
    return None if group is None else group.name


def _primary_group_uuid(view: View, instance: Instance) -> str | None:
    node = view.snapshot.nodes.get(instance.primary_node)
    return None if node is None else node.group


def _secondaries(view: View, instance: Instance) -> list[Node]:
    snapshot = view.snapshot
    uuids = snapshot.nodes_of(instance)[1:] if instance.disks else ()
    return [snapshot.nodes[uuid] for uuid in uuids if uuid in snapshot.nodes]


def _secondary_groups(view: View, instance: Instance) -> list[str]:
    groups = [_group(view, node) for node in _secondaries(view, instance)]
    return list(dict.fromkeys(group.name for group in groups if group is not None))


INSTANCE_FIELDS = fields(
    text(
        "name",
        "Instance",
        of=lambda one: one.name,
        matching=Matching.HOST_NAME,
        doc="The instance's name.",
    ),
    text(
        "pnode",
        "Primary_node",
        given=_node_name,
        matching=Matching.HOST_NAME,
        doc="The name of its primary node.",
    ),
    text("pnode.group", "PrimaryNodeGroup", given=_primary_group, doc="Its primary node's group."),
    text(
        "pnode.group.uuid",
        "PrimaryNodeGroupUUID",
        given=_primary_group_uuid,
        doc="The UUID of its primary node's group.",
    ),
    other(
        "snodes",
        "Secondary_Nodes",
        given=lambda view, one: [node.name for node in _secondaries(view, one)],
        doc="The names of its secondary nodes.",
    ),
    other(
        "snodes.group",
        "SecondaryNodesGroups",
        given=_secondary_groups,
        doc="The groups of its secondary nodes.",
    ),
    other(
        "snodes.group.uuid",
        "SecondaryNodesGroupsUUID",
        given=lambda view, one: list(dict.fromkeys(node.group for node in _secondaries(view, one))),
        doc="The UUIDs of its secondary nodes' groups.",
    ),
    text("os", "OS", of=lambda one: one.os, doc="Its operating system, with the variant."),
    text("hypervisor", "Hypervisor", of=lambda one: one.hypervisor, doc="Its hypervisor."),
    text(
        "admin_state",
        "InstanceState",
        of=lambda one: one.admin_state,
        doc="What it should be: up, down or offline.",
    ),
    text(
        "admin_state_source",
        "InstanceStateSource",
        of=lambda one: one.admin_state_source,
        doc="Who last set that state: admin or user.",
    ),
    flag("admin_up", "Autostart", of=lambda one: one.admin_state == "up", doc="Should it run?"),
    flag("disks_active", "DisksActive", of=lambda one: one.disks_active, doc="Are its disks up?"),
    flag(
        "forthcoming",
        "Forthcoming",
        of=lambda one: bool(one.forthcoming),
        doc="Whether it is only a reservation, not created yet.",
    ),
    other(
        "network_port",
        "Network_port",
        of=lambda one: one.network_port,
        doc="The TCP port of its console.",
    ),
    text(
        "status",
        "Status",
        given=status,
        needs=Need.INSTANCE_INFO,
        doc="Its wanted state compared with its actual state: running, ADMIN_down, ADMIN_offline, "
        "USER_down, ERROR_down (should run), ERROR_up (should not), ERROR_wrongnode (runs on "
        "another node), ERROR_nodedown and ERROR_nodeoffline (its primary node doesn't answer).",
    ),
    flag(
        "oper_state", "Running", given=_runs, needs=Need.INSTANCE_INFO, doc="Whether it is running."
    ),
    unit(
        "oper_ram",
        "Memory",
        given=_running("memory"),
        needs=Need.INSTANCE_INFO,
        doc="The memory that it has now.",
    ),
    number(
        "oper_vcpus",
        "VCPUs",
        given=_running("vcpus"),
        needs=Need.INSTANCE_INFO,
        doc="How many processors it has now.",
    ),
    other(
        "console",
        "Console",
        given=_console,
        needs=Need.CONSOLE,
        doc="How to reach its console.",
    ),
    nic_fields(),
    disk_fields(),
    parameter_fields(),
    common("instance"),
)
