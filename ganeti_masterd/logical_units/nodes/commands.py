"""Commands to nodes: OP_NODE_POWERCYCLE and OP_RESTRICTED_COMMAND."""

from __future__ import annotations

from ganeti_masterd.config.objects import Node
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import prereq
from ganeti_masterd.locking.levels import Level, WantedLocks, exclusive, shared
from ganeti_masterd.logical_units.base import LogicalUnit
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.nodes.finding import node_of
from ganeti_masterd.opcodes.nodes import NodePowercycle, RestrictedCommand
from ganeti_masterd.rpc import calls


class PowercycleNode(LogicalUnit[NodePowercycle], runs=NodePowercycle):
    """Has a node, even an offline one, reboot; locks nothing, as it is a last resort."""

    node: Node

    def expand(self, snapshot: Snapshot) -> None:
        """Finds the node; refuses the master unless forced."""
        self.node = node_of(snapshot, self.op)
        if self.node.uuid == snapshot.cluster.master_node and not self.op.force:
            raise prereq("The node is the master and the force parameter was not set")

    def exec(self, ctx: Context) -> str | None:
        """Reboots the node; returns the message of its hypervisor."""
        cluster = ctx.snapshot().cluster
        # The first enabled hypervisor is the default.
        name = cluster.enabled_hypervisors[0]
        arguments = (name, cluster.hvparams.get(name, {}))
        answer = ctx.call_one(self.node.uuid, calls.NODE_POWERCYCLE, arguments)
        said: str | None = answer.require("Failed to schedule the reboot")
        return said


class RunRestrictedCommand(LogicalUnit[RestrictedCommand], runs=RestrictedCommand):
    """Runs a command that the nodes' administrators allow, on all given nodes at once."""

    nodes: tuple[str, ...]

    def expand(self, snapshot: Snapshot) -> None:
        """Finds the nodes by name, where one named twice answers twice, or else by uuid."""
        names = self.op.nodes or self.op.node_uuids or ()
        self.nodes = tuple(snapshot.node(name).uuid for name in names)

    def locks(self, level: Level, snapshot: Snapshot) -> WantedLocks:
        """Shares the nodes; with ``use_locking`` holds them exclusively."""
        if level is Level.NODE:
            return exclusive(self.nodes) if self.op.use_locking else shared(self.nodes)
        return super().locks(level, snapshot)

    def exec(self, ctx: Context) -> list[tuple[bool, str]]:
        """Returns for each node whether it succeeded, and its output or error."""
        answers = ctx.call(self.nodes, calls.RESTRICTED_COMMAND, (self.op.command,))
        result: list[tuple[bool, str]] = []
        for uuid in self.nodes:
            answer = answers[uuid]
            if answer.failed:
                text = f"Command '{self.op.command}' on node '{answer.node}' failed: {answer.error}"
                result.append((False, text))
            else:
                result.append((True, str(answer.payload)))
        return result
