"""Checks of a node's new secondary address, which its mirrors use."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from ganeti_masterd.config.objects import Instance, Node
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import ECODE_NOTUNIQUE, ECODE_STATE, OpPrereqError, prereq
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.nodes.addresses import check_holds, check_reachable
from ganeti_masterd.rpc import calls

#: ``state`` of an instance that is known to the hypervisor but shut down
#: (protocol/rpc.rst, Payloads).
SHUT_DOWN = 1


def affected_instances(snapshot: Snapshot, node: str) -> tuple[Instance, ...]:
    """Returns the instances that have a mirror on a node (uuid)."""
    on_node = {one.uuid: one for one in snapshot.instances_on(node)}
    on_node.update((one.uuid, one) for one in snapshot.secondaries_on(node))
    return tuple(
        instance
        for instance in on_node.values()
        if any(disk.template.internal for disk in snapshot.disks_of(instance))
    )


def check_change(
    ctx: Context, snapshot: Snapshot, node: Node, address: str, *, force: bool
) -> None:
    """Refuses a new secondary address unless node and cluster are ready for it.

    Raises ``OpPrereqError``; logs it if the whole cluster is to change.
    """
    _check_homing(ctx, snapshot, node, address, force=force)
    _check_unused(snapshot, node, address)
    instances = affected_instances(snapshot, node.uuid)
    if node.offline:
        if instances:
            names = ", ".join(instance.name for instance in instances)
            raise prereq(
                "Cannot change secondary IP address: offline node has instances"
                f" ({names}) configured to use it",
                ECODE_STATE,
            )
        return
    for instance in instances:
        _check_down(ctx, snapshot, instance)
    check_holds(ctx, node, address, prerequisite=True)
    if node.uuid != snapshot.cluster.master_node:
        check_reachable(ctx, snapshot, replace(node, secondary_ip=address))


def _check_homing(
    ctx: Context, snapshot: Snapshot, node: Node, address: str, *, force: bool
) -> None:
    """Lets only the master change from one address to two, or back, and only by force."""
    master = snapshot.master
    single = master.primary_ip == master.secondary_ip
    alone = address == node.primary_ip
    if single is alone:
        return
    forced = force and node.uuid == master.uuid
    if single:
        if not forced:
            raise prereq(
                "Changing the secondary ip on a single-homed cluster requires the --force option"
                " to be passed, and the target node to be the master"
            )
        ctx.warning(
            "Transitioning from single-homed to multi-homed cluster; all nodes will require a"
            " secondary IP address"
        )
    else:
        if not forced:
            raise prereq(
                "Cannot set the secondary IP to be the same as the primary IP on a multi-homed"
                " cluster, unless the --force option is passed, and the target node is the master"
            )
        ctx.warning(
            "Transitioning from multi-homed to single-homed cluster; secondary IP addresses will"
            " have to be removed"
        )


def _check_unused(snapshot: Snapshot, node: Node, address: str) -> None:
    """Refuses an address that another node has; the real daemon checks that only in verify."""
    others: Sequence[Node] = [one for one in snapshot.nodes.values() if one.uuid != node.uuid]
    for one in others:
        if address in (one.primary_ip, one.secondary_ip):
            raise OpPrereqError(
                f"IP address {address} is in use by node {one.name}", ECODE_NOTUNIQUE
            )


def _check_down(ctx: Context, snapshot: Snapshot, instance: Instance) -> None:
    if instance.admin_state != "down":
        raise prereq(
            f"Instance '{instance.name}' is marked to be {instance.admin_state}, cannot change"
            " secondary ip",
            ECODE_STATE,
        )
    primary = snapshot.nodes[instance.primary_node]
    if primary.offline:
        ctx.warning("Primary node offline, ignoring check that instance is down")
        return
    params = snapshot.cluster.hvparams.get(instance.hypervisor, {})
    arguments = (instance.name, instance.hypervisor, params)
    answer = ctx.call_one(primary.uuid, calls.INSTANCE_INFO, arguments)
    running = answer.require(f"Can't get information of instance {instance.name}", prereq=True)
    if running.known and running.state != SHUT_DOWN:
        raise prereq(
            f"Instance {instance.name} is running, cannot change secondary ip", ECODE_STATE
        )
