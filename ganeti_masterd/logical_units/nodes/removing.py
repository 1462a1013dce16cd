"""OP_NODE_REMOVE: removes a node from the cluster.

Jobs on other nodes can run meanwhile; the real master daemon (3.0.2) lets none run.
"""

from __future__ import annotations

from collections.abc import Mapping

from ganeti_masterd.config.changes import Remove
from ganeti_masterd.config.objects import Node
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import prereq
from ganeti_masterd.locking.levels import Level, WantedLocks, exclusive
from ganeti_masterd.logical_units.base import HookNodes, LogicalUnit
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.nodes import ancillary, setup
from ganeti_masterd.logical_units.nodes.finding import node_of
from ganeti_masterd.logical_units.nodes.pool import PoolChange, change_pool
from ganeti_masterd.logical_units.steps.half_done import leaving
from ganeti_masterd.opcodes.nodes import NodeRemove
from ganeti_masterd.rpc import calls
from ganeti_masterd.rpc.interfaces import Target


class RemoveNode(LogicalUnit[NodeRemove], runs=NodeRemove):
    """Removes a node that has no instances; holds it exclusively, so that it gets none."""

    node: Node

    def expand(self, snapshot: Snapshot) -> None:
        """Finds the node."""
        self.node = node_of(snapshot, self.op)

    def locks(self, level: Level, snapshot: Snapshot) -> WantedLocks:
        """Holds the node and its resources."""
        if level in (Level.NODE, Level.NODE_RES):
            return exclusive(self.node.uuid)
        return super().locks(level, snapshot)

    def check(self, ctx: Context) -> None:
        """Refuses the master, and a node that has instances."""
        snapshot = ctx.snapshot()
        self.node = snapshot.node(self.node.uuid)
        _check_removable(snapshot, self.node)

    def hook_nodes(self, snapshot: Snapshot) -> HookNodes:
        """Returns all nodes except this one, which may be dead; its hooks run when it leaves."""
        others = tuple(uuid for uuid in snapshot.nodes if uuid != self.node.uuid)
        return HookNodes(others, others)

    def hook_environment(self, snapshot: Snapshot) -> Mapping[str, object]:
        """Returns the node's name."""
        return {"OP_TARGET": self.node.name, "NODE_NAME": self.node.name}

    def exec(self, ctx: Context) -> None:
        """Removes the node from the configuration, then makes it leave the cluster."""
        node, cluster = self.node, ctx.snapshot().cluster
        ctx.checkpoint()
        # A kill takes effect before all of this or after it.
        with ctx.shielded():
            if cluster.modify_ssh_setup:
                self._leave_without_key(ctx)
            else:
                change_pool(ctx, self._change)
            for level in (Level.NODE_RES, Level.NODE):
                ctx.remove_lock(level, node.uuid)
            self._let_go(ctx, modify_ssh=cluster.modify_ssh_setup)
            if cluster.modify_etc_hosts:
                self._forget_host(ctx)

    def _leave_without_key(self, ctx: Context) -> None:
        """Removes the node's key on all nodes, then the node from the configuration."""
        node = self.node
        with leaving(
            ctx,
            f"Node {node.name} stays in the cluster, but its SSH key may be gone from other nodes",
            hint=f"Remove it again, or give it its key back by gnt-node add --readd {node.name}",
        ):
            setup.remove_ssh_key(
                ctx,
                node,
                authorized=node.master_candidate,
                public=True,
                clear=(True, True),
                failing=f"Could not remove the SSH key of node '{node.name}' (UUID: {node.uuid}).",
            )
            change_pool(ctx, self._change)

    def _forget_host(self, ctx: Context) -> None:
        """Removes the node from the hosts file on all nodes."""
        name = self.node.name
        with leaving(
            ctx,
            f"Node {name} is removed, but the master's hosts file may still name it",
            hint="Take it out of the file, then copy that to all nodes by gnt-cluster redist-conf",
        ):
            setup.change_hosts(ctx, "remove", name, None)
        ancillary.distribute(ctx)

    def _change(self, snapshot: Snapshot) -> PoolChange:
        _check_removable(snapshot, snapshot.node(self.node.uuid))
        uuid = self.node.uuid
        return PoolChange((Remove("nodes", uuid),), leaving=frozenset((uuid,)), refill=True)

    def _let_go(self, ctx: Context, *, modify_ssh: bool) -> None:
        """Runs hooks on the node, which may be dead, and makes it forget the cluster."""
        node = self.node
        leaving = Target.of(node)
        ctx.run_hooks_early(leaving)
        answer = ctx.call_one(leaving, calls.NODE_LEAVE_CLUSTER, (modify_ssh,))
        if answer.failed:
            ctx.warning(
                f"Errors encountered on the remote node {node.name} while leaving the cluster:"
                f" {answer.error}"
            )


def _check_removable(snapshot: Snapshot, node: Node) -> None:
    if node.uuid == snapshot.cluster.master_node:
        raise prereq("Node is the master node, failover to another node is required")
    for instance in (*snapshot.instances_on(node), *snapshot.secondaries_on(node)):
        raise prereq(f"Instance {instance.name} is still running on the node, please remove first")
