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
    """Sets up the master's virtual switch, if it is to have one; its hooks follow."""

    alone = True

    def hook_nodes(self, snapshot: Snapshot) -> HookNodes:
        """Afterwards only, on the master."""
        return HookNodes((), (snapshot.master.uuid,))

    def hook_environment(self, snapshot: Snapshot) -> Mapping[str, object]:
        """Returns the cluster's name."""
        return {"OP_TARGET": snapshot.cluster.cluster_name}

    def exec(self, ctx: Context) -> bool:
        """Does it; true."""
        snapshot = ctx.snapshot()
        params = effective.of_node(snapshot, snapshot.master)
        set_up_switch(ctx, params, snapshot.master)
        return True


class DestroyCluster(LogicalUnit[ClusterDestroy], runs=ClusterDestroy):
    """Ends a cluster that has no other node and no instance.

    What is left on the master is the client's to remove: it stops the daemons
    and has the node leave (``gnt-cluster destroy``).
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
        """None: the master's run before the address goes, see :meth:`exec`."""
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
