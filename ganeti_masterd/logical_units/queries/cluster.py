"""Opcodes that query the cluster: OP_CLUSTER_QUERY and OP_CLUSTER_CONFIG_QUERY."""

from __future__ import annotations

from typing import Any

from ganeti_masterd.logical_units.base import LogicalUnit
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.opcodes.cluster import ClusterConfigQuery, ClusterQuery
from ganeti_masterd.query.cluster import cluster_info


class QueryCluster(LogicalUnit[ClusterQuery], runs=ClusterQuery):
    """Answers the same as the LUXI method QueryClusterInfo."""

    def exec(self, ctx: Context) -> dict[str, Any]:
        """Returns the cluster's parameters and versions."""
        return cluster_info(ctx.snapshot())


class QueryClusterConfig(LogicalUnit[ClusterConfigQuery], runs=ClusterConfigQuery):
    """Answers the same as the LUXI method QueryConfigValues."""

    def exec(self, ctx: Context) -> list[Any]:
        """Returns the values of the requested fields."""
        values: list[Any] = ctx.ask(lambda engine: engine.config_values(self.op.output_fields))
        return values
