"""The master's address: bringing it up and down, and moving it elsewhere."""

from __future__ import annotations

from typing import Any

from ganeti_masterd.config.objects import Cluster
from ganeti_masterd.logical_units.base import LogicalUnit
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.steps.node_objects import master_network
from ganeti_masterd.opcodes.cluster import ClusterActivateMasterIp, ClusterDeactivateMasterIp
from ganeti_masterd.rpc import calls
from ganeti_masterd.rpc.declarations import Call
from ganeti_masterd.rpc.interfaces import NodeResult


def bring_up(ctx: Context, cluster: Cluster) -> NodeResult[Any]:
    """Has the master node bring up the address as ``cluster`` has it."""
    return _ask_master(ctx, calls.NODE_ACTIVATE_MASTER_IP, cluster)


def take_down(ctx: Context, cluster: Cluster) -> NodeResult[Any]:
    """Has the master node take down the address as ``cluster`` has it."""
    return _ask_master(ctx, calls.NODE_DEACTIVATE_MASTER_IP, cluster)


def _ask_master(ctx: Context, call: Call[Any], cluster: Cluster) -> NodeResult[Any]:
    arguments = (master_network(cluster), cluster.use_external_mip_script)
    return ctx.call_one(cluster.master_node, call, arguments)


class ActivateMasterIp(LogicalUnit[ClusterActivateMasterIp], runs=ClusterActivateMasterIp):
    """Brings the master's address up. May be repeated, so it needs no lock of its own."""

    def exec(self, ctx: Context) -> None:
        """Brings the address up."""
        bring_up(ctx, ctx.snapshot().cluster).require("Could not activate the master IP")


class DeactivateMasterIp(LogicalUnit[ClusterDeactivateMasterIp], runs=ClusterDeactivateMasterIp):
    """Takes the master's address down."""

    def exec(self, ctx: Context) -> None:
        """Takes the address down."""
        take_down(ctx, ctx.snapshot().cluster).require("Could not deactivate the master IP")
