"""The beginning and the end of a cluster: OP_CLUSTER_POST_INIT and OP_CLUSTER_DESTROY."""

from __future__ import annotations

from collections.abc import Mapping

from ganeti_masterd.config.parameters import effective
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import prereq
from ganeti_masterd.logical_units.base import HookNodes, LogicalUnit
from ganeti_masterd.logical_units.cluster.master_ip import take_down
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.nodes.setup import set_up_switch
from ganeti_masterd.opcodes.cluster import ClusterDestroy, ClusterPostInit
from ganeti_masterd.rpc.interfaces import Target


class PostInit(LogicalUnit[ClusterPostInit], runs=ClusterPostInit):
    """Sets up the master's virtual switch, if configured; post hooks run afterwards."""

    alone = True

    def hook_nodes(self, snapshot: Snapshot) -> HookNodes:
        """Returns the master for post hooks only."""
        return HookNodes((), (snapshot.master.uuid,))

    def hook_environment(self, snapshot: Snapshot) -> Mapping[str, object]:
        """Returns the cluster's name."""
        return {"OP_TARGET": snapshot.cluster.cluster_name}

    def exec(self, ctx: Context) -> bool:
        """Sets up the switch; returns True."""
        snapshot = ctx.snapshot()
        params = effective.of_node(snapshot, snapshot.master)
        set_up_switch(ctx, params, snapshot.master)
        return True


class DestroyCluster(LogicalUnit[ClusterDestroy], runs=ClusterDestroy):
    """Destroys a cluster that has no other node and no instance.

    The client (``gnt-cluster destroy``) does the rest on the master: it stops the daemons and makes
    the node leave.
    """

    alone = True

    def check(self, ctx: Context) -> None:
        """Refuses a cluster that isn't empty."""
        snapshot = ctx.snapshot()
        others = len(snapshot.nodes) - 1
        if others:
            raise prereq(f"There are still {others} node(s) in this cluster.")
        if snapshot.instances:
            raise prereq(f"There are still {len(snapshot.instances)} instance(s) in this cluster.")

    def hook_nodes(self, snapshot: Snapshot) -> HookNodes:
        """Returns no nodes: :meth:`exec` runs the master's hooks before taking the address down."""
        return HookNodes((), ())

    def hook_environment(self, snapshot: Snapshot) -> Mapping[str, object]:
        """Returns the cluster's name."""
        return {"OP_TARGET": snapshot.cluster.cluster_name}

    def exec(self, ctx: Context) -> str:
        """Takes the master's address down; returns the master's uuid."""
        snapshot = ctx.snapshot()
        ctx.run_hooks_early(Target.anyway(snapshot.master))
        answer = take_down(ctx, snapshot.cluster)
        if answer.failed:
            ctx.warning(f"Error disabling the master IP address: {answer.error}")
        return snapshot.master.uuid
