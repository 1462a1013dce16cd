"""Checks of the cluster's new parameters on the nodes, before they are set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ganeti_masterd.config.objects import Cluster
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.constants import MIN_VG_SIZE
from ganeti_masterd.errors import ECODE_ENVIRON, prereq
from ganeti_masterd.logical_units.cluster.consistency import LVM_TEMPLATES
from ganeti_masterd.logical_units.cluster.planning import checked_hypervisors
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.nodes.finding import by_name
from ganeti_masterd.opcodes.cluster import ClusterSetParams
from ganeti_masterd.rpc import calls


def check_on_nodes(ctx: Context, op: ClusterSetParams, after: Cluster) -> None:
    """Checks on the nodes that run instances everything that changes for them.

    Raises ``OpPrereqError`` with ``environment_error``; for parameters of hypervisors and operating
    systems ``OpExecError``, like the real daemon 3.0.2.
    """
    _check_volume_group(ctx, op, after)
    _check_drbd_helper(ctx, op, after)
    for name in checked_hypervisors(op):
        _check_hypervisor(ctx, name, after.hvparams[name])
    for system in op.os_hvp or ():
        for name, values in after.os_hvp.get(system, {}).items():
            _check_hypervisor(ctx, name, {**after.hvparams.get(name, {}), **values})
    for system in {**(op.osparams or {}), **(op.osparams_private_cluster or {})}:
        _check_system(ctx, system, after)


def volume_group_fault(groups: Mapping[str, float], name: str) -> str | None:
    """Returns what is wrong with a node's volume group, or None."""
    size = groups.get(name)
    if size is None:
        return f"volume group '{name}' missing"
    if size < MIN_VG_SIZE:
        return (
            f"volume group '{name}' too small ({MIN_VG_SIZE} MiB required, {int(size)} MiB found)"
        )
    return None


def _instance_nodes(snapshot: Snapshot) -> list[str]:
    nodes = by_name(snapshot.nodes.values())
    return [node.uuid for node in nodes if node.vm_capable and not node.offline]


def _enabled_anew(before: Cluster, after: Cluster) -> set[str]:
    return set(after.enabled_disk_templates) - set(before.enabled_disk_templates)


def _check_volume_group(ctx: Context, op: ClusterSetParams, after: Cluster) -> None:
    snapshot = ctx.snapshot()
    name = after.volume_group_name
    enabled = LVM_TEMPLATES.intersection(after.enabled_disk_templates)
    if name is None or not enabled:
        return
    if op.vg_name is None and not enabled & _enabled_anew(snapshot.cluster, after):
        return
    for answer in ctx.call(_instance_nodes(snapshot), calls.VG_LIST).values():
        if answer.failed:
            ctx.warning(
                f"Error while gathering data on node {answer.node} (ignoring node): {answer.error}"
            )
        elif fault := volume_group_fault(answer.payload, name):
            raise prereq(f"Error on node '{answer.node}': {fault}", ECODE_ENVIRON)


def _check_drbd_helper(ctx: Context, op: ClusterSetParams, after: Cluster) -> None:
    snapshot = ctx.snapshot()
    helper = after.drbd_usermode_helper
    if not helper or "drbd" not in after.enabled_disk_templates:
        return
    if op.drbd_helper is None and "drbd" not in _enabled_anew(snapshot.cluster, after):
        return
    for node in by_name(snapshot.nodes.values()):
        if node.vm_capable and node.offline:
            ctx.info(f"Not checking drbd helper on offline node {node.name}")
    for answer in ctx.call(_instance_nodes(snapshot), calls.DRBD_HELPER).values():
        if answer.failed:
            raise prereq(
                f"Error checking drbd helper on node '{answer.node}': {answer.error}",
                ECODE_ENVIRON,
            )
        if answer.payload != helper:
            raise prereq(
                f"Error on node '{answer.node}': drbd helper is {answer.payload}", ECODE_ENVIRON
            )


def _check_hypervisor(ctx: Context, name: str, filled: Mapping[str, Any]) -> None:
    nodes = _instance_nodes(ctx.snapshot())
    answers = ctx.call(nodes, calls.HYPERVISOR_VALIDATE_PARAMS, (name, dict(filled)))
    for answer in answers.values():
        if not answer.offline:
            answer.require(f"Hypervisor parameter validation failed on node {answer.node}")


def _check_system(ctx: Context, system: str, after: Cluster) -> None:
    """Has the master check an operating system's parameters, if the system is installed there."""
    master = ctx.snapshot().master
    if not master.vm_capable:
        return
    base = system.partition("+")[0]
    filled: dict[str, Any] = {}
    for params in (after.osparams, after.osparams_private_cluster):
        filled |= {**params.get(base, {}), **params.get(system, {})}
    arguments = (False, system, ["parameters"], filled, False)
    answer = ctx.call_one(master.uuid, calls.OS_VALIDATE, arguments)
    if not answer.require(f"OS Parameters validation failed on node {master.name}"):
        ctx.info(f"OS {system} not found on node {master.name}, validation skipped")
