"""OP_CLUSTER_REDIST_CONF: sends nodes the configuration and ancillary files again."""

from __future__ import annotations

from msgspec.structs import replace

from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.locking.levels import Level, WantedLocks, all_shared
from ganeti_masterd.logical_units.base import LogicalUnit
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.nodes.ancillary import distribute
from ganeti_masterd.opcodes.cluster import ClusterRedistConf


class RedistributeConfig(LogicalUnit[ClusterRedistConf], runs=ClusterRedistConf):
    """Increases the cluster's serial, so that replication sends everything, and copies the files.

    Shares the nodes' locks, so that none is being added or removed meanwhile.
    """

    def locks(self, level: Level, snapshot: Snapshot) -> WantedLocks:
        """Shares all nodes."""
        return all_shared if level is Level.NODE else super().locks(level, snapshot)

    def exec(self, ctx: Context) -> None:
        """Sends everything; a node that can't be reached is a warning."""
        ctx.change(ctx.snapshot().cluster.uuid, replace)
        distribute(ctx)
