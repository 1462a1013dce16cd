"""OP_TEST_DELAY: waits, on the master or on nodes, and holds their locks."""

from __future__ import annotations

from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.constants import ELOG_DELAY_TEST
from ganeti_masterd.errors import OpPrereqError
from ganeti_masterd.locking.levels import Level, WantedLocks, exclusive, nothing
from ganeti_masterd.logical_units.base import LogicalUnit
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.trials.notification import Notification
from ganeti_masterd.opcodes.tests import TestDelay
from ganeti_masterd.rpc import calls


class Delay(LogicalUnit[TestDelay], runs=TestDelay):
    """Waits for ``duration`` seconds, ``repeat`` times (0: once).

    Nodes wait by the call ``test_delay``; with neither nodes nor master the daemon waits. An
    interruptible delay is in the daemon, too: it ends when a client connects to the socket named in
    the job's log and then sends something or disconnects.
    """

    nodes: tuple[str, ...]

    def expand(self, snapshot: Snapshot) -> None:
        """Resolves the nodes."""
        if self.op.duration <= 0:
            # The real daemon gives no error code here.
            raise OpPrereqError("Duration must be greater than zero")
        named = [*self.op.on_nodes, *(self.op.on_node_uuids or ())]
        nodes = [snapshot.node(name).uuid for name in named]
        if self.op.on_master:
            nodes.append(snapshot.master.uuid)
        self.nodes = tuple(dict.fromkeys(nodes))

    def locks(self, level: Level, snapshot: Snapshot) -> WantedLocks:
        """Holds the nodes exclusively, unless ``no_locks`` is set."""
        if level is Level.NODE:
            return exclusive(self.nodes) if self.nodes and not self.op.no_locks else nothing
        return super().locks(level, snapshot)

    def exec(self, ctx: Context) -> None:
        """Waits."""
        if self.op.repeat == 0:
            self._once(ctx)
            return
        for round_ in range(self.op.repeat):
            ctx.info(f"Test delay iteration {round_}/{self.op.repeat - 1}")
            if self._once(ctx):
                break

    def _once(self, ctx: Context) -> bool:
        """Waits once; returns whether a client cut it short."""
        if self.op.interruptible:
            return self._until_interrupted(ctx)
        if not self.nodes:
            ctx.sleep(self.op.duration)
            return False
        for answer in ctx.call(self.nodes, calls.TEST_DELAY, (self.op.duration,)).values():
            answer.require("Can't delay")
        return False

    def _until_interrupted(self, ctx: Context) -> bool:
        with Notification() as notification:
            ctx.feedback("", kind=ELOG_DELAY_TEST, value=[notification.path])
            connected = notification.wait_connected(ctx, self.op.duration)
            if connected is None:
                return False
            ctx.feedback(f"Received connection, time to go is {int(connected)}")
            if not notification.wait_confirmed(ctx, connected):
                return False
        ctx.feedback("Interrupted")
        return True
